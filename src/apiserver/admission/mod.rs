//! Admission: what may be written beyond what is well-formed (upstream: `apiserver/pkg/admission`,
//! `plugin/pkg/admission`). One plug-in per file, called in this order.

mod certificates;
mod default_class;
mod default_toleration_seconds;
mod definition_terminating;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
pub mod owner_references;
mod persistent_volume_claim_resize;
mod pod_security;
pub mod pod_topology_labels;
pub mod policy;
mod priority;
pub mod resource_quota;
mod runtime_class;
pub mod service_account;
mod storage_in_use;
mod taint_nodes;

use super::authorization::escalation;
use super::context::Context;
use super::error::ApiError;
use crate::registry::Kind;
use crate::registry::strategy::Object;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
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
}

impl Subject<'_> {
    fn creates_pod(&self) -> bool {
        self.operation == Operation::Create && self.kind.group.is_empty() && self.kind.resource == "pods"
    }
}

type Plugin = fn(&Context, &Subject<'_>, &mut Object) -> Result<(), ApiError>;

/// Every plug-in, in upstream's order. [`resource_quota`] comes last of all, with the write itself.
const PLUGINS: [(&str, Plugin); 19] = [
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
    (owner_references::NAME, owner_references::admit),
    ("PersistentVolumeClaimResize", persistent_volume_claim_resize::admit),
    ("RuntimeClass", runtime_class::admit),
    ("CertificateApproval", certificates::approval),
    ("CertificateSigning", certificates::signing),
    ("ClusterTrustBundleAttest", certificates::attest),
    ("CertificateSubjectRestriction", certificates::subject_restriction),
    ("DefaultIngressClass", default_class::ingress),
    ("PodTopologyLabels", pod_topology_labels::admit),
];

/// Asks every plug-in, then the mutating policies; each may change `object` or refuse. On delete the object is empty.
/// True if policies changed the object.
pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<bool, ApiError> {
    ask_plugins(ctx, subject, object)?;
    policy::mutating::admit(ctx, subject, object)
}

/// Asks those that change nothing about an object that is as it will be stored. On delete the object is empty.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    pod_security::validate(ctx, subject, object)?;
    policy::validating::validate(ctx, subject, object)
}

fn ask_plugins(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    for (name, plugin) in PLUGINS {
        plugin(ctx, subject, object)
            .inspect_err(|error| tracing::debug!(plugin = name, %error, "an admission plug-in refused a request"))?;
    }
    match subject.operation {
        Operation::Create | Operation::Update => escalation::check(ctx, subject.kind, subject.old, object),
        Operation::Delete => Ok(()),
    }
}
