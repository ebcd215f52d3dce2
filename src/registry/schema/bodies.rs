//! Definitions by apiVersion and kind: the kinds of the table, and the types that are sent or returned without
//! being kinds of their own (upstream: what `AddToGroupVersion` registers beside the kinds).

use super::compile::{definition, type_definition};
use super::{Definition, Node, Object, Property};
use crate::registry::Kind;
use crate::registry::table::Registry;
use k8s_openapi::api::{authentication, autoscaling, core, policy};
use k8s_openapi::apimachinery::pkg::apis::meta;
use std::sync::{Arc, LazyLock};

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
        ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadata") => PARTIAL.clone(),
        ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadataList") => list("PartialObjectMetadataList", &PARTIAL),
        // The first of these says no version.
        ("", "", "APIVersions") => type_definition::<meta::v1::APIVersions>(),
        ("", "v1", "APIGroupList") => type_definition::<meta::v1::APIGroupList>(),
        ("", "v1", "APIGroup") => type_definition::<meta::v1::APIGroup>(),
        ("", "v1", "APIResourceList") => type_definition::<meta::v1::APIResourceList>(),
        (_, _, kind) => {
            let item = Registry::builtin().lookup_kind(group, version, kind.strip_suffix("List")?)?;
            list(kind, &definition(&item))
        }
    })
}

/// Whether the kind is one of the built-in ones, whose fields have numbers.
pub fn is_builtin(kind: &Kind) -> bool {
    Registry::builtin()
        .lookup_kind(kind.group, kind.version, kind.kind)
        .is_some()
}

/// The metadata of lists.
pub fn list_meta() -> Arc<Definition> {
    type_definition::<meta::v1::ListMeta>()
}

/// `PartialObjectMetadata {1: ObjectMeta}`, which the OpenAPI documents do not have.
static PARTIAL: LazyLock<Arc<Definition>> = LazyLock::new(|| {
    let metadata = type_definition::<meta::v1::ObjectMeta>();
    let properties = [("metadata", property(Node::Object(metadata), 1, "v1.ObjectMeta"))];
    made("PartialObjectMetadata", properties)
});

/// A list of what `item` defines: `{1: ListMeta, 2: items}`, as all lists are.
fn list(name: &str, item: &Arc<Definition>) -> Arc<Definition> {
    let items = Node::List(Arc::new(Node::Object(item.clone())));
    let properties = [
        ("metadata", property(Node::Object(list_meta()), 1, "v1.ListMeta")),
        ("items", property(items, 2, "[]v1.Item")),
    ];
    made(name, properties)
}

fn made<const N: usize>(name: &str, properties: [(&str, Property); N]) -> Arc<Definition> {
    let types = ["apiVersion", "kind"].map(|name| {
        (
            name,
            Property {
                wire: Vec::new(),
                ..property(Node::String, 0, "")
            },
        )
    });
    let all = types.into_iter().chain(properties);
    let object = Object {
        properties: all.map(|(name, property)| (name.to_owned(), property)).collect(),
        ..Object::default()
    };
    Definition::new(name, object)
}

fn property(node: Node, number: u32, go_type: &'static str) -> Property {
    Property {
        node,
        patch_merge: false,
        patch_retain_keys: false,
        patch_replace: false,
        patch_merge_key: None,
        list_type: None,
        list_map_keys: Vec::new(),
        default: None,
        atomic_map: false,
        go_type,
        omit_empty: false,
        wire: vec![number],
    }
}
