//! Looks at the server of an APIService whenever something changed that may change whether it can be reached, and from
//! time to time, because servers come and go without telling (upstream: `kube-aggregator/pkg/controllers/status/remote`).

use super::availability::{self, Condition};
use super::services::{self, ApiService, Remote};
use super::{Aggregator, ask};
use crate::apiserver::ApiServer;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::following;
use crate::apiserver::handlers::engine::{self, Update, ownership};
use crate::apiserver::request::RequestInfo;
use crate::apiserver::service_endpoints;
use crate::registry::json::at;
use crate::registry::strategy::{Object, Target};
use crate::storage::{Event, EventKind, StorageError};
use crate::transport::extension::Destination;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

/// Upstream's resync.
const AGAIN: Duration = Duration::from_secs(30);
/// After a failure, doubled with each further one.
const RETRY: Duration = Duration::from_millis(5);
/// Connections at once: one that succeeds is enough.
const ATTEMPTS: usize = 5;

/// Runs for as long as the store is open.
pub async fn run(server: Arc<ApiServer>) {
    let trouble = "APIServices are not followed for the moment";
    following::keep(trouble, AGAIN, || follow(server.clone())).await;
}

/// How a look ended.
enum Outcome {
    /// Everything is said of it until something changes.
    Settled,
    /// It may change without a sign.
    Watched,
    Failed,
}

/// Which APIServices are to be looked at, and when.
#[derive(Default)]
struct Queue {
    due: BTreeMap<Arc<str>, Instant>,
    failures: BTreeMap<Arc<str>, u32>,
    /// Being looked at; true: once more after that.
    busy: BTreeMap<Arc<str>, bool>,
}

impl Queue {
    fn add(&mut self, name: &Arc<str>, at: Instant) {
        if let Some(again) = self.busy.get_mut(name) {
            *again = true;
            return;
        }
        let due = self.due.entry(name.clone()).or_insert(at);
        *due = (*due).min(at);
    }

    fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Takes out what is due.
    fn take(&mut self, now: Instant) -> Vec<Arc<str>> {
        let due: Vec<Arc<str>> = self
            .due
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &due {
            self.due.remove(name);
            self.busy.insert(name.clone(), false);
        }
        due
    }

    fn done(&mut self, name: &Arc<str>, outcome: &Outcome, now: Instant) {
        let again = self.busy.remove(name) == Some(true);
        match outcome {
            Outcome::Settled => {
                self.failures.remove(name);
            }
            Outcome::Watched => {
                self.failures.remove(name);
                self.add(name, now + AGAIN);
            }
            Outcome::Failed => {
                let failures = self.failures.entry(name.clone()).or_default();
                let pause = RETRY.saturating_mul(1 << (*failures).min(20)).min(AGAIN);
                *failures += 1;
                self.add(name, now + pause);
            }
        }
        if again {
            self.add(name, now);
        }
    }
}

/// The looks that are being taken.
#[derive(Default)]
struct Looks {
    tasks: JoinSet<Outcome>,
    names: HashMap<Id, Arc<str>>,
}

impl Looks {
    fn spawn(&mut self, name: Arc<str>, look: impl Future<Output = Outcome> + Send + 'static) {
        let task = self.tasks.spawn(look);
        self.names.insert(task.id(), name);
    }

    /// The next one that ends. One that broke off has failed, and is taken again like any other.
    async fn next(&mut self) -> Option<(Arc<str>, Outcome)> {
        let (id, outcome) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "a look at an APIService broke off");
                (error.id(), Outcome::Failed)
            }
        };
        Some((self.names.remove(&id)?, outcome))
    }
}

async fn follow(server: Arc<ApiServer>) -> Result<(), StorageError> {
    let from = server.storage.revision();
    let mut api_services = server.storage.watch(services::RESOURCE, None, from)?;
    let mut services = server.storage.watch(service_endpoints::SERVICES, None, from)?;
    let mut slices = server.storage.watch(service_endpoints::ENDPOINT_SLICES, None, from)?;
    let mut queue = Queue::default();
    for service in server.aggregator.services.read().all() {
        queue.add(&service.name, Instant::now());
    }
    let mut looks = Looks::default();
    loop {
        let due = queue.next();
        tokio::select! {
            events = api_services.next() => {
                for event in events? {
                    if is_news(&event) {
                        // Its failures were another's.
                        queue.failures.remove(&event.entry.key.name);
                        queue.add(&event.entry.key.name, Instant::now());
                    }
                }
            }
            events = services.next() => {
                for event in events? {
                    add_users(&server, &mut queue, &event.entry.key.namespace, &event.entry.key.name);
                }
            }
            events = slices.next() => {
                for event in events? {
                    if let Some(name) = service_endpoints::service_of(&event.entry) {
                        add_users(&server, &mut queue, &event.entry.key.namespace, name);
                    }
                }
            }
            Some((name, outcome)) = looks.next() => queue.done(&name, &outcome, Instant::now()),
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                for name in queue.take(Instant::now()) {
                    let (server, looked_at) = (server.clone(), name.clone());
                    looks.spawn(name, async move { look(&server, &looked_at).await });
                }
            }
        }
    }
}

/// Something else than another condition of no concern, and what was written here.
fn is_news(event: &Event) -> bool {
    let (EventKind::Put, Some(previous)) = (event.kind, &event.previous) else {
        return true;
    };
    let read = |bytes: &[u8]| serde_json::from_slice::<Object>(bytes).unwrap_or_default();
    let (old, new) = (read(&previous.bytes), read(&event.entry.bytes));
    at(&old, &["spec"]) != at(&new, &["spec"]) || availability::stored(&old) != availability::stored(&new)
}

fn add_users(server: &ApiServer, queue: &mut Queue, namespace: &str, name: &str) {
    let services = server.aggregator.services.read();
    let users = services.remotes().filter(|service| {
        let remote = service.remote.as_ref();
        remote.is_some_and(|remote| remote.namespace == namespace && remote.name == name)
    });
    for service in users {
        queue.failures.remove(&service.name);
        queue.add(&service.name, Instant::now());
    }
}

/// Looks at one, learns what it serves, and writes down whether it can be reached.
async fn look(server: &Arc<ApiServer>, name: &Arc<str>) -> Outcome {
    let aggregator = &server.aggregator;
    let service = aggregator.services.read().get(name);
    let (condition, outcome) = match service {
        None => {
            aggregator.forget(name);
            aggregator.publish(&server.openapi);
            return Outcome::Settled;
        }
        Some(service) => match &service.remote {
            None => {
                aggregator.forget(name);
                (availability::local(), Outcome::Settled)
            }
            Some(remote) => {
                let condition = condition(aggregator, &service, remote).await;
                // Before it is said to be available, so that whoever waits for that finds all of it.
                match condition.is_true {
                    true => aggregator.learn(&service, remote).await,
                    false => aggregator.lost(&service),
                }
                let outcome = match condition.reason {
                    "FailedDiscoveryCheck" => Outcome::Failed,
                    _ => Outcome::Watched,
                };
                (condition, outcome)
            }
        },
    };
    aggregator.publish(&server.openapi);
    match write(server, name, &condition).await {
        Ok(()) => outcome,
        Err(error) => {
            tracing::warn!(%error, %name, "the condition of an APIService could not be written");
            Outcome::Failed
        }
    }
}

async fn condition(aggregator: &Aggregator, service: &ApiService, remote: &Remote) -> Condition {
    let Remote { namespace, name, .. } = remote;
    let found = service_endpoints::find(&aggregator.storage, namespace, name);
    let slices = service_endpoints::slices(&aggregator.storage, namespace, name);
    let slices = slices.unwrap_or_default();
    match availability::objection(remote, found.as_ref(), &slices) {
        Some(condition) => condition,
        None => availability::tried(attempt(aggregator, service, remote).await),
    }
}

/// Whether the server tells what it serves. Its certificate does not matter for that: nothing is said to it.
async fn attempt(aggregator: &Aggregator, service: &ApiService, remote: &Remote) -> Result<(), String> {
    let path = format!("/apis/{}/{}", service.group, service.version);
    let one = || async {
        let Remote {
            namespace, name, port, ..
        } = remote;
        let address = service_endpoints::resolve(&aggregator.storage, namespace, name, *port)?;
        let to = Destination {
            name: address.host.clone(),
            address,
            tls: aggregator.client.unverified(),
        };
        let url = format!("https://{}{path}", to.address);
        let failed = |why: String| format!("failing or missing response from {url}: {why}");
        let answer = ask::get(&aggregator.client, &to, &path, "*/*", None).await;
        let status = answer.map_err(failed)?.status;
        if status.is_success() {
            return Ok(());
        }
        let why = format!("bad status from {url}: {}", status.as_u16());
        Err(failed(why))
    };
    let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| one()).collect();
    let mut last = Ok(());
    while let Some(outcome) = attempts.next().await {
        if outcome.is_ok() {
            return Ok(());
        }
        last = outcome;
    }
    last
}

async fn write(server: &Arc<ApiServer>, name: &str, condition: &Condition) -> Result<(), ApiError> {
    let kind = server
        .registry
        .lookup_kind("apiregistration.k8s.io", "v1", "APIService");
    let kind = kind.ok_or_else(|| ApiError::internal("APIServices are not served"))?;
    let Some(entry) = server.storage.get(services::RESOURCE, "", name) else {
        return Ok(());
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let current: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    if availability::with_condition(&current, condition, &now).is_none() {
        return Ok(());
    }
    let info = RequestInfo {
        is_resource_request: true,
        verb: "update".into(),
        api_prefix: "apis".into(),
        api_group: kind.group.into(),
        api_version: kind.version.into(),
        resource: kind.resource.into(),
        subresource: "status".into(),
        name: name.into(),
        ..RequestInfo::default()
    };
    let ctx = Context::internal(server, info);
    let update = Update {
        kind: &kind,
        name,
        target: Target::Status,
        dry_run: false,
    };
    let mut change = |old: &Object| {
        let mut new = availability::with_condition(old, condition, &now).unwrap_or_else(|| old.clone());
        ownership::update(&ctx, &kind, Target::Status, Some(old), &mut new);
        Ok(new)
    };
    engine::update(&ctx, &update, &mut change).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_breaks_off_is_taken_again() {
        let (mut queue, mut looks) = (Queue::default(), Looks::default());
        let name: Arc<str> = Arc::from("v1.example.com");
        let now = Instant::now();
        queue.add(&name, now);
        for name in queue.take(now) {
            looks.spawn(name, async { panic!("as the test wants it") });
        }
        let (looked_at, outcome) = looks.next().await.unwrap();
        assert!(looked_at == name && matches!(outcome, Outcome::Failed));
        queue.done(&looked_at, &outcome, now);
        assert_eq!(queue.next(), Some(now + RETRY));
        assert!(looks.next().await.is_none());
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_news_at_once() {
        let mut queue = Queue::default();
        let name: Arc<str> = Arc::from("v1.example.com");
        let mut pauses = Vec::new();
        queue.add(&name, Instant::now());
        for _ in 0..15 {
            let now = queue.next().unwrap();
            assert_eq!(queue.take(now), std::slice::from_ref(&name));
            assert_eq!(queue.next(), None);
            queue.done(&name, &Outcome::Failed, now);
            pauses.push((queue.next().unwrap() - now).as_millis());
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[14], 30_000);
        let now = Instant::now();
        queue.add(&name, now);
        assert_eq!(queue.take(now).len(), 1);
        // What comes meanwhile is looked at afterwards.
        queue.add(&name, now);
        assert_eq!(queue.next(), None);
        queue.done(&name, &Outcome::Watched, now);
        assert_eq!(queue.next(), Some(now));
        queue.take(now);
        queue.done(&name, &Outcome::Watched, now);
        assert_eq!(queue.next(), Some(now + AGAIN));
        queue.take(now + AGAIN);
        queue.done(&name, &Outcome::Settled, now + AGAIN);
        assert_eq!(queue.next(), None);
    }
}
