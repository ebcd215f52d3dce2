//! Tables of cases for storage, quotas, flow control, webhooks and policies.

use super::{create, kind, update};
use crate::registry::strategy::Target;
use serde_json::{Value, json};

/// Lays `changes` over `base`, as a merge patch.
fn with(base: &Value, changes: &Value) -> Value {
    let mut merged = base.clone();
    json_patch::merge(&mut merged, changes);
    merged
}

/// Every change of `base` gives exactly these errors.
fn expect(resource: (&str, &str), base: &Value, cases: Vec<(Value, Vec<&str>)>) {
    let kind = kind(resource.0, "v1", resource.1);
    assert_eq!(
        create(&kind, base).1,
        Vec::<String>::new(),
        "{resource:?} is right as it is"
    );
    for (changes, expected) in cases {
        let (_, errors) = create(&kind, &with(base, &changes));
        assert_eq!(errors, expected, "{resource:?} with {changes}");
    }
}

#[test]
fn disruption_budgets() {
    let base = json!({"metadata": {"name": "a"}, "spec": {
        "minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
    let percent = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex \
                   used for validation is '[0-9]+%')";
    let share = format!("spec.minAvailable: Invalid value: \"half\": {percent}");
    let below = format!("spec.minAvailable: Invalid value: \"-5%\": {percent}");
    expect(
        ("policy", "poddisruptionbudgets"),
        &base,
        vec![
            (json!({"spec": {"minAvailable": "100%"}}), vec![]),
            (json!({"spec": null}), vec![]),
            (json!({"spec": {"minAvailable": null, "maxUnavailable": 0}}), vec![]),
            (
                json!({"spec": {"maxUnavailable": "10%"}}),
                vec![
                    "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"a\":\"b\"}},\
                     \"MaxUnavailable\":\"10%\",\"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable \
                     cannot be both set",
                ],
            ),
            (
                json!({"spec": {"minAvailable": -1}}),
                vec!["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (json!({"spec": {"minAvailable": "half"}}), vec![&share]),
            (json!({"spec": {"minAvailable": "-5%"}}), vec![&below]),
            (
                json!({"spec": {"minAvailable": null, "maxUnavailable": "101%"}}),
                vec!["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
            (
                json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
                vec![
                    "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or \
                     'NotIn'",
                ],
            ),
            (
                json!({"spec": {"unhealthyPodEvictionPolicy": "Never"}}),
                vec![
                    "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \
                     \"IfHealthyBudget\"",
                ],
            ),
        ],
    );
    let budgets = kind("policy", "v1", "poddisruptionbudgets");
    let (old, _) = create(&budgets, &base);
    assert_eq!(
        update(&budgets, &with(&old, &json!({"spec": {"minAvailable": 2}})), &old),
        Vec::<String>::new()
    );
    let new = with(
        &old,
        &json!({"status": {"disruptionsAllowed": -1, "expectedPods": -2, "conditions": [{"type": "A", "status": "No"}]}}),
    );
    let errors = budgets
        .strategy
        .validate_update(&super::object(&new), &super::object(&old), Target::Status);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "status.conditions[0].status: Unsupported value: \"No\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[0].lastTransitionTime: Required value",
            "status.conditions[0].reason: Required value",
            "status.disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0",
            "status.expectedPods: Invalid value: -2: must be greater than or equal to 0",
        ]
    );
}

#[test]
fn storage_classes() {
    let base = json!({"metadata": {"name": "a"}, "provisioner": "example.com/p"});
    expect(
        ("storage.k8s.io", "storageclasses"),
        &base,
        vec![
            (json!({"provisioner": null}), vec!["provisioner: Required value"]),
            (
                json!({"reclaimPolicy": "Recycle"}),
                vec!["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                json!({"parameters": {"": "x"}}),
                vec!["parameters: Invalid value: \"\": field can not be empty."],
            ),
            (
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a", "a"]}]}]}),
                vec!["allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\""],
            ),
        ],
    );
    let classes = kind("storage.k8s.io", "v1", "storageclasses");
    let (old, _) = create(&classes, &base);
    let errors = update(
        &classes,
        &with(
            &old,
            &json!({"provisioner": "b.c/d", "volumeBindingMode": "WaitForFirstConsumer"}),
        ),
        &old,
    );
    assert_eq!(
        errors,
        [
            "provisioner: Invalid value: null: field is immutable",
            "volumeBindingMode: Invalid value: null: field is immutable",
        ]
    );
}

#[test]
fn volumes_and_claims() {
    let base = json!({"metadata": {"name": "a"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}});
    expect(
        ("", "persistentvolumes"),
        &base,
        vec![
            (
                json!({"spec": {"hostPath": null}}),
                vec!["spec: Required value: must specify a volume type"],
            ),
            (
                json!({"spec": {"nfs": {"server": "s", "path": "/x"}}}),
                vec!["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                json!({"spec": {"capacity": {"storage": "0"}}}),
                vec!["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            (
                json!({"spec": {"hostPath": null, "local": {"path": "/x"}}}),
                vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                json!({"spec": {"accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]}}),
                vec!["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            (
                json!({"spec": {"hostPath": null, "csi": {"volumeHandle": "h"}}}),
                vec!["spec.csi.driver: Required value"],
            ),
        ],
    );
    let volumes = kind("", "v1", "persistentvolumes");
    let (old, _) = create(&volumes, &base);
    assert_eq!(
        update(
            &volumes,
            &with(&old, &json!({"spec": {"hostPath": {"path": "/other"}}})),
            &old
        ),
        ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
    );

    let base = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    expect(
        ("", "persistentvolumeclaims"),
        &base,
        vec![
            (
                json!({"spec": {"accessModes": null}}),
                vec!["spec.accessModes: Required value: at least 1 access mode is required"],
            ),
            (
                json!({"spec": {"resources": null}}),
                vec!["spec.resources[storage]: Required value"],
            ),
            (
                json!({"spec": {"dataSource": {"kind": "VolumeSnapshot", "name": "s"}}}),
                vec![
                    "spec.dataSource: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' when \
                     referencing the default apiGroup",
                    "spec.dataSourceRef: Invalid value: \"VolumeSnapshot\": must be 'PersistentVolumeClaim' when \
                     referencing the default apiGroup",
                ],
            ),
        ],
    );
    let claims = kind("", "v1", "persistentvolumeclaims");
    let (mut old, _) = create(&claims, &base);
    let larger = with(&old, &json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}}));
    let immutable = "spec: Forbidden: spec is immutable after creation except resources.requests and \
        volumeAttributesClassName for bound claims";
    assert_eq!(update(&claims, &larger, &old), [immutable], "before it is bound");
    old["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    assert_eq!(update(&claims, &larger, &old), Vec::<String>::new());
    let smaller = with(&old, &json!({"spec": {"resources": {"requests": {"storage": "1Mi"}}}}));
    assert_eq!(
        update(&claims, &smaller, &old),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
}

#[test]
fn drivers_and_attachments() {
    let base = json!({"metadata": {"name": "a"}, "spec": {
        "attacher": "example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    expect(
        ("storage.k8s.io", "volumeattachments"),
        &base,
        vec![
            (
                json!({"spec": {"source": null}}),
                vec![
                    "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
                ],
            ),
            (json!({"spec": {"attacher": ""}}), vec!["spec.attacher: Required value"]),
        ],
    );
    let base = json!({"metadata": {"name": "a"}, "spec": {}});
    expect(
        ("storage.k8s.io", "csidrivers"),
        &base,
        vec![
            (
                json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 5}, {"audience": "a"}]}}),
                vec![
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than \
                     10 minutes",
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"spec": {"volumeLifecycleModes": ["Once"]}}),
                vec![
                    "spec.volumeLifecycleModes: Unsupported value: \"Once\": supported values: \"Persistent\", \
                     \"Ephemeral\"",
                ],
            ),
        ],
    );
    let base = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "a.b", "nodeID": "n"}]}});
    let nodes = kind("storage.k8s.io", "v1", "csinodes");
    let (old, errors) = create(&nodes, &base);
    assert_eq!(errors, Vec::<String>::new());
    let changed = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "a.b", "nodeID": "m"}]}});
    assert_eq!(
        update(&nodes, &changed, &old),
        [
            "spec.drivers: Invalid value: {\"Name\":\"a.b\",\"NodeID\":\"m\",\"TopologyKeys\":null,\"Allocatable\":null}: field \
          is immutable"
        ]
    );
}

#[test]
fn quotas_and_limits() {
    let base = json!({"metadata": {"name": "q", "namespace": "d"}, "spec": {"hard": {"pods": "5", "count/widgets.example.com": "1"}}});
    expect(
        ("", "resourcequotas"),
        &base,
        vec![
            (
                json!({"spec": {"hard": {"nonsense": "1"}}}),
                vec!["spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota"],
            ),
            (
                json!({"spec": {"hard": {"pods": "-1"}}}),
                vec!["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({"spec": {"hard": {"services.loadbalancers": "500m"}}}),
                vec!["spec.hard[services.loadbalancers]: Invalid value: \"500m\": must be an integer"],
            ),
            (
                json!({"spec": {"scopes": ["BestEffort", "NotBestEffort"]}}),
                vec!["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
            ),
            (
                json!({"spec": {"hard": {"configmaps": "1"}, "scopes": ["Terminating"]}}),
                vec!["spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource"],
            ),
            (
                json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}}),
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when \
                     `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
        ],
    );
    let base = json!({"metadata": {"name": "l", "namespace": "d"}, "spec": {"limits": [
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "default": {"cpu": "500m"}}]}});
    let item = |item: Value| json!({"spec": {"limits": [item]}});
    expect(
        ("", "limitranges"),
        &base,
        vec![
            (
                item(json!({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}})),
                vec![
                    "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                    "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default \
                     request value 1",
                    "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                ],
            ),
            (
                item(json!({"type": "Pod", "default": {"cpu": "1"}})),
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                item(json!({"type": "PersistentVolumeClaim"})),
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but \
                     neither was provided",
                ],
            ),
            (
                item(
                    json!({"type": "Pod", "min": {"cpu": "1"}, "max": {"cpu": "4"}, "maxLimitRequestRatio": {"cpu": "10"}}),
                ),
                vec![
                    "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"10\": ratio 10 is greater than \
                     max/min = 4.000000",
                ],
            ),
            (
                item(json!({"type": "foo"})),
                vec!["spec.limits[0].type: Invalid value: \"foo\": must be a standard limit type or fully qualified"],
            ),
        ],
    );
}

#[test]
fn flow_control() {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "*"}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
    });
    let base =
        json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}});
    expect(
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        &base,
        vec![
            (
                json!({"spec": {"matchingPrecedence": 1}}),
                vec![
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have \
                     matchingPrecedence 1",
                ],
            ),
            (
                json!({"spec": {"priorityLevelConfiguration": null}}),
                vec!["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
            ),
            (
                json!({"spec": {"rules": [{"subjects": [{"kind": "Group", "user": {"name": "u"}}],
                    "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["healthz", "/a*", "/b/*"]}]}]}}),
                vec![
                    "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"healthz\": must start \
                     with slash",
                    "spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*\": wildcard can only \
                     do suffix matching",
                ],
            ),
        ],
    );
    let base = json!({"metadata": {"name": "p"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    expect(
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        &base,
        vec![
            (
                json!({"spec": {"type": "Exempt"}}),
                vec![
                    "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
                    "spec.limited: Forbidden",
                ],
            ),
            (
                json!({"spec": {"limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 8}}}}}),
                vec![
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues \
                     (4)",
                ],
            ),
        ],
    );
}

#[test]
fn webhooks_and_policies() {
    let hook = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "d"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/*"]}],
    });
    let base = json!({"metadata": {"name": "w"}, "kind": "ValidatingWebhookConfiguration", "webhooks": [hook]});
    let hook = |changes: Value| json!({"webhooks": [with(&hook, &changes)]});
    expect(
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
        &base,
        vec![
            (
                hook(json!({"name": "short"})),
                vec![
                    "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments \
                     separated by dots",
                ],
            ),
            (
                hook(json!({"sideEffects": null})),
                vec!["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
            ),
            (
                hook(json!({"timeoutSeconds": 31})),
                vec![
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 \
                     seconds",
                ],
            ),
            (
                hook(json!({"clientConfig": {"url": "http://example.com/x"}})),
                vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                hook(json!({"clientConfig": {"service": null, "url": "http://example.com/x"}})),
                vec![
                    "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; \
                     desired format: https://host[/path]",
                ],
            ),
            (
                hook(
                    json!({"rules": [{"operations": ["*", "CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*", "pods"]}]}),
                ),
                vec![
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not \
                     specify other operations",
                    "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not \
                     specify other resources",
                ],
            ),
            (
                hook(
                    json!({"matchConditions": [{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}]}),
                ),
                vec![
                    "webhooks[0].matchConditions[1].expression: Required value",
                    "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
                ],
            ),
        ],
    );
    let base = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
        "validations": [{"expression": "true"}]}});
    expect(
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        &base,
        vec![
            (
                json!({"spec": {"matchConstraints": null}}),
                vec!["spec.matchConstraints: Required value"],
            ),
            (
                json!({"spec": {"validations": [{"expression": "true", "reason": "Nope", "message": "a\nb"}]}}),
                vec![
                    "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                    "spec.validations[0].reason: Unsupported value: \"Nope\": supported values: \"Forbidden\", \
                     \"Invalid\", \"RequestEntityTooLarge\"",
                ],
            ),
            (
                json!({"spec": {"variables": [{"name": "if", "expression": "1"}], "paramKind": {"apiVersion": "a/b/c", "kind": "X"}}}),
                vec![
                    "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                    "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
                ],
            ),
        ],
    );
    let base = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    expect(
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
        &base,
        vec![
            (
                json!({"spec": {"validationActions": null}}),
                vec!["spec.validationActions: Required value"],
            ),
            (
                json!({"spec": {"paramRef": {"name": "n", "selector": {}}}}),
                vec![
                    "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.parameterNotFoundAction: Required value",
                ],
            ),
        ],
    );
}
