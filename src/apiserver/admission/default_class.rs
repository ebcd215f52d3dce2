//! DefaultStorageClass and DefaultIngressClass (upstream: `plugin/pkg/admission/storage/storageclass/setdefault` and
//! `…/network/defaultingressclass`): the class of claims and ingresses that name none.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::{child_or_new, text};
use crate::registry::strategy::Object;

/// What each of the two looks at.
struct Rule {
    /// Group and resource of the objects that get a class.
    group: &'static str,
    resource: &'static str,
    /// The field of their spec that names it.
    field: &'static str,
    /// The old way to name a class, which keeps the default away.
    old_annotation: &'static str,
    classes: &'static str,
    /// `"true"` on a class that is the default.
    marks: &'static [&'static str],
}

const STORAGE: Rule = Rule {
    group: "",
    resource: "persistentvolumeclaims",
    field: "storageClassName",
    old_annotation: "volume.beta.kubernetes.io/storage-class",
    classes: "storageclasses.storage.k8s.io",
    marks: &[
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ],
};

const INGRESS: Rule = Rule {
    group: "networking.k8s.io",
    resource: "ingresses",
    field: "ingressClassName",
    old_annotation: "kubernetes.io/ingress.class",
    classes: "ingressclasses.networking.k8s.io",
    marks: &["ingressclass.kubernetes.io/is-default-class"],
};

pub fn storage(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    STORAGE.admit(ctx, subject, object)
}

pub fn ingress(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    INGRESS.admit(ctx, subject, object)
}

impl Rule {
    fn admit(&self, ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
        let kind = subject.kind;
        let concerned = subject.operation == Operation::Create
            && subject.subresource.is_empty()
            && (kind.group, kind.resource) == (self.group, self.resource);
        if !concerned || !self.is_open(object) {
            return Ok(());
        }
        let snapshot = ctx
            .storage()
            .list(self.classes, None, None)
            .map_err(ApiError::internal)?;
        let classes = snapshot
            .entries
            .iter()
            .map(|entry| serde_json::from_slice(&entry.bytes));
        let classes: Vec<Object> = classes.collect::<Result<_, _>>().map_err(ApiError::internal)?;
        if let Some(name) = self.default_of(&classes) {
            child_or_new(object, "spec").insert(self.field.into(), name.into());
        }
        Ok(())
    }

    /// Nothing names a class; an empty name asks for none.
    fn is_open(&self, object: &Object) -> bool {
        let named = object.get("spec").is_some_and(|spec| spec.get(self.field).is_some());
        !named && text(object, &["metadata", "annotations", self.old_annotation]).is_empty()
    }

    /// The newest of the classes that are marked; of equally new ones the first by name.
    fn default_of(&self, classes: &[Object]) -> Option<String> {
        let marked = |class: &&Object| {
            let mark = |mark: &&&str| text(class, &["metadata", "annotations", mark]) == "true";
            self.marks.iter().any(|name| mark(&name))
        };
        let age = |class: &Object| text(class, &["metadata", "creationTimestamp"]).to_owned();
        let name = |class: &Object| text(class, &["metadata", "name"]).to_owned();
        let mut marked: Vec<&Object> = classes.iter().filter(marked).collect();
        marked.sort_by(|a, b| age(b).cmp(&age(a)).then_with(|| name(a).cmp(&name(b))));
        marked.first().map(|class| name(class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_newest_default_counts_and_an_empty_name_is_a_choice() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let class = |name: &str, at: &str, mark: &str| {
            object(json!({"metadata": {"name": name, "creationTimestamp": at,
                "annotations": {"storageclass.kubernetes.io/is-default-class": mark}}}))
        };
        let classes = [
            class("a", "2026-01-01T00:00:00Z", "true"),
            class("c", "2026-02-01T00:00:00Z", "true"),
            class("b", "2026-02-01T00:00:00Z", "true"),
            class("d", "2026-03-01T00:00:00Z", "false"),
        ];
        assert_eq!(STORAGE.default_of(&classes).as_deref(), Some("b"));
        assert_eq!(STORAGE.default_of(&classes[3..]), None);
        assert!(STORAGE.is_open(&object(json!({"spec": {}}))));
        assert!(!STORAGE.is_open(&object(json!({"spec": {"storageClassName": ""}}))));
        let annotated = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
        assert!(!INGRESS.is_open(&object(annotated)));
    }
}
