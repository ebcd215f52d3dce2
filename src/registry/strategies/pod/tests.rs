//! Tables of cases for the rules of pods.

mod fields;

use super::*;
use crate::registry::strategy::Object;

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// A minimal pod with defaults; `edit` changes the body before they are filled in.
fn pod(edit: impl FnOnce(&mut Value)) -> Object {
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    });
    edit(&mut body);
    let mut object = object(body);
    PodStrategy.default(&mut object);
    object
}

fn errors(edit: impl FnOnce(&mut Value)) -> Vec<String> {
    let pod = pod(edit);
    let mut errors = PodStrategy.validate(&pod);
    errors.extend(PodStrategy.validate_create(&pod));
    errors.iter().map(FieldError::to_string).collect()
}

/// Sets the value at a JSON pointer, creating maps on the way.
fn set(body: &mut Value, pointer: &str, value: Value) {
    let mut target = body;
    for part in pointer.trim_start_matches('/').split('/') {
        target = match part.parse::<usize>() {
            Ok(index) => &mut target[index],
            Err(_) => &mut target[part],
        };
    }
    *target = value;
}

#[test]
fn defaults_are_upstreams() {
    let pod = pod(|_| {});
    let expected = json!({
        "containers": [{
            "name": "c",
            "image": "busybox",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "Always",
        }],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": true,
    });
    assert_eq!(pod.get("spec"), Some(&expected));
}

#[test]
fn defaults_reach_into_containers_and_volumes() {
    let pod = pod(|body| {
        set(body, "/spec/hostNetwork", json!(true));
        set(body, "/spec/serviceAccount", json!("robot"));
        set(
            body,
            "/spec/containers/0",
            json!({
                "name": "c", "image": "r.example:5000/app:1",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "0.5", "memory": "1Gi"}, "requests": {"memory": "512Mi"}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 7},
            }),
        );
        set(
            body,
            "/spec/volumes",
            json!([{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/"}}]),
        );
    });
    let spec = json!(pod["spec"]);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(
        container["ports"][0],
        json!({"containerPort": 80, "protocol": "TCP", "hostPort": 80})
    );
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(
        container["resources"]["requests"],
        json!({"memory": "512Mi", "cpu": "500m"})
    );
    let probe = json!({
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "periodSeconds": 7, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(container["livenessProbe"], probe);
    assert_eq!(spec["serviceAccountName"], "robot");
    assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
    assert_eq!(spec["volumes"][2]["hostPath"]["type"], "");
    let mut again = pod.clone();
    PodStrategy.default(&mut again);
    assert_eq!(again, pod, "defaulting twice changes nothing");
}

#[test]
fn pull_policies_follow_the_tag() {
    let cases = [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:0", "IfNotPresent"),
        ("busybox:latest@sha256:0", "Always"),
    ];
    for (image, policy) in cases {
        assert_eq!(defaults::pull_policy(image), policy, "{image}");
    }
}

#[test]
fn a_minimal_pod_is_valid_and_gives_no_warnings() {
    assert_eq!(errors(|_| {}), Vec::<String>::new());
    assert_eq!(PodStrategy.warnings(&pod(|_| {}), None), Vec::<String>::new());
}

#[test]
fn errors_are_upstreams() {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
        and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for \
        validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let label = format!("spec.containers[0].name: Invalid value: \"A b\": {LABEL}");
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/spec/containers", json!([]), "spec.containers: Required value"),
        (
            "/spec/containers/0/name",
            json!(""),
            "spec.containers[0].name: Required value",
        ),
        ("/spec/containers/0/name", json!("A b"), &label),
        (
            "/spec/containers/0/image",
            json!(""),
            "spec.containers[0].image: Required value",
        ),
        (
            "/spec/containers/0/image",
            json!(" busybox"),
            "spec.containers[0].image: Invalid value: \" busybox\": must not have leading or trailing whitespace",
        ),
        (
            "/spec/restartPolicy",
            json!("Sometimes"),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\"",
        ),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
            "spec.containers[0].ports[1].name: Duplicate value: \"a\"",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A=B", "value": "x"}]),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist \
             only of printable ASCII characters other than '='",
        ),
        (
            "/spec/containers/0/env",
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.foo"}}}]),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.foo\": \
             error converting fieldPath: field label not supported: spec.foo",
        ),
        (
            "/spec/containers/0/volumeMounts",
            json!([{"name": "data", "mountPath": "/data"}]),
            "spec.containers[0].volumeMounts[0].name: Not found: \"data\"",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}]),
            "spec.volumes[0].emptyDir: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "hostPath": {"path": "/a/../b"}}]),
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            "/spec/volumes",
            json!([{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), \
             both inclusive",
        ),
        (
            "/spec/containers/0/resources",
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"memory": "-1Gi"}}),
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1Gi\": must be greater than or equal to 0",
        ),
        (
            "/spec/containers/0/resources",
            json!({"requests": {"cpus": "1"}}),
            "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type \
             or fully qualified\n\
             spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for \
             containers",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"periodSeconds": 1}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            "/spec/containers/0/livenessProbe",
            json!({"exec": {"command": ["true"]}, "successThreshold": 2}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "i", "image": "b", "livenessProbe": {"exec": {"command": ["true"]}}}]),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ),
        (
            "/spec/initContainers",
            json!([{"name": "c", "image": "b"}]),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            "/spec/tolerations",
            json!([{"operator": "Equal"}]),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, \
             which means \"match all values and all keys\"",
        ),
        (
            "/spec/dnsPolicy",
            json!("None"),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            "/spec/activeDeadlineSeconds",
            json!(0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "/spec/securityContext",
            json!({"runAsUser": -1}),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        ("/spec/ephemeralContainers", json!([]), ""),
    ];
    for (pointer, value, expected) in cases {
        let found = errors(|body| set(body, pointer, value.clone()));
        assert_eq!(found.join("\n"), expected, "{pointer} = {value}");
    }
}

#[test]
fn updates_may_only_change_what_upstream_lets_them() {
    let old = pod(|_| {});
    let update = |pointer: &str, value: Value| {
        let mut new = json!(old);
        set(&mut new, pointer, value);
        let errors = PodStrategy.validate_update(&object(new), &old, Target::Main);
        errors.iter().map(FieldError::to_string).collect::<Vec<_>>()
    };
    assert!(update("/spec/containers/0/image", json!("busybox:2")).is_empty());
    assert!(update("/metadata/labels", json!({"a": "b"})).is_empty());
    assert!(update("/spec/activeDeadlineSeconds", json!(5)).is_empty());
    assert!(update("/spec/tolerations", json!([{"key": "a", "operator": "Exists"}])).is_empty());
    assert!(
        update("/spec/volumes", json!([])).is_empty(),
        "empty is as good as absent"
    );
    let changed = update("/spec/hostNetwork", json!(true));
    assert_eq!(changed.len(), 1);
    assert!(changed[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers"));
    assert!(changed[0].ends_with("\nchanged: spec.hostNetwork"), "{changed:?}");
    let added = update("/spec/containers", json!([{"name": "c"}, {"name": "d"}]));
    assert_eq!(
        added,
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn deletion_is_graceful_only_for_pods_that_may_run() {
    let running = |edit: fn(&mut Value)| {
        pod(|body| {
            set(body, "/spec/nodeName", json!("n"));
            set(body, "/status/phase", json!("Running"));
            edit(body);
        })
    };
    let graceful = |grace_seconds| Deletion::Graceful { grace_seconds };
    assert_eq!(PodStrategy.deletion(&running(|_| {}), None), graceful(30));
    assert_eq!(PodStrategy.deletion(&running(|_| {}), Some(5)), graceful(5));
    assert_eq!(PodStrategy.deletion(&running(|_| {}), Some(-1)), graceful(1));
    assert_eq!(PodStrategy.deletion(&running(|_| {}), Some(0)), Deletion::Immediate);
    let unscheduled = running(|body| set(body, "/spec/nodeName", json!("")));
    assert_eq!(PodStrategy.deletion(&unscheduled, None), Deletion::Immediate);
    let finished = running(|body| set(body, "/status/phase", json!("Failed")));
    assert_eq!(PodStrategy.deletion(&finished, Some(60)), Deletion::Immediate);
}

#[test]
fn subresources_write_their_part_only() {
    let old = pod(|_| {});
    let mut new = json!(old);
    set(
        &mut new,
        "/spec/ephemeralContainers",
        json!([{"name": "e", "image": "b"}]),
    );
    set(&mut new, "/spec/hostNetwork", json!(true));
    set(
        &mut new,
        "/spec/containers/0/resources",
        json!({"limits": {"cpu": "1"}}),
    );
    let mut debugged = object(new.clone());
    PodStrategy.prepare_for_update(&mut debugged, &old, Target::Subresource("ephemeralcontainers"));
    let mut expected = json!(old);
    set(
        &mut expected,
        "/spec/ephemeralContainers",
        json!([{"name": "e", "image": "b"}]),
    );
    assert_eq!(json!(debugged), expected);
    let mut resized = object(new.clone());
    PodStrategy.prepare_for_update(&mut resized, &old, Target::Subresource("resize"));
    let mut expected = json!(old);
    set(
        &mut expected,
        "/spec/containers/0/resources",
        json!({"limits": {"cpu": "1"}}),
    );
    assert_eq!(json!(resized), expected);
    let mut bound = object(new.clone());
    PodStrategy.prepare_for_update(&mut bound, &old, Target::Subresource("binding"));
    assert_eq!(json!(bound), new);
}

#[test]
fn unsupported_fields_warn_with_their_path() {
    let masked = pod(|body| {
        set(
            body,
            "/spec/containers/0/securityContext",
            json!({"seLinuxOptions": {"level": "s0"}}),
        )
    });
    let warnings = PodStrategy.warnings(&masked, None);
    assert_eq!(
        warnings,
        ["spec.containers[0].securityContext.seLinuxOptions: accepted, but not acted on yet"]
    );
    assert_eq!(
        PodStrategy.warnings(&masked, Some(&masked)),
        Vec::<String>::new(),
        "only what is new warns"
    );
}

#[test]
fn the_status_column_is_kubectls() {
    let status = |status: Value| {
        let pod = pod(|body| {
            set(body, "/spec/initContainers", json!([{"name": "i", "image": "b"}]));
            set(body, "/status", status);
        });
        let cells = PodStrategy.cells(&pod, 1_767_225_600 + 300);
        format!("{} {} {}", cells[1], cells[2], cells[3]).replace('"', "")
    };
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    let cases = [
        (json!({"phase": "Pending"}), "0/1 Pending 0"),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "0/1 Init:0/1 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 3}}}]}),
            "0/1 Init:ExitCode:3 0",
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": [done],
                "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]}),
            "1/1 Running 0",
        ),
        (
            json!({"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [{
                "name": "c", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:00Z"}},
            }]}),
            "0/1 CrashLoopBackOff 3 (5m ago)",
        ),
        (
            json!({"phase": "Succeeded", "initContainerStatuses": [done],
                "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "0/1 Completed 0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "0/1 Evicted 0"),
    ];
    for (given, expected) in cases {
        assert_eq!(status(given.clone()), expected, "{given}");
    }
}
