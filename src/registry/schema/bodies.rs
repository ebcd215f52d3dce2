//! Definitions by apiVersion and kind: the kinds of the table, and the types that are sent or returned without
//! being kinds of their own (upstream: what `AddToGroupVersion` registers beside the kinds).

use super::Definition;
use super::compile::{definition, type_definition};
use crate::registry::table::Registry;
use k8s_openapi::api::{authentication, autoscaling, core, policy};
use k8s_openapi::apimachinery::pkg::apis::meta;
use std::sync::Arc;

/// The definition of a body that says so of itself.
pub fn lookup(api_version: &str, kind: &str) -> Option<Arc<Definition>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if let Some(kind) = Registry::builtin().lookup_kind(group, version, kind) {
        return Some(definition(&kind));
    }
    Some(match (group, version, kind) {
        // Clients send it in the group-version of the resource it is for.
        (_, _, "DeleteOptions") => type_definition::<meta::v1::DeleteOptions>(),
        (_, "v1", "Status") => type_definition::<meta::v1::Status>(),
        ("", "v1", "Binding") => type_definition::<core::v1::Binding>(),
        ("policy", "v1", "Eviction") => type_definition::<policy::v1::Eviction>(),
        ("autoscaling", "v1", "Scale") => type_definition::<autoscaling::v1::Scale>(),
        ("authentication.k8s.io", "v1", "TokenRequest") => type_definition::<authentication::v1::TokenRequest>(),
        _ => return None,
    })
}
