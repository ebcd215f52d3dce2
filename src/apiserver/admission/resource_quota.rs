//! ResourceQuota (upstream: `apiserver/pkg/admission/plugin/resourcequota`): what is written is charged to the quotas
//! of its namespace, and refused beyond them.
//!
//! Upstream's plug-in comes last, after the kind's own validation, and so does this. Here the charge and the write are
//! one transaction: the quota is looked at and changed in the writer's turn. So concurrent writes never exceed a
//! quota, a write that fails charges nothing, and whoever counts what is there at the quota's revision counts right.

use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::registry::Kind;
use crate::registry::json::integer;
use crate::registry::strategy::Object;
use crate::storage::{Alongside, Draft, Entry, Key};
use crate::usage::{Change, Charge, DeviceClaim, Evaluator, Measured, charge, objection};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

const QUOTAS: &str = "resourcequotas";
const PODS: &str = "pods";
const DEVICE_CLASSES: &str = "deviceclasses.resource.k8s.io";
const RESOURCE_CLAIMS: &str = "resourceclaims.resource.k8s.io";

/// What one write is charged with, to which quotas.
pub struct Charges {
    change: Option<Arc<Change>>,
    quotas: Vec<Key>,
}

impl Charges {
    /// `old` is None on creation. The object is as it will be stored, in its kind's version.
    pub fn of(
        ctx: &Context,
        kind: &Kind,
        subresource: &str,
        object: &Object,
        old: Option<&Object>,
    ) -> Result<Self, ApiError> {
        let none = Self {
            change: None,
            quotas: Vec::new(),
        };
        if !kind.namespaced() || !is_charged(kind, subresource, object, old) {
            return Ok(none);
        }
        let quotas = ctx
            .storage()
            .list(QUOTAS, Some(ctx.key_namespace(kind)), None)
            .map_err(ApiError::internal)?;
        if quotas.entries.is_empty() {
            return Ok(none);
        }
        let Some(evaluator) = Evaluator::of(kind.group, kind.resource) else {
            return Ok(none);
        };
        let change = Change {
            object: measured(ctx, kind, &evaluator, object)?,
            old: old.map(|old| measured(ctx, kind, &evaluator, old)).transpose()?,
            evaluator,
            is_status: subresource == "status",
            now: jiff::Timestamp::now(),
        };
        // One alone says so in its turn.
        if quotas.entries.len() > 1 {
            for entry in &quotas.entries {
                read(entry)
                    .and_then(|quota| objection(&quota, &change))
                    .map_err(|why| ApiError::forbidden(kind, metadata::text(object, "name"), &why))?;
            }
        }
        Ok(Self {
            change: Some(Arc::new(change)),
            quotas: quotas.entries.iter().map(|entry| entry.key.clone()).collect(),
        })
    }

    /// What the writer is to do beside the write.
    pub fn alongside(&self) -> Vec<Alongside> {
        let Some(change) = &self.change else {
            return Vec::new();
        };
        let charged = |key: &Key| {
            let change = change.clone();
            Alongside {
                key: key.clone(),
                revise: Box::new(move |entry| revise(entry, &change)),
            }
        };
        self.quotas.iter().map(charged).collect()
    }

    /// For a dry run: whether the quotas of now would bear it.
    pub fn check(&self, ctx: &Context, kind: &Kind, name: &str) -> Result<(), ApiError> {
        let Some(change) = &self.change else {
            return Ok(());
        };
        for key in &self.quotas {
            if let Some(entry) = ctx.storage().get(&key.resource, &key.namespace, &key.name) {
                revise(&entry, change).map_err(|why| ApiError::forbidden(kind, name, &why))?;
            }
        }
        Ok(())
    }
}

/// Whether such a write can use more of anything.
fn is_charged(kind: &Kind, subresource: &str, object: &Object, old: Option<&Object>) -> bool {
    match (kind.group, kind.resource, subresource, old) {
        (_, _, "", None)
        | ("", "pods", "resize", Some(_))
        | ("", "services" | "persistentvolumeclaims", "", Some(_))
        | ("resource.k8s.io", "resourceclaims", "", Some(_)) => true,
        // A pod that gets a deadline changes its scope.
        ("", "pods", "", Some(old)) => {
            let ends =
                |pod: &Object| integer(pod, &["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0);
            ends(object) != ends(old)
        }
        ("", "persistentvolumeclaims", "status", Some(old)) => {
            let told = |claim: &Object| claim.get("status").cloned().unwrap_or(Value::Null);
            let (new, old) = (told(object), told(old));
            [
                "allocatedResources",
                "currentVolumeAttributesClassName",
                "modifyVolumeStatus",
            ]
            .iter()
            .any(|field| new.get(field) != old.get(field))
        }
        _ => false,
    }
}

fn measured(
    ctx: &Context,
    kind: &Kind,
    evaluator: &Evaluator,
    object: &Object,
) -> Result<Box<dyn Measured + Send + Sync>, ApiError> {
    Ok(match (kind.group, kind.resource) {
        ("", "pods") => Box::new(typed::<Pod>(object)?),
        ("", "services") => Box::new(typed::<Service>(object)?),
        ("", "persistentvolumeclaims") => Box::new(typed::<PersistentVolumeClaim>(object)?),
        ("resource.k8s.io", "resourceclaims") => Box::new(device_claim(ctx, typed(object)?)),
        _ => Box::new(evaluator.one()),
    })
}

fn device_claim(ctx: &Context, claim: ResourceClaim) -> DeviceClaim {
    let (storage, namespace) = (ctx.storage(), ctx.info.namespace.as_str());
    let all = |resource: &str, namespace: Option<&str>| {
        let listed = storage.list(resource, namespace, None);
        listed.map(|snapshot| snapshot.entries).unwrap_or_default()
    };
    let classes = all(DEVICE_CLASSES, None).into_iter().filter_map(|entry| {
        let class: DeviceClass = stored(&entry)?;
        Some((
            entry.key.name.to_string(),
            class.spec.and_then(|spec| spec.extended_resource_name),
        ))
    });
    let pod = |name: &str| {
        let entry = storage.get(PODS, namespace, name)?;
        stored(&entry).map(Arc::new)
    };
    let others = || {
        let claims = all(RESOURCE_CLAIMS, Some(namespace)).into_iter();
        claims.filter_map(|entry| stored(&entry).map(Arc::new)).collect()
    };
    DeviceClaim::new(Arc::new(claim), Arc::new(classes.collect()), pod, others)
}

/// None if it cannot be read: then it counts for nothing.
fn stored<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.bytes)
        .ok()
        .and_then(|object: Object| typed(&object).ok())
}

fn typed<T: DeserializeOwned>(object: &Object) -> Result<T, ApiError> {
    // Other versions of a kind have the same fields here; the type checks the version that it has.
    let mut object = object.clone();
    object.remove("apiVersion");
    object.remove("kind");
    serde_json::from_value(Value::Object(object)).map_err(ApiError::internal)
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, String> {
    let unreadable = |error: serde_json::Error| format!("quota {} cannot be read: {error}", entry.key.name);
    serde_json::from_slice(&entry.bytes).map_err(unreadable)
}

/// The quota with the charge; None if it has none.
fn revise(entry: &Entry, change: &Change) -> Result<Option<Draft>, String> {
    let quota: ResourceQuota = read(entry)?;
    let used = match charge(&quota, change)? {
        Charge::Nothing => return Ok(None),
        Charge::Recount => None,
        Charge::Used(used) => Some(used),
    };
    let mut object: Object = read(entry)?;
    if let (Some(used), Some(status)) = (used, object.get_mut("status")) {
        for (name, amount) in &used.0 {
            status["used"][name] = json!(amount.to_string());
        }
    }
    Ok(Some(Draft::new(&object, entry.index.clone())))
}
