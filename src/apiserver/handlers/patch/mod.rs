//! PATCH (upstream: `handlers/patch.go`): the patch is applied to the object in the version of the URL; what comes
//! out is decoded, defaulted and written like any update, and tried again if somebody else wrote in between.

mod go_text;
mod json;
mod merge;
mod strategic;

use super::engine::{self, Update, Written};
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
use go_text::GoText;
use poem::http::{StatusCode, header};
use poem::{Body, Response};
use serde_json::Value;
use std::sync::Arc;

const MEDIA_TYPES: [&str; 3] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A decoded patch.
enum Patch {
    Json(json_patch::Patch),
    Merge(Object),
    Strategic(Object),
}

pub async fn handle(ctx: &Context, kind: &Kind, target: Target, request_body: Body) -> Result<Response, ApiError> {
    let sent = Sent::read(ctx, request_body).await?;
    let negotiated = ctx.negotiate(Shape::Object)?;
    let definition = schema::definition(kind);
    let request = Update {
        kind,
        name: &ctx.info.name,
        target,
        dry_run: sent.dry_run,
    };
    let written = engine::update(ctx, &request, &mut |old| sent.apply(ctx, kind, &definition, old)).await?;
    match written.ok_or_else(|| ctx.not_found(kind))? {
        Written::Stored(entry) => render::entry(ctx, kind, &negotiated, StatusCode::OK, &entry).await,
        Written::DryRun(object) => render::object(ctx, kind, &negotiated, StatusCode::OK, object).await,
    }
}

/// A patch as it was sent.
pub struct Sent {
    patch: Patch,
    validation: FieldValidation,
    pub dry_run: bool,
}

impl Sent {
    pub async fn read(ctx: &Context, request_body: Body) -> Result<Self, ApiError> {
        let content_type = ctx.header(header::CONTENT_TYPE).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        if !MEDIA_TYPES.contains(&content_type.as_str()) {
            // Apply patches are refused here, too: server-side apply is not served yet.
            return Err(ApiError::unsupported_media_type(&MEDIA_TYPES));
        }
        let options = WriteOptions::patch(&ctx.query, false)?;
        let bytes = body::read(ctx, request_body).await?;
        Ok(Self {
            patch: Patch::parse(&content_type, &bytes)?,
            validation: options.field_validation,
            dry_run: options.dry_run,
        })
    }

    /// Makes the new object of an `old` one of `kind`.
    pub fn apply(
        &self,
        ctx: &Context,
        kind: &Kind,
        definition: &Arc<Definition>,
        old: &Object,
    ) -> Result<Object, ApiError> {
        let patched = self.patch.apply(old, definition)?;
        let shown = || self.patch.shown(old, definition);
        decode(ctx, kind, definition, patched, self.validation, shown)
    }
}

impl Patch {
    fn parse(content_type: &str, bytes: &[u8]) -> Result<Self, ApiError> {
        let undecodable = |e| ApiError::bad_request(format!("error decoding patch: {e}"));
        match content_type {
            "application/json-patch+json" => json::parse(bytes).map(Self::Json),
            "application/merge-patch+json" => serde_json::from_slice(bytes).map(Self::Merge).map_err(undecodable),
            _ => serde_json::from_slice(bytes).map(Self::Strategic).map_err(undecodable),
        }
    }

    fn apply(&self, old: &Object, definition: &Arc<Definition>) -> Result<Value, ApiError> {
        match self {
            Self::Json(patch) => json::apply(patch, old),
            Self::Merge(patch) => Ok(Value::Object(merge::apply(old.clone(), patch))),
            Self::Strategic(patch) => strategic::apply(old.clone(), patch, definition).map(Value::Object),
        }
    }

    /// What an error shows: a strategic patch itself, of the others what they made of the object.
    fn shown(&self, old: &Object, definition: &Arc<Definition>) -> String {
        match self {
            Self::Strategic(patch) => GoText(&Value::Object(patch.clone())).to_string(),
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
    body::apply_validation(ctx, validation, decoded.strict, invalid)?;
    body::check_type(kind.group_version(), kind.kind, &mut object)?;
    kind.strategy.default(&mut object);
    Ok(object)
}
