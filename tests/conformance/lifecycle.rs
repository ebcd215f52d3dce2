//! What most conformance tests named "should support … API operations" or "lifecycle" ask of a kind: found in
//! discovery, and every verb on it, with the watch events that follow.

use crate::cluster::{Cluster, eventually, refused};
use crate::resource::{Resource, items, json_patch, merge_into, name, revision};
use serde_json::{Value, json};

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A kind and an object of it.
pub struct Subject {
    api_version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    /// Without a name.
    object: Value,
    names: Option<[String; 3]>,
    /// Members of `status` as a merge patch, and as they read afterwards.
    status: Option<Value>,
    /// A merge patch that changes what the object is for; None where nothing may change.
    change: Option<Value>,
    /// Admission puts finalizers on it, which nobody takes away here.
    finalizers: bool,
    /// What a controller writes into the status of a new object, and of a changed one that is not so any more, once each;
    /// None: nothing.
    settled: Option<fn(&Value) -> bool>,
}

async fn once_settled(resource: &Resource, name: &str, so: fn(&Value) -> bool) -> Value {
    let settled = async || Some(resource.get(name).await.unwrap()).filter(so);
    eventually("a controller has said what it says of the object", settled).await
}

/// A namespaced kind with an object that validates, without a name.
pub fn namespaced(api_version: &'static str, plural: &'static str, kind: &'static str, object: Value) -> Subject {
    Subject {
        api_version,
        plural,
        kind,
        namespaced: true,
        object,
        names: None,
        status: None,
        change: None,
        finalizers: false,
        settled: None,
    }
}

/// A cluster-wide kind.
pub fn cluster_wide(api_version: &'static str, plural: &'static str, kind: &'static str, object: Value) -> Subject {
    Subject {
        namespaced: false,
        ..namespaced(api_version, plural, kind, object)
    }
}

impl Subject {
    /// Names, where not every name will do.
    pub fn names(mut self, names: [&str; 3]) -> Self {
        self.names = Some(names.map(str::to_owned));
        self
    }

    /// It has a status, which takes these members.
    pub fn status(mut self, status: Value) -> Self {
        self.status = Some(status);
        self
    }

    /// A merge patch of the object's own fields that must be taken.
    pub fn change(mut self, change: Value) -> Self {
        self.change = Some(change);
        self
    }

    /// Objects get finalizers at creation.
    pub fn with_finalizers(mut self) -> Self {
        self.finalizers = true;
        self
    }

    /// A controller observes its generations.
    pub fn observed(self) -> Self {
        self.settled(|object| object["status"]["observedGeneration"] == object["metadata"]["generation"])
    }

    /// A controller writes into the status, which then is so.
    pub fn settled(mut self, so: fn(&Value) -> bool) -> Self {
        self.settled = Some(so);
        self
    }

    /// Runs through everything.
    pub async fn run(self, cluster: &Cluster) {
        self.is_discovered(cluster).await;
        let base = self.plural;
        let namespace = if self.namespaced {
            Some(cluster.namespace(base).await)
        } else {
            None
        };
        let resource = cluster.resource(self.api_version, self.plural, namespace.as_deref());
        let everywhere = cluster.resource(self.api_version, self.plural, None);
        let label = cluster.unique("lifecycle");
        let selector = format!("test={label}");

        // Three objects, found by their label.
        let mut created = Vec::new();
        for index in 0..3 {
            created.push(self.create(&resource, &label, index, cluster).await);
        }
        let first = name(&created[0]).to_owned();
        assert_eq!(resource.get(&first).await.unwrap(), created[0]);
        let mut again = self.object.clone();
        merge_into(&mut again, json!({"metadata": {"name": first}}));
        let status = refused(resource.create(&again).await, 409, "AlreadyExists");
        assert_eq!(
            status.message,
            format!("{} \"{first}\" already exists", resource.group_resource())
        );
        for from in [&resource, &everywhere] {
            let listed = from.labelled(&selector).await;
            assert_eq!(as_items(listed), as_items(created.clone()), "{}", from.url);
        }
        let table = resource.table(&selector).await;
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(table["rows"].as_array().map(Vec::len), Some(3));

        // Changes, and how a watch tells of them.
        let list = resource
            .list(&kube::api::ListParams::default().labels(&selector))
            .await
            .unwrap();
        assert_eq!(list["kind"], format!("{}List", self.kind));
        assert_eq!(list["apiVersion"], self.api_version);
        let mut watch = everywhere.watch(&selector, &revision(&list)).await;
        let mark = |value: &str| json!({"metadata": {"annotations": {"mark": value}}});
        let patched = resource.merge(&first, mark("patched")).await.unwrap();
        assert_eq!(patched["metadata"]["annotations"]["mark"], "patched");
        assert_eq!(patched["metadata"]["generation"], created[0]["metadata"]["generation"]);
        assert_eq!(without_metadata(&patched), without_metadata(&created[0]));
        assert_eq!(watch.expect("MODIFIED").await, patched);
        let replacement = {
            let mut object = patched.clone();
            merge_into(&mut object, mark("replaced"));
            object
        };
        let replaced = resource.replace(&replacement).await.unwrap();
        assert_eq!(replaced["metadata"]["annotations"]["mark"], "replaced");
        assert_eq!(watch.expect("MODIFIED").await, replaced);
        let conflict = refused(resource.replace(&replacement).await, 409, "Conflict");
        assert_eq!(
            conflict.message,
            format!(
                "Operation cannot be fulfilled on {} \"{first}\": the object has been modified; please apply your changes to the latest version and try again",
                resource.group_resource()
            )
        );
        let add = json_patch(json!([
            {"op": "test", "path": "/metadata/annotations/mark", "value": "replaced"},
            {"op": "replace", "path": "/metadata/annotations/mark", "value": "json"},
        ]));
        let patched = resource.patch(&first, &add).await.unwrap();
        assert_eq!(watch.expect("MODIFIED").await, patched);
        refused(resource.patch(&first, &add).await, 422, "Invalid");
        if let Some(change) = &self.change {
            let changed = resource.merge(&first, change.clone()).await.unwrap();
            assert_ne!(without_metadata(&changed), without_metadata(&created[0]));
            assert_eq!(watch.expect("MODIFIED").await, changed);
            if let (Some(before), Some(after)) = (
                patched["metadata"]["generation"].as_u64(),
                changed["metadata"]["generation"].as_u64(),
            ) {
                assert_eq!(after, before + 1, "a changed spec is a new generation");
            }
            if let Some(so) = self.settled.filter(|so| !so(&changed)) {
                let settled = once_settled(&resource, &first, so).await;
                assert_eq!(watch.expect("MODIFIED").await, settled);
            }
        }
        if let Some(status) = &self.status {
            write_status(&resource, &first, status, &mut watch).await;
        }

        // One goes, then all.
        self.release(&resource, &selector).await;
        let mut watch = {
            let list = everywhere
                .list(&kube::api::ListParams::default().labels(&selector))
                .await
                .unwrap();
            everywhere.watch(&selector, &revision(&list)).await
        };
        resource.delete(&first).await.unwrap();
        assert_eq!(name(&watch.expect("DELETED").await), first);
        let gone = refused(resource.get(&first).await, 404, "NotFound");
        assert_eq!(
            gone.message,
            format!("{} \"{first}\" not found", resource.group_resource())
        );
        assert_eq!(resource.labelled(&selector).await.len(), 2);
        resource.delete_collection(&selector).await.unwrap();
        for _ in 0..2 {
            watch.expect("DELETED").await;
        }
        assert!(resource.labelled(&selector).await.is_empty());
        refused(resource.delete(&first).await, 404, "NotFound");
    }

    async fn create(&self, resource: &Resource, label: &str, index: usize, cluster: &Cluster) -> Value {
        let name = match &self.names {
            Some(names) => names[index].clone(),
            None => cluster.unique("made"),
        };
        let mut object = self.object.clone();
        merge_into(
            &mut object,
            json!({"metadata": {"name": name, "labels": {"test": label}}}),
        );
        let created = resource.create(&object).await.unwrap();
        assert_eq!(created["kind"], self.kind);
        assert_eq!(created["apiVersion"], self.api_version);
        assert_eq!(created["metadata"]["name"], name);
        for member in ["uid", "resourceVersion", "creationTimestamp"] {
            assert!(
                created["metadata"][member].is_string(),
                "{member} is missing in {created}"
            );
        }
        match self.settled {
            Some(so) => once_settled(resource, &name, so).await,
            None => created,
        }
    }

    /// Takes finalizers away that a controller would.
    async fn release(&self, resource: &Resource, selector: &str) {
        for object in resource.labelled(selector).await {
            let has = object["metadata"]["finalizers"].is_array();
            assert!(!has || self.finalizers, "{object}");
            if has {
                let nothing = json!({"metadata": {"finalizers": null}});
                resource.merge(name(&object), nothing).await.unwrap();
            }
        }
    }

    /// The group among the groups, the version in the group, the resource with its verbs in the version.
    pub async fn is_discovered(&self, cluster: &Cluster) {
        let documents = match self.api_version.split_once('/') {
            Some((group, version)) => {
                let groups = cluster.get("/apis").await.expect(200);
                let found = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == group);
                let found = found.unwrap_or_else(|| panic!("{group} is no group"));
                let listed = |versions: &Value| {
                    let versions = versions.as_array().unwrap();
                    versions
                        .iter()
                        .any(|v| v["version"] == version && v["groupVersion"] == self.api_version)
                };
                assert!(listed(&found["versions"]), "{found}");
                assert!(listed(
                    &cluster.get(&format!("/apis/{group}")).await.expect(200)["versions"]
                ));
                format!("/apis/{}", self.api_version)
            }
            None => "/api/v1".to_owned(),
        };
        let resources = cluster.get(&documents).await.expect(200);
        assert_eq!(resources["groupVersion"], self.api_version);
        let resources = resources["resources"].as_array().unwrap();
        let find = |name: &str| {
            let found = resources.iter().find(|r| r["name"] == name);
            found.unwrap_or_else(|| panic!("{name} is not in {documents}")).clone()
        };
        let found = find(self.plural);
        assert_eq!(found["kind"], self.kind);
        assert_eq!(found["namespaced"], self.namespaced);
        assert_eq!(found["verbs"], json!(VERBS));
        if self.status.is_some() {
            let status = find(&format!("{}/status", self.plural));
            assert_eq!(status["kind"], self.kind);
            assert_eq!(status["verbs"], json!(["get", "patch", "update"]));
        }
    }
}

/// The status is read, patched and replaced, and nothing else moves with it.
async fn write_status(resource: &Resource, name: &str, status: &Value, watch: &mut crate::resource::Watch) {
    let before = resource.get_sub(name, "status").await.unwrap();
    assert_eq!(before, resource.get(name).await.unwrap());
    let patch = json!({"metadata": {"annotations": {"mark": "status"}}, "status": status});
    let patched = resource.merge_sub(name, "status", patch).await.unwrap();
    assert_eq!(patched["metadata"]["annotations"]["mark"], "status");
    assert_contains(&patched["status"], status);
    assert_eq!(patched["metadata"]["generation"], before["metadata"]["generation"]);
    assert_eq!(patched["spec"], before["spec"]);
    assert_eq!(watch.expect("MODIFIED").await, patched);
    // The main resource does not write a status.
    let mut through_main = patched.clone();
    through_main["status"] = before["status"].clone();
    merge_into(
        &mut through_main,
        json!({"metadata": {"annotations": {"mark": "main"}}}),
    );
    let through_main = resource.replace(&through_main).await.unwrap();
    assert_eq!(through_main["status"], patched["status"]);
    watch.expect("MODIFIED").await;
    let mut replacement = through_main.clone();
    merge_into(
        &mut replacement,
        json!({"metadata": {"annotations": {"mark": "replaced status"}}}),
    );
    let replaced = resource.replace_sub("status", &replacement).await.unwrap();
    assert_eq!(replaced["metadata"]["annotations"]["mark"], "replaced status");
    assert_contains(&replaced["status"], status);
    assert_eq!(watch.expect("MODIFIED").await, replaced);
}

/// Every member of `part` stands in `whole`; lists are equal.
#[track_caller]
pub fn assert_contains(whole: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            for (key, value) in members {
                assert_contains(&whole[key], value);
            }
        }
        _ => assert_eq!(whole, part),
    }
}

/// In the order of a list, without what the list says of all its items.
fn as_items(mut objects: Vec<Value>) -> Vec<Value> {
    objects.sort_by(|a, b| name(a).cmp(name(b)));
    for object in &mut objects {
        let members = object.as_object_mut().unwrap();
        members.remove("kind");
        members.remove("apiVersion");
    }
    objects
}

fn without_metadata(object: &Value) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove("metadata");
    object
}

/// The items of a list, for tests that go on from one.
pub fn names(list: &Value) -> Vec<String> {
    items(list).iter().map(|item| name(item).to_owned()).collect()
}
