//! `pods/binding`: puts a pod on a node (upstream: `pkg/registry/core/pod/storage`, BindingREST).

use crate::apiserver::admission;
use crate::apiserver::admission::pod_topology_labels;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, created_status};
use crate::apiserver::handlers::engine::{self, Update, metadata};
use crate::apiserver::options::WriteOptions;
use crate::registry::Kind;
use crate::registry::field::FieldError;
use crate::registry::strategy::{Object, Target};
use poem::http::StatusCode;
use poem::{Body, Response};
use serde_json::{Value, json};

/// POST below the pod.
pub async fn handle(ctx: &Context, pods: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let binding = binding_kind(ctx)?;
    let mut object = body::read_object(ctx, &Expected::of(&binding), request_body, options.field_validation).await?;
    // Unlike an update's, its name may be left to the URL.
    if metadata::text(&object, "name").is_empty() {
        metadata::of_mut(&mut object).insert("name".into(), Value::String(ctx.info.name.clone()));
    }
    metadata::check_name(&object, &ctx.info.name)?;
    bind(ctx, pods, &binding, object, options.dry_run).await
}

/// POST of a Binding to its own collection: the older form of the same.
pub async fn create(ctx: &Context, object: Object) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let pods = ctx
        .server
        .registry
        .lookup("", "v1", "pods")
        .ok_or_else(ApiError::unknown_resource)?;
    bind(ctx, &pods, &*binding_kind(ctx)?, object, options.dry_run).await
}

fn binding_kind(ctx: &Context) -> Result<std::sync::Arc<Kind>, ApiError> {
    ctx.server
        .registry
        .lookup_kind("", "v1", "Binding")
        .ok_or_else(ApiError::unknown_resource)
}

async fn bind(
    ctx: &Context,
    pods: &Kind,
    binding: &Kind,
    mut object: Object,
    dry_run: bool,
) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Plain)?;
    let name = metadata::text(&object, "name").to_owned();
    metadata::check_namespace(pods, metadata::text(&object, "namespace"), ctx.key_namespace(pods))?;
    let target =
        |object: &Object| node_of(object).map_err(|errors| ApiError::invalid("", binding.kind, &name, &errors));
    pod_topology_labels::put(ctx, &target(&object)?, &mut object)?;
    admission::subresource::created(ctx, pods, "binding", &mut object, dry_run).await?;
    let node = target(&object)?;
    let request = Update {
        kind: pods,
        name: &name,
        target: Target::Subresource("binding"),
        dry_run,
    };
    engine::update(ctx, &request, &mut |pod| assign(pods, pod, &object, &node))
        .await?
        .ok_or_else(|| ApiError::not_found(pods, &name))?;
    respond_value(
        &ctx.query,
        &ctx.headers,
        &negotiated,
        StatusCode::CREATED,
        &created_status(),
    )
    .await
}

/// The node that the binding names.
fn node_of(binding: &Object) -> Result<String, Vec<FieldError>> {
    let target = binding.get("target").unwrap_or(&Value::Null);
    let text = |field: &str| target.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut errors = Vec::new();
    if !matches!(text("kind"), "" | "Node") {
        errors.push(FieldError::not_supported(
            "target.kind",
            text("kind"),
            &["Node", "<empty>"],
        ));
    }
    if text("name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        Ok(text("name").to_owned())
    } else {
        Err(errors)
    }
}

/// The pod on its node.
fn assign(pods: &Kind, pod: &Object, binding: &Object, node: &str) -> Result<Object, ApiError> {
    let name = metadata::text(pod, "name");
    let conflict = |why: &str| Err(ApiError::conflict(pods, name, why));
    let (uid, stored) = (metadata::text(binding, "uid"), metadata::text(pod, "uid"));
    if !uid.is_empty() && uid != stored {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return conflict(&why);
    }
    if metadata::of(pod).contains_key("deletionTimestamp") {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let assigned = spec.get("nodeName").and_then(Value::as_str).unwrap_or_default();
    if !assigned.is_empty() {
        return conflict(&format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if spec
        .get("schedulingGates")
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty())
    {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    pod.entry("spec").or_insert_with(|| json!({}))["nodeName"] = json!(node);
    for field in ["annotations", "labels"] {
        copy_texts(&mut pod, binding, field);
    }
    set_scheduled(&mut pod);
    Ok(pod)
}

/// Copies what the scheduler hands on to the pod.
fn copy_texts(pod: &mut Object, binding: &Object, field: &str) {
    let Some(Value::Object(texts)) = metadata::of(binding).get(field) else {
        return;
    };
    let target = metadata::of_mut(pod).entry(field).or_insert_with(|| json!({}));
    if let Value::Object(target) = target {
        target.extend(texts.clone());
    }
}

fn set_scheduled(pod: &mut Object) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": metadata::timestamp(jiff::Timestamp::now()),
    });
    let status = pod.entry("status").or_insert_with(|| json!({}));
    if let Value::Object(status) = status {
        // It has a node now.
        status.remove("nominatedNodeName");
        let conditions = status.entry("conditions").or_insert_with(|| json!([]));
        if let Value::Array(conditions) = conditions {
            conditions.retain(|condition| condition["type"] != "PodScheduled");
            conditions.push(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    fn run(pod: Value, binding: Value) -> Result<Object, u16> {
        let pods = Registry::builtin().lookup("", "v1", "pods").unwrap();
        assign(&pods, &object(pod), &object(binding), "n1").map_err(|e| e.code().as_u16())
    }

    #[test]
    fn the_pod_gets_node_condition_and_annotations() {
        let status = json!({"nominatedNodeName": "n0"});
        let pod = json!({"metadata": {"name": "p", "annotations": {"a": "1"}}, "spec": {}, "status": status});
        let bound = run(pod, json!({"metadata": {"name": "p", "annotations": {"b": "2"}}})).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(bound["metadata"]["annotations"], json!({"a": "1", "b": "2"}));
        assert_eq!(bound["status"]["conditions"][0]["status"], "True");
        assert!(bound["status"].get("nominatedNodeName").is_none());
    }

    #[test]
    fn bound_deleted_gated_and_other_pods_are_conflicts() {
        let binding = json!({"metadata": {"uid": "u"}});
        for pod in [
            json!({"metadata": {"uid": "u"}, "spec": {"nodeName": "other"}}),
            json!({"metadata": {"uid": "u", "deletionTimestamp": "x"}, "spec": {}}),
            json!({"metadata": {"uid": "u"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
            json!({"metadata": {"uid": "v"}, "spec": {}}),
        ] {
            assert_eq!(run(pod.clone(), binding.clone()), Err(409), "{pod}");
        }
    }

    #[test]
    fn a_binding_names_a_node() {
        assert_eq!(
            node_of(&object(json!({"target": {"kind": "Node", "name": "n"}}))),
            Ok("n".into())
        );
        assert!(node_of(&object(json!({"target": {"kind": "Pod", "name": "n"}}))).is_err());
        assert!(node_of(&object(json!({}))).is_err());
    }
}
