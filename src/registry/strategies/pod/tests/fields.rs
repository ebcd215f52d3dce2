//! Tables of cases for the rarer fields of pods, their status, and resizing.

use super::{errors, object, pod, set};
use crate::registry::field::FieldError;
use crate::registry::strategies::pod::PodStrategy;
use crate::registry::strategy::{Object, Strategy, Target};
use serde_json::{Value, json};

/// Each case is a place in the body, what is put there, and all that is wrong then, a line each.
fn table(cases: Vec<(&str, Value, &str)>) {
    let mut unexpected = Vec::new();
    for (pointer, value, expected) in cases {
        let found = errors(|body| set(body, pointer, value.clone()));
        if found.join("\n") != expected {
            unexpected.push(format!(
                "{pointer} = {value}\nexpected {expected:?}\n   found {found:?}"
            ));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

fn strings(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn containers() {
    let container = "/spec/containers/0";
    let at = |field: &str| format!("{container}/{field}");
    table(vec![
        (
            &at("restartPolicyRules"),
            json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
            {
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"
            },
        ),
        (&at("restartPolicy"), json!("Sometimes"), {
            "spec.containers[0].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \
             \"OnFailure\""
        }),
        (
            &at("env"),
            json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            {
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty"
            },
        ),
        (
            &at("env"),
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]),
            "",
        ),
        (&at("resources"), json!({"claims": [{"name": "c"}]}), {
            "spec.containers[0].resources.claims[0]: Not found: \"c\": must be one of the names in pod.spec.resourceClaims which is empty"
        }),
        (&at("resources"), json!({"limits": {"hugepages-2Mi": "2Mi"}}), {
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory"
        }),
        (&at("lifecycle"), json!({"preStop": {}}), {
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"
        }),
        (&at("readinessProbe"), json!({"httpGet": {"port": 0}}), {
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"
        }),
        (
            &at("securityContext"),
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            {
                "spec.containers[0].securityContext: Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: \
             cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            },
        ),
    ]);
}

#[test]
fn volumes() {
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        volume
            .as_object_mut()
            .unwrap()
            .extend(source.as_object().cloned().unwrap());
        json!([volume])
    };
    let list = "/spec/volumes";
    table(vec![
        (
            list,
            json!([{"name": "v"}, {"name": "v"}]),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            list,
            volume(json!({"configMap": {}})),
            "spec.volumes[0].configMap.name: Required value",
        ),
        (
            list,
            volume(json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "../a"}]}})),
            { "spec.volumes[0].configMap.items[0].path: Invalid value: \"../a\": must not contain '..'" },
        ),
        (
            list,
            volume(json!({"nfs": {"server": "s"}})),
            "spec.volumes[0].nfs.path: Required value\nspec.volumes[0].nfs.path: Invalid value: \"\": must be an absolute path",
        ),
        (list, volume(json!({"nfs": {"server": "s", "path": "a"}})), {
            "spec.volumes[0].nfs.path: Invalid value: \"a\": must be an absolute path"
        }),
        (list, volume(json!({"persistentVolumeClaim": {}})), {
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value"
        }),
        (list, volume(json!({"emptyDir": {"sizeLimit": "-1"}})), {
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity"
        }),
        (
            list,
            volume(json!({"projected": {"sources": [{"secret": {"name": "s"}, "configMap": {"name": "c"}}]}})),
            { "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source" },
        ),
        (
            list,
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}})),
            {
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a \
                 duration less than 10 minutes\nspec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not \
                 be specified when serviceAccountName is not set"
            },
        ),
        (list, volume(json!({"hostPath": {"path": "/", "type": "Other"}})), {
            "spec.volumes[0].hostPath.type: Unsupported value: \"Other\": supported values: \"\", \"BlockDevice\", \
             \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\""
        }),
    ]);
}

#[test]
fn placement_and_names() {
    table(vec![
        (
            "/spec/topologySpreadConstraints",
            { json!([{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}]) },
            { "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero" },
        ),
        (
            "/spec/topologySpreadConstraints",
            { json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "Never", "labelSelector": {}}]) },
            {
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\""
            },
        ),
        ("/spec/hostAliases", json!([{"ip": "x"}]), {
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        }),
        ("/spec/schedulingGates", json!([{"name": "a"}, {"name": "a"}]), {
            "spec.schedulingGates[1]: Duplicate value: \"a\""
        }),
        ("/spec/os", json!({"name": "plan9"}), {
            "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""
        }),
        ("/spec/preemptionPolicy", json!("Sometimes"), {
            "spec.preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"PreemptLowerPriority\", \"Never\""
        }),
        (
            "/spec/securityContext",
            json!({"sysctls": [{"name": "a..b", "value": "1"}]}),
            {
                "spec.securityContext.sysctls[0].name: Invalid value: \"a..b\": must have at most 253 characters and match \
             regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            },
        ),
        (
            "/spec/securityContext",
            json!({"seccompProfile": {"type": "Localhost"}}),
            {
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is \
             Localhost"
            },
        ),
        (
            "/spec/dnsConfig",
            json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}),
            {
                "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\",\"1.1.1.4\"]: must not have \
             more than 3 nameservers"
            },
        ),
    ]);
}

fn update(new: Value, old: &Object, target: Target) -> Vec<String> {
    let mut new = object(new);
    PodStrategy.prepare_for_update(&mut new, old, target);
    strings(&PodStrategy.validate_update(&new, old, target))
}

#[test]
fn resizing() {
    let resources = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    let old = pod(|body| set(body, "/spec/containers/0/resources", resources));
    let resize = |pointer: &str, value: Value| {
        let mut new = json!(old);
        set(&mut new, pointer, value);
        update(new, &old, Target::Subresource("resize"))
    };
    let amounts = "/spec/containers/0/resources";
    let grown = json!({"requests": {"cpu": "1500m"}, "limits": {"cpu": "2"}});
    assert_eq!(resize(amounts, grown), Vec::<String>::new());
    assert_eq!(
        resize(amounts, json!({"requests": {"cpu": "1"}})),
        ["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"]
    );
    assert_eq!(
        resize("/spec/containers/0/name", json!("other")),
        ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
    );
    let best_effort = pod(|_| {});
    let mut new = json!(best_effort);
    set(&mut new, amounts, json!({"requests": {"cpu": "1"}}));
    let errors = update(new, &best_effort, Target::Subresource("resize"));
    assert!(
        errors.len() == 1 && errors[0].ends_with("Pod QOS Class may not change as a result of resizing"),
        "{errors:?}"
    );
}

#[test]
fn gated_pods_may_be_narrowed() {
    let gated = pod(|body| {
        set(body, "/spec/schedulingGates", json!([{"name": "a"}]));
        set(body, "/spec/nodeSelector", json!({"a": "b"}));
    });
    let written = |pointer: &str, value: Value| {
        let mut new = json!(gated);
        set(&mut new, pointer, value);
        update(new, &gated, Target::Main)
    };
    assert_eq!(written("/spec/schedulingGates", json!([])), Vec::<String>::new());
    assert_eq!(
        written("/spec/nodeSelector", json!({"a": "b", "c": "d"})),
        Vec::<String>::new()
    );
    let errors = written("/spec/nodeSelector", json!({"c": "d"}));
    assert!(
        errors
            .iter()
            .any(|error| error.starts_with("spec.nodeSelector: Invalid value: {\"c\":\"d\"}: only additions to")),
        "{errors:?}"
    );
    assert_eq!(
        written("/spec/schedulingGates", json!([{"name": "a"}, {"name": "b"}])),
        ["spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"]
    );
}
