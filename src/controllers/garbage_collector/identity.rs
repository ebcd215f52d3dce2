//! How the collector names objects, kept small: it has a node for every object of the cluster
//! (upstream: `objectReference` and `metaonly`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::fmt;
use std::sync::Arc;

/// The unique id of an object. Nearly all are UUIDs, which need no heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uid {
    Uuid([u8; 16]),
    Text(Box<str>),
}

impl Uid {
    pub fn new(text: &str) -> Self {
        match uuid::Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()) == text => {
                Self::Uuid(uuid.into_bytes())
            }
            _ => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).hyphenated().fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `apps/v1` and `Deployment`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    pub kind: Box<str>,
    pub api_version: Box<str>,
}

impl Type {
    pub fn new(api_version: &str, kind: &str) -> Arc<Self> {
        Arc::new(Self {
            kind: kind.into(),
            api_version: api_version.into(),
        })
    }

    /// Empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }
}

/// An object by all that names it. Ordered as upstream orders what one object may be taken for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub kind: Arc<Type>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Uid,
}

/// As upstream's events show it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Type { kind, api_version } = &*self.kind;
        let (namespace, name, uid) = (&self.namespace, &self.name, &self.uid);
        write!(
            f,
            "[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]"
        )
    }
}

/// An owner as a dependent names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: Arc<Type>,
    pub name: Box<str>,
    pub uid: Uid,
    /// The owner's deletion in the foreground waits for the dependent.
    pub blocks: bool,
}

impl Owner {
    pub fn new(reference: &OwnerReference) -> Self {
        Self {
            kind: Type::new(&reference.api_version, &reference.kind),
            name: reference.name.as_str().into(),
            uid: Uid::new(&reference.uid),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }

    /// It names the object that `identity` names, wherever that is.
    pub fn names(&self, identity: &Identity) -> bool {
        self.uid == identity.uid && self.kind == identity.kind && self.name == identity.name
    }

    /// The owner of a dependent in `namespace`, which is the owner's if it has one.
    pub fn in_namespace(&self, namespace: &Arc<str>) -> Identity {
        Identity {
            kind: self.kind.clone(),
            namespace: namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

pub fn owners(metadata: &ObjectMeta) -> Vec<Owner> {
    metadata.owner_references.iter().flatten().map(Owner::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_keep_their_text() {
        for text in [
            "0192f0c1-7d11-4c6e-9d3a-0242ac120002",
            "0192F0C1-7D11-4C6E-9D3A-0242AC120002",
            "0192f0c17d114c6e9d3a0242ac120002",
            "not-a-uuid",
            "",
        ] {
            assert_eq!(Uid::new(text).to_string(), text);
        }
        assert_eq!(std::mem::size_of::<Uid>(), 24);
        assert!(matches!(Uid::new("0192f0c1-7d11-4c6e-9d3a-0242ac120002"), Uid::Uuid(_)));
    }
}
