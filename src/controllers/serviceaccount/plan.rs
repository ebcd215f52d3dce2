//! Whether a namespace lacks its `default` account. Pure.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The account to create, if any.
pub fn missing_account(namespace: &Namespace, existing: Option<&ServiceAccount>) -> Option<ServiceAccount> {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    let active = namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating");
    (active && existing.is_none()).then(|| ServiceAccount {
        metadata: ObjectMeta {
            name: Some("default".into()),
            namespace: namespace.metadata.name.clone(),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn situations() {
        let account = ServiceAccount::default();
        for (namespace, existing, missing) in [
            (json!({"metadata": {"name": "a"}}), None, true),
            (
                json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}),
                None,
                true,
            ),
            (json!({"metadata": {"name": "a"}}), Some(&account), false),
            (
                json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}),
                None,
                false,
            ),
            (
                json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                None,
                false,
            ),
        ] {
            let namespace: Namespace = serde_json::from_value(namespace).unwrap();
            assert_eq!(missing_account(&namespace, existing).is_some(), missing);
        }
    }
}
