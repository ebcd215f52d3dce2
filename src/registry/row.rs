//! Builds a row of the table from a k8s-openapi type (upstream: the `APIResource` that the installer derives from
//! a REST storage, `apiserver/pkg/endpoints/installer.go`).

use super::strategy::{Plain, Strategy};
use super::{Kind, Scope, Subresource};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::{ClusterResourceScope, ListableResource, NamespaceResourceScope, Resource, SubResourceScope};
use schemars::JsonSchema;
use std::sync::Arc;

/// What a stored kind answers to.
const STORED: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
/// What a kind that is answered and not stored answers to.
const REVIEW: &[&str] = &["create"];
/// The verbs of `status`, `scale` and the like.
const READ_WRITE: &[&str] = &["get", "patch", "update"];
/// The verbs of `exec`, `attach` and `portforward`.
const STREAM: &[&str] = &["create", "get"];
/// The verbs of `proxy`: every method is passed on.
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// Maps k8s-openapi's scope types to ours.
pub trait RowScope {
    const SCOPE: Scope;
}
impl RowScope for ClusterResourceScope {
    const SCOPE: Scope = Scope::Cluster;
}
impl RowScope for NamespaceResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}
/// What is sent to subresources only; those that there are belong to namespaced kinds.
impl RowScope for SubResourceScope {
    const SCOPE: Scope = Scope::Namespaced;
}

/// A row under construction.
pub struct Row(Kind);

/// A stored kind with all verbs. `storage_resource` is its group-resource: `pods`, `deployments.apps`.
pub fn row<T>(storage_resource: &'static str) -> Row
where
    T: ListableResource + JsonSchema,
    T::Scope: RowScope,
{
    let mut row = kind::<T>(storage_resource, STORED);
    row.0.list_kind = T::LIST_KIND.to_owned();
    row
}

/// A kind that is answered and not stored: reviews and bindings can only be created.
pub fn review<T>(storage_resource: &'static str) -> Row
where
    T: Resource + JsonSchema,
    T::Scope: RowScope,
{
    kind::<T>(storage_resource, REVIEW)
}

/// What a kind that is answered and not stored has for verbs.
#[cfg(test)]
pub fn review_verbs() -> &'static [&'static str] {
    REVIEW
}

fn kind<T>(storage_resource: &'static str, verbs: &'static [&'static str]) -> Row
where
    T: Resource + JsonSchema,
    T::Scope: RowScope,
{
    Row(Kind {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        list_kind: format!("{}List", T::KIND),
        resource: T::URL_PATH_SEGMENT,
        singular: T::KIND.to_lowercase(),
        short_names: &[],
        categories: &[],
        scope: <T::Scope as RowScope>::SCOPE,
        verbs,
        subresources: Vec::new(),
        storage_resource,
        storage_group_version: T::API_VERSION,
        json_schema: |generator| generator.subschema_for::<T>(),
        definition: T::schema_name().into_owned(),
        strategy: Arc::new(Plain),
        custom: None,
    })
}

impl Row {
    /// Instead of the kind in lower case.
    pub fn singular(mut self, name: &str) -> Self {
        self.0.singular = name.to_owned();
        self
    }

    pub fn short(mut self, names: &'static [&'static str]) -> Self {
        self.0.short_names = names;
        self
    }

    pub fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.0.categories = categories;
        self
    }

    pub fn verbs(mut self, verbs: &'static [&'static str]) -> Self {
        self.0.verbs = verbs;
        self
    }

    /// Objects are stored in this group-version, and `Strategy::convert_*` leads there.
    pub fn stored_in(mut self, group_version: &'static str) -> Self {
        self.0.storage_group_version = group_version;
        self
    }

    pub fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.0.strategy = Arc::new(strategy);
        self
    }

    /// `status`.
    pub fn status(self) -> Self {
        self.writes("status", READ_WRITE)
    }

    /// A subresource that reads and writes the object itself.
    pub fn writable(self, name: &'static str) -> Self {
        self.writes(name, READ_WRITE)
    }

    /// A subresource of the kind's own type with the given verbs.
    pub fn writes(self, name: &'static str, verbs: &'static [&'static str]) -> Self {
        let (group, version, kind) = (self.0.group, self.0.version, self.0.kind);
        self.subresource(name, (group, version, kind), verbs, false)
    }

    /// `scale`: how many there should be, in a type that all kinds with replicas share.
    pub fn scales(self) -> Self {
        let scale = (Scale::GROUP, Scale::VERSION, Scale::KIND);
        self.subresource("scale", scale, READ_WRITE, false)
    }

    /// A subresource that is created with another type (`pods/binding`, `pods/eviction`).
    pub fn creates<T: Resource>(self, name: &'static str) -> Self {
        self.subresource(name, (T::GROUP, T::VERSION, T::KIND), &["create"], false)
    }

    /// A streaming subresource; `options` is the kind of its query.
    pub fn streams(self, name: &'static str, options: &'static str) -> Self {
        self.subresource(name, ("", "v1", options), STREAM, true)
    }

    /// `proxy`, every method.
    pub fn proxies(self, options: &'static str) -> Self {
        self.subresource("proxy", ("", "v1", options), PROXY, true)
    }

    fn subresource(
        mut self,
        name: &'static str,
        (group, version, kind): (&'static str, &'static str, &'static str),
        verbs: &'static [&'static str],
        connect: bool,
    ) -> Self {
        self.0.subresources.push(Subresource {
            name,
            group,
            version,
            kind,
            verbs,
            connect,
        });
        self
    }
}

impl From<Row> for Kind {
    fn from(row: Row) -> Kind {
        row.0
    }
}
