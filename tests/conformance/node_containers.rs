//! Containers from start to end: what they run, what is told of their end, init and ephemeral containers, image volumes.

use crate::cluster::Cluster;
use crate::pods::{
    AGNHOST, BUSYBOX, Pods, SAYER, SLEEP, condition, container, container_status, pod, pod_of, sleeper, with_main,
    with_spec,
};
use crate::prints::Prints;
use crate::runner::{Test, pod_test};
use crate::support::images::{Image, busybox_archive};
use crate::support::registry::Registry;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = printing().into_iter().map(Prints::test).collect();
    for (name, case) in messages() {
        tests.push(pod_test(name, move |cluster| case.clone().run(cluster)));
    }
    tests.extend([
        pod_test(
            "[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status",
            expected_status,
        ),
        pod_test("[sig-node] InitContainer should invoke init containers on a RestartAlways pod", init_then_runs),
        pod_test("[sig-node] InitContainer should invoke init containers on a RestartNever pod", init_then_ends),
        pod_test(
            "[sig-node] InitContainer should not start app containers and fail the pod if init containers fail on a RestartNever pod",
            init_fails,
        ),
        pod_test(
            "[sig-node] InitContainer should not start app containers if init containers fail on a RestartAlways pod",
            init_fails_again,
        ),
        pod_test(
            "[sig-node] Ephemeral Containers will start an ephemeral container in an existing pod",
            ephemeral,
        ),
        pod_test(
            "[sig-node] Ephemeral Containers should update the ephemeral containers in an existing pod",
            second_ephemeral,
        ),
        pod_test("[sig-node] ImageVolume should succeed with pod and pull policy of Always", image_volume),
    ]);
    tests
}

fn says(name: &'static str, more: Value, words: &str) -> Prints {
    let container = json!({"name": "main", "image": SAYER, "imagePullPolicy": "Never"});
    Prints::new(name, with_main(pod_of("says", &[container]), more)).prints([words])
}

fn printing() -> Vec<Prints> {
    let aliases = json!({"hostAliases": [
        {"ip": "123.45.67.89", "hostnames": ["foo", "bar"]},
        {"ip": "123.45.67.90", "hostnames": ["baz"]},
    ]});
    vec![
        says(
            "[sig-node] Containers should use the image defaults if command and args are blank",
            json!({}),
            r#"["default","arguments"]"#,
        ),
        says(
            "[sig-node] Containers should be able to override the image's default arguments (container cmd)",
            json!({"args": ["override", "arguments"]}),
            r#"["override","arguments"]"#,
        ),
        says(
            "[sig-node] Containers should be able to override the image's default command (container entrypoint)",
            json!({"command": ["/agnhost", "say", "other"]}),
            r#"["other"]"#,
        ),
        says(
            "[sig-node] Containers should be able to override the image's default command and arguments",
            json!({"command": ["/agnhost", "say"], "args": ["override", "both"]}),
            r#"["override","both"]"#,
        ),
        Prints::new(
            "[sig-node] Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts",
            with_spec(pod("hosts", "cat /etc/hosts"), aliases),
        )
        .prints([
            "# Entries added by HostAliases.",
            "123.45.67.89\tfoo\tbar",
            "123.45.67.90\tbaz",
        ]),
    ]
}

/// A container's end, and the message that is told of it.
#[derive(Clone)]
struct Message {
    script: &'static str,
    more: Value,
    phase: &'static str,
    message: &'static str,
}

fn messages() -> Vec<(&'static str, Message)> {
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let case = |script, more: &Value, phase, message| Message {
        script,
        more: more.clone(),
        phase,
        message,
    };
    let mut own_path = json!({"terminationMessagePath": "/dev/termination-custom-log"});
    own_path["securityContext"] = json!({"runAsUser": 1000});
    vec![
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
            case("echo DONE", &fallback, "Succeeded", ""),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set",
            case(
                "echo DONE; printf OK > /dev/termination-log",
                &fallback,
                "Succeeded",
                "OK",
            ),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message from log output if TerminationMessagePolicy FallbackToLogsOnError is set",
            case("printf DONE; exit 1", &fallback, "Failed", "DONE"),
        ),
        (
            "[sig-node] Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path",
            case(
                "printf DONE > /dev/termination-custom-log",
                &own_path,
                "Succeeded",
                "DONE",
            ),
        ),
    ]
}

impl Message {
    async fn run(self, cluster: Cluster) {
        let pods = cluster.pods("message").await;
        pods.create(&with_main(pod("ends", self.script), self.more)).await;
        let ended = pods.ended("ends").await;
        assert_eq!(ended["status"]["phase"], self.phase, "{}", ended["status"]);
        let terminated = &container_status(&ended, "main")["state"]["terminated"];
        assert_eq!(
            terminated["message"].as_str().unwrap_or_default(),
            self.message,
            "{terminated}"
        );
    }
}

/// Fails at first, then ends well, then stays.
const THREE_LIVES: &str = "echo x >> /lives/count; count=$(wc -l < /lives/count); \
    if [ $count -eq 1 ]; then exit 1; fi; if [ $count -eq 2 ]; then exit 0; fi; while true; do sleep 1; done";

async fn expected_status(cluster: Cluster) {
    let pods = cluster.pods("lives").await;
    let cases = [
        ("Always", "Running", 2, true, "running"),
        ("OnFailure", "Succeeded", 1, false, "terminated"),
        ("Never", "Failed", 0, false, "terminated"),
    ];
    for (policy, ..) in cases {
        let spec = json!({"restartPolicy": policy, "volumes": [{"name": "lives", "emptyDir": {}}]});
        let pod = with_spec(pod(&policy.to_lowercase(), THREE_LIVES), spec);
        let mounts = json!({"volumeMounts": [{"name": "lives", "mountPath": "/lives"}]});
        pods.create(&with_main(pod, mounts)).await;
    }
    for (policy, phase, restarts, ready, state) in cases {
        let is_so = |pod: &Value| {
            let status = container_status(pod, "main");
            pod["status"]["phase"] == phase && status["restartCount"] == restarts && status["ready"] == ready
        };
        let pod = pods.until(&policy.to_lowercase(), phase, is_so).await;
        let states = &container_status(&pod, "main")["state"];
        assert!(states.get(state).is_some(), "{states}");
    }
}

/// Two init containers and what comes after them.
fn initialized(first: &str, second: &str, policy: &str, script: &str) -> Value {
    let init = [container("init1", first), container("init2", second)];
    let spec = json!({"restartPolicy": policy, "initContainers": init});
    with_spec(pod("init", script), spec)
}

fn assert_initialized(pod: &Value) {
    assert_eq!(condition(pod, "Initialized"), "True");
    for name in ["init1", "init2"] {
        let status = container_status(pod, name);
        assert_eq!(status["state"]["terminated"]["exitCode"], 0, "{status}");
        assert_eq!((&status["ready"], &status["restartCount"]), (&json!(true), &json!(0)));
    }
}

async fn init_then_runs(cluster: Cluster) {
    let pods = cluster.pods("init").await;
    let pod = pods.ready(&initialized("true", "true", "Always", SLEEP)).await;
    assert_initialized(&pod);
    assert_eq!(pod["status"]["phase"], "Running");
}

async fn init_then_ends(cluster: Cluster) {
    let pods = cluster.pods("init").await;
    pods.create(&initialized("true", "true", "Never", "true")).await;
    assert_initialized(&pods.phase("init", "Succeeded").await);
}

/// The app container waits, and so does the second init container where the first one fails.
fn assert_not_initialized(pod: &Value) {
    assert_eq!(condition(pod, "Initialized"), "False");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let initialized = conditions.iter().find(|c| c["type"] == "Initialized").unwrap();
    assert_eq!(initialized["reason"], "ContainersNotInitialized", "{initialized}");
    for name in ["init2", "main"] {
        let status = container_status(pod, name);
        assert_eq!(status["state"]["waiting"]["reason"], "PodInitializing", "{status}");
        assert_eq!(status["ready"], false);
    }
}

async fn init_fails_again(cluster: Cluster) {
    let pods = cluster.pods("init").await;
    pods.create(&initialized("false", "true", "Always", SLEEP)).await;
    let again = |pod: &Value| container_status(pod, "init1")["restartCount"].as_i64() >= Some(2);
    let pod = pods.until("init", "initialized more than once", again).await;
    assert_not_initialized(&pod);
    assert_eq!(pod["status"]["phase"], "Pending");
    let last = &container_status(&pod, "init1")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 1, "{last}");
}

async fn init_fails(cluster: Cluster) {
    let pods = cluster.pods("init").await;
    pods.create(&initialized("true", "false", "Never", SLEEP)).await;
    let pod = pods.phase("init", "Failed").await;
    assert_eq!(container_status(&pod, "init1")["state"]["terminated"]["exitCode"], 0);
    assert_eq!(container_status(&pod, "init2")["state"]["terminated"]["exitCode"], 1);
    let main = container_status(&pod, "main");
    assert_eq!(main["state"]["waiting"]["reason"], "PodInitializing", "{main}");
    assert_eq!(condition(&pod, "Initialized"), "False");
}

async fn add_ephemeral(pods: &Pods, name: &str, script: &str) -> Value {
    let mut new = container(name, script);
    new["stdin"] = json!(true);
    let patch = kube::api::Patch::Strategic(json!({"spec": {"ephemeralContainers": [new]}}));
    let written = pods
        .resource
        .patch_sub("debugged", "ephemeralcontainers", &patch)
        .await
        .unwrap();
    let running = |pod: &Value| container_status(pod, name)["state"].get("running").is_some();
    pods.until("debugged", "debugged", running).await;
    written
}

async fn ephemeral(cluster: Cluster) {
    let pods = cluster.pods("ephemeral").await;
    pods.ready(&sleeper("debugged")).await;
    add_ephemeral(&pods, "debugger", "echo polo; sleep 3600").await;
    pods.logs_until("debugged", "debugger", "there", |logs| logs == "polo\n")
        .await;
}

async fn second_ephemeral(cluster: Cluster) {
    let pods = cluster.pods("ephemeral").await;
    pods.ready(&sleeper("debugged")).await;
    add_ephemeral(&pods, "debugger", "echo polo; sleep 3600").await;
    let written = add_ephemeral(&pods, "debugger2", "echo marco; sleep 3600").await;
    assert_eq!(written["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2));
    pods.logs_until("debugged", "debugger2", "there", |logs| logs == "marco\n")
        .await;
    let pod = pods.resource.get("debugged").await.unwrap();
    assert!(container_status(&pod, "debugger")["state"].get("running").is_some());
    assert_eq!(container_status(&pod, "main")["restartCount"], 0);
}

/// The engine's images are local ones, which a pull could not find: the policy is the one that uses them.
async fn image_volume(cluster: Cluster) {
    let pods = cluster.pods("images").await;
    // Pulled for each pod, from a registry.
    let registry = Registry::start();
    let files = busybox_archive(&[("dir/file", b"2"), ("file", b"1")]);
    registry.push("team/files", "1", &Image::new("files:1", &files));
    let reference = format!("{}/team/files:1", registry.address);
    let mounts = json!({"volumeMounts": [
        {"name": "image", "mountPath": "/image"},
        {"name": "image", "mountPath": "/sub", "subPath": "dir"},
    ]});
    let spec = json!({"volumes": [{"name": "image", "image": {"reference": reference, "pullPolicy": "Always"}}]});
    for name in ["first", "second"] {
        registry.requests();
        pods.ready(&with_main(with_spec(sleeper(name), spec.clone()), mounts.clone()))
            .await;
        assert_eq!(
            pods.shell(name, "", "cat /image/dir/file /image/file /sub/file").await,
            "212"
        );
        let requests = registry.requests();
        assert!(
            requests.iter().any(|request| request.contains("manifests/1")),
            "{requests:?}"
        );
        pods.event(name, &format!("Successfully pulled image {reference:?} in "))
            .await;
    }
    // One that is there already.
    let spec = json!({"volumes": [{"name": "image", "image": {"reference": AGNHOST, "pullPolicy": "IfNotPresent"}}]});
    let mounts = json!({"volumeMounts": [
        {"name": "image", "mountPath": "/image"},
        {"name": "image", "mountPath": "/sub", "subPath": "etc"},
    ]});
    pods.ready(&with_main(with_spec(sleeper("reads"), spec), mounts)).await;
    assert_eq!(pods.shell("reads", "", "/image/agnhost say one").await, "[\"one\"]\n");
    assert!(pods.shell("reads", "", "cat /sub/passwd").await.starts_with("root:"));
    let write = pods.exec("reads", "", &["sh", "-c", "echo x > /image/new"]).await;
    assert!(write.code != 0 && write.stderr.contains("Read-only"), "{write:?}");
    // An image that is not there, and must not be pulled.
    let spec = json!({"volumes": [{"name": "image", "image": {"reference": "absent:1", "pullPolicy": "Never"}}]});
    let mounts = json!({"image": BUSYBOX, "volumeMounts": [{"name": "image", "mountPath": "/image"}]});
    pods.create(&with_main(with_spec(sleeper("waits"), spec), mounts)).await;
    let waits = |pod: &Value| container_status(pod, "main")["state"]["waiting"]["reason"] == "ErrImageNeverPull";
    pods.until("waits", "waiting for the image", waits).await;
}
