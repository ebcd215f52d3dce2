//! A strategy put together from parts, for kinds whose rules need no code of their own.

use crate::registry::columns::{default_cells, default_columns};
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::text;
use crate::registry::strategy::{Column, Dependents, Object, Rejection, Strategy, Target, default_prepare_for_update};
use serde_json::Value;

/// The columns of a kind and how they are filled; `now` is unix seconds.
#[derive(Clone, Copy)]
pub struct Printer {
    pub columns: fn() -> Vec<Column>,
    pub cells: fn(&Object, i64) -> Vec<Value>,
}

/// Rules as data and functions; each part defaults to what most kinds do.
pub struct Stored {
    printer: Printer,
    name: fn(&str, bool) -> Vec<String>,
    default: fn(&mut Object),
    validate: fn(&Object) -> Vec<FieldError>,
    validate_create: fn(&Object) -> Vec<FieldError>,
    validate_update: fn(&Object, &Object) -> Vec<FieldError>,
    validate_status: fn(&Object, &Object) -> Vec<FieldError>,
    validate_declared: fn(&Object, Option<&Object>) -> Vec<FieldError>,
    /// What a write answers with, because nobody acts on the kind yet.
    unattended: Option<&'static str>,
    warnings: fn(&Object) -> Vec<String>,
    initial_status: Option<fn() -> Value>,
    stamp_status: fn(&mut Object, &Object),
    drop: fn(&mut Object, Option<&Object>),
    has_generation: bool,
    conditional_update: bool,
    create_on_update: bool,
    returns_deleted: bool,
    dependents: Dependents,
    undeletable: fn(&Object) -> Option<String>,
    fields: fn(&Object) -> Vec<(&'static str, String)>,
    selectable: &'static [&'static str],
    unsupported_field: Option<fn(&str) -> String>,
}

impl Default for Stored {
    fn default() -> Self {
        Self::new(Printer {
            columns: default_columns,
            cells: default_cells,
        })
    }
}

impl Stored {
    pub fn new(printer: Printer) -> Self {
        Self {
            printer,
            name: dns1123_subdomain,
            default: |_| {},
            validate: |_| Vec::new(),
            validate_create: |_| Vec::new(),
            validate_update: |_, _| Vec::new(),
            validate_status: |_, _| Vec::new(),
            validate_declared: |_, _| Vec::new(),
            unattended: None,
            warnings: |_| Vec::new(),
            initial_status: None,
            stamp_status: |_, _| {},
            drop: |_, _| {},
            has_generation: false,
            conditional_update: false,
            create_on_update: false,
            returns_deleted: false,
            dependents: Dependents::Deleted,
            undeletable: |_| None,
            fields: |_| Vec::new(),
            selectable: &[],
            unsupported_field: None,
        }
    }

    /// Which names are valid.
    pub fn named(mut self, rule: fn(&str, bool) -> Vec<String>) -> Self {
        self.name = rule;
        self
    }

    pub fn defaults(mut self, defaults: fn(&mut Object)) -> Self {
        self.default = defaults;
        self
    }

    /// Rules for every write.
    pub fn rules(mut self, validate: fn(&Object) -> Vec<FieldError>) -> Self {
        self.validate = validate;
        self
    }

    /// Rules for new objects, where stored ones may break them.
    pub fn create_rules(mut self, validate: fn(&Object) -> Vec<FieldError>) -> Self {
        self.validate_create = validate;
        self
    }

    /// Rules for a write of the status, which gets the new object and the old.
    pub fn status_rules(mut self, validate: fn(&Object, &Object) -> Vec<FieldError>) -> Self {
        self.validate_status = validate;
        self
    }

    /// Rules that upstream's types carry themselves (declarative validation, its beta tags): their errors come last, and
    /// what an update leaves as it is is not looked at. Gets the new object and, on update, the old.
    pub fn declared(mut self, validate: fn(&Object, Option<&Object>) -> Vec<FieldError>) -> Self {
        self.validate_declared = validate;
        self
    }

    /// What becomes of the dependents of a deleted object by default.
    pub fn dependents(mut self, dependents: Dependents) -> Self {
        self.dependents = dependents;
        self
    }

    /// Why the object may not be deleted, if it may not.
    pub fn undeletable(mut self, why: fn(&Object) -> Option<String>) -> Self {
        self.undeletable = why;
        self
    }

    /// Rules for what an update of the object, not of its status, may change.
    pub fn update_rules(mut self, validate: fn(&Object, &Object) -> Vec<FieldError>) -> Self {
        self.validate_update = validate;
        self
    }

    /// The kind is stored and served, and nothing else happens; writes say so.
    pub fn unattended(mut self, warning: &'static str) -> Self {
        self.unattended = Some(warning);
        self
    }

    /// Warnings about single fields.
    pub fn field_warnings(mut self, warnings: fn(&Object) -> Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The status that new objects get.
    pub fn status(mut self, status: fn() -> Value) -> Self {
        self.initial_status = Some(status);
        self
    }

    /// What a write of the status adds, by the object before.
    pub fn stamps_status(mut self, stamp: fn(&mut Object, &Object)) -> Self {
        self.stamp_status = stamp;
        self
    }

    /// Fields that belong to what is off by default, which new objects and those that had none of it go without.
    pub fn drops(mut self, drop: fn(&mut Object, Option<&Object>)) -> Self {
        self.drop = drop;
        self
    }

    pub fn generation(mut self) -> Self {
        self.has_generation = true;
        self
    }

    /// PUT needs a resourceVersion.
    pub fn conditional(mut self) -> Self {
        self.conditional_update = true;
        self
    }

    /// PUT creates what is absent.
    pub fn upsert(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    pub fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    /// Fields to select by.
    pub fn fields(
        mut self,
        names: &'static [&'static str],
        fields: fn(&Object) -> Vec<(&'static str, String)>,
    ) -> Self {
        self.selectable = names;
        self.fields = fields;
        self
    }

    /// What a selector of another field answers with.
    pub fn unsupported(mut self, text: fn(&str) -> String) -> Self {
        self.unsupported_field = Some(text);
        self
    }
}

impl Strategy for Stored {
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        (self.name)(name, is_prefix)
    }

    fn has_generation(&self) -> bool {
        self.has_generation
    }

    fn default(&self, object: &mut Object) {
        (self.default)(object);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        (self.drop)(object, None);
        match self.initial_status {
            Some(status) => {
                object.insert("status".into(), status());
            }
            None => {
                object.remove("status");
            }
        }
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
        (self.drop)(object, Some(old));
        if target == Target::Status {
            (self.stamp_status)(object, old);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        (self.validate)(object)
    }

    fn check_delete(&self, object: &Object) -> Result<(), Rejection> {
        (self.undeletable)(object).map_or(Ok(()), |why| Err(Rejection::Forbidden(why)))
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        let mut errors = (self.validate_create)(object);
        errors.extend((self.validate_declared)(object, None));
        errors
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        match target {
            Target::Main => {
                let mut errors = (self.validate_update)(object, old);
                errors.extend((self.validate_declared)(object, Some(old)));
                errors
            }
            Target::Status => (self.validate_status)(object, old),
            Target::Subresource(_) => Vec::new(),
        }
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        // A deletion under way or a controller's bookkeeping needs no reminder.
        let changed = old.is_none_or(|old| old.get("spec") != object.get("spec"));
        let deleting = !text(object, &["metadata", "deletionTimestamp"]).is_empty();
        let mut warnings: Vec<String> = self
            .unattended
            .filter(|_| changed && !deleting)
            .map(str::to_owned)
            .into_iter()
            .collect();
        let known = old.map(self.warnings).unwrap_or_default();
        warnings.extend(
            (self.warnings)(object)
                .into_iter()
                .filter(|warning| !known.contains(warning)),
        );
        warnings
    }

    fn allow_unconditional_update(&self) -> bool {
        !self.conditional_update
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn dependents(&self) -> Dependents {
        self.dependents
    }

    fn returns_deleted_object(&self) -> bool {
        self.returns_deleted
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        (self.fields)(object)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        self.selectable
    }

    fn unsupported_field(&self, field: &str) -> String {
        match self.unsupported_field {
            Some(text) => text(field),
            None => {
                format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
            }
        }
    }

    fn columns(&self) -> Vec<Column> {
        (self.printer.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (self.printer.cells)(object, now)
    }
}
