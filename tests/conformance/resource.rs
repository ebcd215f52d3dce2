//! One resource through kube-rs, with objects as JSON.

use crate::cluster::PATIENCE;
use futures_util::{Stream, StreamExt};
use http::Request as HttpRequest;
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
pub use kube::core::Status;
use kube::core::request::Request;
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;

pub type Answered = Result<Value, Status>;

#[derive(Clone)]
pub struct Resource {
    client: Client,
    request: Request,
    pub url: String,
    pub api_version: String,
    pub plural: String,
}

impl Resource {
    pub fn new(client: Client, api_version: &str, plural: &str, namespace: Option<&str>) -> Self {
        let prefix = if api_version.contains('/') { "/apis" } else { "/api" };
        let namespace = namespace.map_or(String::new(), |namespace| format!("/namespaces/{namespace}"));
        let url = format!("{prefix}/{api_version}{namespace}/{plural}");
        Self {
            client,
            request: Request::new(&url),
            url,
            api_version: api_version.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// As messages name it: `pods`, `deployments.apps`.
    pub fn group_resource(&self) -> String {
        match self.api_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}", self.plural),
            None => self.plural.clone(),
        }
    }

    pub async fn call(&self, request: HttpRequest<Vec<u8>>) -> Answered {
        match self.client.request::<Value>(request).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) => Err(*status),
            Err(error) => panic!("{}: {error}", self.url),
        }
    }

    pub async fn create(&self, object: &Value) -> Answered {
        let request = self.request.create(&PostParams::default(), bytes(object));
        self.call(request.unwrap()).await
    }

    pub async fn get(&self, name: &str) -> Answered {
        self.call(self.request.get(name, &GetParams::default()).unwrap()).await
    }

    pub async fn list(&self, parameters: &ListParams) -> Answered {
        self.call(self.request.list(parameters).unwrap()).await
    }

    /// The items that carry a label.
    pub async fn labelled(&self, selector: &str) -> Vec<Value> {
        let list = self.list(&ListParams::default().labels(selector)).await.unwrap();
        items(&list)
    }

    pub async fn replace(&self, object: &Value) -> Answered {
        let request = self
            .request
            .replace(name(object), &PostParams::default(), bytes(object));
        self.call(request.unwrap()).await
    }

    pub async fn patch(&self, name: &str, patch: &Patch<Value>) -> Answered {
        self.patch_with(name, patch, &PatchParams::default()).await
    }

    pub async fn patch_with(&self, name: &str, patch: &Patch<Value>, parameters: &PatchParams) -> Answered {
        self.call(self.request.patch(name, parameters, patch).unwrap()).await
    }

    pub async fn merge(&self, name: &str, patch: Value) -> Answered {
        self.patch(name, &Patch::Merge(patch)).await
    }

    pub async fn get_sub(&self, name: &str, subresource: &str) -> Answered {
        self.call(self.request.get_subresource(subresource, name).unwrap())
            .await
    }

    pub async fn merge_sub(&self, name: &str, subresource: &str, patch: Value) -> Answered {
        self.patch_sub(name, subresource, &Patch::Merge(patch)).await
    }

    pub async fn patch_sub(&self, name: &str, subresource: &str, patch: &Patch<Value>) -> Answered {
        let parameters = PatchParams::default();
        let request = self.request.patch_subresource(subresource, name, &parameters, patch);
        self.call(request.unwrap()).await
    }

    pub async fn replace_sub(&self, subresource: &str, object: &Value) -> Answered {
        let parameters = PostParams::default();
        let request = self
            .request
            .replace_subresource(subresource, name(object), &parameters, bytes(object));
        self.call(request.unwrap()).await
    }

    pub async fn create_sub(&self, name: &str, subresource: &str, object: &Value) -> Answered {
        let request = self
            .request
            .create_subresource(subresource, name, &PostParams::default(), bytes(object));
        self.call(request.unwrap()).await
    }

    pub async fn delete(&self, name: &str) -> Answered {
        self.delete_with(name, &DeleteParams::default()).await
    }

    pub async fn delete_with(&self, name: &str, parameters: &DeleteParams) -> Answered {
        self.call(self.request.delete(name, parameters).unwrap()).await
    }

    /// All of them, of every namespace if the resource has none.
    pub async fn delete_all(&self, parameters: &DeleteParams) -> Answered {
        let request = self.request.delete_collection(parameters, &ListParams::default());
        self.call(request.unwrap()).await
    }

    pub async fn delete_collection(&self, selector: &str) -> Answered {
        self.delete_collection_with(selector, &DeleteParams::default()).await
    }

    pub async fn delete_collection_with(&self, selector: &str, parameters: &DeleteParams) -> Answered {
        let selected = ListParams::default().labels(selector);
        self.call(self.request.delete_collection(parameters, &selected).unwrap())
            .await
    }

    /// The list as a Table.
    pub async fn table(&self, selector: &str) -> Value {
        let mut request = self.request.list(&ListParams::default().labels(selector)).unwrap();
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        request.headers_mut().insert("accept", accept.parse().unwrap());
        self.call(request).await.unwrap()
    }

    /// A watch from a revision on; from the state on if it is empty.
    pub async fn watch(&self, selector: &str, revision: &str) -> Watch {
        let parameters = WatchParams::default().labels(selector).timeout(60);
        self.watch_with(&parameters, revision).await
    }

    pub async fn watch_with(&self, parameters: &WatchParams, revision: &str) -> Watch {
        let request = self.request.watch(parameters, revision).unwrap();
        Watch {
            events: Box::pin(self.client.request_events::<Value>(request).await.unwrap()),
            patience: PATIENCE,
        }
    }
}

/// The events of a watch.
pub struct Watch {
    events: Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Value>>> + Send>>,
    patience: Duration,
}

impl Watch {
    /// It may be silent for so long.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Type and object of the next event, bookmarks left out; None at the end.
    pub async fn next_or_end(&mut self) -> Option<(&'static str, Value)> {
        loop {
            let event = tokio::time::timeout(self.patience, self.events.next())
                .await
                .expect("no event in time");
            return Some(match event?.unwrap() {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Error(status) => ("ERROR", serde_json::to_value(status).unwrap()),
                WatchEvent::Bookmark(_) => continue,
            });
        }
    }

    pub async fn next(&mut self) -> (&'static str, Value) {
        self.next_or_end().await.expect("the watch goes on")
    }

    /// The next event, which must be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let (got, object) = self.next().await;
        assert_eq!(got, kind, "{object}");
        object
    }

    /// The next event of this type whose object is so; others before it are passed over.
    pub async fn until(&mut self, kind: &str, so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (got, object) = self.next().await;
            assert_ne!(got, "ERROR", "{object}");
            if got == kind && so(&object) {
                return object;
            }
        }
    }

    /// Nothing arrives for a moment.
    pub async fn expect_silence(&mut self) {
        let event = tokio::time::timeout(Duration::from_millis(200), self.events.next()).await;
        assert!(event.is_err(), "an event: {event:?}");
    }
}

pub fn bytes(object: &Value) -> Vec<u8> {
    serde_json::to_vec(object).unwrap()
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

pub fn revision(object: &Value) -> String {
    object["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision")
        .to_owned()
}

pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().expect("items").clone()
}

/// A JSON patch.
pub fn json_patch(operations: Value) -> Patch<Value> {
    Patch::Json(serde_json::from_value(operations).unwrap())
}

/// A pod that validates, with these members of its spec.
pub fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]},
    });
    merge_into(&mut pod["spec"], spec);
    pod
}

/// Members of `more` over those of `object`.
pub fn merge_into(object: &mut Value, more: Value) {
    match (object, more) {
        (Value::Object(object), Value::Object(more)) => {
            for (key, value) in more {
                merge_into(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, more) => *object = more,
    }
}
