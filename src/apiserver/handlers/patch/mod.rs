//! PATCH (upstream: `handlers/patch.go`): the patch is applied to the object in the version of the URL; what comes
//! out is decoded, defaulted and written like any update, and tried again if somebody else wrote in between.

mod apply;
mod go_text;
pub(in crate::apiserver) mod json;
mod merge;
mod strategic;
mod strict;

use super::engine::{self, Update, Written, ownership};
use super::render;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::{body, depth};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::{FieldValidation, WriteOptions};
use crate::registry::Kind;
use crate::registry::field::FieldError;
use crate::registry::schema::{self, Definition};
use crate::registry::strategy::{Object, Target};
use crate::transport::go_json;
use go_text::GoText;
use json::JsonPatch;
use poem::http::{StatusCode, header};
use poem::{Body, Response};
use serde_json::Value;
use std::sync::Arc;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A decoded patch that is no apply configuration.
struct Patch {
    operation: Operation,
    /// Keys that were given twice and the like.
    strict: Vec<String>,
}

enum Operation {
    Json(JsonPatch),
    Merge(Object),
    Strategic(Object),
}

pub async fn handle(ctx: &Context, kind: &Kind, target: Target, request_body: Body) -> Result<Response, ApiError> {
    let sent = Sent::read(ctx, kind, request_body).await?;
    let negotiated = ctx.negotiate(Shape::Object)?;
    let request = Update {
        kind,
        name: &ctx.info.name,
        target,
        dry_run: sent.dry_run,
    };
    let (written, status) = match &sent.what {
        What::Apply(config) => apply::write(ctx, &request, &sent, config).await?,
        What::Patch(_) => {
            let definition = schema::definition(kind);
            let written = engine::update(ctx, &request, &mut |old| {
                sent.apply(ctx, kind, target, &definition, Some(old))
            })
            .await?;
            (written.ok_or_else(|| ctx.not_found(kind))?, StatusCode::OK)
        }
    };
    match written {
        Written::Stored(entry) => render::entry(ctx, kind, &negotiated, status, &entry).await,
        Written::DryRun(object) => render::object(ctx, kind, &negotiated, status, object).await,
    }
}

/// The patches that a kind takes: custom resources have no strategic merge.
fn media_types(kind: &Kind) -> &'static [&'static str] {
    if kind.is_custom() {
        &[JSON, MERGE, APPLY]
    } else {
        &[JSON, MERGE, STRATEGIC, APPLY]
    }
}

/// A patch as it was sent.
pub struct Sent {
    what: What,
    validation: FieldValidation,
    force: bool,
    pub dry_run: bool,
}

enum What {
    Patch(Patch),
    Apply(apply::Config),
}

impl Sent {
    /// Reads a patch of an object of `kind`.
    pub async fn read(ctx: &Context, kind: &Kind, request_body: Body) -> Result<Self, ApiError> {
        let stated = ctx.header(header::CONTENT_TYPE).unwrap_or_default();
        let stated = stated.split(';').next().unwrap_or_default().trim().to_owned();
        let media_types = media_types(kind);
        if !media_types.contains(&stated.as_str()) {
            return Err(ApiError::unsupported_media_type(media_types));
        }
        let is_apply = stated == APPLY;
        let options = WriteOptions::patch(&ctx.query, is_apply)?;
        let bytes = body::read(ctx, request_body).await?;
        let validation = options.field_validation;
        let what = if is_apply {
            What::Apply(apply::Config::parse(bytes)?)
        } else {
            What::Patch(Patch::parse(&stated, &bytes, validation)?)
        };
        Ok(Self {
            what,
            validation,
            force: options.force.unwrap_or(false),
            dry_run: options.dry_run,
        })
    }

    /// Makes the new object of an `old` one of `kind`, with its owners. Only an apply can do without an old one.
    pub fn apply(
        &self,
        ctx: &Context,
        kind: &Kind,
        target: Target,
        definition: &Arc<Definition>,
        old: Option<&Object>,
    ) -> Result<Object, ApiError> {
        match (&self.what, old) {
            (What::Apply(config), old) => config.apply(ctx, kind, target, old, self),
            (What::Patch(patch), Some(old)) => {
                let patched = patch.apply(old, definition)?;
                let shown = || patch.shown(old, definition);
                let mut new = decode(ctx, kind, definition, patched, patch, self.validation, shown)?;
                ownership::update(ctx, kind, target, Some(old), &mut new);
                Ok(new)
            }
            (What::Patch(_), None) => Err(ctx.not_found(kind)),
        }
    }
}

impl Patch {
    fn parse(content_type: &str, bytes: &[u8], validation: FieldValidation) -> Result<Self, ApiError> {
        if content_type == JSON {
            let (patch, strict) = json::parse(bytes, validation)?;
            return Ok(Self {
                operation: Operation::Json(patch),
                strict,
            });
        }
        let is_merge = content_type == MERGE;
        let undecodable = |text: String| {
            let prefix = if is_merge { "error decoding patch: " } else { "" };
            ApiError::bad_request(format!("{prefix}{text}"))
        };
        let strict::Strict { value, errors } = strict::parse(bytes).map_err(undecodable)?;
        let patch = match value {
            Value::Object(patch) => patch,
            Value::Null if is_merge => return Err(ApiError::bad_request("Invalid JSON Patch")),
            Value::Null => Object::new(),
            other => {
                return Err(undecodable(go_json::mismatch(
                    &other,
                    "value",
                    "map[string]interface {}",
                )));
            }
        };
        Ok(Self {
            operation: if is_merge {
                Operation::Merge(patch)
            } else {
                Operation::Strategic(patch)
            },
            strict: errors,
        })
    }

    fn apply(&self, old: &Object, definition: &Arc<Definition>) -> Result<Value, ApiError> {
        match &self.operation {
            Operation::Json(patch) => json::apply(patch, old),
            Operation::Merge(patch) => Ok(Value::Object(merge::apply(old.clone(), patch))),
            Operation::Strategic(patch) => strategic::apply(old.clone(), patch, definition).map(Value::Object),
        }
    }

    /// What an error shows: a strategic patch itself, of the others what they made of the object.
    fn shown(&self, old: &Object, definition: &Arc<Definition>) -> String {
        match &self.operation {
            Operation::Strategic(patch) => GoText(&Value::Object(patch.clone())).to_string(),
            _ => self.apply(old, definition).unwrap_or_default().to_string(),
        }
    }
}

/// Decodes what a patch made; an object that does not decode is the patch's fault. `shown` is the value of the error.
fn decode(
    ctx: &Context,
    kind: &Kind,
    definition: &Arc<Definition>,
    patched: Value,
    patch: &Patch,
    validation: FieldValidation,
    shown: impl Fn() -> String,
) -> Result<Object, ApiError> {
    let invalid =
        |error: String| ApiError::invalid("", "", "", &[FieldError::invalid("patch", shown().as_str(), &error)]);
    if depth::exceeds(&patched, depth::LEVELS_MAX) {
        return Err(ApiError::bad_request("the patched object is nested too deep"));
    }
    let decoded = schema::prune(definition, patched).map_err(&invalid)?;
    let mut object = decoded.object;
    let mut strict: Vec<String> = patch.strict.iter().cloned().chain(decoded.strict).collect();
    if let Some(custom) = &kind.custom {
        strict.extend(body::unknown_fields(custom, &mut object));
    }
    body::apply_validation(ctx, validation, strict, invalid)?;
    body::check_type(kind.group_version(), kind.kind, &mut object)?;
    kind.strategy.default(&mut object);
    Ok(object)
}
