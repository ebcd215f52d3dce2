//! What schemas have against the expressions of policies, for the controller that writes it into their status. The
//! controller knows the policies, the API server's side knows schemas and CEL: they meet here.

use crate::controllers::TypeCheck;
use crate::registry::Registry;
use crate::registry::policy::type_check;
use k8s_openapi::api::admissionregistration::v1::ExpressionWarning;
use serde_json::Value;
use std::sync::Arc;

pub fn type_check(registry: Arc<Registry>) -> TypeCheck {
    Box::new(move |policy| {
        let Ok(Value::Object(policy)) = serde_json::to_value(policy) else {
            return Vec::new();
        };
        let warnings = type_check::warnings(&registry, &policy).into_iter();
        warnings
            .map(|warning| ExpressionWarning {
                field_ref: warning.field,
                warning: warning.warning,
            })
            .collect()
    })
}
