//! One copy of each object for all informers of this process, decoded by the first that hears of it. The caches of the
//! controllers and of the scheduler show the same objects; upstream's are in processes of their own.

use super::informer::Watched;
use super::lean::{decode, glance, same_resource};
use kube::Resource;
use kube::core::ObjectMeta;
use parking_lot::Mutex;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::any::{Any, TypeId};
use std::borrow::Cow;
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
    pub fn share(&self, object: Arc<K>) -> Arc<K> {
        let Some(uid) = object.meta().uid.clone() else {
            return object;
        };
        let known = self.0.lock().get(&uid).and_then(Weak::upgrade);
        if let Some(known) = known
            && known.meta().resource_version == object.meta().resource_version
            && (Arc::ptr_eq(&known, &object) || *known == *object)
        {
            return known;
        }
        self.0.lock().insert(uid, Arc::downgrade(&object));
        object
    }

    /// Decodes an object, if nobody holds this version of it. All who decode must see the same of a version.
    fn decode(&self, json: &str) -> serde_json::Result<Arc<K>> {
        let glance = glance(json);
        if let Some(seen) = &glance {
            let known = self.0.lock().get(seen.uid).and_then(Weak::upgrade);
            let is_this = |known: &Arc<K>| known.meta().resource_version.as_deref() == Some(seen.resource_version);
            if let Some(known) = known.filter(is_this) {
                return Ok(known);
            }
        }
        let object: K = decode(json, glance.as_ref())?;
        // Lists that were decoded have room for more, which a clone has not.
        Ok(self.share(Arc::new(object.clone())))
    }

    /// The object is gone: its memory is held until nobody remembers it.
    pub fn forget(&self, object: &K) {
        if let Some(uid) = &object.meta().uid {
            self.0.lock().remove(uid);
        }
    }
}

/// A copy that all informers of the process share.
#[derive(Clone, Debug)]
pub struct Shared<K>(Arc<K>);

impl<K> From<Shared<K>> for Arc<K> {
    fn from(shared: Shared<K>) -> Self {
        shared.0
    }
}

impl<'de, K: Watched> Deserialize<'de> for Shared<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let copy = Copies::of_process().decode(json.get());
        copy.map(Self).map_err(D::Error::custom)
    }
}

same_resource!(Shared<K: Watched>, |inner| Arc::make_mut(inner));

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
        let share = |object| copies.clone().share(Arc::new(object));
        let first = share(object("u", "1", "x"));
        assert!(Arc::ptr_eq(&first, &share(object("u", "1", "x"))));
        for other in [object("u", "2", "x"), object("u", "2", "y"), object("v", "2", "y")] {
            let shared = share(other.clone());
            assert!(!Arc::ptr_eq(&first, &shared) && *shared == other, "{other:?}");
        }
        assert_eq!(copies.0.lock().len(), 2);
        copies.forget(&first);
        assert_eq!(copies.0.lock().len(), 1);
    }

    #[test]
    fn the_process_has_one_for_each_kind() {
        let text = |version: &str| {
            let fields = json!([{"manager": "m"}]);
            let metadata = json!({"uid": "of-process", "managedFields": fields, "resourceVersion": version});
            json!({"metadata": metadata, "data": {"a": version}}).to_string()
        };
        let decoded =
            |text: &str| -> Arc<ConfigMap> { serde_json::from_str::<Shared<ConfigMap>>(text).unwrap().into() };
        let shared = decoded(&text("1"));
        assert!(shared.metadata.managed_fields.is_none());
        let again = decoded(&text("1"));
        assert!(Arc::ptr_eq(&shared, &again));
        let next = decoded(&text("2"));
        assert_eq!(next.data.as_ref().unwrap()["a"], "2");
        drop(next);
        drop((shared, again));
        let known: Option<Arc<ConfigMap>> = Copies::of_process().0.lock()["of-process"].upgrade();
        assert!(known.is_none(), "nobody holds it any more");
    }
}
