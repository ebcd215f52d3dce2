//! `pods/eviction`: a deletion that asks first (upstream: `pkg/registry/core/pod/storage/eviction.go`).

use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, created_status};
use crate::apiserver::handlers::engine::{self, metadata};
use crate::apiserver::options::{DeleteOptions, WriteOptions};
use crate::registry::{Kind, schema};
use k8s_openapi::api::policy::v1::Eviction;
use poem::http::StatusCode;
use poem::{Body, Response};

pub async fn handle(ctx: &Context, pods: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Plain)?;
    let expected = Expected {
        group: "policy",
        version: "v1",
        kind: "Eviction",
        definition: schema::type_definition::<Eviction>(),
    };
    let mut eviction = body::read_object(ctx, &expected, request_body, options.field_validation).await?;
    metadata::check_name(&mut eviction, &ctx.info.name)?;
    metadata::check_namespace(pods, metadata::text(&eviction, "namespace"), ctx.key_namespace(pods))?;
    let mut delete = match eviction.remove("deleteOptions") {
        Some(options) => DeleteOptions::from_body(options)?,
        None => DeleteOptions::default(),
    };
    delete.dry_run |= options.dry_run;
    // Nobody computes `disruptionsAllowed` yet, so that no budget can be spent or be short.
    if has_budgets(ctx) {
        ctx.warnings
            .add("PodDisruptionBudgets are stored, but not enforced: no disruption controller is running");
    }
    engine::delete(ctx, pods, &ctx.info.name, &delete).await?;
    respond_value(
        &ctx.query,
        &ctx.headers,
        &negotiated,
        StatusCode::CREATED,
        &created_status(),
    )
    .await
}

fn has_budgets(ctx: &Context) -> bool {
    let budgets = ctx
        .storage()
        .list("poddisruptionbudgets.policy", Some(&ctx.info.namespace), None);
    budgets.is_ok_and(|budgets| !budgets.entries.is_empty())
}
