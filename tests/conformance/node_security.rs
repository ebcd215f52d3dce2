//! Who containers run as and what they may do; sysctls; the files that the node agent manages.

use crate::cluster::Cluster;
use crate::pods::{SLEEP, USER, container, pod, pod_of, with_main, with_spec};
use crate::prints::Prints;
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = printing().into_iter().map(Prints::test).collect();
    tests.push(pod_test(
        "[sig-node] KubeletManagedEtcHosts should test kubelet managed /etc/hosts file",
        managed_hosts,
    ));
    tests
}

/// A pod that runs a script in this context of its container.
fn secured(script: &str, context: Value) -> Value {
    with_main(pod("secured", script), json!({"securityContext": context}))
}

fn printing() -> Vec<Prints> {
    let rights = "grep -e NoNewPrivs /proc/self/status; id -u";
    let mut unprivileged = secured(
        "ip link add dummy0 type dummy || echo refused; grep CapEff /proc/self/status",
        json!({"privileged": false}),
    );
    unprivileged["spec"]["containers"][0]["image"] = json!(crate::pods::BUSYBOX);
    vec![
        Prints::new(
            "[sig-node] Security Context When creating a container with runAsUser should run the container with uid 65534",
            secured("id -u", json!({"runAsUser": 65534})),
        )
        .prints(["65534"]),
        Prints::new(
            "[sig-node] Security Context When creating a pod with privileged should run the container as unprivileged when false",
            unprivileged,
        )
        .prints(["refused"]),
        Prints::new(
            "[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false",
            secured("echo written > /file; cat /file", json!({"readOnlyRootFilesystem": false})),
        )
        .prints(["written"]),
        Prints::new(
            "[sig-node] Security Context should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup",
            with_spec(
                secured("echo uid=$(id -u) gid=$(id -g)", json!({"runAsUser": 1001, "runAsGroup": 2002})),
                json!({"securityContext": {"runAsUser": 5, "runAsGroup": 6}}),
            ),
        )
        .prints(["uid=1001 gid=2002"]),
        Prints::new(
            "[sig-node] Security Context should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup",
            with_spec(
                pod("secured", "echo uid=$(id -u) gid=$(id -g)"),
                json!({"securityContext": {"runAsUser": 1001, "runAsGroup": 2002}}),
            ),
        )
        .prints(["uid=1001 gid=2002"]),
        // The image's own user, for whom a set-user-id program would be a way to root.
        Prints::new(
            "[sig-node] Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false",
            with_main(
                secured(rights, json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true})),
                json!({"image": USER}),
            ),
        )
        .prints(["NoNewPrivs:\t1", "1000"]),
        Prints::new(
            "[sig-node] Sysctls [LinuxOnly] should support sysctls",
            with_spec(
                pod("sysctl", "sysctl kernel.shm_rmid_forced"),
                json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
            ),
        )
        .prints(["kernel.shm_rmid_forced = 1"]),
    ]
}

const MANAGED: &str = "# Kubernetes-managed hosts file.";

async fn managed_hosts(cluster: Cluster) {
    let pods = cluster.pods("hosts").await;
    let mut own = container("own", SLEEP);
    own["volumeMounts"] = json!([{"name": "hosts", "mountPath": "/etc/hosts"}]);
    let volumes = json!([{"name": "hosts", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    let first = pod_of("first", &[container("one", SLEEP), container("two", SLEEP), own]);
    pods.create(&with_spec(first, json!({"volumes": volumes}))).await;
    let host = pod_of("host", &[container("one", SLEEP), container("two", SLEEP)]);
    pods.create(&with_spec(host, json!({"hostNetwork": true, "volumes": volumes})))
        .await;
    let first = pods.until_ready("first").await;
    pods.until_ready("host").await;
    let read = async |pod, container| pods.shell(pod, container, "cat /etc/hosts").await;
    for container in ["one", "two"] {
        let hosts = read("first", container).await;
        assert!(hosts.starts_with(MANAGED), "{hosts}");
        let own = format!("{}\tfirst", first["status"]["podIP"].as_str().unwrap());
        assert!(hosts.lines().any(|line| line == own), "{own:?} is not in {hosts}");
        assert!(!read("host", container).await.contains(MANAGED));
    }
    assert_eq!(
        read("first", "own").await,
        std::fs::read_to_string("/etc/hosts").unwrap()
    );
}
