//! As much of a CustomResourceDefinition as its controllers need: no schemas, of which a cluster has megabytes.

use k8s_openapi::ClusterResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;

pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
pub const APPROVAL_ANNOTATION: &str = "api-approved.kubernetes.io";

/// A definition, reduced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Definition {
    pub metadata: ObjectMeta,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub group: String,
    pub names: Names,
    pub scope: String,
    pub versions: Vec<Version>,
    pub preserve_unknown_fields: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Version {
    pub name: String,
    pub served: bool,
    pub storage: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    pub plural: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub singular: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub list_kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub conditions: Vec<Condition>,
    pub accepted_names: Names,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub last_transition_time: String,
    pub reason: String,
    pub message: String,
}

impl Definition {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn has_condition(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == "True")
    }

    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    pub fn has_finalizer(&self) -> bool {
        let finalizers = self.metadata.finalizers.iter().flatten();
        finalizers.into_iter().any(|finalizer| finalizer == CLEANUP_FINALIZER)
    }

    /// Whether all names that it asks for are its own.
    pub fn has_its_names(&self) -> bool {
        self.spec.names == self.status.accepted_names
    }

    pub fn approval(&self) -> &str {
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|map| map.get(APPROVAL_ANNOTATION))
            .map_or("", String::as_str)
    }

    /// The same without what only others need: the last applied configuration alone holds all schemas.
    pub fn reduced(mut self) -> Self {
        self.metadata.managed_fields = None;
        self.metadata.labels = None;
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|name, _| name == APPROVAL_ANNOTATION);
        }
        self
    }

    /// The merge patch that writes `status`, if nobody else has written meanwhile.
    pub fn status_patch(&self, status: &Status) -> Value {
        json!({"metadata": {"resourceVersion": self.metadata.resource_version}, "status": status})
    }
}

impl Status {
    /// Sets a condition; its time changes only with its status.
    pub fn set(&mut self, condition: Condition) {
        match self.conditions.iter_mut().find(|known| known.kind == condition.kind) {
            None => self.conditions.push(condition),
            Some(known) => {
                let time = match known.status == condition.status && !known.last_transition_time.is_empty() {
                    true => std::mem::take(&mut known.last_transition_time),
                    false => condition.last_transition_time.clone(),
                };
                *known = Condition {
                    last_transition_time: time,
                    ..condition
                };
            }
        }
    }
}

impl Condition {
    pub fn new(kind: &str, status: bool, reason: &str, message: impl Into<String>, now: jiff::Timestamp) -> Self {
        Self {
            kind: kind.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            last_transition_time: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

impl Resource for Definition {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "CustomResourceDefinition".into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        "apiextensions.k8s.io".into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        "customresourcedefinitions".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
