//! The store: every acknowledged write is there after a kill, revisions never repeat, and a watch resumed from the last
//! seen revision misses nothing and repeats nothing.

use crate::support::krust::Krust;
use crate::{client, rounds, seed};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const WRITERS: u64 = 8;
const KEYS_PER_WRITER: u64 = 5;

/// What a key holds: None is absent.
type State = Option<String>;

/// A write and what became of it.
#[derive(Clone, Debug)]
enum Outcome {
    /// Acknowledged with this revision (none for deletions, which answer with a Status).
    Acknowledged(Option<u64>),
    Unknown,
}

#[derive(Default)]
struct Model {
    /// By key: the last acknowledged state, and the states that unanswered writes may have left.
    keys: BTreeMap<String, (State, Vec<State>)>,
    /// Revision of every acknowledged create and update, with its key and payload.
    acknowledged: BTreeMap<u64, (String, String)>,
}

impl Model {
    fn record(&mut self, key: &str, state: State, outcome: Outcome) {
        let entry = self.keys.entry(key.to_owned()).or_default();
        match outcome {
            Outcome::Acknowledged(revision) => {
                *entry = (state.clone(), Vec::new());
                if let (Some(revision), Some(payload)) = (revision, state) {
                    let before = self.acknowledged.insert(revision, (key.to_owned(), payload));
                    assert!(
                        before.is_none(),
                        "revision {revision} was given twice: {before:?} and {key}"
                    );
                }
            }
            Outcome::Unknown => entry.1.push(state),
        }
    }
}

/// What the watch has shown since the beginning, over all kills.
#[derive(Default)]
struct Seen {
    revision: u64,
    events: BTreeMap<u64, (String, State)>,
}

fn payload(object: &ConfigMap) -> String {
    object
        .data
        .as_ref()
        .and_then(|data| data.get("v"))
        .cloned()
        .unwrap_or_default()
}

/// Not the certificate that a controller puts into every namespace, at a moment of its own.
fn ours(object: &ConfigMap) -> bool {
    object.name_any() != "kube-root-ca.crt"
}

fn revision(object: &ConfigMap) -> u64 {
    object
        .resource_version()
        .and_then(|version| version.parse().ok())
        .expect("a numeric resourceVersion")
}

/// Writes to keys of its own until the connection breaks.
async fn writer(client: Client, number: u64, mut random: StdRng, model: Arc<Mutex<Model>>) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    loop {
        let key = format!("w{number}-{}", random.random_range(0..KEYS_PER_WRITER));
        let (current, unsure) = model.lock().unwrap().keys.get(&key).cloned().unwrap_or_default();
        assert!(
            unsure.is_empty(),
            "a writer goes on with a key whose state it does not know"
        );
        let value = format!("{:016x}", random.random::<u64>());
        let object: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": key}, "data": {"v": value}})).unwrap();
        let (state, result) = match current {
            None => (
                Some(value),
                api.create(&PostParams::default(), &object)
                    .await
                    .map(|o| Some(revision(&o))),
            ),
            Some(_) if random.random_bool(0.2) => {
                (None, api.delete(&key, &DeleteParams::default()).await.map(|_| None))
            }
            Some(_) => (
                Some(value),
                api.replace(&key, &PostParams::default(), &object)
                    .await
                    .map(|o| Some(revision(&o))),
            ),
        };
        match result {
            Ok(revision) => model
                .lock()
                .unwrap()
                .record(&key, state, Outcome::Acknowledged(revision)),
            Err(kube::Error::Api(status)) => panic!("{key}: the server refused a good write: {status:?}"),
            Err(_) => {
                model.lock().unwrap().record(&key, state, Outcome::Unknown);
                return;
            }
        }
    }
}

/// Follows all ConfigMaps from the last seen revision until the connection breaks.
async fn watcher(client: Client, seen: Arc<Mutex<Seen>>) {
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let from = seen.lock().unwrap().revision;
    let Ok(events) = api.watch(&WatchParams::default(), &from.to_string()).await else {
        return;
    };
    let mut events = events.boxed();
    while let Some(Ok(event)) = events.next().await {
        let (object, state) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let state = Some(payload(&object));
                (object, state)
            }
            WatchEvent::Deleted(object) => (object, None),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => panic!("the watch from {from} failed: {status:?}"),
        };
        let mut seen = seen.lock().unwrap();
        let revision = revision(&object);
        assert!(
            revision > seen.revision,
            "the watch went from {} to {revision}",
            seen.revision
        );
        seen.revision = revision;
        if ours(&object) {
            seen.events.insert(revision, (object.name_any(), state));
        }
    }
}

/// After a restart: the stored state is what was acknowledged, or what an unanswered write left.
async fn check_state(client: &Client, model: &Mutex<Model>) -> (u64, BTreeMap<String, String>) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let list = api
        .list(&ListParams::default())
        .await
        .expect("a list after the restart");
    let at: u64 = list
        .metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .expect("the list's revision");
    let stored: BTreeMap<String, String> = list
        .items
        .iter()
        .filter(|object| ours(object))
        .map(|object| (object.name_any(), payload(object)))
        .collect();
    let mut model = model.lock().unwrap();
    for (key, (known, unsure)) in &mut model.keys {
        let found = stored.get(key).cloned();
        let good = found == *known || unsure.contains(&found);
        assert!(
            good,
            "{key}: acknowledged {known:?}, unanswered {unsure:?}, found {found:?}"
        );
        *known = found;
        unsure.clear();
    }
    for object in &list.items {
        assert!(revision(object) <= at);
        if let Some((key, value)) = model.acknowledged.get(&revision(object)) {
            assert_eq!(
                (key, value),
                (&object.name_any(), &payload(object)),
                "a revision changed its meaning"
            );
        }
    }
    (at, stored)
}

/// Lets a fresh watch catch up to `at` and compares what all watches together have shown with the truth.
async fn check_watch(
    client: &Client,
    at: u64,
    stored: &BTreeMap<String, String>,
    model: &Mutex<Model>,
    seen: &Arc<Mutex<Seen>>,
) {
    // A write of our own marks the end: when its event is there, so is everything before it.
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let mark: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "mark"}, "data": {"v": at.to_string()}})).unwrap();
    let marked = match api.create(&PostParams::default(), &mark).await {
        Err(kube::Error::Api(status)) if status.code == 409 => api.replace("mark", &PostParams::default(), &mark).await,
        other => other,
    };
    let end = revision(&marked.expect("the mark is written"));
    let watch = tokio::spawn(watcher(client.clone(), seen.clone()));
    let caught_up = async {
        while seen.lock().unwrap().revision < end {
            assert!(!watch.is_finished(), "the watch ended before revision {end}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), caught_up)
        .await
        .expect("the watch shows the mark");
    watch.abort();
    let seen = seen.lock().unwrap();
    let mut replayed = BTreeMap::new();
    for (key, state) in seen.events.values() {
        match state {
            Some(value) => replayed.insert(key.clone(), value.clone()),
            None => replayed.remove(key),
        };
    }
    replayed.remove("mark");
    let mut stored = stored.clone();
    stored.remove("mark");
    assert_eq!(replayed, stored, "the events replayed are not the stored state");
    for (revision, (key, value)) in &model.lock().unwrap().acknowledged {
        let event = seen.events.get(revision);
        assert_eq!(
            event,
            Some(&(key.clone(), Some(value.clone()))),
            "revision {revision} is missing in the watch"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_nine_loses_nothing() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (rounds, seed) = (rounds(200), seed());
    let mut random = StdRng::seed_from_u64(seed);
    let mut krust = Krust::start(&["--runtime", "none"]);
    let model = Arc::new(Mutex::new(Model::default()));
    let seen = Arc::new(Mutex::new(Seen::default()));
    let start = check_state(&client(&krust).await, &model).await.0;
    seen.lock().unwrap().revision = start;
    let mut revisions_before = BTreeSet::new();
    for round in 0..rounds {
        let client = client(&krust).await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..WRITERS {
            let random = StdRng::seed_from_u64(seed ^ (u64::from(round) << 8) ^ number);
            tasks.spawn(writer(client.clone(), number, random, model.clone()));
        }
        tasks.spawn(watcher(client, seen.clone()));
        tokio::time::sleep(Duration::from_micros(random.random_range(1_000..150_000))).await;
        krust.kill();
        while let Some(ended) = tasks.join_next().await {
            ended.expect("no writer or watcher failed");
        }
        krust.start_again();
        let client = crate::client(&krust).await;
        let (at, stored) = check_state(&client, &model).await;
        check_watch(&client, at, &stored, &model, &seen).await;
        // Acknowledged revisions only ever grow in number and are never reused: `record` asserts the latter.
        let acknowledged: BTreeSet<u64> = model.lock().unwrap().acknowledged.keys().copied().collect();
        assert!(acknowledged.is_superset(&revisions_before));
        revisions_before = acknowledged;
    }
    println!(
        "{rounds} kills, {} acknowledged writes, {} events",
        revisions_before.len(),
        seen.lock().unwrap().events.len()
    );
    assert!(revisions_before.len() as u32 > rounds, "the writers hardly wrote");
}
