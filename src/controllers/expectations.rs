//! What a controller has written and its cache may not show yet (upstream: `controller_utils.go`, `UIDTrackingControllerExpectations`).
//!
//! A controller that counts its objects in a cache that is behind would create or delete them twice. So it notes what
//! it wrote, and does not count before the cache has caught up. Revisions are ordered, so for what was created it is
//! enough to compare them; what was deleted must be gone, or going, in the cache.

use crate::client::ObjectKey;
use crate::client::informer::{Informer, Watched};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// When to look again whether the cache has caught up, since the list that passed over a write may tell of no change.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// No cache takes so long (upstream: `ExpectationsTimeout`).
const TRUST_MAX: Duration = Duration::from_secs(300);

/// What was written, by the owner of the written objects.
#[derive(Default)]
pub struct Expectations {
    by_owner: Mutex<HashMap<ObjectKey, Expected>>,
}

struct Expected {
    revision: u64,
    /// Deleted objects with their uids.
    deleted: Vec<(ObjectKey, String)>,
    since: Instant,
}

impl Expectations {
    /// `object`, as the API server answered, was created or changed for `owner`.
    pub fn written<K: Watched>(&self, owner: &ObjectKey, object: &K) {
        let version = object.meta().resource_version.as_deref();
        let Some(revision) = version.and_then(|version| version.parse().ok()) else {
            return;
        };
        self.note(owner, |expected| expected.revision = expected.revision.max(revision));
    }

    /// The deletion of `object` was accepted for `owner`.
    pub fn deleted<K: Watched>(&self, owner: &ObjectKey, object: &K) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        let object = ObjectKey::of(object);
        self.note(owner, |expected| expected.deleted.push((object, uid)));
    }

    fn note(&self, owner: &ObjectKey, write: impl FnOnce(&mut Expected)) {
        let mut by_owner = self.by_owner.lock();
        let expected = by_owner.entry(owner.clone()).or_insert_with(|| Expected {
            revision: 0,
            deleted: Vec::new(),
            since: Instant::now(),
        });
        expected.since = Instant::now();
        write(expected);
    }

    /// Whether `cache` shows all that was written for `owner`. If not, the change that is missing will come. A list may
    /// pass over it, if the object is gone by then: so a list is waited for that was asked for afterwards, too.
    pub fn fulfilled<K: Watched>(&self, owner: &ObjectKey, cache: &Informer<K>) -> bool {
        let mut by_owner = self.by_owner.lock();
        let Some(expected) = by_owner.get_mut(owner) else {
            return true;
        };
        expected.deleted.retain(|(key, uid)| {
            cache.get_key(key).is_some_and(|object| {
                object.meta().uid.as_deref() == Some(uid) && object.meta().deletion_timestamp.is_none()
            })
        });
        let seen = expected.deleted.is_empty() && cache.revision() >= expected.revision;
        let listed = cache.listed_since(expected.since);
        if seen || listed || expected.since.elapsed() > TRUST_MAX {
            by_owner.remove(owner);
            return true;
        }
        false
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &ObjectKey) {
        self.by_owner.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn pod(name: &str, revision: &str) -> Pod {
        let meta = json!({"namespace": "n", "name": name, "uid": name, "resourceVersion": revision});
        serde_json::from_value(json!({"metadata": meta})).unwrap()
    }

    #[test]
    fn what_was_written_is_waited_for() {
        let (expectations, cache, owner) = (
            Expectations::default(),
            Informer::<Pod>::unfed(),
            ObjectKey::new("n", "owner"),
        );
        assert!(expectations.fulfilled(&owner, &cache));
        expectations.written(&owner, &pod("a", "7"));
        expectations.written(&owner, &pod("b", "6"));
        cache.apply(pod("b", "6"));
        assert!(!expectations.fulfilled(&owner, &cache));
        cache.apply(pod("a", "7"));
        assert!(expectations.fulfilled(&owner, &cache));

        expectations.deleted(&owner, &pod("a", "7"));
        expectations.deleted(&owner, &pod("b", "6"));
        cache.delete(&pod("a", "9"));
        assert!(!expectations.fulfilled(&owner, &cache));
        let mut going = pod("b", "10");
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        cache.apply(going);
        assert!(expectations.fulfilled(&owner, &cache));

        expectations.written(&owner, &pod("c", "99"));
        assert!(!expectations.fulfilled(&owner, &cache));
        expectations.forget(&owner);
        assert!(expectations.fulfilled(&owner, &cache));
    }

    #[tokio::test]
    async fn a_list_that_was_asked_for_afterwards_shows_all() {
        let (expectations, cache, owner) = (
            Expectations::default(),
            Informer::<Pod>::unfed(),
            ObjectKey::new("n", "owner"),
        );
        let events = |events: Vec<Event<Pod>>| cache.feed(stream::iter(events.into_iter().map(Ok)));
        // Asked for before, this one need not show it.
        events(vec![Event::Init, Event::InitApply(pod("b", "6")), Event::InitDone]).await;
        expectations.written(&owner, &pod("a", "7"));
        assert!(!expectations.fulfilled(&owner, &cache));
        events(vec![Event::Init, Event::InitApply(pod("b", "6"))]).await;
        assert!(!expectations.fulfilled(&owner, &cache));
        events(vec![Event::Init, Event::InitApply(pod("b", "6")), Event::InitDone]).await;
        assert!(expectations.fulfilled(&owner, &cache));
    }
}
