//! Creating an object (upstream: `registry/rest/create.go`, `Store.Create`).

use super::{Written, draft, invalid_unless_empty, key, metadata, ownership};
use crate::apiserver::admission::resource_quota::Charges;
use crate::apiserver::admission::{self, Operation as AdmissionOperation};
use crate::apiserver::allocation::{self, Transaction};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, validation};
use crate::storage::{Operation, StorageError};
use serde_json::Value;

/// How many generated names are tried.
const NAME_ATTEMPTS_MAX: usize = 8;

/// Creates `object`, which was decoded against the kind's schema. Whoever sent it owns its fields.
pub async fn create(ctx: &Context, kind: &Kind, mut object: Object, dry_run: bool) -> Result<Written, ApiError> {
    kind.strategy.default(&mut object);
    ownership::update(ctx, kind, Target::Main, None, &mut object);
    create_applied(ctx, kind, object, dry_run).await
}

/// Creates `object`, which has its defaults and its managedFields.
pub async fn create_applied(
    ctx: &Context,
    kind: &Kind,
    mut object: Object,
    dry_run: bool,
) -> Result<Written, ApiError> {
    metadata::for_create(ctx, kind, &mut object)?;
    let generated = metadata::generate_name(&mut object);
    admission::service_account::wait_for_default(ctx, kind, &object).await;
    let subject = admission::Subject {
        kind,
        subresource: "",
        name: metadata::text(&object, "name").to_owned(),
        operation: AdmissionOperation::Create,
        old: None,
        dry_run,
        deletion: None,
    };
    admission::admit(ctx, &subject, &mut object).await?;
    // What the server decides goes by what admission made of the object, and policies and webhooks may set no more than the
    // client.
    kind.strategy.prepare_for_create(&mut object);
    kind.strategy.stamp_requester(&mut object, &ctx.user.requester());
    let mut transaction = allocation::begin_create(ctx, kind, &mut object, dry_run).await?;
    let written = write(ctx, &subject, object, (generated, dry_run), &mut transaction).await;
    match &written {
        Ok(_) => transaction.commit().await,
        Err(_) => transaction.settle().await,
    }
    written
}

/// Checks and stores what was prepared.
async fn write(
    ctx: &Context,
    subject: &admission::Subject<'_>,
    object: Object,
    (generated, dry_run): (bool, bool),
    transaction: &mut Transaction,
) -> Result<Written, ApiError> {
    let kind = subject.kind;
    validate(kind, &object)?;
    admission::validate(ctx, subject, &object).await?;
    for warning in kind.strategy.warnings(&object, None) {
        ctx.warnings.add(warning);
    }
    let mut object = metadata::canonical(object);
    let charges = Charges::of(ctx, kind, "", &object, None)?;
    for attempt in 1.. {
        let name = metadata::text(&object, "name").to_owned();
        let key = key(ctx, kind, &name);
        if dry_run {
            charges.check(ctx, kind, &name)?;
            return match ctx.storage().get(&key.resource, &key.namespace, &key.name) {
                Some(_) => Err(exists(ctx, kind, &name)),
                None => Ok(Written::DryRun(object)),
            };
        }
        let draft = draft(ctx, kind, &object).await?;
        let operation = Operation::Create { key, draft };
        match ctx.storage().write_with(operation, charges.alongside()).await {
            Ok(entry) => return Ok(Written::Stored(entry)),
            Err(StorageError::AlreadyExists(_)) if generated && attempt < NAME_ATTEMPTS_MAX => {
                metadata::of_mut(&mut object).insert("name".into(), Value::String(String::new()));
                metadata::generate_name(&mut object);
                transaction.rename(metadata::text(&object, "name")).await;
            }
            Err(StorageError::AlreadyExists(_)) if generated => {
                let text = format!(
                    "{} {name:?} already exists, the server was not able to generate a unique name for the object",
                    kind.group_resource()
                );
                return Err(ApiError::already_exists(kind, &name)
                    .with_message(text)
                    .with_retry_after(1));
            }
            Err(StorageError::AlreadyExists(_)) => return Err(exists(ctx, kind, &name)),
            Err(error) => return Err(ApiError::from_storage(error, kind)),
        }
    }
    unreachable!("the last attempt returns")
}

fn validate(kind: &Kind, object: &Object) -> Result<(), ApiError> {
    let mut errors = validation::object_meta(kind, metadata::of(object));
    errors.extend(kind.strategy.validate(object));
    errors.extend(kind.strategy.validate_create(object));
    let name = match metadata::text(object, "name") {
        "" => metadata::text(object, "generateName"),
        name => name,
    };
    invalid_unless_empty(kind, name, errors)
}

/// The 409, which says if the object in the way is about to go.
fn exists(ctx: &Context, kind: &Kind, name: &str) -> ApiError {
    let error = ApiError::already_exists(kind, name);
    let entry = ctx.storage().get(kind.storage_resource, ctx.key_namespace(kind), name);
    let object: Option<Object> = entry.and_then(|entry| serde_json::from_slice(&entry.bytes).ok());
    if object.is_some_and(|object| metadata::of(&object).contains_key("deletionTimestamp")) {
        let text = format!("object is being deleted: {}", error.message());
        return error.with_message(text);
    }
    error
}
