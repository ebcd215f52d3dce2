//! Who may approve, sign and vouch for what (upstream: `plugin/pkg/admission/certificates`). The right is on the
//! signer, a resource that exists only for this: `approve`, `sign` and `attest` on `signers`, by the signer's name or
//! by all of its domain's.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::RequestInfo;
use crate::registry::json::{at, text};
use crate::registry::strategies::certificates::organizations;
use crate::registry::strategy::Object;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Whoever is in it may do everything, for ever: no certificate is to say so.
const PRIVILEGED_GROUP: &str = "system:masters";

fn is_of(subject: &Subject<'_>, resource: &str) -> bool {
    subject.kind.group == GROUP && subject.kind.resource == resource
}

fn signer(object: &Object) -> &str {
    text(object, &["spec", "signerName"])
}

/// Whether the user has the right on the signer, or on all signers of its domain.
fn may(ctx: &Context, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].into_iter().any(|name| {
        let info = RequestInfo {
            is_resource_request: true,
            verb: verb.to_owned(),
            api_group: GROUP.to_owned(),
            api_version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            ..RequestInfo::default()
        };
        ctx.authorize(&info).is_ok()
    })
}

fn demand(ctx: &Context, subject: &Subject<'_>, verb: &str, what: &str, signer: &str) -> Result<(), ApiError> {
    if may(ctx, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {what} signerName {signer:?}");
    Err(ApiError::forbidden(subject.kind, &subject.name, &why))
}

/// CertificateApproval.
pub fn approval(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    if !is_of(subject, "certificatesigningrequests") || subject.subresource != "approval" {
        return Ok(());
    }
    // As it is stored: whoever approves says nothing of the signer.
    let stored = subject.old.unwrap_or(object);
    demand(ctx, subject, "approve", "approve requests with", signer(stored))
}

/// CertificateSigning.
pub fn signing(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let Some(old) = subject.old.filter(|_| subject.subresource == "status") else {
        return Ok(());
    };
    let (requests, field, conditions) = if is_of(subject, "certificatesigningrequests") {
        (true, "certificate", ["status", "conditions"])
    } else if is_of(subject, "podcertificaterequests") {
        (true, "certificateChain", ["status", "conditions"])
    } else {
        (false, "", ["", ""])
    };
    let same = |path: &[&str]| at(object, path) == at(old, path);
    if !requests || (same(&["status", field]) && same(&conditions)) {
        return Ok(());
    }
    demand(ctx, subject, "sign", "sign requests with", signer(old))
}

/// ClusterTrustBundleAttest.
pub fn attest(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    if !is_of(subject, "clustertrustbundles") || subject.operation == Operation::Delete || signer(object).is_empty() {
        return Ok(());
    }
    // What is not changed needs no right: owners and finalizers come and go.
    if subject.old.is_some_and(|old| old.get("spec") == object.get("spec")) {
        return Ok(());
    }
    demand(ctx, subject, "attest", "attest for", signer(object))
}

/// CertificateSubjectRestriction.
pub fn subject_restriction(_ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let asks = is_of(subject, "certificatesigningrequests") && subject.operation == Operation::Create;
    if !asks || signer(object) != CLIENT_SIGNER {
        return Ok(());
    }
    let groups = organizations(text(object, &["spec", "request"]));
    if groups.iter().any(|group| group == PRIVILEGED_GROUP) {
        let why = format!("use of {CLIENT_SIGNER} signer with {PRIVILEGED_GROUP} group is not allowed");
        return Err(ApiError::forbidden(subject.kind, &subject.name, &why));
    }
    Ok(())
}
