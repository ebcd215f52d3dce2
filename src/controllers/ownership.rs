//! Who belongs to whom: by controllerRef, and by selector where there is none yet (upstream: `controller_ref_manager.go`).

use crate::client::ObjectKey;
use crate::client::informer::{Change, Index, Informer, Watched, controller_uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use serde_json::json;
use std::sync::Arc;

/// What an owner does about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Ours,
    /// It has no controller, and the owner's selector matches it.
    Adopt,
    /// It is the owner's, but the selector no longer matches it.
    Release,
    /// It does not concern the owner.
    Foreign,
}

/// What `owner`, which selects with `selector`, does about `object`. Pure.
pub fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let controller = controller_of(object);
    let none = std::collections::BTreeMap::new();
    let matches = selector.matches(object.labels.as_ref().unwrap_or(&none));
    let owner_going = owner.deletion_timestamp.is_some();
    match controller {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if matches => Claim::Ours,
        Some(_) if owner_going => Claim::Foreign,
        Some(_) => Claim::Release,
        None if owner_going || !matches || object.deletion_timestamp.is_some() => Claim::Foreign,
        None => Claim::Adopt,
    }
}

/// `selector`, ready to match. One that cannot be understood, or is empty or missing, selects nothing: validation
/// lets none of these through, and an owner of everything would be worse than one of nothing.
pub fn selector(selector: Option<&LabelSelector>) -> Selector {
    let nothing = || {
        let never = kube::core::Expression::In("\u{0}".to_owned(), std::iter::empty::<String>().collect());
        Selector::from_iter([never])
    };
    match selector {
        Some(selector) if *selector != LabelSelector::default() => {
            selector.clone().try_into().unwrap_or_else(|_| nothing())
        }
        _ => nothing(),
    }
}

/// The reference that makes `owner` the controller of an object.
pub fn controller_ref<K: Watched>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner in `cache` that controls an object; None if it is of another kind, gone, or another one of that name.
pub fn controller_in<O: Watched>(cache: &Informer<O>, object: &ObjectMeta) -> Option<Arc<O>> {
    let reference = controller_of(object)?;
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    if reference.kind != O::kind(&()) || group != O::group(&()) {
        return None;
    }
    let owner = cache.get(object.namespace.as_deref().unwrap_or_default(), &reference.name)?;
    (owner.meta().uid.as_deref() == Some(&reference.uid)).then_some(owner)
}

/// The owners that a change of an object is of interest to: who controls it or did, and who may adopt it now.
pub fn concerned<O: Watched, K: Watched>(
    change: &Change<K>,
    owners: &Informer<O>,
    selector: impl Fn(&O) -> Selector,
) -> Vec<ObjectKey> {
    let controllers = change.each().filter_map(|object| controller_in(owners, object.meta()));
    let mut keys: Vec<ObjectKey> = controllers.map(|owner| ObjectKey::of(&*owner)).collect();
    if let Some(orphan) = new_orphan(change) {
        let namespace = orphan.meta().namespace.as_deref().unwrap_or_default();
        let near = owners.in_namespace(namespace).into_iter();
        let adopting = near.filter(|owner| claim(owner.meta(), &selector(owner), orphan.meta()) == Claim::Adopt);
        keys.extend(adopting.map(|owner| ObjectKey::of(&*owner)));
    }
    keys.dedup();
    keys
}

/// An orphan that a change may have made somebody's: it is new as such, or has other labels.
fn new_orphan<K: Watched>(change: &Change<K>) -> Option<&Arc<K>> {
    let new = change.new.as_ref().filter(|new| controller_of(new.meta()).is_none())?;
    let old = change.old.as_ref();
    old.is_none_or(|old| controller_of(old.meta()).is_some() || old.meta().labels != new.meta().labels)
        .then_some(new)
}

/// An object came that has its controller from the start: no news to who made it.
pub fn is_made_by_its_owner<K: Watched>(change: &Change<K>) -> bool {
    let new = change.new.as_ref().filter(|_| change.old.is_none());
    new.is_some_and(|new| controller_of(new.meta()).is_some())
}

/// The owner that controls an object.
pub fn controller_of(object: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = object.owner_references.as_deref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}

/// Whether `owner` may adopt: looked up at the API server, since the cache may show one that was deleted, or another of
/// the same name.
pub async fn may_adopt<K: Watched>(api: &Api<K>, owner: &K) -> kube::Result<bool> {
    let name = owner.meta().name.as_deref().unwrap_or_default();
    let live = api.get_opt(name).await?;
    Ok(live.is_some_and(|live| live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none()))
}

/// Makes `owner` the controller of `object`. None if the object is gone or is another one by now.
pub async fn adopt<K: Watched>(api: &Api<K>, object: &K, owner: &OwnerReference) -> kube::Result<Option<K>> {
    let patch = json!({"metadata": {"uid": object.meta().uid, "ownerReferences": [owner]}});
    write(api, object, patch, |code| code == 404 || code == 409).await
}

/// As [`adopt`], and puts `finalizer` on the object in the same write.
pub async fn adopt_tracked<K: Watched>(
    api: &Api<K>,
    object: &K,
    owner: &OwnerReference,
    finalizer: &str,
) -> kube::Result<Option<K>> {
    let patch = json!({"metadata":
        {"uid": object.meta().uid, "ownerReferences": [owner], "finalizers": [finalizer]}});
    write(api, object, patch, |code| code == 404 || code == 409).await
}

/// Takes the owner with `uid` from `object`. None if the object is gone, is another one, or has no such owner.
pub async fn release<K: Watched>(api: &Api<K>, object: &K, uid: &str) -> kube::Result<Option<K>> {
    let owners = json!([{"$patch": "delete", "uid": uid}]);
    let patch = json!({"metadata": {"uid": object.meta().uid, "ownerReferences": owners}});
    // 422: the owner is not there any more, or the uid is another's.
    write(api, object, patch, |code| code == 404 || code == 409 || code == 422).await
}

/// What `owner` may have to do with: what it controls, and what nobody controls in its namespace.
pub fn candidates<O: Watched, K: Watched>(owner: &O, cache: &Informer<K>, orphans: &Index<K>) -> Vec<Arc<K>> {
    let meta = owner.meta();
    let mut candidates = cache.controlled_by(meta.uid.as_deref().unwrap_or_default());
    candidates.extend(orphans.get(meta.namespace.as_deref().unwrap_or_default()));
    candidates
}

/// The objects that nobody controls, by namespace.
pub fn orphans<K: Watched>(cache: &Informer<K>) -> Index<K> {
    cache.index(|object| match controller_uid(object) {
        None => vec![object.meta().namespace.clone().unwrap_or_default()],
        Some(_) => Vec::new(),
    })
}

/// Those of `candidates` that are `owner`'s. Orphans that its selector matches are adopted; what it does not match any
/// more is released.
pub async fn settle<O: Watched, K: Watched>(
    owners: &Api<O>,
    objects: &Api<K>,
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
) -> kube::Result<Vec<Arc<K>>> {
    let mut ours = Vec::with_capacity(candidates.len());
    let mut may_adopt_it = None;
    for object in candidates {
        match claim(owner.meta(), selector, object.meta()) {
            Claim::Ours => ours.push(object),
            Claim::Foreign => {}
            Claim::Release => {
                let uid = owner.meta().uid.as_deref().unwrap_or_default();
                release(objects, &*object, uid).await?;
            }
            Claim::Adopt => {
                let may = match may_adopt_it {
                    Some(may) => may,
                    None => *may_adopt_it.insert(may_adopt(owners, owner).await?),
                };
                if may {
                    ours.extend(adopt(objects, &*object, &controller_ref(owner)).await?.map(Arc::new));
                }
            }
        }
    }
    Ok(ours)
}

/// As [`release`], and takes `finalizer` from the object in the same write.
pub async fn release_tracked<K: Watched>(
    api: &Api<K>,
    object: &K,
    uid: &str,
    finalizer: &str,
) -> kube::Result<Option<K>> {
    let owners = json!([{"$patch": "delete", "uid": uid}]);
    let patch = json!({"metadata": {"uid": object.meta().uid, "ownerReferences": owners,
        "$deleteFromPrimitiveList/finalizers": [finalizer]}});
    write(api, object, patch, |code| code == 404 || code == 409 || code == 422).await
}

async fn write<K: Watched>(
    api: &Api<K>,
    object: &K,
    patch: serde_json::Value,
    settled: impl Fn(u16) -> bool,
) -> kube::Result<Option<K>> {
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if settled(status.code) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn situations() {
        let going = json!("2026-01-01T00:00:00Z");
        let (owner, leaving) = (
            meta(json!({"uid": "u"})),
            meta(json!({"uid": "u", "deletionTimestamp": going})),
        );
        let wanted: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap();
        let owned_by = |uid: &str, controller: bool, labels: Value| {
            meta(json!({"labels": labels, "ownerReferences":
                [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": uid, "controller": controller}]}))
        };
        let (yes, no) = (json!({"a": "b", "c": "d"}), json!({"a": "c"}));
        for (owner, object, expected) in [
            (&owner, owned_by("u", true, yes.clone()), Claim::Ours),
            (&leaving, owned_by("u", true, yes.clone()), Claim::Ours),
            (&owner, owned_by("u", true, no.clone()), Claim::Release),
            (&leaving, owned_by("u", true, no.clone()), Claim::Foreign),
            (&owner, owned_by("v", true, yes.clone()), Claim::Foreign),
            // An owner that is no controller hinders nobody.
            (&owner, owned_by("v", false, yes.clone()), Claim::Adopt),
            (&owner, meta(json!({"labels": yes})), Claim::Adopt),
            (&leaving, meta(json!({"labels": yes})), Claim::Foreign),
            (&owner, meta(json!({"labels": no})), Claim::Foreign),
            (&owner, meta(json!({})), Claim::Foreign),
            (
                &owner,
                meta(json!({"labels": yes, "deletionTimestamp": going})),
                Claim::Foreign,
            ),
        ] {
            assert_eq!(claim(owner, &selector(Some(&wanted)), &object), expected, "{object:?}");
        }
        for nothing in [None, Some(LabelSelector::default())] {
            let object = meta(json!({"labels": yes}));
            assert_eq!(claim(&owner, &selector(nothing.as_ref()), &object), Claim::Foreign);
        }
    }
}
