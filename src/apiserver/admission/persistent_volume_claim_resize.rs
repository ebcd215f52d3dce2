//! PersistentVolumeClaimResize (upstream: `plugin/pkg/admission/storage/persistentvolume/resize`): a claim grows only
//! where its class lets it.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::quantity::Quantity;
use crate::registry::json::{at, boolean, quantity, text};
use crate::registry::strategy::Object;

const CLASSES: &str = "storageclasses.storage.k8s.io";

pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let is_claim = kind.group.is_empty() && kind.resource == "persistentvolumeclaims";
    let Some(old) = subject.old.filter(|_| is_claim && subject.subresource.is_empty()) else {
        return Ok(());
    };
    let grows = matches!((request(object), request(old)), (Some(new), Some(old)) if new > old);
    if subject.operation != Operation::Update || !grows {
        return Ok(());
    }
    let refused = |why: &str| Err(ApiError::forbidden(kind, &subject.name, why));
    if text(old, &["status", "phase"]) != "Bound" {
        return refused("Only bound persistent volume claims can be expanded");
    }
    let class = ctx
        .storage()
        .get(CLASSES, "", text(object, &["spec", "storageClassName"]));
    let allowed = match class {
        Some(entry) => {
            let class: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
            boolean(&class, &["allowVolumeExpansion"])
        }
        None => false,
    };
    if allowed {
        return Ok(());
    }
    refused(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    )
}

fn request(claim: &Object) -> Option<Quantity> {
    at(claim, &["spec", "resources", "requests", "storage"]).and_then(quantity)
}
