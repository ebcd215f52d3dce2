//! One copy of each object for all informers of this process. The caches of the controllers and of the scheduler show the
//! same objects; upstream's are in processes of their own.

use super::informer::Watched;
use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};

type ByUid<K> = Mutex<HashMap<String, Weak<K>>>;

/// By type: an `Arc<ByUid<K>>` each.
static ALL: LazyLock<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>> = LazyLock::new(Mutex::default);

/// The newest version of each object of one kind that somebody holds. Clones share it.
pub struct Copies<K>(Arc<ByUid<K>>);

impl<K> Clone for Copies<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Watched> Copies<K> {
    /// Shared with nobody.
    pub fn own() -> Self {
        Self(Arc::default())
    }

    /// Those of the whole process.
    pub fn of_process() -> Self {
        let mut all = ALL.lock();
        let known = all
            .get(&TypeId::of::<K>())
            .and_then(|copies| copies.downcast_ref::<Arc<ByUid<K>>>());
        if let Some(known) = known {
            return Self(Arc::clone(known));
        }
        let copies = Self::own();
        all.insert(TypeId::of::<K>(), Box::new(Arc::clone(&copies.0)));
        copies
    }

    /// The copy that somebody holds already, if it is equal; else `object`, which is the copy from now on.
    pub fn share(&self, object: K) -> Arc<K> {
        let Some(uid) = object.meta().uid.clone() else {
            return Arc::new(object);
        };
        let known = self.0.lock().get(&uid).and_then(Weak::upgrade);
        if let Some(known) = known
            && known.meta().resource_version == object.meta().resource_version
            && *known == object
        {
            return known;
        }
        // Lists that were decoded have room for more, which a clone has not.
        let object = Arc::new(object.clone());
        self.0.lock().insert(uid, Arc::downgrade(&object));
        object
    }

    /// The object is gone: its memory is held until nobody remembers it.
    pub fn forget(&self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.0.lock().remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn object(uid: &str, version: &str, data: &str) -> ConfigMap {
        let value = json!({"metadata": {"name": "m", "uid": uid, "resourceVersion": version}, "data": {"a": data}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_versions_are_one() {
        let copies = Copies::own();
        let first = copies.share(object("u", "1", "x"));
        assert!(Arc::ptr_eq(&first, &copies.clone().share(object("u", "1", "x"))));
        for other in [object("u", "2", "x"), object("u", "2", "y"), object("v", "2", "y")] {
            let shared = copies.share(other.clone());
            assert!(!Arc::ptr_eq(&first, &shared) && *shared == other, "{other:?}");
        }
        assert_eq!(copies.0.lock().len(), 2);
        copies.forget(&first);
        assert_eq!(copies.0.lock().len(), 1);
    }

    #[test]
    fn the_process_has_one_for_each_kind() {
        let shared = Copies::of_process().share(object("of-process", "1", "x"));
        let again = Copies::of_process().share(object("of-process", "1", "x"));
        assert!(Arc::ptr_eq(&shared, &again));
        drop((shared, again));
        let known: Option<Arc<ConfigMap>> = Copies::of_process().0.lock()["of-process"].upgrade();
        assert!(known.is_none(), "nobody holds it any more");
    }
}
