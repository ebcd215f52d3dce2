//! PodTopologyLabels (upstream: `plugin/pkg/admission/podtopologylabels`): a pod that gets a node says in its labels in which
//! zone and region that is.

use super::{Subject, stored_node};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::{child_or_new, text, texts};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// A pod that is made for a node.
pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    let node = text(object, &["spec", "nodeName"]).to_owned();
    if subject.creates_pod() && subject.subresource.is_empty() && !node.is_empty() {
        put(ctx, &node, object)?;
    }
    Ok(())
}

/// Gives `object`, a pod or its binding, what the node says of its place.
pub fn put(ctx: &Context, node: &str, object: &mut Object) -> Result<(), ApiError> {
    let Some(node) = stored_node(ctx, node)? else {
        return Ok(());
    };
    let labels = texts(&node, &["metadata", "labels"]).filter(|(key, _)| LABELS.contains(key));
    let labels: Vec<(String, Value)> = labels.map(|(key, value)| (key.to_owned(), json!(value))).collect();
    if !labels.is_empty() {
        let own = child_or_new(child_or_new(object, "metadata"), "labels");
        for (key, value) in labels {
            // What is there stays.
            own.entry(key).or_insert(value);
        }
    }
    Ok(())
}
