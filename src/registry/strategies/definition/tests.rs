//! What is said of definitions, in upstream's words.

use super::*;
use crate::registry::strategy::Strategy;

fn definition(change: impl FnOnce(&mut Value)) -> Object {
    let mut definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"color": {"type": "string"}, "size": {"type": "number"}}},
                }}},
            }],
        },
    });
    change(&mut definition);
    let mut object = definition.as_object().unwrap().clone();
    DefinitionStrategy.default(&mut object);
    DefinitionStrategy.prepare_for_create(&mut object);
    object
}

fn errors(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let errors = DefinitionStrategy.validate_create(&definition(change));
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn names_conversion_and_stored_versions_have_defaults() {
    let object = definition(|_| {});
    assert_eq!(
        object["spec"]["names"],
        json!({"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"})
    );
    assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(object["status"], json!({"storedVersions": ["v1"]}));
    assert_eq!(errors(|_| {}), [] as [&str; 0]);
}

#[test]
fn what_is_wrong_is_said_in_upstreams_words() {
    type Change = fn(&mut Value);
    let second = |d: &mut Value, name: &str| {
        let mut second = d["spec"]["versions"][0].clone();
        second["name"] = json!(name);
        second["storage"] = json!(false);
        d["spec"]["versions"].as_array_mut().unwrap().push(second);
    };
    let rows: [(Change, &[&str]); 16] = [
        (
            |d| d["metadata"]["name"] = json!("x.example.com"),
            &["metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group"],
        ),
        (
            |d| {
                d["spec"]["group"] = json!("example");
                d["metadata"]["name"] = json!("widgets.example");
            },
            &["spec.group: Invalid value: \"example\": should be a domain with at least one dot"],
        ),
        (
            |d| d["spec"]["scope"] = json!("Everywhere"),
            &["spec.scope: Unsupported value: \"Everywhere\": supported values: \"Cluster\", \"Namespaced\""],
        ),
        (
            |d| d["spec"]["names"]["kind"] = json!("Wid_get"),
            &[
                "spec.names.singular: Invalid value: \"wid_get\": a DNS-1035 label must consist of lower case alphanumeric \
                 characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
                 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "spec.names.kind: Invalid value: \"Wid_get\": may have mixed case, but should otherwise match: a \
                 DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                "spec.names.listKind: Invalid value: \"Wid_getList\": may have mixed case, but should otherwise match: a \
                 DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                 character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
                 validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
        (
            |d| d["spec"]["names"]["listKind"] = json!("Widget"),
            &["spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same"],
        ),
        (
            |d| {
                d["spec"]["versions"][0].as_object_mut().unwrap().remove("schema");
            },
            &["spec.versions[0].schema.openAPIV3Schema: Required value"],
        ),
        (
            |d| d["spec"]["preserveUnknownFields"] = json!(true),
            &[
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set \
                 x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ],
        ),
        (
            |d| d["spec"]["versions"][0]["deprecationWarning"] = json!("old"),
            &["spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions"],
        ),
        (
            |d| {
                d["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "A", "type": "text", "jsonPath": "spec"}])
            },
            &[
                "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of \
                 boolean,date,integer,number,string",
                "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec\": must be a simple json path starting \
                 with .",
            ],
        ),
        (
            |d| d["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".status.n"}}),
            &[
                "spec.subresources.scale.specReplicasPath: Invalid value: \".status.n\": should be a json path under .spec",
                "spec.subresources.scale.statusReplicasPath: Required value",
            ],
        ),
        (
            |d| {
                d["spec"]["versions"][0]["selectableFields"] = json!([
                    {"jsonPath": ".spec.color"}, {"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}, {"jsonPath": ".spec.x"},
                ])
            },
            &[
                "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.color\"",
                "spec.selectableFields[2].jsonPath: Invalid value: \".spec.size\": must point to a field of type string, \
                 boolean or integer. Enum string fields and strings with formats are allowed.",
                "spec.selectableFields[3].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a \
                 valid field",
            ],
        ),
        (
            |d| d["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
        (
            |d| {
                d["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
                    "clientConfig": {"url": "http://u@h/?q"}, "conversionReviewVersions": ["v9"],
                }})
            },
            &[
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; \
                 desired format: https://host[/path]",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the \
                 URL",
                "spec.conversion.webhookClientConfig.url: Invalid value: \"q\": query parameters are not permitted in the \
                 URL",
                "spec.conversion.conversionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, \
                 v1beta1",
            ],
        ),
        (
            |d| {
                d["spec"]["group"] = json!("storage.k8s.io");
                d["metadata"]["name"] = json!("widgets.storage.k8s.io");
            },
            &[
                "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
                 annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
            ],
        ),
        (
            |d| d["spec"]["versions"][0]["subresources"] = json!({"status": {}}),
            &[],
        ),
        (
            |d| d["spec"]["names"]["shortNames"] = json!(["W"]),
            &[
                "spec.names.shortNames[0]: Invalid value: \"W\": a DNS-1035 label must consist of lower case alphanumeric \
                 characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
                 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ],
        ),
    ];
    for (change, expected) in rows {
        assert_eq!(errors(change), expected);
    }
    let versions = errors(|d| second(d, "v1"));
    assert!(
        versions[0].starts_with("spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":true,")
    );
    assert!(
        versions[0].ends_with(": must contain unique version names"),
        "{versions:?}"
    );
    let none = errors(|d| d["spec"]["versions"][0]["storage"] = json!(false));
    assert!(
        none[0].ends_with(": must have exactly one version marked as storage version"),
        "{none:?}"
    );
    assert_eq!(
        none[1],
        "status.storedVersions: Invalid value: []: must have at least one stored version"
    );
}

#[test]
fn what_is_established_keeps_its_names_and_stored_versions() {
    let mut old = definition(|_| {});
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = definition(|d| {
        d["spec"]["scope"] = json!("Cluster");
        d["spec"]["names"]["kind"] = json!("Gadget");
        d["spec"]["versions"][0]["name"] = json!("v2");
    });
    DefinitionStrategy.prepare_for_update(&mut new, &old, Target::Main);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    let errors = DefinitionStrategy.validate_update(&new, &old, Target::Main);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.names.kind: Invalid value: \"Gadget\": field is immutable",
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage \
             version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 \
             and removes v1 from status.storedVersions",
        ]
    );
}

#[test]
fn a_deletion_waits_for_the_instances() {
    let mut object = definition(|_| {});
    assert!(DefinitionStrategy.is_held(&object));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object["metadata"]["generation"] = json!(2);
    DefinitionStrategy.mark_deleted(&mut object);
    assert!(!DefinitionStrategy.is_held(&object));
    assert_eq!(object["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["status"]["conditions"][0]["reason"], "InstanceDeletionPending");
}

#[test]
fn formats_that_mean_nothing_are_warned_of_once() {
    let with_format = |format: &str| {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string", "format": format}}});
        definition(|d| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema)
    };
    let odd = with_format("odd");
    assert_eq!(DefinitionStrategy.warnings(&odd, None), ["unrecognized format \"odd\""]);
    assert!(DefinitionStrategy.warnings(&odd, Some(&odd)).is_empty());
    assert!(DefinitionStrategy.warnings(&with_format("date-time"), None).is_empty());
}
