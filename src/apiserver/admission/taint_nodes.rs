//! TaintNodesByCondition (upstream: `plugin/pkg/admission/nodetaint`): a new node takes no pods until it is known to be
//! ready, which the node life cycle controller then says by taking the taint away.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::{child_or_new, objects, text};
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub fn admit(_ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let is_node = kind.group.is_empty() && kind.resource == "nodes";
    if is_node && subject.operation == Operation::Create && subject.subresource.is_empty() {
        taint(object);
    }
    Ok(())
}

fn taint(node: &mut Object) {
    let known = objects(node, &["spec", "taints"])
        .any(|(_, taint)| text(taint, &["key"]) == KEY && text(taint, &["effect"]) == EFFECT);
    if known {
        return;
    }
    let taint = json!({"effect": EFFECT, "key": KEY});
    match child_or_new(node, "spec").entry("taints").or_insert_with(|| json!([])) {
        Value::Array(taints) => taints.push(taint),
        other => *other = json!([taint]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_begins_as_not_ready_once() {
        let mut node = Object::new();
        taint(&mut node);
        taint(&mut node);
        assert_eq!(
            Value::Object(node),
            json!({"spec": {"taints": [{"effect": EFFECT, "key": KEY}]}})
        );
        let mut other = json!({"spec": {"taints": [{"effect": "NoExecute", "key": KEY}]}});
        taint(other.as_object_mut().unwrap());
        assert_eq!(other["spec"]["taints"].as_array().unwrap().len(), 2);
    }
}
