//! Events about objects, for people to read (upstream: `client-go/tools/record`).
//!
//! Reporting never blocks and never fails for its caller: a bounded queue feeds one task that writes. The same
//! event again raises the count of the first one; an object that reports too much is cut short.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const QUEUE_EVENTS_MAX: usize = 1000;
/// Distinct events remembered for counting, as upstream.
const REMEMBERED_EVENTS_MAX: usize = 4096;
/// New events per object: this many at once, then one every [`REFILL_SECONDS`].
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;
const MESSAGE_BYTES_MAX: usize = 1024;
/// From so many different messages on, reports that are otherwise the same become one event, as upstream …
const SIMILAR_MESSAGES_MAX: usize = 10;
/// … until there was none for so long.
const SIMILAR_SECONDS: i64 = 600;
const SIMILAR_PREFIX: &str = "(combined from similar events): ";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Normal,
    Warning,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone, Debug)]
struct Report {
    object: ObjectReference,
    level: Level,
    reason: Cow<'static, str>,
    message: String,
    annotations: BTreeMap<String, String>,
    at: Timestamp,
}

/// Hands events to the writing task.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Report>,
}

impl Recorder {
    /// The recorder of `component` (on `host`, if it belongs to a node), and its task: the owner spawns it; it writes
    /// what is queued, then ends, after `shutdown`.
    pub fn new(
        client: kube::Client,
        component: impl Into<String>,
        host: Option<String>,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, reports) = mpsc::channel(QUEUE_EVENTS_MAX);
        let writer = Writer {
            client,
            component: component.into(),
            host,
            known: BTreeMap::new(),
            order: VecDeque::new(),
            budgets: BTreeMap::new(),
            similar: Similar::default(),
        };
        (Self { queue }, writer.run(reports, shutdown))
    }

    /// What happened to `object`.
    pub fn event<K>(&self, object: &K, level: Level, reason: impl Into<Cow<'static, str>>, message: impl Into<String>)
    where
        K: Resource<DynamicType = ()>,
    {
        self.event_at(object, None, level, reason, message);
    }

    /// What happened to the part of `object` at `field_path`, as in `spec.containers{name}`.
    pub fn event_at<K>(
        &self,
        object: &K,
        field_path: Option<String>,
        level: Level,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.about(reference(object, field_path), level, reason, message);
    }

    /// What happened to `object`; `annotations` are the event's.
    pub fn annotated<K>(
        &self,
        object: &K,
        annotations: BTreeMap<String, String>,
        level: Level,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        self.send(
            reference(object, None),
            annotations,
            level,
            reason.into(),
            message.into(),
        );
    }

    /// What happened to the object that `reference` names.
    pub fn about(
        &self,
        reference: ObjectReference,
        level: Level,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) {
        self.send(reference, BTreeMap::new(), level, reason.into(), message.into());
    }

    fn send(
        &self,
        object: ObjectReference,
        annotations: BTreeMap<String, String>,
        level: Level,
        reason: Cow<'static, str>,
        mut message: String,
    ) {
        if message.len() > MESSAGE_BYTES_MAX {
            let mut end = MESSAGE_BYTES_MAX;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let at = Timestamp::now();
        let report = Report {
            object,
            level,
            reason,
            message,
            annotations,
            at,
        };
        if let Err(error) = self.queue.try_send(report) {
            let reason = &error.into_inner().reason;
            tracing::warn!(%reason, "An event was dropped: the queue of events is full");
        }
    }
}

fn reference<K: Resource<DynamicType = ()>>(object: &K, field_path: Option<String>) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path,
    }
}

/// What makes two reports the same event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    uid: String,
    field_path: String,
    level: Level,
    reason: Cow<'static, str>,
    message: String,
}

struct Known {
    name: String,
    count: i32,
}

struct Budget {
    left: f64,
    at: Timestamp,
}

struct Writer {
    client: kube::Client,
    component: String,
    host: Option<String>,
    known: BTreeMap<Key, Known>,
    order: VecDeque<Key>,
    budgets: BTreeMap<String, Budget>,
    similar: Similar,
}

/// The messages of reports that differ in nothing else, by their key without message.
#[derive(Default)]
struct Similar(BTreeMap<Key, (BTreeSet<String>, Timestamp)>);

impl Similar {
    /// `key`, or the one that it shares with others from now on. Pure but for what it remembers.
    fn key(&mut self, key: Key, at: Timestamp) -> Key {
        if self.0.len() >= REMEMBERED_EVENTS_MAX {
            self.0.clear();
        }
        let shared = Key {
            message: String::new(),
            ..key.clone()
        };
        let (messages, last) = self.0.entry(shared.clone()).or_insert_with(|| (BTreeSet::new(), at));
        if at.as_second() - last.as_second() > SIMILAR_SECONDS {
            messages.clear();
        }
        *last = at;
        if messages.len() < SIMILAR_MESSAGES_MAX {
            messages.insert(key.message.clone());
        }
        if messages.len() < SIMILAR_MESSAGES_MAX {
            key
        } else {
            shared
        }
    }
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>, shutdown: CancellationToken) {
        loop {
            let report = tokio::select! {
                report = reports.recv() => report,
                () = shutdown.cancelled() => {
                    reports.close();
                    reports.recv().await
                }
            };
            let Some(report) = report else { return };
            if !self.spend(&report) {
                continue;
            }
            if let Err(error) = self.write(&report).await {
                let reason = &report.reason;
                // Events are best effort; one in a namespace that is going away is normal.
                tracing::debug!(%reason, %error, "An event could not be written");
            }
        }
    }

    /// Whether the object may still report.
    fn spend(&mut self, report: &Report) -> bool {
        if self.budgets.len() >= REMEMBERED_EVENTS_MAX {
            self.budgets.clear();
        }
        let uid = report.object.uid.clone().unwrap_or_default();
        let full = Budget {
            left: BURST,
            at: report.at,
        };
        let budget = self.budgets.entry(uid).or_insert(full);
        let passed = report.at.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.left = (budget.left + passed / REFILL_SECONDS).min(BURST);
        budget.at = report.at;
        if budget.left < 1.0 {
            return false;
        }
        budget.left -= 1.0;
        true
    }

    async fn write(&mut self, report: &Report) -> Result<(), kube::Error> {
        let namespace = report.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = Key {
            uid: report.object.uid.clone().unwrap_or_default(),
            field_path: report.object.field_path.clone().unwrap_or_default(),
            level: report.level,
            reason: report.reason.clone(),
            message: report.message.clone(),
        };
        let key = self.similar.key(key, report.at);
        let combined = key.message.is_empty() && !report.message.is_empty();
        let message = if combined {
            format!("{SIMILAR_PREFIX}{}", report.message)
        } else {
            report.message.clone()
        };
        if let Some(known) = self.known.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            let change = json!({"count": known.count, "lastTimestamp": Time(report.at), "message": message});
            let name = known.name.clone();
            match api
                .patch(&name, &PatchParams::default(), &Patch::Strategic(change))
                .await
            {
                // It outlived its time: the next one is a first one again.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => return other.map(|_| ()),
            }
        }
        let event = self.event(report, message, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        self.remember(key, name);
        Ok(())
    }

    fn event(&self, report: &Report, message: String, namespace: &str) -> Event {
        let object = report.object.name.as_deref().unwrap_or_default();
        let stamp = u64::try_from(report.at.as_nanosecond()).unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                // Upstream's form: the object's name and the time in hexadecimal nanoseconds.
                name: Some(format!("{object}.{stamp:x}")),
                namespace: Some(namespace.to_owned()),
                annotations: Some(report.annotations.clone()).filter(|all| !all.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: report.object.clone(),
            reason: Some(report.reason.clone().into_owned()),
            message: Some(message),
            type_: Some(report.level.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(report.at)),
            last_timestamp: Some(Time(report.at)),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: self.host.clone(),
            }),
            reporting_component: Some(self.component.clone()),
            // Empty where there is no host, as upstream's recorder leaves it.
            reporting_instance: Some(self.host.clone().unwrap_or_default()),
            ..Event::default()
        }
    }

    fn remember(&mut self, key: Key, name: String) {
        if self.known.len() >= REMEMBERED_EVENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        if self.known.insert(key.clone(), Known { name, count: 1 }).is_none() {
            self.order.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_messages_become_one_event() {
        let mut similar = Similar::default();
        let key = |message: &str| Key {
            uid: "u".into(),
            field_path: String::new(),
            level: Level::Warning,
            reason: "FailedCreate".into(),
            message: message.into(),
        };
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for number in 0..9 {
            let own = key(&number.to_string());
            assert_eq!(similar.key(own.clone(), at(number)), own);
        }
        // The same again is no other message.
        assert_eq!(similar.key(key("8"), at(9)), key("8"));
        for message in ["9", "10", "0"] {
            assert_eq!(similar.key(key(message), at(10)), key(""), "{message}");
        }
        let other = Key {
            reason: "SuccessfulCreate".into(),
            ..key("x")
        };
        assert_eq!(similar.key(other.clone(), at(10)), other);
        // After a while they are told one by one again.
        assert_eq!(similar.key(key("11"), at(611)), key("11"));
    }
}
