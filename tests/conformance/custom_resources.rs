//! Definitions of custom resources, and objects of them.

use crate::cluster::{Cluster, eventually};
use crate::lifecycle::names;
use crate::resource::{Resource, json_patch, merge_into, name};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] CustomResourceDefinition Watch [Privileged:ClusterAdmin] CustomResourceDefinition Watch watch on custom resource definition objects",
            watch_instances,
        ),
        test(
            "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition creating/deleting custom resource definition objects works",
            create_and_delete,
        ),
        test(
            "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works",
            status,
        ),
        test(
            "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] Simple CustomResourceDefinition listing custom resource definition objects works",
            list_and_delete_some,
        ),
        test(
            "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] custom resource defaulting for requests and from storage works",
            defaults,
        ),
        test(
            "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents",
            discovered,
        ),
    ]
}

pub const API: &str = "apiextensions.k8s.io/v1";

/// A definition with one version `v1`, whose schema takes anything.
pub struct Definition {
    pub group: String,
    pub plural: String,
    pub kind: String,
    pub object: Value,
}

/// A schema that takes anything.
pub fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

pub fn version(name: &str, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": false, "schema": {"openAPIV3Schema": schema}})
}

impl Definition {
    pub fn new(cluster: &Cluster, base: &str) -> Self {
        let unique = cluster.unique(base);
        Self::named(&format!("{unique}.example.com"), "Thing")
    }

    pub fn named(group: &str, kind: &str) -> Self {
        let singular = kind.to_lowercase();
        let plural = format!("{singular}s");
        let object = json!({
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"plural": plural, "singular": singular, "kind": kind, "listKind": format!("{kind}List")},
                "versions": [],
            },
        });
        Self {
            group: group.to_owned(),
            plural,
            kind: kind.to_owned(),
            object,
        }
        .versions(vec![version("v1", anything())])
    }

    pub fn schema(self, schema: Value) -> Self {
        self.versions(vec![version("v1", schema)])
    }

    /// The first is the one in which objects are stored.
    pub fn versions(mut self, mut versions: Vec<Value>) -> Self {
        versions[0]["storage"] = json!(true);
        self.object["spec"]["versions"] = Value::Array(versions);
        self
    }

    pub fn name(&self) -> &str {
        name(&self.object)
    }

    /// Creates it and waits until it is served.
    pub async fn establish(self, cluster: &Cluster) -> Self {
        let definitions = cluster.resource(API, "customresourcedefinitions", None);
        definitions.create(&self.object).await.unwrap();
        eventually("the definition is established", async || {
            let read = definitions.get(self.name()).await.unwrap();
            let conditions = read["status"]["conditions"].as_array()?.clone();
            conditions
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
                .then_some(())
        })
        .await;
        self
    }

    pub fn instances(&self, cluster: &Cluster, version: &str, namespace: Option<&str>) -> Resource {
        cluster.resource(&format!("{}/{version}", self.group), &self.plural, namespace)
    }

    /// An instance of `v1`.
    pub fn instance(&self, name: &str, more: Value) -> Value {
        let mut object = json!({
            "apiVersion": format!("{}/v1", self.group), "kind": self.kind, "metadata": {"name": name},
        });
        merge_into(&mut object, more);
        object
    }

    /// Objects are stored in the second version from here on, no more in the first.
    pub async fn store_in_second(&self, cluster: &Cluster) {
        let operations = json!([
            {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
            {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
        ]);
        let definitions = cluster.resource(API, "customresourcedefinitions", None);
        definitions.patch(self.name(), &json_patch(operations)).await.unwrap();
    }

    pub async fn delete(&self, cluster: &Cluster) {
        let definitions = cluster.resource(API, "customresourcedefinitions", None);
        definitions.delete(self.name()).await.unwrap();
        eventually("the definition is gone", async || {
            definitions.get(self.name()).await.is_err().then_some(())
        })
        .await;
    }
}

async fn create_and_delete(cluster: Cluster) {
    let definition = Definition::new(&cluster, "simple").establish(&cluster).await;
    let definitions = cluster.resource(API, "customresourcedefinitions", None);
    let read = definitions.get(definition.name()).await.unwrap();
    assert_eq!(read["status"]["acceptedNames"]["kind"], definition.kind);
    assert_eq!(read["status"]["storedVersions"], json!(["v1"]));
    // Its instances go with it.
    let namespace = cluster.namespace("custom").await;
    let things = definition.instances(&cluster, "v1", Some(&namespace));
    things
        .create(&definition.instance("one", json!({"free": 1})))
        .await
        .unwrap();
    definition.delete(&cluster).await;
    // The group is gone with its last kind, so that not even a Status answers.
    assert_eq!(things.list(&ListParams::default()).await.unwrap_err().code, 404);
    let again = Definition::named(&definition.group, &definition.kind)
        .establish(&cluster)
        .await;
    let list = things.list(&ListParams::default()).await.unwrap();
    assert!(names(&list).is_empty(), "{list}");
    again.delete(&cluster).await;
}

async fn list_and_delete_some(cluster: Cluster) {
    let definitions = cluster.resource(API, "customresourcedefinitions", None);
    let label = cluster.unique("definitions");
    let selector = format!("set={label}");
    let mut others = Vec::new();
    for index in 0..10 {
        let mut definition = Definition::new(&cluster, "listed");
        merge_into(&mut definition.object, json!({"metadata": {"labels": {"set": label}}}));
        if index == 9 {
            merge_into(&mut definition.object, json!({"metadata": {"labels": {"set": "kept"}}}));
        }
        others.push(definition.establish(&cluster).await);
    }
    assert_eq!(definitions.labelled(&selector).await.len(), 9);
    definitions.delete_collection(&selector).await.unwrap();
    eventually("all nine are gone", async || {
        definitions.labelled(&selector).await.is_empty().then_some(())
    })
    .await;
    let kept = others.pop().unwrap();
    definitions.get(kept.name()).await.unwrap();
    kept.delete(&cluster).await;
}

async fn status(cluster: Cluster) {
    let definition = Definition::new(&cluster, "status").establish(&cluster).await;
    let definitions = cluster.resource(API, "customresourcedefinitions", None);
    let mut read = definitions.get_sub(definition.name(), "status").await.unwrap();
    assert!(read["status"]["conditions"].is_array());
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": "Test", "message": "by a test",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    read["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(condition("StatusUpdate"));
    let replaced = definitions.replace_sub("status", &read).await.unwrap();
    let has = |object: &Value, kind: &str| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|c| c["type"] == kind)
    };
    assert!(has(&replaced, "StatusUpdate") && has(&replaced, "Established"));
    let mut conditions = replaced["status"]["conditions"].clone();
    conditions.as_array_mut().unwrap().push(condition("StatusPatched"));
    let patch = json!({"status": {"conditions": conditions}});
    let patched = definitions.merge_sub(definition.name(), "status", patch).await.unwrap();
    assert!(has(&patched, "StatusPatched"), "{patched}");
    definition.delete(&cluster).await;
}

async fn discovered(cluster: Cluster) {
    let groups = cluster.get("/apis").await.expect(200);
    let group = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["name"] == "apiextensions.k8s.io");
    let group = group.expect("the group apiextensions.k8s.io");
    assert!(
        group["versions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["groupVersion"] == API)
    );
    let alone = cluster.get("/apis/apiextensions.k8s.io").await.expect(200);
    assert!(
        alone["versions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["version"] == "v1")
    );
    let resources = cluster.get(&format!("/apis/{API}")).await.expect(200);
    let resources = resources["resources"].as_array().unwrap();
    assert!(
        resources
            .iter()
            .any(|r| r["name"] == "customresourcedefinitions" && r["kind"] == "CustomResourceDefinition")
    );
}

async fn defaults(cluster: Cluster) {
    let schema = |default_b: Option<&str>, default_c: Option<&str>| {
        let property = |default: Option<&str>| match default {
            Some(default) => json!({"type": "string", "default": default}),
            None => json!({"type": "string"}),
        };
        json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"}, "b": property(default_b), "c": property(default_c),
        }})
    };
    let definition = Definition::new(&cluster, "defaults")
        .schema(schema(None, None))
        .establish(&cluster)
        .await;
    let namespace = cluster.namespace("defaults").await;
    let things = definition.instances(&cluster, "v1", Some(&namespace));
    let made = things
        .create(&definition.instance("one", json!({"b": "mine"})))
        .await
        .unwrap();
    assert_eq!(
        (&made["a"], &made["b"], &made["c"]),
        (&json!("A"), &json!("mine"), &Value::Null)
    );
    // Defaults that come later fill what was stored before, in answers; a null is no value.
    let definitions = cluster.resource(API, "customresourcedefinitions", None);
    let properties = schema(Some("B"), Some("C"));
    let replace = json_patch(json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": properties},
    ]));
    definitions.patch(definition.name(), &replace).await.unwrap();
    let read = eventually("the new defaults count", async || {
        let read = things.get("one").await.unwrap();
        (read["c"] == "C").then_some(read)
    })
    .await;
    assert_eq!((&read["a"], &read["b"]), (&json!("A"), &json!("mine")));
    assert_eq!(things.labelled("").await[0]["c"], "C");
    let cleared = things.merge("one", json!({"b": null})).await.unwrap();
    assert_eq!(cleared["b"], "B");
    let null = things
        .create(&definition.instance("two", json!({"a": null})))
        .await
        .unwrap();
    assert_eq!(null["a"], "A");
    // Defaults that go leave what was written.
    let remove = json_patch(json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema(None, None)},
    ]));
    definitions.patch(definition.name(), &remove).await.unwrap();
    eventually("the old defaults are forgotten", async || {
        let made = things
            .create(&definition.instance(&cluster.unique("late"), json!({})))
            .await
            .unwrap();
        made["c"].is_null().then_some(())
    })
    .await;
    assert_eq!(things.get("two").await.unwrap()["c"], "C", "it was stored with it");
    definition.delete(&cluster).await;
}

async fn watch_instances(cluster: Cluster) {
    let mut definition = Definition::new(&cluster, "watched");
    definition.object["spec"]["scope"] = json!("Cluster");
    let definition = definition.establish(&cluster).await;
    let things = definition.instances(&cluster, "v1", None);
    let mut watch_a = things.watch("is=a", "").await;
    let mut watch_b = things.watch("is=b", "").await;
    for (name, watch) in [("a", &mut watch_a), ("b", &mut watch_b)] {
        let object = definition.instance(
            name,
            json!({"metadata": {"labels": {"is": name}}, "content": {"key": "value"}}),
        );
        let made = things.create(&object).await.unwrap();
        assert_eq!(watch.expect("ADDED").await, made);
        let changed = things
            .merge(name, json!({"content": {"key": "changed"}, "num": 3}))
            .await
            .unwrap();
        assert_eq!(changed["num"], 3);
        assert_eq!(watch.expect("MODIFIED").await, changed);
    }
    for (name, watch) in [("a", &mut watch_a), ("b", &mut watch_b)] {
        things.delete(name).await.unwrap();
        assert_eq!(watch.expect("DELETED").await["num"], 3);
        watch.expect_silence().await;
    }
    definition.delete(&cluster).await;
}
