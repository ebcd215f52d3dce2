//! Admission: what may be written beyond what is well-formed (upstream: `apiserver/pkg/admission`,
//! `plugin/pkg/admission`). One plug-in per file, called in this order.

mod certificates;
mod declared_features;
mod default_class;
mod default_toleration_seconds;
mod definition_terminating;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references;
mod persistent_volume_claim_resize;
mod pod_resize;
mod pod_security;
pub mod pod_topology_labels;
pub mod policy;
mod priority;
mod reinvocation;
pub mod resource_quota;
mod runtime_class;
pub mod service_account;
mod storage_in_use;
pub mod subresource;
mod taint_nodes;
pub mod webhook;

use super::authorization::escalation;
use super::context::Context;
use super::error::ApiError;
use super::handlers::engine::metadata;
use super::options::DeleteOptions;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use policy::attributes::{Attributes, is_exempt};
use reinvocation::Reinvocation;
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// To what is named, by a protocol of its own.
    Connect,
}

/// What is about to happen to which object.
pub struct Subject<'a> {
    pub kind: &'a Kind,
    pub subresource: &'a str,
    pub name: String,
    pub operation: Operation,
    /// The object as it is stored; None on create.
    pub old: Option<&'a Object>,
    pub dry_run: bool,
    /// Of a deletion, as it was asked for.
    pub deletion: Option<&'a DeleteOptions>,
}

impl Subject<'_> {
    /// The object is not of the kind, but something that is sent to it: a Binding, an Eviction, options of a connection.
    fn is_sent(&self) -> bool {
        self.operation == Operation::Connect || (self.operation == Operation::Create && !self.subresource.is_empty())
    }

    fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.kind.group.is_empty() && self.kind.resource == "pods"
    }
}

/// The node of that name as it is stored.
fn stored_node(ctx: &Context, name: &str) -> Result<Option<Object>, ApiError> {
    let entry = ctx.storage().get("nodes", "", name);
    let node = entry.map(|entry| serde_json::from_slice(&entry.bytes)).transpose();
    node.map_err(ApiError::internal)
}

type Plugin = fn(&Context, &Subject<'_>, &mut Object) -> Result<(), ApiError>;

type Validator = fn(&Context, &Subject<'_>, &Object) -> Result<(), ApiError>;

/// Every plug-in that may change an object, in upstream's order.
const PLUGINS: [(&str, Plugin); 13] = [
    ("DefinitionTerminating", definition_terminating::admit),
    ("NamespaceLifecycle", namespace_lifecycle::admit),
    ("LimitRanger", limit_ranger::admit),
    ("ServiceAccount", service_account::admit),
    ("NodeRestriction", node_restriction::admit),
    ("TaintNodesByCondition", taint_nodes::admit),
    ("Priority", priority::admit),
    ("DefaultTolerationSeconds", default_toleration_seconds::admit),
    ("DefaultStorageClass", default_class::storage),
    ("StorageObjectInUseProtection", storage_in_use::admit),
    ("RuntimeClass", runtime_class::admit),
    ("DefaultIngressClass", default_class::ingress),
    ("PodTopologyLabels", pod_topology_labels::admit),
];

/// Every plug-in that only looks, in upstream's order: asked once the object has been found well-formed, as what will be
/// stored. Then policies and webhooks; [`resource_quota`] comes last of all, with the write itself.
const VALIDATORS: [(&str, Validator); 13] = [
    ("LimitRanger", limit_ranger::validate),
    ("ServiceAccount", service_account::validate),
    ("PodSecurity", pod_security::validate),
    ("Priority", priority::validate),
    (owner_references::NAME, owner_references::validate),
    ("PersistentVolumeClaimResize", persistent_volume_claim_resize::validate),
    ("RuntimeClass", runtime_class::validate),
    ("CertificateApproval", certificates::approval),
    ("CertificateSigning", certificates::signing),
    ("ClusterTrustBundleAttest", certificates::attest),
    ("CertificateSubjectRestriction", certificates::subject_restriction),
    ("NodeDeclaredFeatureValidator", declared_features::validate),
    ("PodResizeValidator", pod_resize::validate),
];

/// Asks every plug-in, then the mutating policies, then the mutating webhooks; each may change `object` or refuse. On
/// delete the object is empty. If a policy or a webhook changed the object, the plug-ins and those that want it see it
/// once more; then this is true.
pub async fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<bool, ApiError> {
    ask_plugins(ctx, subject, object)?;
    // A Scale is no object of the kind; a Binding and an Eviction were asked about as such, a deleted collection as one.
    let asked_before = matches!(subject.subresource, "scale" | "binding")
        || ctx.info.subresource == "eviction"
        || (subject.operation == Operation::Delete && ctx.info.verb == "deletecollection");
    if asked_before {
        return Ok(false);
    }
    if subject.operation == Operation::Delete {
        mutate_deletion(ctx, subject).await?;
        return Ok(false);
    }
    mutate(ctx, subject, object, |object| ask_plugins(ctx, subject, object)).await
}

/// Asks mutating policies and webhooks, and those that want it once more after `between`. True if anything was changed.
async fn mutate(
    ctx: &Context,
    subject: &Subject<'_>,
    object: &mut Object,
    between: impl Fn(&mut Object) -> Result<(), ApiError>,
) -> Result<bool, ApiError> {
    // Policies change objects of kinds only.
    let policies = match subject.is_sent() {
        true => Arc::default(),
        false => ctx.server.policies.read().mutating(),
    };
    let webhooks = ctx.server.webhooks.read().mutating();
    if (policies.is_empty() && webhooks.is_empty()) || is_exempt(subject.kind) || ctx.server.is_starting() {
        return Ok(false);
    }
    let before = object.get("metadata").and_then(Value::as_object).cloned();
    let (mut by_policies, mut by_webhooks) = (Reinvocation::default(), Reinvocation::default());
    let mut changed = policy::mutating::round(ctx, subject, object, &policies, &mut by_policies)?;
    changed |= webhook::mutating::round(ctx, subject, object, &webhooks, &mut by_webhooks).await?;
    if !changed {
        return Ok(false);
    }
    between(object)?;
    by_policies.begin_second(object);
    policy::mutating::round(ctx, subject, object, &policies, &mut by_policies)?;
    by_webhooks.begin_second(object);
    webhook::mutating::round(ctx, subject, object, &webhooks, &mut by_webhooks).await?;
    metadata::after_policies(object, before.as_ref());
    Ok(true)
}

/// Asks the mutating webhooks, which see no object of a deletion (upstream: the delete handlers). Policies have no say.
async fn mutate_deletion(ctx: &Context, subject: &Subject<'_>) -> Result<(), ApiError> {
    let webhooks = ctx.server.webhooks.read().mutating();
    if webhooks.is_empty() || is_exempt(subject.kind) || ctx.server.is_starting() {
        return Ok(());
    }
    let unseen = Subject {
        name: subject.name.clone(),
        old: None,
        ..*subject
    };
    let mut nothing = Object::new();
    webhook::mutating::round(ctx, &unseen, &mut nothing, &webhooks, &mut Reinvocation::default()).await?;
    Ok(())
}

/// Asks the mutating webhooks about the deletion of a collection; the others are asked about each of its objects.
pub async fn admit_collection(ctx: &Context, kind: &Kind, options: &DeleteOptions) -> Result<(), ApiError> {
    let subject = Subject {
        kind,
        subresource: "",
        name: String::new(),
        operation: Operation::Delete,
        old: None,
        dry_run: options.dry_run,
        deletion: Some(options),
    };
    mutate_deletion(ctx, &subject).await
}

/// Asks those that change nothing about an object that is as it will be stored. On delete the object is empty.
pub async fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    for (name, plugin) in VALIDATORS {
        plugin(ctx, subject, object).inspect_err(|error| told(name, error))?;
    }
    // A pod that is bound was asked about as a Binding, one that is evicted as an Eviction.
    let binds = subject.subresource == "binding" && subject.operation == Operation::Update;
    if binds || ctx.info.subresource == "eviction" {
        return Ok(());
    }
    ask_validators(&Attributes::new(ctx, subject, object)).await
}

async fn ask_validators(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    if attributes.ctx.server.is_starting() {
        return Ok(());
    }
    policy::validating::validate(attributes)?;
    webhook::validating::validate(attributes).await
}

fn told(plugin: &str, error: &ApiError) {
    tracing::debug!(plugin, %error, "an admission plug-in refused a request");
}

fn ask_plugins(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    for (name, plugin) in PLUGINS {
        plugin(ctx, subject, object).inspect_err(|error| told(name, error))?;
    }
    match subject.operation {
        Operation::Create | Operation::Update => escalation::check(ctx, subject.kind, subject.old, object),
        Operation::Delete | Operation::Connect => Ok(()),
    }
}
