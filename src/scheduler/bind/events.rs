//! The scheduler's events (upstream: `client-go/tools/events`): the same once more within some minutes raises a count.
//!
//! Written by the tasks that have something to tell, so that a thousand a second get through; `client::events` writes one
//! after the other.

use crate::scheduler::pod_info::PodInfo;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Events that may come again are remembered for so long after they last came.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(6);
const REMEMBERED_MAX: usize = 4096;

/// What happened to a pod.
pub struct Told<'a> {
    pub warning: bool,
    pub reason: &'static str,
    pub action: &'static str,
    pub note: String,
    /// On whose account.
    pub related: Option<&'a PodInfo>,
}

#[derive(Clone)]
pub struct Events {
    client: kube::Client,
    instance: Arc<str>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    by_key: HashMap<String, Written>,
    order: VecDeque<String>,
}

#[derive(Clone)]
struct Written {
    name: String,
    count: i32,
    last: Timestamp,
}

impl Known {
    /// The event that was written before, with its new count.
    fn again(&mut self, key: &str, now: Timestamp) -> Option<Written> {
        let written = self.by_key.get_mut(key)?;
        if now.duration_since(written.last) > REMEMBERED {
            return None;
        }
        written.count += 1;
        written.last = now;
        Some(written.clone())
    }

    fn remember(&mut self, key: String, name: String, now: Timestamp) {
        let written = Written {
            name,
            count: 1,
            last: now,
        };
        if self.by_key.insert(key.clone(), written).is_none() {
            self.order.push_back(key);
        }
        while self.by_key.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

impl Events {
    pub fn new(client: kube::Client) -> Self {
        let host = nix::unistd::gethostname().ok();
        let host = host.and_then(|name| name.into_string().ok()).unwrap_or_default();
        Self {
            client,
            instance: host.into(),
            known: Arc::default(),
        }
    }

    /// `by` is the profile's name.
    pub async fn tell(&self, by: &str, pod: &PodInfo, told: Told<'_>) {
        let reason = told.reason;
        if let Err(error) = self.write(by, pod, told).await {
            tracing::warn!(pod = %pod.key(), %error, reason, "could not record an event");
        }
    }

    async fn write(&self, by: &str, pod: &PodInfo, told: Told<'_>) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &pod.namespace);
        let now = Timestamp::now();
        let related = told.related.map(reference);
        // What happens to a pod but once need not be remembered.
        let repeats = told.reason != "Scheduled";
        let key = format!("{by}/{}/{}/{}", pod.uid, told.reason, told.note);
        if repeats && let Some(written) = { self.known.lock().again(&key, now) } {
            let series = json!({"series": {"count": written.count, "lastObservedTime": MicroTime(now)}});
            let patch = Patch::Merge(series);
            match api.patch(&written.name, &PatchParams::default(), &patch).await {
                // It has expired meanwhile.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(drop),
            }
        }
        let name = format!("{}.{:x}", pod.name, now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(pod.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some(if told.warning { "Warning" } else { "Normal" }.into()),
            reason: Some(told.reason.into()),
            action: Some(told.action.into()),
            note: Some(told.note),
            event_time: Some(MicroTime(now)),
            regarding: Some(reference(pod)),
            related,
            reporting_controller: Some(by.into()),
            reporting_instance: Some(format!("{by}-{}", self.instance)),
            ..Event::default()
        };
        api.create(&PostParams::default(), &event).await?;
        if repeats {
            self.known.lock().remember(key, name, now);
        }
        Ok(())
    }
}

fn reference(pod: &PodInfo) -> ObjectReference {
    ObjectReference {
        resource_version: pod.pod.metadata.resource_version.clone(),
        ..pod.pod.object_ref(&())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_counted_for_a_while() {
        let mut known = Known::default();
        let start = Timestamp::UNIX_EPOCH;
        assert!(known.again("a", start).is_none());
        known.remember("a".into(), "event".into(), start);
        assert_eq!(known.again("a", start).map(|written| written.count), Some(2));
        assert_eq!(
            known.again("a", start + REMEMBERED).map(|written| written.count),
            Some(3)
        );
        assert!(known.again("a", start + REMEMBERED * 3).is_none());
        for n in 0..2 * REMEMBERED_MAX {
            known.remember(n.to_string(), String::new(), start);
        }
        assert_eq!(
            (known.by_key.len(), known.order.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
    }
}
