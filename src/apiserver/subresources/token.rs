//! `serviceaccounts/token`: a token for the account, bound to what the request names
//! (upstream: `pkg/registry/core/serviceaccount/storage/token.go`).

use crate::apiserver::admission;
use crate::apiserver::admission::node_restriction::admit_token;
use crate::apiserver::authentication::service_accounts::{Claims, ObjectClaims, Reference};
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::options::WriteOptions;
use crate::registry::field::FieldError;
use crate::registry::json::{child_or_new, integer, is_set, items, text};
use crate::registry::strategy::Object;
use crate::registry::{Kind, schema};
use k8s_openapi::api::authentication::v1::TokenRequest;
use poem::http::StatusCode;
use poem::{Body, Response};
use serde_json::{Value, json};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// What projected volumes ask for by default; such a token is warned about after that time, and holds for a year.
const SECONDS_EXTENDED: i64 = 3607;
const EXTENSION_SECONDS: i64 = 24 * 365 * 60 * 60;

pub async fn handle(ctx: &Context, accounts: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Plain)?;
    let expected = Expected {
        group: GROUP,
        version: "v1",
        kind: KIND,
        definition: schema::type_definition::<TokenRequest>(),
        custom: None,
    };
    let mut request = body::read_object(ctx, &expected, request_body, options.field_validation).await?;
    let (namespace, name) = (ctx.info.namespace.as_str(), ctx.info.name.as_str());
    check_metadata(&request, namespace, name)?;
    admission::subresource::created(ctx, accounts, "token", &mut request, options.dry_run).await?;
    let account = ctx.storage().get(accounts.storage_resource, namespace, name);
    let account = account.ok_or_else(|| ctx.not_found(accounts))?;
    let tokens = ctx.server.authenticator.tokens();
    let now = jiff::Timestamp::now();
    let spec = child_or_new(&mut request, "spec");
    if !is_set(spec, "audiences") {
        spec.insert("audiences".into(), json!(tokens.audiences()));
    }
    if spec.get("expirationSeconds").is_none_or(Value::is_null) {
        spec.insert("expirationSeconds".into(), json!(SECONDS_DEFAULT));
    }
    let seconds = integer(spec, &["expirationSeconds"]).unwrap_or(SECONDS_DEFAULT);
    check_expiration(seconds)?;
    let audiences: Vec<String> = items(spec, &["audiences"])
        .iter()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let spec = spec.clone();
    admit_token(ctx, &spec)?;
    let mut objects = ObjectClaims {
        namespace: namespace.to_owned(),
        serviceaccount: Reference {
            name: name.to_owned(),
            uid: account.index.uid.clone(),
        },
        ..ObjectClaims::default()
    };
    bind(ctx, &spec, &mut objects)?;
    let own_audiences = audiences.iter().all(|audience| tokens.audiences().contains(audience));
    let extended = objects.pod.is_some() && seconds == SECONDS_EXTENDED && own_audiences;
    let start = now.as_second();
    if extended {
        objects.warnafter = Some(start + seconds);
    }
    let claims = Claims {
        aud: audiences,
        exp: Some(start + if extended { EXTENSION_SECONDS } else { seconds }),
        iat: Some(start),
        nbf: Some(start),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        objects,
        ..Claims::default()
    };
    let token = tokens.issue(claims).map_err(ApiError::internal)?;
    let expiry = jiff::Timestamp::from_second(start + seconds).map_err(ApiError::internal)?;
    let meta = metadata::of_mut(&mut request);
    meta.insert("name".into(), json!(name));
    meta.insert("namespace".into(), json!(namespace));
    meta.insert("creationTimestamp".into(), json!(metadata::timestamp(now)));
    let status = json!({"token": token, "expirationTimestamp": metadata::timestamp(expiry)});
    request.insert("status".into(), status);
    respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::CREATED, &request).await
}

/// What the body says of itself must be what the URL says.
fn check_metadata(request: &Object, namespace: &str, name: &str) -> Result<(), ApiError> {
    for (field, wanted) in [("name", name), ("namespace", namespace)] {
        let given = metadata::text(request, field);
        if !given.is_empty() && given != wanted {
            let detail = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), given, &detail);
            return Err(ApiError::invalid(GROUP, KIND, name, &[error]));
        }
    }
    Ok(())
}

fn check_expiration(seconds: i64) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut wrong = |detail| errors.push(FieldError::invalid("spec.expirationSeconds", seconds, detail));
    if seconds < SECONDS_MIN {
        wrong("may not specify a duration less than 10 minutes");
    }
    if seconds > SECONDS_MAX {
        wrong("may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(GROUP, KIND, "", &errors))
    }
}

/// Puts what the token is bound to into its claims.
fn bind(ctx: &Context, spec: &Object, objects: &mut ObjectClaims) -> Result<(), ApiError> {
    if !is_set(spec, "boundObjectRef") {
        return Ok(());
    }
    let part = |field: &str| text(spec, &["boundObjectRef", field]);
    let (version, kind, name) = (part("apiVersion"), part("kind"), part("name"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let (resource, namespace) = match (group, kind) {
        ("", "Pod") => ("pods", ctx.info.namespace.as_str()),
        ("", "Secret") => ("secrets", ctx.info.namespace.as_str()),
        ("", "Node") => ("nodes", ""),
        _ => {
            let message = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(message));
        }
    };
    let subject = Subject { group: "", resource };
    let entry = ctx.storage().get(resource, namespace, name);
    let entry = entry.ok_or_else(|| ApiError::not_found(subject, name))?;
    let bound = Reference {
        name: name.to_owned(),
        uid: entry.index.uid.clone(),
    };
    match kind {
        "Pod" => {
            let pod: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
            let account = text(&pod, &["spec", "serviceAccountName"]);
            if account != ctx.info.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    ctx.info.name
                )));
            }
            objects.node = node_of(ctx, text(&pod, &["spec", "nodeName"]));
            objects.pod = Some(bound);
        }
        "Secret" => objects.secret = Some(bound),
        _ => objects.node = Some(bound),
    }
    let uid = part("uid");
    if !uid.is_empty() && uid != entry.index.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        let subject = Subject {
            group: "",
            resource: kind,
        };
        return Err(ApiError::conflict(subject, name, &why));
    }
    Ok(())
}

/// The node of a pod; one that is not there (yet) is named without its uid.
fn node_of(ctx: &Context, name: &str) -> Option<Reference> {
    let uid = || {
        ctx.storage()
            .get("nodes", "", name)
            .map(|entry| entry.index.uid.clone())
    };
    (!name.is_empty()).then(|| Reference {
        name: name.to_owned(),
        uid: uid().unwrap_or_default(),
    })
}
