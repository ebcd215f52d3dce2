//! One object as the answer: as it is, as a Table, or as metadata only (upstream: `handlers/response.go`).

use crate::apiserver::codec::accept::{Format, Negotiated, Transform};
use crate::apiserver::codec::respond::{finish, respond, respond_value};
use crate::apiserver::codec::table::{self, IncludeObject};
use crate::apiserver::codec::{partial, protobuf, stored};
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::registry::Kind;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};

/// Answers with a stored object: its very bytes, if nothing is asked of them.
pub async fn entry(
    ctx: &Context,
    kind: &Kind,
    negotiated: &Negotiated,
    status: StatusCode,
    entry: &Entry,
) -> Result<Response, ApiError> {
    let converted = conversion::entry(ctx, kind, entry).await?;
    let entry: &Entry = &converted;
    if negotiated.transform == Transform::None && negotiated.format == Format::Protobuf {
        let raw = ctx.server.shared.protobuf(kind, entry)?;
        let body = protobuf::wrap(&kind.group_version(), kind.kind, &raw);
        return finish(&ctx.headers, status, Format::Protobuf, body.into()).await;
    }
    if negotiated.transform == Transform::None && negotiated.format == Format::Json {
        let bytes = stored::bytes(kind, entry)?;
        return respond(&ctx.query, &ctx.headers, negotiated, status, bytes).await;
    }
    let json = match negotiated.transform {
        Transform::None => return object(ctx, kind, negotiated, status, stored::object(kind, entry)?).await,
        Transform::PartialObject(version) | Transform::PartialList(version) => {
            partial::of_entry(kind, entry, version)?.into()
        }
        Transform::Table(version) => {
            let include = IncludeObject::from_query(&ctx.query, negotiated.transform)?;
            let metadata = json!({ "resourceVersion": entry.revision.to_string() });
            table::of_entries(kind, version, std::iter::once(entry), &metadata, include, true)?.into()
        }
    };
    respond(&ctx.query, &ctx.headers, negotiated, status, json).await
}

/// Answers with an object in the kind's version.
pub async fn object(
    ctx: &Context,
    kind: &Kind,
    negotiated: &Negotiated,
    status: StatusCode,
    object: Object,
) -> Result<Response, ApiError> {
    let value = match negotiated.transform {
        Transform::None => Value::Object(object),
        Transform::PartialObject(version) | Transform::PartialList(version) => partial::object(&object, version),
        Transform::Table(version) => {
            let include = IncludeObject::from_query(&ctx.query, negotiated.transform)?;
            let revision = object.get("metadata").and_then(|m| m.get("resourceVersion")).cloned();
            let metadata = json!({ "resourceVersion": revision.unwrap_or_else(|| json!("")) });
            table::render(kind, version, vec![object], metadata, include, true)
        }
    };
    respond_value(&ctx.query, &ctx.headers, negotiated, status, &value).await
}
