//! What the levels say of pods.

use super::*;
use serde_json::{Value, json};

fn look(spec: &Value, restricted: bool, minor: Minor) -> Vec<String> {
    look_at(&json!({}), spec, restricted, minor)
}

fn look_at(metadata: &Value, spec: &Value, restricted: bool, minor: Minor) -> Vec<String> {
    let pod = Pod {
        metadata: metadata.as_object().unwrap(),
        spec: spec.as_object().unwrap(),
    };
    let found = violations(pod, restricted, minor).into_iter();
    found.map(|one| format!("{} ({})", one.reason, one.detail)).collect()
}

#[test]
fn a_plain_pod_is_fine_for_baseline_and_lacks_much_for_restricted() {
    let plain = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert!(look(&plain, false, 37).is_empty());
    assert_eq!(
        look(&plain, true, 37),
        [
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"])",
            "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ]
    );
    let careful = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
    });
    assert!(look(&careful, true, 37).is_empty());
    assert_eq!(
        look(&plain, true, 7),
        ["runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)"]
    );
}

#[test]
fn what_baseline_forbids() {
    for (spec, expected) in [
        (
            json!({"hostNetwork": true, "hostPID": true}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 8080}, {"containerPort": 1}]}]}),
            "hostPort (container \"a\" uses hostPorts 80, 8080)",
        ),
        (
            json!({"initContainers": [{"name": "a", "securityContext": {"privileged": true}}]}),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]}),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [{"name": "a", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}),
            "seccompProfile (pod and container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.msgmax"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}]}),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
    ] {
        assert_eq!(look(&spec, false, 37), [expected], "{spec}");
    }
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert_eq!(look(&sysctl, false, 31), ["forbidden sysctls (net.ipv4.tcp_rmem)"]);
    let sysctl = json!({"securityContext": {"sysctls": [
        {"name": "net.ipv4.tcp_slow_start_after_idle"}, {"name": "net.ipv4.tcp_notsent_lowat"}]}});
    assert!(look(&sysctl, false, 37).is_empty());
    assert_eq!(
        look(&sysctl, false, 36),
        ["forbidden sysctls (net.ipv4.tcp_slow_start_after_idle, net.ipv4.tcp_notsent_lowat)"]
    );
}

#[test]
fn users_of_its_own_allow_a_pod_more() {
    let spec = json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "seccompProfile": {"type": "Localhost"}},
        "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked", "allowPrivilegeEscalation": false,
            "runAsNonRoot": false, "capabilities": {"drop": ["ALL"]}}}]});
    let proc_mount = "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")";
    assert!(look(&spec, false, 35).is_empty());
    assert_eq!(look(&spec, false, 34), [proc_mount]);
    assert_eq!(look(&spec, true, 35), [proc_mount]);
    assert_eq!(
        look(&spec, true, 34),
        [
            proc_mount,
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
            "runAsUser=0 (pod must not set runAsUser=0)",
        ]
    );
}

#[test]
fn seccomp_was_a_matter_of_annotations() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let metadata = json!({"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/a": "docker/default",
        "container.seccomp.security.alpha.kubernetes.io/b": "", "container.seccomp.security.alpha.kubernetes.io/c": ""}});
    assert_eq!(
        look_at(&metadata, &spec, false, 18),
        [
            "seccompProfile (forbidden annotations container.seccomp.security.alpha.kubernetes.io/b=\"\", \
          seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"
        ]
    );
    assert!(look_at(&metadata, &spec, false, 19).is_empty());
}

#[test]
fn restricted_says_it_once() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 0},
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}],
        "containers": [{"name": "a", "securityContext": {"runAsNonRoot": false, "allowPrivilegeEscalation": false,
            "seccompProfile": {"type": "Unconfined"}, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}}],
    });
    assert_eq!(
        look(&spec, true, 37),
        [
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)",
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
            "runAsUser=0 (pod must not set runAsUser=0)",
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ]
    );
}
