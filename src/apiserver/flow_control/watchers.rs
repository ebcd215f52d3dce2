//! How many watch what a write changes (upstream: `flowcontrol/watch_tracker.go`). Pure.

use crate::apiserver::request::RequestInfo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Pods are handed to the watchers of their node without a look at those of others.
const INDEXED: (&str, &str) = ("pods", "spec.nodeName");

/// Open watches by what they are of: all objects of a resource, those of a namespace, or one. What is counted is an
/// estimate, so a hash will do as the key.
#[derive(Debug, Default)]
pub struct Watchers(Mutex<HashMap<u64, u32>>);

/// One open watch; counted until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    /// None if it is not counted.
    key: Option<u64>,
    all: Arc<Watchers>,
}

impl Watchers {
    /// `exact` tells which value of a field the watch selects, if it selects one.
    pub fn register<'a>(self: &Arc<Self>, info: &RequestInfo, exact: impl FnOnce(&str) -> Option<&'a str>) -> Watcher {
        let (resource, field) = INDEXED;
        let elsewhere = info.resource == resource && exact(field).is_some_and(|value| !value.is_empty());
        let key = (!elsewhere).then(|| key(info, &info.namespace, &info.name));
        if let Some(key) = key {
            *self.0.lock().entry(key).or_default() += 1;
        }
        Watcher { key, all: self.clone() }
    }

    /// How many may be sent what the request changes.
    pub fn interested(&self, info: &RequestInfo) -> u32 {
        let counts = self.0.lock();
        if counts.is_empty() {
            return 0;
        }
        let count = |namespace: &str, name: &str| counts.get(&key(info, namespace, name)).copied().unwrap_or_default();
        let mut sum = count("", "");
        if !info.namespace.is_empty() {
            sum += count(&info.namespace, "");
        }
        if !info.name.is_empty() {
            sum += count(&info.namespace, &info.name);
        }
        sum
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut counts = self.all.0.lock();
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

fn key(info: &RequestInfo, namespace: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&info.api_group, &info.resource, namespace, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(resource: &str, namespace: &str, name: &str) -> RequestInfo {
        RequestInfo {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn whoever_may_see_a_change_is_counted() {
        let all = Arc::new(Watchers::default());
        let of = |resource, namespace, name| all.register(&info(resource, namespace, name), |_| None);
        let open = [
            of("configmaps", "", ""),
            of("configmaps", "a", ""),
            of("configmaps", "a", ""),
            of("configmaps", "a", "x"),
            of("configmaps", "b", ""),
            of("nodes", "", "n"),
        ];
        for (changed, expected) in [
            (info("configmaps", "a", "x"), 4),
            (info("configmaps", "a", "y"), 3),
            (info("configmaps", "a", ""), 3),
            (info("configmaps", "b", "x"), 2),
            (info("nodes", "", "n"), 1),
            (info("secrets", "a", "x"), 0),
        ] {
            assert_eq!(all.interested(&changed), expected, "{changed:?}");
        }
        drop(open);
        assert!(all.0.lock().is_empty(), "what nobody watches costs nothing");
    }

    #[test]
    fn the_watchers_of_other_nodes_pods_are_not_woken() {
        let all = Arc::new(Watchers::default());
        let pods = info("pods", "", "");
        let _open = [
            all.register(&pods, |field| (field == "spec.nodeName").then_some("n")),
            all.register(&pods, |field| (field == "spec.nodeName").then_some("")),
            all.register(&pods, |_| None),
        ];
        assert_eq!(all.interested(&info("pods", "a", "x")), 2);
    }
}
