//! Requests that are about an object without writing it: a Binding, an Eviction, a connection to a pod. Policies and
//! webhooks are asked about what is sent (upstream: the `Create` and `Connect` handlers of `endpoints/handlers`).

use super::policy::attributes::Attributes;
use super::{Operation, Subject, ask_validators, mutate};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::strategy::Object;
use crate::registry::{Kind, Subresource};
use serde_json::json;

/// About an object that is sent to a subresource, which mutating webhooks may change.
pub async fn created(
    ctx: &Context,
    kind: &Kind,
    subresource: &str,
    object: &mut Object,
    dry_run: bool,
) -> Result<(), ApiError> {
    let subject = Subject {
        operation: Operation::Create,
        dry_run,
        ..sent(ctx, kind, subresource)
    };
    mutate(ctx, &subject, object, |_| Ok(())).await?;
    ask_validators(&Attributes::new(ctx, &subject, object)).await
}

/// About a connection; its options are the query's.
pub async fn connected(ctx: &Context, kind: &Kind, subresource: &Subresource) -> Result<(), ApiError> {
    let options = options(ctx, subresource);
    let subject = sent(ctx, kind, subresource.name);
    let mut changed = options.clone();
    if mutate(ctx, &subject, &mut changed, |_| Ok(())).await? {
        ctx.warnings
            .add("options of a connection that admission changes are not acted on by this server");
    }
    ask_validators(&Attributes::new(ctx, &subject, &options)).await
}

fn sent<'a>(ctx: &Context, kind: &'a Kind, subresource: &'a str) -> Subject<'a> {
    Subject {
        kind,
        subresource,
        name: ctx.info.name.clone(),
        operation: Operation::Connect,
        old: None,
        dry_run: false,
        deletion: None,
    }
}

/// `PodExecOptions` and the like, as far as the query says.
fn options(ctx: &Context, subresource: &Subresource) -> Object {
    let mut options = Object::new();
    options.insert("kind".to_owned(), json!(subresource.kind));
    options.insert("apiVersion".to_owned(), json!(subresource.version));
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if ctx.query.flag(flag) {
            options.insert(flag.to_owned(), json!(true));
        }
    }
    if let Some(container) = ctx.query.get("container").filter(|name| !name.is_empty()) {
        options.insert("container".to_owned(), json!(container));
    }
    let command: Vec<&str> = ctx.query.all("command").collect();
    if !command.is_empty() {
        options.insert("command".to_owned(), json!(command));
    }
    let ports: Vec<i64> = ctx.query.all("ports").filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options.insert("ports".to_owned(), json!(ports));
    }
    if subresource.name == "proxy" {
        options.insert("path".to_owned(), json!(format!("/{}", ctx.info.subpath.join("/"))));
    }
    options
}
