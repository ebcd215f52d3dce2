//! Conversion of custom resources by a webhook
//! (upstream: `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`).
//!
//! What is read is converted before it is looked at: the entry that handlers see has the bytes of the version that is
//! asked for. What is written is converted before it becomes a draft. Kinds without such a webhook pass through.

mod review;

use super::ApiServer;
use super::codec::shared::Form;
use super::codec::stored;
use super::context::Context;
use super::error::ApiError;
use super::handlers::engine::metadata;
use crate::registry::custom::{CustomKind, WebhookConversion};
use crate::registry::strategy::Object;
use crate::registry::{Kind, index_of};
use crate::storage::{Entry, Event, Storage};
use bytes::Bytes;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Upstream's patience with one review.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What one review holds at most, a single larger object apart.
const OBJECTS_MAX: usize = 500;
const OBJECT_BYTES_MAX: usize = 2 << 20;

/// A kind whose versions a webhook converts.
struct Converter<'a> {
    storage: &'a Storage,
    kind: &'a Kind,
    custom: &'a CustomKind,
    webhook: &'a WebhookConversion,
    timeout: Duration,
}

impl<'a> Converter<'a> {
    fn of(storage: &'a Storage, kind: &'a Kind, time_left: Option<Duration>) -> Option<Self> {
        let custom = kind.custom.as_deref()?;
        Some(Self {
            storage,
            kind,
            custom,
            webhook: custom.conversion.as_ref()?,
            timeout: time_left.map_or(TIMEOUT, |left| left.min(TIMEOUT)),
        })
    }

    /// Whether an entry must be converted to be read in the kind's version.
    fn concerns(&self, entry: &Entry) -> bool {
        !stored::is_in(&self.kind.group_version(), entry)
    }

    /// The objects, all of them of other versions, in the version `wanted`.
    async fn convert(&self, objects: Vec<Object>, wanted: &str) -> Result<Vec<Object>, ApiError> {
        let sent = review::exchange(self.storage, self.webhook, self.timeout, objects, wanted).await;
        sent.map_err(ApiError::unclassified)
    }

    /// The entries in the kind's version, pruned and defaulted.
    async fn entries(&self, entries: &[&Entry]) -> Result<Vec<Entry>, ApiError> {
        let mut converted = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (batch, left) = rest.split_at(batch(rest));
            rest = left;
            let objects = batch.iter().map(|entry| stored::raw(entry));
            let objects = objects.collect::<Result<Vec<Object>, ApiError>>()?;
            let objects = self.convert(objects, &self.kind.group_version()).await?;
            let made = batch
                .iter()
                .zip(objects)
                .map(|(entry, object)| self.entry(entry, object));
            converted.extend(made);
        }
        Ok(converted)
    }

    fn entry(&self, entry: &Entry, mut object: Object) -> Entry {
        self.custom.convert(self.kind, &mut object);
        let object = metadata::canonical(object);
        Entry {
            key: entry.key.clone(),
            revision: entry.revision,
            index: index_of(self.kind, &object),
            bytes: Value::Object(object).to_string().into(),
        }
    }
}

/// How many of the entries go into one review.
fn batch(entries: &[&Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&&Entry| {
        bytes += entry.bytes.len();
        bytes <= OBJECT_BYTES_MAX
    };
    entries.iter().take(OBJECTS_MAX).take_while(fits).count().max(1)
}

/// Whether objects of the kind may have to be converted to be read.
pub fn by_webhook(kind: &Kind) -> bool {
    kind.custom.as_ref().is_some_and(|custom| custom.conversion.is_some())
}

/// An entry in the kind's version.
pub async fn entry<'a>(ctx: &Context, kind: &Kind, entry: &'a Entry) -> Result<Cow<'a, Entry>, ApiError> {
    match Converter::of(ctx.storage(), kind, ctx.time_left()) {
        Some(converter) if converter.concerns(entry) => {
            let mut converted = converter.entries(&[entry]).await?;
            Ok(converted.pop().map_or(Cow::Borrowed(entry), Cow::Owned))
        }
        _ => Ok(Cow::Borrowed(entry)),
    }
}

/// The object of an entry in the kind's version.
pub async fn object(ctx: &Context, kind: &Kind, stored: &Entry) -> Result<Object, ApiError> {
    let converted = entry(ctx, kind, stored).await?;
    stored::object(kind, &converted)
}

/// Entries in the kind's version.
pub async fn entries(ctx: &Context, kind: &Kind, entries: &mut [Arc<Entry>]) -> Result<(), ApiError> {
    let Some(converter) = Converter::of(ctx.storage(), kind, ctx.time_left()) else {
        return Ok(());
    };
    let others: Vec<&Entry> = entries
        .iter()
        .map(|entry| &**entry)
        .filter(|entry| converter.concerns(entry))
        .collect();
    let converted = converter.entries(&others).await?;
    let places = entries.iter_mut().filter(|entry| converter.concerns(entry));
    for (place, entry) in places.zip(converted) {
        *place = Arc::new(entry);
    }
    Ok(())
}

/// Changes with their objects in the kind's version. Each version of an object is converted once for all watchers.
pub async fn events(server: &ApiServer, kind: &Kind, events: &mut [Arc<Event>]) -> Result<(), ApiError> {
    let Some(converter) = Converter::of(&server.storage, kind, None) else {
        return Ok(());
    };
    // A changed definition converts anew.
    let definition = converter.custom.digest.get(..16).unwrap_or_default();
    let form = Form::Converted(u64::from_str_radix(definition, 16).unwrap_or_default());
    for event in events {
        let mut versions = [Some(event.entry.clone()), event.previous.clone()];
        let mut changed = false;
        for version in versions.iter_mut().flatten().filter(|entry| converter.concerns(entry)) {
            let bytes = match server.shared.get(kind, version.revision, form) {
                Some(bytes) => bytes,
                None => {
                    let made = converter.entries(&[&**version]).await?;
                    let bytes = made.into_iter().next().map_or_else(Bytes::new, |entry| entry.bytes);
                    server.shared.keep(kind, version.revision, form, bytes.clone());
                    bytes
                }
            };
            let object = serde_json::from_slice::<Object>(&bytes).map_err(ApiError::internal)?;
            *version = Arc::new(converter.entry(version, object));
            changed = true;
        }
        if let ([Some(entry), previous], true) = (versions, changed) {
            *event = Arc::new(Event {
                kind: event.kind,
                entry,
                previous,
            });
        }
    }
    Ok(())
}

/// An object of the kind's version as it is stored.
pub async fn to_storage<'a>(ctx: &Context, kind: &Kind, object: &'a Object) -> Result<Cow<'a, Object>, ApiError> {
    if stored::is_native(kind) {
        return Ok(Cow::Borrowed(object));
    }
    let mut stored = object.clone();
    if let Some(converter) = Converter::of(ctx.storage(), kind, ctx.time_left()) {
        let mut converted = converter.convert(vec![stored], kind.storage_group_version).await?;
        stored = metadata::canonical(converted.pop().unwrap_or_default());
    }
    stored::to_storage(kind, &mut stored);
    Ok(Cow::Owned(stored))
}

/// An object of `from` in the version of `to`, which is of the same kind.
pub async fn between(ctx: &Context, from: &Kind, to: &Kind, object: &Object) -> Result<Object, ApiError> {
    let Some(converter) = Converter::of(ctx.storage(), to, ctx.time_left()) else {
        return Ok(stored::converted(from, to, object));
    };
    let mut converted = converter.convert(vec![object.clone()], &to.group_version()).await?;
    let mut object = metadata::canonical(converted.pop().unwrap_or_default());
    converter.custom.convert(to, &mut object);
    Ok(object)
}
