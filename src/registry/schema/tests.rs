//! What bodies become, and what is said about wrong ones.

use super::*;
use k8s_openapi::api::{apps::v1::Deployment, core::v1, events::v1::Event};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use schemars::JsonSchema;
use serde_json::{Value, json};

fn read<T: JsonSchema>(body: &str) -> Result<(Value, Vec<String>), String> {
    let definition = type_definition::<T>();
    let decoded = decode(&definition, body.as_bytes())?;
    // The same object in memory becomes the same, but for duplicates, which a parsed value cannot have.
    let pruned = prune(
        &definition,
        serde_json::from_str(body).expect("decode accepted the syntax"),
    )?;
    assert_eq!(pruned.object, decoded.object);
    Ok((Value::Object(decoded.object), decoded.strict))
}

#[test]
fn a_pod_is_read() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a", "labels": {"x": "y"}, "creationTimestamp": null, "annotations": {}},
        "spec": {
            "hostNetwork": false, "terminationGracePeriodSeconds": 0, "nodeSelector": {},
            "containers": [{
                "name": "c", "image": "i", "command": [],
                "securityContext": {"privileged": false},
                "resources": {"limits": {"cpu": 2, "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "initialDelaySeconds": 0},
                "ports": [{"containerPort": 80, "hostIP": ""}]
            }],
            "volumes": [{"name": "v", "emptyDir": {}}]
        },
        "status": {}
    });
    let (pod, strict) = read::<v1::Pod>(&pod.to_string()).expect("a pod");
    assert_eq!(strict, [""; 0]);
    // What Go leaves out is gone, what stands behind a pointer stays.
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "c", "image": "i",
                    "securityContext": {"privileged": false},
                    "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http"}},
                    "ports": [{"containerPort": 80}]
                }],
                "volumes": [{"name": "v", "emptyDir": {}}]
            },
            "status": {}
        })
    );
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let body = r#"{"spec":{"foo":{"a":[1]},"replicas":1,"replicas":2,"template":{"spec":{"containers":[
        {"name":"a"},{"name":"b","imagee":"x"}]}}},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let definition = type_definition::<Deployment>();
    let decoded = decode(&definition, body.as_bytes()).expect("a deployment");
    assert_eq!(
        decoded.strict,
        [
            r#"unknown field "spec.foo""#,
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.template.spec.containers[1].imagee""#,
            r#"duplicate field "metadata.labels.a""#,
        ]
    );
    assert_eq!(decoded.object["spec"]["replicas"], 2);
    assert!(decoded.object["spec"].get("foo").is_none());
}

#[test]
fn wrong_types_are_named_as_go_names_them() {
    for (body, error) in [
        (
            json!({"spec": {"containers": [{"ports": [{"containerPort": "x"}]}]}}),
            "string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            json!({"spec": {"containers": [{"ports": [{"containerPort": 99_999_999_999_u64}]}]}}),
            "number 99999999999 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            json!({"spec": {"containers": {}}}),
            "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            json!({"spec": {"containers": ["x"]}}),
            "string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            json!({"spec": {"containers": [{"args": [1]}]}}),
            "number into Go struct field Container.spec.containers.args of type string",
        ),
        (
            json!({"spec": {"containers": [{"imagePullPolicy": true}]}}),
            "bool into Go struct field Container.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            json!({"metadata": []}),
            "array into Go struct field Pod.metadata of type v1.ObjectMeta",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"metadata": {"creationTimestamp": 1}}),
            "number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            json!({"spec": {"activeDeadlineSeconds": 1.5}}),
            "number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (json!("pod"), "string into Go value of type v1.Pod"),
    ] {
        let expected = format!("json: cannot unmarshal {error}");
        assert_eq!(read::<v1::Pod>(&body.to_string()), Err(expected), "{body}");
    }
}

#[test]
fn scalars_of_their_own_syntax_are_checked() {
    let error = |body: Value| read::<v1::Secret>(&body.to_string()).expect_err("an error");
    assert_eq!(
        error(json!({"data": {"a": "$"}})),
        "illegal base64 data at input byte 0"
    );
    assert!(
        error(json!({"metadata": {"creationTimestamp": "x"}}))
            .starts_with(r#"parsing time "x" as "2006-01-02T15:04:05Z07:00""#)
    );
    let limits = json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}});
    assert!(
        read::<v1::Pod>(&limits.to_string())
            .expect_err("an error")
            .starts_with("quantities must match")
    );
    let (event, _) = read::<Event>(r#"{"eventTime":"2026-01-02T03:04:05.000000Z"}"#).expect("an event");
    assert_eq!(event["eventTime"], "2026-01-02T03:04:05.000000Z");
}

#[test]
fn broken_json_is_a_syntax_error_even_behind_a_wrong_type() {
    let definition = type_definition::<v1::Pod>();
    for body in [r#"{"spec":"#, r#"{"spec":1,"#, ""] {
        assert_eq!(
            decode(&definition, body.as_bytes()).err().as_deref(),
            Some("unexpected end of JSON input")
        );
    }
    assert!(decode(&definition, b"{} {}").is_err());
    assert!(decode(&definition, b"{\"metadata\":{\"name\":\"\xff\"}}").is_err());
    let deep = format!("{{\"spec\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(&definition, deep.as_bytes()).is_err());
}

#[test]
fn schemas_of_custom_resources_are_read_in_either_shape() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string", "bogus": 1}},
            "b": {"additionalProperties": true, "default": {"anything": null}},
            "c": {"additionalProperties": {"type": "integer", "bogus": 1}, "x-kubernetes-int-or-string": true}
        }
    });
    let body = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    let (read, strict) = read::<CustomResourceDefinition>(&body.to_string()).expect("a definition");
    let properties = &read["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    assert_eq!(properties["b"]["additionalProperties"], true);
    assert_eq!(properties["b"]["default"], json!({"anything": null}));
    assert_eq!(properties["c"]["additionalProperties"], json!({"type": "integer"}));
    assert_eq!(
        strict,
        [
            r#"unknown field "spec.versions[0].schema.openAPIV3Schema.properties.a.items.bogus""#,
            r#"unknown field "spec.versions[0].schema.openAPIV3Schema.properties.c.additionalProperties.bogus""#,
        ]
    );
}

#[test]
fn yaml_is_read_by_the_same_walk() {
    let definition = type_definition::<v1::ConfigMap>();
    let yaml = "metadata:\n  name: a\ndata:\n  1: one\n  true: 'yes'\nfoo: 1\n";
    let decoded = decode_from(&definition, serde_yaml_ng::Deserializer::from_str(yaml)).expect("a config map");
    assert_eq!(decoded.object["data"], json!({"1": "one", "true": "yes"}));
    assert_eq!(decoded.strict, [r#"unknown field "foo""#]);
}

#[test]
fn types_may_refer_to_themselves_and_know_how_to_merge() {
    let pod = type_definition::<v1::Pod>();
    let spec = pod
        .object()
        .property("spec")
        .and_then(|p| p.node.as_object())
        .expect("spec")
        .clone();
    assert_eq!(spec.go_type(), "v1.PodSpec");
    let containers = spec.object().property("containers").expect("containers");
    assert!(containers.patch_merge);
    assert_eq!(containers.patch_merge_key.as_deref(), Some("name"));
    let Node::List(container) = &containers.node else {
        panic!("containers is a list")
    };
    let ports = container
        .as_object()
        .and_then(|c| c.object().property("ports"))
        .expect("ports");
    assert_eq!(ports.patch_merge_key.as_deref(), Some("containerPort"));
    assert_eq!(ports.list_map_keys, ["containerPort", "protocol"]);
    let WireField::Inline(_) = &type_definition::<v1::Volume>().wire().fields[&2] else {
        panic!("the volume's source is inlined")
    };
}

#[test]
fn no_change_of_a_byte_is_a_panic_or_passes_for_json() {
    let body = br#"{"metadata":{"name":"a","creationTimestamp":"2026-01-02T03:04:05+01:00","labels":{"x":"y"}},
        "spec":{"containers":[{"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":1.5}},
        "livenessProbe":{"httpGet":{"port":"\u0068ttp"}}}],"nodeSelector":null,"hostNetwork":true}}"#;
    let definition = type_definition::<v1::Pod>();
    let mut read = 0;
    for at in 0..body.len() {
        for value in *b"\"\\{}[],:0-e. \x00\xff" {
            let mut changed = body.to_vec();
            changed[at] = value;
            if decode(&definition, &changed).is_ok() {
                read += 1;
                assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&changed).is_ok());
            }
        }
    }
    assert!(read > 500, "{read}");
}
