//! No instances of a definition that is being deleted (upstream: `forbidCreateAdmission` of
//! `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`).

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::strategy::Object;

pub fn admit(_ctx: &Context, subject: &Subject<'_>, _object: &mut Object) -> Result<(), ApiError> {
    let terminating = subject.kind.custom.as_ref().is_some_and(|custom| custom.terminating);
    if terminating && subject.operation == Operation::Create {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(ApiError::forbidden(subject.kind, &subject.name, why));
    }
    Ok(())
}
