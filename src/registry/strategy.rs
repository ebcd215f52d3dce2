//! What a kind may add to the generic engine (upstream: the `strategy.go` files of `pkg/registry`).
//!
//! Objects are JSON maps that were decoded against the kind's schema: types are right, unknown fields gone.
//! Every method has a default that does what most kinds do.

use super::field::FieldError;
use super::projection::{Parts, WITHOUT_MANAGED_FIELDS};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub type Object = Map<String, Value>;

/// A column of the server-side table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `number`, `date`.
    pub kind: &'static str,
    /// `name` on the name column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 always, above only with `-o wide`.
    pub priority: i32,
}

/// Who makes a request, as far as objects tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: &'a BTreeMap<String, Vec<String>>,
}

/// Which part of the object a write may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Main,
    Status,
    /// Another named subresource that writes the object (`ephemeralcontainers`, `resize`, `finalize`, `approval`).
    Subresource(&'static str),
}

impl Target {
    /// The write goes through the rules of the object itself: `scale` is a way to write the spec.
    pub fn is_main(self) -> bool {
        matches!(self, Self::Main | Self::Subresource("scale"))
    }

    /// The segment of the URL; empty for the object itself.
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Subresource(name) => name,
        }
    }
}

/// How a deletion goes on after finalizers were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Remove at once.
    Immediate,
    /// Mark with deletionTimestamp and this grace; somebody (the kubelet) removes it later.
    Graceful { grace_seconds: i64 },
}

/// What becomes of the objects that name a deleted one as their owner, unless the deletion says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// They are deleted in the background.
    Deleted,
    /// They lose that owner and stay.
    Orphaned,
    /// Nobody asks: such objects have none, or their end is somebody else's work.
    Ignored,
}

/// A `Status` failure in plain data, for rules that are no field errors (for example: 403 for `default` namespace).
#[derive(Clone, Debug)]
pub enum Rejection {
    Invalid(Vec<FieldError>),
    Forbidden(String),
    BadRequest(String),
    Conflict(String),
}

pub trait Strategy: Send + Sync {
    // Names and metadata.
    /// Whether the name is valid for this kind; upstream's text for each problem. Default: DNS-1123 subdomain.
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        super::validation::dns1123_subdomain(name, is_prefix)
    }
    /// Whether a write to this raises the generation if it changes what is wanted.
    fn counts_generation(&self, target: Target) -> bool {
        self.has_generation() && target.is_main()
    }

    /// metadata.generation is kept: 1 on create, plus one when the spec changes.
    fn has_generation(&self) -> bool {
        false
    }

    /// A change of the status raises the generation, too: custom resources without the subresource.
    fn status_is_intent(&self) -> bool {
        false
    }

    // Writing, in the order of calls.
    /// Fills defaults (upstream: `SetDefaults_*`). Called on every decoded body and on patched objects.
    fn default(&self, _object: &mut Object) {}
    /// Clears what a creator may not set and sets what the server decides (Pod: phase Pending, qosClass, …).
    fn prepare_for_create(&self, object: &mut Object) {
        object.remove("status");
    }
    /// Notes in a new object who asks for it (CertificateSigningRequest). After `prepare_for_create`.
    fn stamp_requester(&self, _object: &mut Object, _requester: &Requester<'_>) {}
    /// Puts back from `old` what this target may not touch. Metadata is handled by the engine.
    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
    }
    /// Rules for every write of the object; `validate_create` and `validate_update` come on top.
    fn validate(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }
    /// Rules for new objects only, after `validate`.
    fn validate_create(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }
    /// Called with the object as it would be stored, after `validate` for Main.
    fn validate_update(&self, _object: &Object, _old: &Object, _target: Target) -> Vec<FieldError> {
        Vec::new()
    }
    /// `Warning` header texts for what was written (deprecated fields; fields accepted and not acted on).
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }
    /// PUT without metadata.resourceVersion is allowed.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    /// PUT creates what is absent.
    fn allow_create_on_update(&self) -> bool {
        false
    }
    /// Whether the object may be deleted at all (Namespace: not `default`).
    fn check_delete(&self, _object: &Object) -> Result<(), Rejection> {
        Ok(())
    }
    /// Grace rules; `requested` is gracePeriodSeconds of the request. Called only if no finalizer holds the object.
    fn deletion(&self, _object: &Object, _requested: Option<i64>) -> Deletion {
        Deletion::Immediate
    }
    /// Deletions have a grace, which later ones may only shorten.
    fn deletes_gracefully(&self) -> bool {
        false
    }
    /// What becomes of dependents by default.
    fn dependents(&self) -> Dependents {
        Dependents::Deleted
    }
    /// `Warning` text for a deletion that does not say what is to become of dependents.
    fn delete_warning(&self) -> Option<&'static str> {
        None
    }
    /// Something of its own, besides metadata.finalizers, keeps a deleted object in the store
    /// (Namespace: spec.finalizers).
    fn is_held(&self, _object: &Object) -> bool {
        false
    }
    /// Further changes when the object is first marked for deletion (Namespace: phase Terminating).
    fn mark_deleted(&self, _object: &mut Object) {}
    /// DELETE answers with the object; otherwise with a Status.
    fn returns_deleted_object(&self) -> bool {
        false
    }

    // Reading.
    /// Selectable fields besides metadata.name and metadata.namespace, in a fixed order, always all of them.
    /// The object is in its storage version.
    fn fields(&self, _object: &Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The names that selectors may use, aliases included, which `field_alias` maps to those of `fields`.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }
    fn field_alias<'a>(&self, field: &'a str) -> &'a str {
        field
    }
    /// `metadata.namespace` can be selected. Upstream allows it for most cluster-scoped kinds, too.
    fn selects_namespace(&self) -> bool {
        true
    }
    /// Upstream's text for an unsupported field selector.
    fn unsupported_field(&self, field: &str) -> String {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    }
    fn columns(&self) -> Vec<Column> {
        super::columns::default_columns()
    }
    /// One cell per column, JSON scalars. `now` is unix seconds, the object is in the row's own version.
    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        super::columns::default_cells(object, now)
    }
    /// Which parts of an object the cells and the row's conditions are made of.
    fn cells_read(&self) -> Parts {
        WITHOUT_MANAGED_FIELDS
    }
    /// Conditions of the table row (finished pods).
    fn row_conditions(&self, _object: &Object) -> Option<Value> {
        None
    }

    // Versions.
    /// From the row's version to the stored one, and back. Default: apiVersion is rewritten by the engine, nothing else.
    fn convert_to_storage(&self, _object: &mut Object) {}
    fn convert_from_storage(&self, _object: &mut Object) {}
}

/// Main keeps the stored status, Status keeps all but the status.
pub fn default_prepare_for_update(object: &mut Object, old: &Object, target: Target) {
    match target {
        Target::Main => match old.get("status") {
            Some(status) => {
                object.insert("status".into(), status.clone());
            }
            None => {
                object.remove("status");
            }
        },
        Target::Status => {
            let status = object.remove("status");
            let metadata = object.remove("metadata");
            *object = old.clone();
            if let Some(metadata) = metadata {
                object.insert("metadata".into(), metadata);
            }
            match status {
                Some(status) => object.insert("status".into(), status),
                None => object.remove("status"),
            };
        }
        Target::Subresource(_) => {}
    }
}

/// The strategy of kinds without rules of their own.
pub struct Plain;
impl Strategy for Plain {}
