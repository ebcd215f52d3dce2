//! Server-side apply (upstream: `applyPatcher` in `handlers/patch.go`): the configuration is merged over the object
//! by what its manager owns; an object that is not there is created.

use super::super::engine::{self, Update, Written, metadata, ownership};
use super::super::update::may_create;
use super::Sent;
use crate::apiserver::codec::{body, depth, yaml};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::FieldValidation;
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, managed, schema};
use crate::transport::go_json;
use bytes::Bytes;
use poem::http::StatusCode;
use serde_json::Value;

/// How often an object that came and went meanwhile is tried to be had.
const ATTEMPTS_MAX: usize = 5;

/// An apply configuration, and the document that it was read from.
pub struct Config {
    object: Object,
    document: Bytes,
}

/// Applies the configuration; the status says if the object was created.
pub async fn write(
    ctx: &Context,
    request: &Update<'_>,
    sent: &Sent,
    config: &Config,
) -> Result<(Written, StatusCode), ApiError> {
    let Update { kind, target, .. } = *request;
    let make = |live: Option<&Object>| config.apply(ctx, kind, target, live, sent);
    for attempt in 1.. {
        let written = engine::update(ctx, request, &mut |old| make(Some(old))).await?;
        if let Some(written) = written {
            return Ok((written, StatusCode::OK));
        }
        if target != Target::Main {
            return Err(ctx.not_found(kind));
        }
        let object = make(None)?;
        metadata::check_name(&object, &ctx.info.name)?;
        match metadata::text(&object, "uid") {
            "" => {}
            uid => {
                let why =
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
                return Err(ApiError::conflict(kind, &ctx.info.name, &why));
            }
        }
        may_create(ctx)?;
        match engine::create_applied(ctx, kind, object, request.dry_run).await {
            Err(error) if error.reason() == "AlreadyExists" && attempt < ATTEMPTS_MAX => {}
            Err(error) => return Err(error),
            Ok(written) => return Ok((written, StatusCode::CREATED)),
        }
    }
    unreachable!("the last attempt returns")
}

impl Config {
    /// Reads a document: YAML, of which JSON is a part.
    pub fn parse(document: Bytes) -> Result<Self, ApiError> {
        let undecodable = |text: String| ApiError::bad_request(format!("error decoding patch: {text}"));
        let value = yaml::decode(&document).map_err(|text| undecodable(format!("{}{text}", yaml::CONVERTING_HEAD)))?;
        if depth::exceeds(&value, depth::LEVELS_MAX) {
            return Err(undecodable("the configuration is nested too deep".into()));
        }
        let object = match value {
            Value::Object(object) => object,
            Value::Null => Object::new(),
            other => {
                let text = go_json::mismatch(&other, "value", "map[string]interface {}");
                return Err(undecodable(format!(
                    "error unmarshaling JSON: while decoding JSON: {text}"
                )));
            }
        };
        Ok(Self { object, document })
    }

    /// The configuration merged over `live`, as an object of the kind with defaults and owners.
    pub fn apply(
        &self,
        ctx: &Context,
        kind: &Kind,
        target: Target,
        live: Option<&Object>,
        sent: &Sent,
    ) -> Result<Object, ApiError> {
        self.check_type(kind)?;
        let mut merged = ownership::apply(ctx, kind, target, live, &self.object, sent.force)?;
        self.check_strict(ctx, sent.validation)?;
        let owners = managed::take(&mut merged);
        let decoded = schema::prune(&schema::definition(kind), Value::Object(merged)).map_err(|error| {
            let subject = managed::subject(&self.object);
            ApiError::unclassified(format!(
                "failed to convert new object ({subject}) to proper version: {error}"
            ))
        })?;
        let mut object = decoded.object;
        if let Some(custom) = &kind.custom {
            custom.schema().structural().prune(&mut object);
        }
        kind.strategy.default(&mut object);
        managed::put(&mut object, owners);
        Ok(object)
    }

    /// It must say that it is of the kind and version of the URL.
    fn check_type(&self, kind: &Kind) -> Result<(), ApiError> {
        let text = |key: &str| self.object.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion") == kind.group_version() && text("kind") == kind.kind {
            return Ok(());
        }
        Err(ApiError::bad_request(format!(
            "invalid object type: {}",
            managed::group_version_kind(&self.object)
        )))
    }

    /// Keys given twice, which only matter once the rest is right.
    fn check_strict(&self, ctx: &Context, validation: FieldValidation) -> Result<(), ApiError> {
        if validation == FieldValidation::Ignore {
            return Ok(());
        }
        let repeated = yaml::repeated_keys(&self.document);
        if repeated.is_empty() {
            return Ok(());
        }
        let lines = repeated.join("\n  ");
        let text = format!("{}{}{lines}", yaml::CONVERTING_HEAD, yaml::REPEATED_HEAD);
        if validation == FieldValidation::Strict {
            return Err(ApiError::bad_request(format!("error strict decoding patch: {text}")));
        }
        body::warn_by_lines(ctx, &text);
        Ok(())
    }
}
