//! Request bodies: reading within the limit, content types, decoding against a kind's schema
//! (upstream: `limitedReadBody`, `negotiation.NegotiateInputSerializer`, `handlers/create.go`).

use super::{depth, yaml};
use crate::apiserver::codec::protobuf;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::options::FieldValidation;
use crate::registry::Registry;
use crate::registry::custom::CustomKind;
use crate::registry::field::FieldError;
use crate::registry::json::text;
use crate::registry::schema;
use crate::registry::strategy::Object;
use bytes::Bytes;
use poem::Body;
use poem::error::ReadBodyError;
use poem::http::header;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Where upstream's scheme of types is made, which its errors say.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// How much of an unrecognisable body an error shows.
const SUMMARY_BYTES_MAX: usize = 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    Json,
    Yaml,
    Protobuf,
}

const MEDIA_TYPES: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];

/// What a body is expected to be: the kind in the version of the URL.
pub struct Expected<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub definition: Arc<schema::Definition>,
    /// Set for custom resources: what is unknown below their objects is pruned, too.
    pub custom: Option<&'a CustomKind>,
}

impl<'a> Expected<'a> {
    pub fn of(kind: &'a crate::registry::Kind) -> Self {
        let definition = schema::definition(kind);
        Self {
            group: kind.group,
            version: kind.version,
            kind: kind.kind,
            definition,
            custom: kind.custom.as_deref(),
        }
    }

    pub fn group_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The whole body, or 413.
pub async fn read(ctx: &Context, body: Body) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::request_entity_too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}"));
    let announced = ctx
        .header(header::CONTENT_LENGTH)
        .and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    body.into_bytes_limit(BODY_BYTES_MAX)
        .await
        .map_err(|error| match error {
            ReadBodyError::PayloadTooLarge => too_large(),
            other => ApiError::bad_request(format!("the body of the request could not be read: {other}")),
        })
}

/// The format that Content-Type names; JSON without one.
pub fn format(ctx: &Context) -> Result<BodyFormat, ApiError> {
    let content_type = ctx.header(header::CONTENT_TYPE).unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "*/*" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyFormat::Protobuf),
        _ => Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
    }
}

/// Reads and decodes the body as an object of the expected kind. `apiVersion` and `kind` are filled in.
pub async fn read_object(
    ctx: &Context,
    expected: &Expected<'_>,
    body: Body,
    validation: FieldValidation,
) -> Result<Object, ApiError> {
    let format = format(ctx)?;
    if expected.custom.is_some() && format == BodyFormat::Protobuf {
        return Err(ApiError::unsupported_media_type(&MEDIA_TYPES[..2]));
    }
    let bytes = read(ctx, body).await?;
    let (mut object, mut strict) = decode(expected, format, &bytes)?;
    if expected.custom.is_some() {
        check_custom_kind(expected, &object)?;
    }
    check_type(expected.group_version(), expected.kind, &mut object)?;
    if let Some(custom) = expected.custom {
        strict.extend(unknown_fields(custom, &mut object));
    }
    apply_validation(ctx, validation, strict, |text| {
        let Expected { kind, version, .. } = expected;
        ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {text}"
        ))
    })?;
    Ok(object)
}

/// A custom resource's kind is a matter of validation (upstream: `validateTypeMeta` of its strategy), where that of built-in
/// kinds decides how a body is read.
fn check_custom_kind(expected: &Expected<'_>, object: &Object) -> Result<(), ApiError> {
    let kind = text(object, &["kind"]);
    if kind.is_empty() || kind == expected.kind || text(object, &["apiVersion"]) != expected.group_version() {
        return Ok(());
    }
    let error = FieldError::invalid("kind", kind, &format!("must be {}", expected.kind));
    let name = text(object, &["metadata", "name"]);
    Err(ApiError::invalid(expected.group, kind, name, &[error]))
}

/// Prunes an object of a custom resource; what strict decoding says of it.
pub fn unknown_fields(custom: &CustomKind, object: &mut Object) -> impl Iterator<Item = String> + use<> {
    let pruned = custom.schema().structural().prune(object);
    pruned.into_iter().map(|path| format!("unknown field \"{path}\""))
}

/// A body of any shape as a value: options and the like.
pub fn decode_value(format: BodyFormat, bytes: &[u8]) -> Result<Value, String> {
    match format {
        BodyFormat::Json => serde_json::from_slice(bytes).map_err(|e| e.to_string()),
        BodyFormat::Yaml => yaml::decode(bytes),
        BodyFormat::Protobuf => protobuf::decode(bytes).map(|(api_version, kind, mut object)| {
            object.insert("apiVersion".into(), Value::String(api_version));
            object.insert("kind".into(), Value::String(kind));
            Value::Object(object)
        }),
    }
}

/// What becomes of unknown and duplicate fields: an error, warnings, or nothing.
pub fn apply_validation(
    ctx: &Context,
    validation: FieldValidation,
    strict: Vec<String>,
    error: impl FnOnce(String) -> ApiError,
) -> Result<(), ApiError> {
    match validation {
        _ if strict.is_empty() => Ok(()),
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            for text in &strict {
                warn_by_lines(ctx, text);
            }
            Ok(())
        }
        FieldValidation::Strict => Err(error(format!("strict decoding error: {}", strict.join(", ")))),
    }
}

/// A complaint of strict decoding as warnings: one for each line.
pub fn warn_by_lines(ctx: &Context, text: &str) {
    let complaint = text.strip_prefix(yaml::CONVERTING_HEAD).unwrap_or(text);
    let lines = complaint.strip_prefix(yaml::REPEATED_HEAD).unwrap_or(text).lines();
    lines.for_each(|line| ctx.warnings.add(line.trim().to_owned()));
}

fn decode(expected: &Expected<'_>, format: BodyFormat, bytes: &[u8]) -> Result<(Object, Vec<String>), ApiError> {
    let definition = &expected.definition;
    match format {
        BodyFormat::Json => schema::decode(definition, bytes)
            .map(|decoded| (decoded.object, decoded.strict))
            .map_err(|text| match peek(bytes) {
                Some(meta) => undecodable(expected, Some(meta), &text, bytes),
                None => {
                    let text = format!("couldn't get version/kind; json parse error: {text}");
                    undecodable(expected, None, &text, bytes)
                }
            }),
        BodyFormat::Yaml => schema::decode_from(definition, serde_yaml_ng::Deserializer::from_slice(bytes))
            .map(|decoded| (decoded.object, by_lines(decoded.strict, bytes)))
            .map_err(|text| undecodable(expected, serde_yaml_ng::from_slice(bytes).ok(), &text, bytes)),
        BodyFormat::Protobuf => {
            let (api_version, kind, mut object) =
                protobuf::decode(bytes).map_err(|text| undecodable(expected, None, &text, bytes))?;
            object.insert("apiVersion".into(), Value::String(api_version));
            object.insert("kind".into(), Value::String(kind));
            let value = Value::Object(object);
            if depth::exceeds(&value, depth::LEVELS_MAX) {
                return Err(undecodable(expected, None, "the object is nested too deep", bytes));
            }
            match value {
                Value::Object(object) => Ok((object, Vec::new())),
                _ => unreachable!("it was made an object above"),
            }
        }
    }
}

/// Of a YAML document, fields given twice are told by their lines, all in one text and before what is unknown.
fn by_lines(strict: Vec<String>, document: &[u8]) -> Vec<String> {
    let is_repeated = |text: &String| text.starts_with("duplicate field ");
    if !strict.iter().any(is_repeated) {
        return strict;
    }
    let repeated = yaml::repeated_keys(document);
    if repeated.is_empty() {
        return strict;
    }
    let lines = format!("{}{}", yaml::REPEATED_HEAD, repeated.join("\n  "));
    let unknown = strict.into_iter().filter(|text| !is_repeated(text));
    std::iter::once(lines).chain(unknown).collect()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TypeMeta {
    api_version: String,
    kind: String,
}

/// apiVersion and kind of a JSON body that did not decode.
fn peek(bytes: &[u8]) -> Option<TypeMeta> {
    serde_json::from_slice(bytes).ok()
}

/// The 400 for a body that is not an object of the kind: what is wrong with its type comes first.
fn undecodable(expected: &Expected<'_>, meta: Option<TypeMeta>, text: &str, bytes: &[u8]) -> ApiError {
    match meta {
        Some(meta) => {
            if let Err(error) = compare_type(&expected.group_version(), expected.kind, &meta.api_version, &meta.kind) {
                return error;
            }
            let Expected { kind, version, .. } = expected;
            ApiError::bad_request(format!(
                "{kind} in version {version:?} cannot be handled as a {kind}: {text}"
            ))
        }
        None => ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): {text} ({})",
            expected.kind,
            summary(bytes)
        )),
    }
}

/// The beginning of a body for an error: text if it looks like JSON, else hexadecimal.
fn summary(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(SUMMARY_BYTES_MAX)];
    let more = if bytes.len() > head.len() { " ..." } else { "" };
    match head.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!("{}{more}", hex::encode(head)),
    }
}

/// Checks that `apiVersion` and `kind`, where given, are the URL's, and fills them in.
pub fn check_type(group_version: String, kind: &str, object: &mut Object) -> Result<(), ApiError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    compare_type(&group_version, kind, text("apiVersion"), text("kind"))?;
    object.insert("apiVersion".into(), Value::String(group_version));
    object.insert("kind".into(), Value::String(kind.into()));
    Ok(())
}

/// Compares the type that a body names with the one of the URL; what it does not name is right.
fn compare_type(group_version: &str, kind: &str, body_version: &str, body_kind: &str) -> Result<(), ApiError> {
    let named = if body_version.is_empty() {
        group_version
    } else {
        body_version
    };
    let found = if body_kind.is_empty() { kind } else { body_kind };
    if (named, found) == (group_version, kind) {
        return Ok(());
    }
    let (group, version) = named.split_once('/').unwrap_or(("", named));
    let registry = Registry::builtin();
    let url_group = group_version.split_once('/').map_or("", |(group, _)| group);
    let is_builtin = registry.is_builtin_group(url_group);
    let problem = match registry.lookup_kind(group, version, found) {
        _ if !is_builtin && named != group_version => None,
        Some(_) if found == kind => None,
        Some(_) => {
            let internal = internal_package(url_group);
            Some(format!(
                "converting ({version}.{found}) to ({internal}.{kind}): unknown conversion"
            ))
        }
        None => Some(format!(
            "no kind {found:?} is registered for version {named:?} in scheme {SCHEME:?}"
        )),
    };
    Err(ApiError::bad_request(match problem {
        Some(problem) => format!("{found} in version {version:?} cannot be handled as a {kind}: {problem}"),
        None => {
            format!("the API version in the data ({named}) does not match the expected API version ({group_version})")
        }
    }))
}

/// The Go package of a group's internal types, as upstream's errors show it.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    }
}
