//! Which objects a list, watch or deletecollection speaks of (upstream: `storage.SelectionPredicate`).

use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use crate::registry::selector::{FieldSelector, LabelSelector};
use crate::storage::Entry;

#[derive(Clone, Debug)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// The one object of the old `/watch/…/name` form.
    name: Option<String>,
}

impl Selection {
    pub fn new(ctx: &Context, kind: &Kind, options: &ListOptions) -> Result<Self, ApiError> {
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
        Ok(Self { labels, fields, name })
    }

    /// Everything is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty() && self.name.is_none()
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        self.name.as_deref().is_none_or(|name| *entry.key.name == *name)
            && self.labels.matches(&entry.index)
            && self.fields.matches(&entry.index, &entry.key.namespace, &entry.key.name)
    }
}
