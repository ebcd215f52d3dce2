//! Tables of cases for the rules of kinds other than pods.

use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, Registry, validation};
use serde_json::{Value, json};
use std::sync::Arc;

mod batch;
mod certificates;
mod cluster_wide;
mod devices;
mod generated;
mod networking;

fn kind(group: &str, version: &str, resource: &str) -> Arc<Kind> {
    Registry::builtin()
        .lookup(group, version, resource)
        .unwrap_or_else(|| panic!("no row {group}/{resource}"))
}

fn object(value: &Value) -> Object {
    value.as_object().expect("an object").clone()
}

/// The object as it would be stored, and all that is wrong with it.
fn create(kind: &Kind, body: &Value) -> (Value, Vec<String>) {
    let mut object = object(body);
    kind.strategy.default(&mut object);
    kind.strategy.prepare_for_create(&mut object);
    let mut errors = kind.strategy.validate(&object);
    errors.extend(kind.strategy.validate_create(&object));
    (Value::Object(object), errors.iter().map(ToString::to_string).collect())
}

fn update(kind: &Kind, body: &Value, old: &Value) -> Vec<String> {
    let old = object(old);
    let mut new = object(body);
    kind.strategy.default(&mut new);
    kind.strategy.prepare_for_update(&mut new, &old, Target::Main);
    let mut errors = kind.strategy.validate(&new);
    errors.extend(kind.strategy.validate_update(&new, &old, Target::Main));
    errors.iter().map(ToString::to_string).collect()
}

/// Creates each object; all that is wrong with it is what is expected, a line each.
fn table(kind: &Kind, cases: Vec<(Value, &str)>) {
    let mut unexpected = Vec::new();
    for (body, expected) in cases {
        let (_, errors) = create(kind, &body);
        if errors.join("\n") != expected {
            unexpected.push(format!("expected {expected:?}\n   found {errors:?}"));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn metadata_is_checked() {
    let config_maps = kind("", "v1", "configmaps");
    let namespaces = kind("", "v1", "namespaces");
    let check = |kind: &Kind, metadata: Value| -> Vec<String> {
        let metadata = object(&metadata);
        validation::object_meta(kind, &metadata)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let key = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
        character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    let good = json!({"name": "a", "namespace": "default"});
    assert_eq!(check(&config_maps, good), Vec::<String>::new());
    let cases = [
        (
            json!({"namespace": "d"}),
            "metadata.name: Required value: name or generateName is required".to_owned(),
        ),
        (json!({"name": "a"}), "metadata.namespace: Required value".to_owned()),
        (
            json!({"name": "a", "namespace": "d", "labels": {"-": "v"}}),
            format!("metadata.labels: Invalid value: \"-\": name part {key}"),
        ),
        (
            json!({"name": "a", "namespace": "d", "annotations": {"/a": "v"}}),
            "metadata.annotations: Invalid value: \"/a\": prefix part must be non-empty".to_owned(),
        ),
        (
            json!({"name": "a", "namespace": "d", "ownerReferences": [{"kind": "K", "name": "n", "uid": "u"}]}),
            "metadata.ownerReferences[0].apiVersion: Required value: must not be empty".to_owned(),
        ),
        (
            json!({"name": "a", "namespace": "d", "finalizers": ["orphan", "foregroundDeletion"]}),
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and \
             foregroundDeletion cannot be both set"
                .to_owned(),
        ),
        (
            json!({"name": "a", "namespace": "d", "annotations": {"a": "x".repeat(300_000)}}),
            "metadata.annotations: Too long: may not be more than 262144 bytes".to_owned(),
        ),
    ];
    for (metadata, expected) in cases {
        assert_eq!(check(&config_maps, metadata), [expected]);
    }
    let label = check(&namespaces, json!({"name": "a.b"}));
    assert_eq!(label, ["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
    let scoped = check(&namespaces, json!({"name": "a", "namespace": "b"}));
    assert_eq!(scoped, ["metadata.namespace: Forbidden: not allowed on this type"]);
}

#[test]
fn metadata_updates_are_checked() {
    let check = |new: Value, old: Value| -> Vec<String> {
        let errors = validation::object_meta_update(&object(&new), &object(&old));
        errors.iter().map(ToString::to_string).collect()
    };
    let old = json!({"name": "a", "uid": "u", "resourceVersion": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert_eq!(check(old.clone(), old.clone()), Vec::<String>::new());
    let mut renamed = old.clone();
    renamed["uid"] = json!("v");
    assert_eq!(
        check(renamed, old.clone()),
        ["metadata.uid: Invalid value: \"v\": field is immutable"]
    );
    let mut held = old.clone();
    held["finalizers"] = json!(["example.com/a"]);
    let expected = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, \
        found new finalizers []string{\"example.com/a\"}";
    assert_eq!(check(held, old), [expected]);
}

#[test]
fn namespaces_get_their_label_finalizer_and_phase() {
    let namespaces = kind("", "v1", "namespaces");
    let (created, errors) = create(&namespaces, &json!({"metadata": {"name": "a"}}));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        created["metadata"]["labels"],
        json!({"kubernetes.io/metadata.name": "a"})
    );
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    assert!(namespaces.strategy.is_held(&object(&created)));
    let mut deleted = object(&created);
    namespaces.strategy.mark_deleted(&mut deleted);
    assert_eq!(Value::Object(deleted)["status"]["phase"], "Terminating");
    let check = |name: &str| {
        namespaces
            .strategy
            .check_delete(&object(&json!({"metadata": {"name": name}})))
    };
    assert!(check("default").is_err() && check("kube-system").is_err() && check("a").is_ok());
    // The main endpoint leaves finalizers alone, finalize writes them.
    let old = object(&created);
    let emptied = object(&json!({"metadata": {"name": "a"}, "spec": {}}));
    let mut through_main = emptied.clone();
    namespaces
        .strategy
        .prepare_for_update(&mut through_main, &old, Target::Main);
    assert!(namespaces.strategy.is_held(&through_main));
    let mut through_finalize = emptied;
    namespaces
        .strategy
        .prepare_for_update(&mut through_finalize, &old, Target::Subresource("finalize"));
    assert!(!namespaces.strategy.is_held(&through_finalize));
}

#[test]
fn config_maps_and_secrets_are_checked() {
    let config_maps = kind("", "v1", "configmaps");
    let key = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
        'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
    let (_, errors) = create(&config_maps, &json!({"data": {"a b": "x"}}));
    assert_eq!(errors, [format!("data[a b]: Invalid value: \"a b\": {key}")]);
    let (_, errors) = create(&config_maps, &json!({"data": {"a": "x".repeat(1_048_577)}}));
    assert_eq!(errors, [": Too long: may not be more than 1048576 bytes"]);
    let fixed = json!({"data": {"a": "1"}, "immutable": true});
    let errors = update(&config_maps, &json!({"data": {"a": "2"}, "immutable": true}), &fixed);
    assert_eq!(errors, ["data: Forbidden: field is immutable when `immutable` is set"]);
    let errors = update(&config_maps, &json!({"data": {"a": "1"}}), &fixed);
    assert_eq!(
        errors,
        ["immutable: Forbidden: field is immutable when `immutable` is set"]
    );

    let secrets = kind("", "v1", "secrets");
    let (created, errors) = create(&secrets, &json!({"stringData": {"a": "hello"}, "data": {"b": "eA=="}}));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        created,
        json!({"data": {"b": "eA==", "a": "aGVsbG8="}, "type": "Opaque"})
    );
    let cases = [
        (
            "kubernetes.io/tls",
            json!({}),
            "data[tls.crt]: Required value\ndata[tls.key]: Required value",
        ),
        ("kubernetes.io/basic-auth", json!({"username": ""}), ""),
        (
            "kubernetes.io/ssh-auth",
            json!({}),
            "data[ssh-privatekey]: Required value",
        ),
        (
            "kubernetes.io/dockerconfigjson",
            json!({}),
            "data[.dockerconfigjson]: Required value",
        ),
        (
            "kubernetes.io/dockerconfigjson",
            json!({".dockerconfigjson": "e30="}),
            "",
        ),
        ("example.com/own", json!({}), ""),
    ];
    for (secret_type, data, expected) in cases {
        let (_, errors) = create(&secrets, &json!({"type": secret_type, "data": data}));
        assert_eq!(errors.join("\n"), expected, "{secret_type}");
    }
    let errors = update(
        &secrets,
        &json!({"type": "Opaque"}),
        &json!({"type": "kubernetes.io/tls"}),
    );
    assert_eq!(errors, ["type: Invalid value: \"Opaque\": field is immutable"]);
}

#[test]
fn services_get_defaults_and_keep_their_address() {
    let services = kind("", "v1", "services");
    let (created, errors) = create(
        &services,
        &json!({"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}),
    );
    assert_eq!(errors, Vec::<String>::new());
    let expected = json!({
        "clusterIP": "None",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "sessionAffinity": "None",
        "type": "ClusterIP",
        "internalTrafficPolicy": "Cluster",
        "clusterIPs": ["None"],
    });
    assert_eq!(created["spec"], expected);
    assert_eq!(created["status"], json!({"loadBalancer": {}}));
    assert_eq!(
        update(&services, &json!({"spec": {"ports": [{"port": 81}]}}), &created),
        Vec::<String>::new()
    );
    let moved = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
    let expected = "spec.clusterIPs[0]: Invalid value: [\"10.0.0.1\"]: may not change once set";
    assert_eq!(update(&services, &moved, &created), [expected]);
    let cases = [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"port": 1, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        (
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}]}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
    ];
    for (spec, expected) in cases {
        let (_, errors) = create(&services, &json!({"spec": spec}));
        assert_eq!(errors, [expected], "{spec}");
    }
    let named = |name: &str| services.strategy.validate_name(name, false).is_empty();
    assert!(named("a-1") && named("1a") && !named("a.b") && !named("A"));
}

#[test]
fn events_convert_both_ways() {
    let events = kind("events.k8s.io", "v1", "events");
    let written = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "example.com/c", "reportingInstance": "i",
        "action": "Act", "reason": "Because", "type": "Normal", "note": "text",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
    });
    let (_, errors) = create(&events, &written);
    assert_eq!(errors, Vec::<String>::new());
    let mut stored = object(&written);
    events.strategy.convert_to_storage(&mut stored);
    assert_eq!(stored["message"], "text");
    assert_eq!(stored["involvedObject"]["name"], "p");
    assert_eq!(stored["reportingComponent"], "example.com/c");
    let indexed = crate::registry::index_of(&events, &stored);
    assert!(indexed.fields.contains(&("involvedObject.name", "p".to_owned())));
    let mut back = stored.clone();
    events.strategy.convert_from_storage(&mut back);
    let mut expected = written.clone();
    expected["deprecatedSource"] = json!({});
    assert_eq!(Value::Object(back), expected);
    let core = kind("", "v1", "events");
    assert_eq!(
        core.strategy.cells(&stored, 0),
        events.strategy.cells(&object(&written), 0)
    );

    let mut later = object(&written);
    later.insert(
        "series".into(),
        json!({"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}),
    );
    let update = |later: &Object| {
        let errors = events.strategy.validate_update(later, &object(&written), Target::Main);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(update(&later), Vec::<String>::new(), "a series goes on");
    later.insert("series".into(), json!({"count": 1}));
    later.insert("note".into(), json!("other"));
    assert_eq!(
        update(&later),
        [
            "series.count: Invalid value: \"\": should be at least 2",
            "series.lastObservedTime: Required value",
            "message: Invalid value: \"other\": field is immutable"
        ]
    );

    let mut foreign = written;
    foreign["regarding"]["namespace"] = json!("");
    foreign["metadata"]["namespace"] = json!("other");
    foreign["action"] = json!("");
    let (_, errors) = create(&events, &foreign);
    let namespace = "involvedObject.namespace: Invalid value: \"\": does not match event.namespace";
    assert_eq!(errors, [namespace, "action: Required value"]);
    let (_, errors) = create(
        &core,
        &json!({
            "metadata": {"namespace": "default"}, "involvedObject": {"namespace": "default"},
        }),
    );
    assert_eq!(errors, Vec::<String>::new(), "old events need not say who reports");
}

/// A workload with a minimal template; `edit` changes its spec.
fn workload(edit: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "busybox"}]},
        },
    });
    edit(&mut spec);
    json!({"metadata": {"name": "w", "uid": "u"}, "spec": spec})
}

type Edit = fn(&mut Value);

#[test]
fn workloads_are_checked() {
    let deployments = kind("apps", "v1", "deployments");
    let (created, errors) = create(&deployments, &workload(|_| {}));
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(created["spec"]["replicas"], 1);
    assert_eq!(
        created["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
    );
    assert_eq!(created["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    let warnings = deployments.strategy.warnings(&object(&created), None);
    assert_eq!(warnings, Vec::<String>::new());
    let cases: [(Edit, &str); 5] = [
        (|spec| spec["replicas"] = json!(-1), {
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        }),
        (|spec| spec["template"]["metadata"]["labels"] = json!({"a": "c"}), {
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`"
        }),
        (|spec| spec["template"]["spec"]["restartPolicy"] = json!("Never"), {
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
        }),
        (
            |spec| spec["strategy"] = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            { "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'" },
        ),
        (|spec| spec["template"]["spec"]["containers"][0]["image"] = json!(""), {
            "spec.template.spec.containers[0].image: Required value"
        }),
    ];
    for (edit, expected) in cases {
        let (_, errors) = create(&deployments, &workload(edit));
        assert_eq!(errors, [expected]);
    }
    let reselected = workload(|spec| {
        spec["selector"]["matchLabels"] = json!({"x": "y"});
        spec["template"]["metadata"]["labels"] = json!({"x": "y"});
    });
    let expected = "spec.selector: Invalid value: {\"matchLabels\":{\"x\":\"y\"}}: field is immutable";
    assert_eq!(update(&deployments, &reselected, &created), [expected]);

    let sets = kind("apps", "v1", "statefulsets");
    let (created, errors) = create(&sets, &workload(|_| {}));
    assert_eq!(errors, Vec::<String>::new());
    let scaled = workload(|spec| spec["replicas"] = json!(5));
    assert_eq!(update(&sets, &scaled, &created), Vec::<String>::new());
    let moved = workload(|spec| spec["serviceName"] = json!("other"));
    let errors = update(&sets, &moved, &created);
    assert!(
        errors.len() == 1 && errors[0].starts_with("spec: Forbidden: updates to statefulset spec"),
        "{errors:?}"
    );
}

#[test]
fn jobs_select_their_own_pods() {
    let jobs = kind("batch", "v1", "jobs");
    let body = workload(|spec| {
        spec["selector"].take();
        spec["template"]["spec"]["restartPolicy"] = json!("Never");
    });
    let (created, errors) = create(&jobs, &body);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(
        created["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
    );
    assert_eq!(created["spec"]["template"]["metadata"]["labels"]["job-name"], "w");
    assert_eq!(created["spec"]["completions"], 1);
    let (_, errors) = create(&jobs, &workload(|spec| drop(spec["selector"].take())));
    let expected = "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"";
    assert_eq!(errors, [expected]);
}

#[test]
fn rbac_is_checked() {
    let roles = kind("rbac.authorization.k8s.io", "v1", "roles");
    assert!(roles.strategy.validate_name("system:a", false).is_empty());
    assert_eq!(roles.strategy.validate_name("a/b", false), ["may not contain '/'"]);
    let (_, errors) = create(&roles, &json!({"rules": [{"resources": ["pods"]}]}));
    let verbs = "rules[0].verbs: Required value: verbs must contain at least one value";
    let groups = "rules[0].apiGroups: Required value: resource rules must supply at least one api group";
    assert_eq!(errors, [verbs, groups]);
    let bindings = kind("rbac.authorization.k8s.io", "v1", "rolebindings");
    let body = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]});
    let (created, errors) = create(&bindings, &body);
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(created["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    let other = json!({"roleRef": {"kind": "Role", "name": "x"}});
    let errors = update(&bindings, &other, &created);
    assert!(
        errors.len() == 1 && errors[0].ends_with(": cannot change roleRef"),
        "{errors:?}"
    );
}
