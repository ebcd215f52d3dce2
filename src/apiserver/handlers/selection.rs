//! Which objects a list, watch or deletecollection speaks of (upstream: `storage.SelectionPredicate`).

use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use crate::registry::selector::{FieldSelector, LabelSelector};
use crate::storage::{Entry, Index};
use std::sync::Arc;

#[derive(Clone)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The one object of the old `/watch/…/name` form.
    name: Option<String>,
    /// Set where a selected field may be missing in the index: what was stored before the definition named it.
    custom: Option<Arc<Kind>>,
}

impl Selection {
    pub fn new(ctx: &Context, kind: &Arc<Kind>, options: &ListOptions) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(&options.label_selector).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(&options.field_selector)
            .and_then(|fields| fields.for_kind(kind))
            .map_err(ApiError::bad_request)?;
        let name: Option<String> = (ctx.info.watch_prefix && !ctx.info.name.is_empty()).then(|| ctx.info.name.clone());
        if let Some(name) = &name
            && !fields.is_empty()
            && fields.exact("metadata.name") != Some(name.as_str())
        {
            return Err(ApiError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            ));
        }
        let custom = (kind.custom.is_some() && !fields.is_empty()).then(|| kind.clone());
        Ok(Self {
            labels,
            fields,
            name,
            custom,
        })
    }

    /// Everything is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    /// The one value that a field must have.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.fields.exact(field)
    }

    /// It may have to look at objects, not at what is indexed of them only.
    pub fn needs_objects(&self) -> bool {
        self.custom.is_some()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        self.name.as_deref().is_none_or(|name| *entry.key.name == *name)
            && self.labels.matches(&entry.index)
            && self.matches_fields(entry)
    }

    fn matches_fields(&self, entry: &Entry) -> bool {
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        let known = |kind: &Kind| {
            let mut fields = kind.strategy.selectable_fields().iter();
            fields.all(|field| entry.index.fields.iter().any(|(indexed, _)| indexed == field))
        };
        match &self.custom {
            Some(kind) if !known(kind) => {
                let index = stored::object(kind, entry).map(|object| Index {
                    fields: kind.strategy.fields(&object),
                    ..Index::default()
                });
                index.is_ok_and(|index| self.fields.matches(&index, namespace, name))
            }
            _ => self.fields.matches(&entry.index, namespace, name),
        }
    }
}
