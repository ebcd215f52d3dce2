//! Objects that the server writes of its own accord, as it thinks they should be (upstream: hooks after its start, which are
//! clients).

use super::ApiServer;
use super::codec::stored;
use super::context::Context;
use super::error::ApiError;
use super::handlers::engine::{self, Update, metadata, ownership};
use super::options::{DeleteOptions, Query};
use super::request::RequestInfo;
use crate::registry::Kind;
use crate::registry::json::text;
use crate::registry::strategy::{Object, Target};
use std::sync::Arc;

/// What is to happen to an object.
#[derive(Debug, PartialEq)]
pub enum Plan {
    Nothing,
    Create,
    Update(Object),
    /// What is wrong with it can not be changed.
    Replace,
}

/// Does with the object of this group and its version 1 what `plan` says to what is stored. `manager` owns its fields; empty:
/// the server itself.
pub async fn ensure(
    server: &Arc<ApiServer>,
    group: &str,
    object: &Object,
    manager: &str,
    plan: impl FnOnce(Option<&Object>) -> Plan,
) -> Result<(), ApiError> {
    let kind = kind(server, group, text(object, &["kind"]))?;
    let (namespace, name) = (metadata::text(object, "namespace"), metadata::text(object, "name"));
    let ctx = context(server, &kind, namespace, name, manager);
    let entry = server.storage.get(kind.storage_resource, namespace, name);
    let existing = entry.map(|entry| stored::object(&kind, &entry)).transpose()?;
    match plan(existing.as_ref()) {
        Plan::Nothing => Ok(()),
        Plan::Create => create(&ctx, &kind, object).await,
        Plan::Update(updated) => {
            let update = Update {
                kind: &kind,
                name,
                target: Target::Main,
                dry_run: false,
            };
            let mut change = |old: &Object| {
                let mut new = updated.clone();
                ownership::update(&ctx, &kind, Target::Main, Some(old), &mut new);
                Ok(new)
            };
            engine::update(&ctx, &update, &mut change).await?;
            Ok(())
        }
        Plan::Replace => {
            engine::delete(&ctx, &kind, name, &DeleteOptions::default()).await?;
            create(&ctx, &kind, object).await
        }
    }
}

/// Deletes an object of a group's version 1; it may be gone.
pub async fn delete(server: &Arc<ApiServer>, group: &str, kind_name: &str, name: &str) -> Result<(), ApiError> {
    let kind = kind(server, group, kind_name)?;
    let ctx = context(server, &kind, "", name, "");
    match engine::delete(&ctx, &kind, name, &DeleteOptions::default()).await {
        Err(error) if error.reason() != "NotFound" => Err(error),
        _ => Ok(()),
    }
}

pub fn kind(server: &ApiServer, group: &str, name: &str) -> Result<Arc<Kind>, ApiError> {
    let kind = server.registry.lookup_kind(group, "v1", name);
    kind.ok_or_else(|| ApiError::internal(format!("{name} of the group {group:?} is not served")))
}

/// For a request of the server's own about an object.
pub fn context(server: &Arc<ApiServer>, kind: &Kind, namespace: &str, name: &str, manager: &str) -> Context {
    let info = RequestInfo {
        is_resource_request: true,
        verb: "update".into(),
        api_prefix: if kind.group.is_empty() { "api" } else { "apis" }.into(),
        api_group: kind.group.into(),
        api_version: kind.version.into(),
        namespace: namespace.into(),
        resource: kind.resource.into(),
        name: name.into(),
        ..RequestInfo::default()
    };
    let mut ctx = Context::internal(server, info);
    ctx.query = Query::parse(&format!("fieldManager={manager}&force=true"));
    ctx
}

async fn create(ctx: &Context, kind: &Kind, object: &Object) -> Result<(), ApiError> {
    match engine::create(ctx, kind, object.clone(), false).await {
        Ok(_) => Ok(()),
        // Another server on the same database was first.
        Err(error) if error.reason() == "AlreadyExists" => Ok(()),
        Err(error) => Err(error),
    }
}
