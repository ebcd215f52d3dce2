//! Defaults must be what pruning leaves and what the schema allows (upstream: `schema/defaulting/validation.go`).

use crate::registry::cel;
use crate::registry::field::FieldError;
use crate::registry::structural::node::Node;
use crate::registry::structural::{data, embedded, evaluate, prune, validate};
use serde_json::{Value, json};
use std::collections::HashSet;

/// The way from an object's root to a part of its metadata.
#[derive(Clone)]
enum Step {
    Member(String),
    Item,
}

/// A path of schemas, extended for a while.
struct Walk {
    path: String,
    steps: Vec<Step>,
    errors: Vec<FieldError>,
    budget: i64,
}

pub(super) fn check(root: &Node, path: &str) -> Vec<FieldError> {
    let mut walk = Walk {
        path: path.to_owned(),
        steps: Vec::new(),
        errors: Vec::new(),
        budget: i64::try_from(cel::REQUEST_COST_MAX).unwrap_or(i64::MAX),
    };
    walk.node(root, true, false);
    walk.errors
}

impl Walk {
    /// `is_resource`: the node is an object with type and metadata; `inside_meta`: it is a part of these.
    fn node(&mut self, node: &Node, is_resource: bool, inside_meta: bool) {
        let is_resource = is_resource || node.embedded;
        let inside_meta = inside_meta && !is_resource;
        let outer = if is_resource {
            std::mem::take(&mut self.steps)
        } else {
            Vec::new()
        };
        if let Some(default) = &node.default {
            self.default(node, default, is_resource, inside_meta);
        }
        if let Some(items) = node.items.as_deref() {
            self.below(".items", Step::Item, |walk| walk.node(items, false, inside_meta));
        }
        for (name, property) in &node.properties {
            let meta = inside_meta || (is_resource && embedded::META_FIELDS.contains(&&**name));
            let step = Step::Member(name.to_string());
            self.below(&format!(".properties[{name}]"), step, |walk| {
                walk.node(property, false, meta);
            });
        }
        if is_resource {
            self.steps = outer;
        }
    }

    fn below(&mut self, part: &str, step: Step, act: impl FnOnce(&mut Self)) {
        if self.budget < 0 {
            return;
        }
        let length = self.path.len();
        self.path.push_str(part);
        self.steps.push(step);
        act(self);
        self.steps.pop();
        self.path.truncate(length);
    }

    fn default(&mut self, node: &Node, default: &Value, is_resource: bool, inside_meta: bool) {
        let at = format!("{}.default", self.path);
        if inside_meta {
            let problems = metadata_problems(&self.steps, default);
            if !problems.is_empty() {
                let detail = format!("must result in valid metadata: {}", aggregate(&problems));
                self.errors.push(FieldError::invalid(at, default.clone(), &detail));
                return;
            }
        } else {
            let mut pruned = default.clone();
            prune::unknown_in(&mut pruned, node, is_resource);
            if pruned != *default {
                self.errors.push(FieldError::invalid(
                    &at,
                    default.clone(),
                    "must not have unknown fields",
                ));
            }
            if let Value::Object(object) = default {
                let mut problems = embedded::validate(object, node, &at);
                if node.embedded {
                    embedded::resource(object, &at, &mut problems);
                }
                if !problems.is_empty() {
                    self.errors.extend(problems);
                    return;
                }
            }
        }
        let mut seen = HashSet::new();
        let violations: Vec<FieldError> = validate::validate(node, default, None)
            .into_iter()
            .map(|failure| failure.into_error(Some(&at)))
            .filter(|error| seen.insert(error.to_string()))
            .collect();
        if !violations.is_empty() {
            self.errors.extend(violations);
            return;
        }
        if !node.has_rules {
            return;
        }
        let Some(decl) = data::declared(node, is_resource) else {
            return;
        };
        let (errors, left) = evaluate::part(node, &decl, &at, default, Some(default), self.budget);
        if errors.is_empty() {
            // A default may also come where nothing was before.
            let (errors, left_without) = evaluate::part(node, &decl, &at, default, None, self.budget);
            self.errors.extend(errors);
            self.budget = left.min(left_without);
        } else {
            self.errors.extend(errors);
            self.budget = left;
        }
    }
}

/// What is wrong with an object that has nothing but a type and this default in its metadata.
fn metadata_problems(steps: &[Step], default: &Value) -> Vec<FieldError> {
    let mut value = default.clone();
    for step in steps.iter().rev() {
        value = match step {
            Step::Member(name) => json!({ name: value }),
            Step::Item => json!([value]),
        };
    }
    let mut errors = Vec::new();
    if let Value::Object(object) = &mut value {
        object.entry("kind").or_insert_with(|| "Validation".into());
        object.entry("apiVersion").or_insert_with(|| "validation/v1".into());
        embedded::resource(object, "", &mut errors);
    }
    errors
}

/// Several errors as one text.
fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [error] => error.to_string(),
        errors => {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}
