//! `autoscaling/v1 Scale`: what it shows of an object and how it changes it
//! (upstream: the `ScaleREST` of `pkg/registry/apps/*/storage`, `apiextensions-apiserver/pkg/registry/customresource`).

use super::Kind;
use super::columns::{age, column, selector_text};
use super::custom;
use super::field::FieldError;
use super::json::{at, child_or_new, integer, map, number, text};
use super::row::review;
use super::strategies::{Printer, Stored};
use super::strategy::Object;
use super::validation::non_negative;
use k8s_openapi::api::autoscaling::v1::Scale;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Where an object keeps its numbers. Paths are object keys from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub selector: ScaleSelector,
    /// An object without the number in its spec cannot be scaled. Built-in kinds take its absence for zero.
    pub needs_replicas: bool,
}

/// How the object says which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleSelector {
    /// `spec.selector` is a LabelSelector.
    Labels,
    /// `spec.selector` is a map of labels.
    Map,
    /// The text of a selector stands at the path; None: there is no selector.
    Text(Option<Vec<String>>),
}

/// A Scale has no row of its own; this says how it is decoded and printed.
pub static SCALE: LazyLock<Kind> = LazyLock::new(|| {
    review::<Scale>("scale.autoscaling")
        .strategy(Stored::new(PRINTER).rules(validate))
        .into()
});

const PRINTER: Printer = Printer {
    columns: || {
        vec![
            column("Name", "string"),
            column("Desired", "integer"),
            column("Available", "integer"),
            column("Age", "string"),
        ]
    },
    cells: |scale, now| {
        vec![
            json!(text(scale, &["metadata", "name"])),
            json!(number(scale, &["spec", "replicas"])),
            json!(number(scale, &["status", "replicas"])),
            json!(age(scale, now)),
        ]
    },
};

fn validate(scale: &Object) -> Vec<FieldError> {
    Vec::from_iter(non_negative(at(scale, &["spec", "replicas"]), "spec.replicas"))
}

/// Where the objects of `kind` keep what a Scale shows; None if they have no scale.
pub fn paths(kind: &Kind) -> Option<ScalePaths> {
    let selector = match (kind.group, kind.resource) {
        ("apps", "deployments" | "replicasets" | "statefulsets") => ScaleSelector::Labels,
        ("", "replicationcontrollers") => ScaleSelector::Map,
        _ => return kind.custom.as_ref()?.scale.as_ref().map(custom),
    };
    let path = |part: &str| vec![part.to_owned(), "replicas".to_owned()];
    Some(ScalePaths {
        spec_replicas: path("spec"),
        status_replicas: path("status"),
        selector,
        needs_replicas: false,
    })
}

/// The paths that a CustomResourceDefinition names: `.spec.replicas`.
fn custom(paths: &custom::ScalePaths) -> ScalePaths {
    let keys = |path: &String| path.split('.').skip(1).map(str::to_owned).collect();
    ScalePaths {
        spec_replicas: keys(&paths.spec_replicas),
        status_replicas: keys(&paths.status_replicas),
        selector: ScaleSelector::Text(paths.label_selector.as_ref().map(keys)),
        needs_replicas: true,
    }
}

impl ScalePaths {
    /// The scale of an object. The error says what the object lacks.
    pub fn of(&self, object: &Object) -> Result<Object, String> {
        let found = |path: &[String]| integer(object, &keys(path));
        let desired = found(&self.spec_replicas);
        if desired.is_none() && self.needs_replicas {
            let path = self.spec_replicas.join(".");
            return Err(format!("the spec replicas field \".{path}\" does not exist"));
        }
        let mut metadata = Object::new();
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = at(object, &["metadata", field]) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        let mut spec = Object::new();
        // Zero is the same as absent, and left out.
        if let Some(desired) = desired.filter(|desired| *desired != 0) {
            spec.insert("replicas".into(), json!(desired));
        }
        let mut status = Object::new();
        status.insert("replicas".into(), json!(found(&self.status_replicas).unwrap_or(0)));
        let selector = self.selector_of(object);
        if !selector.is_empty() {
            status.insert("selector".into(), json!(selector));
        }
        let scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status,
        });
        match scale {
            Value::Object(scale) => Ok(scale),
            _ => unreachable!("an object was written"),
        }
    }

    fn selector_of(&self, object: &Object) -> String {
        let wrapped;
        let selector = match &self.selector {
            ScaleSelector::Labels => at(object, &["spec", "selector"]),
            ScaleSelector::Map => {
                wrapped = json!({"matchLabels": map(object, &["spec", "selector"])});
                Some(&wrapped)
            }
            ScaleSelector::Text(path) => {
                let path = path.as_deref().unwrap_or_default();
                return text(object, &keys(path)).to_owned();
            }
        };
        match selector_text(selector).as_str() {
            "<none>" | "<error>" => String::new(),
            text => text.to_owned(),
        }
    }

    /// Puts the number of `scale` into `object`, and the version that the client knew.
    pub fn apply(&self, scale: &Object, object: &mut Object) {
        if let Some((last, path)) = self.spec_replicas.split_last() {
            let mut target = &mut *object;
            for key in path {
                target = child_or_new(target, key);
            }
            target.insert(last.clone(), json!(number(scale, &["spec", "replicas"])));
        }
        let version = text(scale, &["metadata", "resourceVersion"]);
        child_or_new(object, "metadata").insert("resourceVersion".into(), json!(version));
    }
}

fn keys(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn object(value: Value) -> Object {
        value.as_object().expect("an object").clone()
    }

    fn paths_of(group: &str, resource: &str) -> ScalePaths {
        let kind = Registry::builtin().lookup(group, "v1", resource).expect("a row");
        paths(&kind).expect("the kind scales")
    }

    #[test]
    fn every_kind_with_the_subresource_has_paths() {
        let registry = Registry::builtin();
        let scaling: Vec<&str> = registry
            .kinds()
            .filter(|kind| kind.subresource("scale").is_some())
            .map(|kind| {
                assert!(paths(&kind).is_some(), "{}", kind.kind);
                kind.resource
            })
            .collect();
        assert_eq!(
            scaling,
            ["replicationcontrollers", "deployments", "replicasets", "statefulsets"]
        );
        assert_eq!(paths(&registry.lookup("", "v1", "pods").expect("pods")), None);
    }

    #[test]
    fn a_scale_shows_numbers_and_selector() {
        let deployment = object(json!({
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": {"x": "y"},
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "2", "a": "1"},
                "matchExpressions": [{"key": "t", "operator": "In", "values": ["q", "p"]}]}},
            "status": {"replicas": 2},
        }));
        let scale = paths_of("apps", "deployments").of(&deployment);
        let expected = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": "d", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 3}, "status": {"replicas": 2, "selector": "a=1,b=2,t in (p,q)"},
        });
        assert_eq!(scale.map(Value::Object), Ok(expected));
        let controller = object(json!({"metadata": {}, "spec": {"selector": {"a": "1"}}}));
        let scale = paths_of("", "replicationcontrollers").of(&controller).expect("a scale");
        assert_eq!(scale["spec"], json!({}));
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=1"}));
    }

    #[test]
    fn custom_paths_may_be_anywhere() {
        let paths = custom(&custom::ScalePaths {
            spec_replicas: ".spec.deep.size".to_owned(),
            status_replicas: ".status.size".to_owned(),
            label_selector: Some(".status.pods".to_owned()),
        });
        let mut thing =
            object(json!({"metadata": {"name": "t"}, "spec": {"deep": {"size": 4}}, "status": {"pods": "a=b"}}));
        let scale = paths.of(&thing).expect("a scale");
        assert_eq!(scale["spec"]["replicas"], 4);
        assert_eq!(scale["status"]["selector"], "a=b");
        paths.apply(
            &object(json!({"metadata": {"resourceVersion": "9"}, "spec": {}})),
            &mut thing,
        );
        assert_eq!(thing["spec"]["deep"]["size"], 0);
        assert_eq!(thing["metadata"]["resourceVersion"], "9");
        let error = paths.of(&object(json!({"spec": {}}))).expect_err("no number");
        assert_eq!(error, "the spec replicas field \".spec.deep.size\" does not exist");
    }
}
