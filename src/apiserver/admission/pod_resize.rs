//! PodResizeValidator (upstream: `plugin/pkg/admission/podresize`): a pod cannot be resized to more than its node has
//! at all, and not on a node that cannot resize.

use super::Subject;
use super::declared_features::{changed_on_node, node_of};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::quantity::Quantity;
use crate::registry::json::{at, map, quantity, text};
use crate::registry::strategies::pod::total_requests;
use crate::registry::strategy::Object;

const OS: &str = "kubernetes.io/os";

pub fn validate(ctx: &Context, subject: &Subject<'_>, pod: &Object) -> Result<(), ApiError> {
    let Some((name, _)) = changed_on_node(subject, pod).filter(|_| subject.subresource == "resize") else {
        return Ok(());
    };
    let node = node_of(ctx, subject, name)?;
    let empty = Object::new();
    let spec = map(pod, &["spec"]).unwrap_or(&empty);
    problem(spec, name, &node).map_or(Ok(()), |why| {
        Err(ApiError::forbidden(subject.kind, &subject.name, &why))
    })
}

type Amount = fn(Quantity) -> i64;

fn problem(spec: &Object, name: &str, node: &Object) -> Option<String> {
    let requests = total_requests(spec);
    // Thousandths of cores, and bytes.
    let amounts: [(&str, Amount); 2] = [("cpu", Quantity::milli_value), ("memory", Quantity::value)];
    let beyond: Vec<String> = amounts
        .into_iter()
        .filter_map(|(resource, amount)| {
            let requested = amount(*requests.get(resource)?);
            let allocatable = at(node, &["status", "allocatable", resource]).and_then(quantity);
            let allocatable = amount(allocatable.unwrap_or(Quantity::ZERO));
            (requested > allocatable).then(|| format!("{resource}, requested: {requested}, allocatable: {allocatable}"))
        })
        .collect();
    if !beyond.is_empty() {
        return Some(format!(
            "Node didn't have enough allocatable resources: {}",
            beyond.join("; ")
        ));
    }
    let os = text(node, &["metadata", "labels", OS]);
    (os != "linux").then(|| format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_node_gives_what_it_has() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let node = |os: &str| {
            object(json!({"metadata": {"labels": {OS: os}}, "status": {"allocatable": {"cpu": "1", "memory": "1Ki"}}}))
        };
        let spec = |cpu: &str, memory: &str| {
            object(json!({"overhead": {"cpu": "500m"}, "containers": [
                {"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
        };
        let head = "Node didn't have enough allocatable resources: ";
        for (cpu, memory, os, expected) in [
            ("500m", "1Ki", "linux", None),
            (
                "1",
                "1Ki",
                "linux",
                Some(format!("{head}cpu, requested: 1500, allocatable: 1000")),
            ),
            (
                "1",
                "2Ki",
                "linux",
                Some(format!(
                    "{head}cpu, requested: 1500, allocatable: 1000; memory, requested: 2048, allocatable: 1024"
                )),
            ),
            (
                "1m",
                "1",
                "windows",
                Some("pod resize is only supported on linux nodes, node \"n\" is \"windows\"".to_owned()),
            ),
        ] {
            assert_eq!(problem(&spec(cpu, memory), "n", &node(os)), expected, "{cpu} {memory}");
        }
    }
}
