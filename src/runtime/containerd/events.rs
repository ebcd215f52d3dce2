//! The daemon's events: one stream, shared by everyone who listens (upstream: the CRI plugin's `events.go`).

use super::record::{self, Change, TYPE_CONTAINER, TYPE_SANDBOX};
use super::{Parts, Result, RuntimeEvent, RuntimeEventKind, gone_is_fine};
use containerd_client::events::{ContainerDelete, TaskExit, TaskOom, TaskStart};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::tonic::{Status, Streaming};
use containerd_client::types::Envelope;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use prost::Message;
use prost_types::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::task::AbortOnDropHandle;

/// Events that a slow reader may be behind before it is told to list again.
const BUFFER_EVENTS_MAX: usize = 4096;
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);
/// Between the events that a new subscription is woken with.
const HELLO_INTERVAL: Duration = Duration::from_millis(20);
const HELLO_TOPIC: &str = "/krust/hello";

/// Hands events on, and knows whose they are: the event of a deletion comes when nothing is left to look at.
pub(super) struct Hub {
    sender: broadcast::Sender<RuntimeEvent>,
    /// Type and pod of this krust's containers.
    known: Mutex<HashMap<String, (&'static str, String)>>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub {
            sender: broadcast::channel(BUFFER_EVENTS_MAX).0,
            known: Mutex::default(),
        }
    }
}

impl Hub {
    pub fn learn(&self, id: &str, object_type: &'static str, pod_uid: &str) {
        let mut known = self.known.lock();
        known.insert(id.to_string(), (object_type, pod_uid.to_string()));
    }

    /// Tells of a change of one of this krust's containers; others are nobody's business.
    pub fn tell(&self, kind: RuntimeEventKind, id: &str) {
        let known = self.known.lock().get(id).cloned();
        if let Some((_, pod_uid)) = known {
            // An error means that nobody listens.
            let _ = self.sender.send(RuntimeEvent {
                kind,
                pod_uid,
                container_id: id.to_string(),
            });
        }
    }

    fn type_of(&self, id: &str) -> Option<&'static str> {
        self.known.lock().get(id).map(|(object_type, _)| *object_type)
    }

    pub fn runtime_events(&self) -> BoxStream<'static, RuntimeEvent> {
        BroadcastStream::new(self.sender.subscribe())
            .map(|event| event.unwrap_or_else(|_lagged| RuntimeEvent::resync()))
            .boxed()
    }
}

/// Returns when the stream is open: what happens from then on is seen.
pub(super) async fn start(parts: Arc<Parts>) -> Result<AbortOnDropHandle<()>> {
    let stream = open(&parts).await?;
    recover(&parts).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(read(parts, stream))))
}

/// The daemon answers a subscription with its first event only, so that one is sent to it until it answers.
async fn open(parts: &Parts) -> Result<Streaming<Envelope>> {
    let engine = &parts.engine;
    let error = |status| engine.error("watch", "events", "events", status);
    let request = engine.request(SubscribeRequest {
        filters: ["/tasks/", "/containers/", HELLO_TOPIC]
            .map(|topic| format!("topic~={topic:?}"))
            .to_vec(),
    });
    let hello = || async {
        let hello = engine.request(PublishRequest {
            topic: HELLO_TOPIC.to_string(),
            event: Some(Any {
                type_url: "containerd.events.ContainerDelete".to_string(),
                value: Vec::new(),
            }),
        });
        tokio::time::sleep(HELLO_INTERVAL).await;
        engine.events().publish(hello).await
    };
    let mut client = engine.events();
    let mut subscription = std::pin::pin!(client.subscribe(request));
    loop {
        tokio::select! {
            stream = &mut subscription => return Ok(stream.map_err(error)?.into_inner()),
            published = hello() => published.map(drop).map_err(error)?,
        }
    }
}

/// Learns what there is, and settles what ended while nobody listened.
async fn recover(parts: &Parts) -> Result<()> {
    for object_type in [TYPE_SANDBOX, TYPE_CONTAINER] {
        for container in parts.engine.list(object_type, None).await? {
            parts
                .events
                .learn(&container.id, object_type, record::label(&container, record::POD_UID));
        }
    }
    parts.settle_all().await
}

async fn read(parts: Arc<Parts>, mut stream: Streaming<Envelope>) {
    loop {
        let reason = loop {
            match stream.message().await {
                Ok(Some(envelope)) => handle(&parts, &envelope),
                Ok(None) => break "the daemon closed it".to_string(),
                Err(status) => break reason(&status),
            }
        };
        let endpoint = &parts.engine.options.address;
        tracing::warn!(
            endpoint,
            reason,
            "the stream of containerd's events broke, connecting again"
        );
        let mut delay = RECONNECT_DELAY_MIN;
        stream = loop {
            tokio::time::sleep(delay).await;
            let opened = async {
                let stream = open(&parts).await?;
                recover(&parts).await.map(|()| stream)
            };
            match opened.await {
                Ok(stream) => break stream,
                Err(error) => tracing::debug!(%error, "containerd does not answer yet"),
            }
            delay = (delay * 2).min(RECONNECT_DELAY_MAX);
        };
        tracing::info!(endpoint, "the stream of containerd's events is open again");
        let _ = parts.events.sender.send(RuntimeEvent::resync());
    }
}

fn reason(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// What an event says, as far as it matters here.
#[derive(Debug, PartialEq)]
enum Seen {
    Started(String),
    Exited(String),
    OomKilled(String),
    Removed(String),
}

fn handle(parts: &Arc<Parts>, envelope: &Envelope) {
    if envelope.namespace != parts.engine.options.namespace {
        return;
    }
    let Some(change) = translate(envelope) else {
        return;
    };
    let events = &parts.events;
    match change {
        Seen::Started(id) => match events.type_of(&id) {
            Some(TYPE_SANDBOX) => events.tell(RuntimeEventKind::SandboxStarted, &id),
            Some(_) => events.tell(RuntimeEventKind::ContainerStarted, &id),
            None => {}
        },
        Seen::Exited(id) => match events.type_of(&id) {
            Some(TYPE_SANDBOX) => events.tell(RuntimeEventKind::SandboxStopped, &id),
            // It is told when it is recorded. That takes calls, and other events shall not wait for them.
            Some(_) => {
                let parts = Arc::clone(parts);
                in_background(id.clone(), async move { parts.settle(&id).await });
            }
            None => {}
        },
        Seen::OomKilled(id) if events.type_of(&id) == Some(TYPE_CONTAINER) => {
            let parts = Arc::clone(parts);
            in_background(
                id.clone(),
                async move { parts.engine.change(&id, Change::OomKilled).await },
            );
        }
        Seen::OomKilled(_) => {}
        Seen::Removed(id) => {
            if events.type_of(&id) == Some(TYPE_CONTAINER) {
                events.tell(RuntimeEventKind::ContainerRemoved, &id);
            }
            events.known.lock().remove(&id);
        }
    }
}

fn in_background(id: String, work: impl Future<Output = Result<()>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = gone_is_fine(work.await) {
            tracing::warn!(%error, id, "the end of a container could not be recorded");
        }
    });
}

fn translate(envelope: &Envelope) -> Option<Seen> {
    let value = envelope.event.as_ref()?.value.as_slice();
    match envelope.topic.as_str() {
        "/tasks/start" => TaskStart::decode(value)
            .ok()
            .map(|event| Seen::Started(event.container_id)),
        // Those of an exec have an id of their own.
        "/tasks/exit" => TaskExit::decode(value)
            .ok()
            .filter(|event| event.id == event.container_id)
            .map(|event| Seen::Exited(event.container_id)),
        "/tasks/oom" => TaskOom::decode(value)
            .ok()
            .map(|event| Seen::OomKilled(event.container_id)),
        "/containers/delete" => ContainerDelete::decode(value).ok().map(|event| Seen::Removed(event.id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_client::events::ContainerCreate;

    fn envelope(topic: &str, event: &impl Message) -> Envelope {
        Envelope {
            topic: topic.to_string(),
            event: Some(Any {
                type_url: String::new(),
                value: event.encode_to_vec(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn only_the_first_process_ends_a_container() {
        let exit = |id: &str| TaskExit {
            container_id: "c1".into(),
            id: id.into(),
            ..Default::default()
        };
        assert_eq!(
            translate(&envelope("/tasks/exit", &exit("c1"))),
            Some(Seen::Exited("c1".into()))
        );
        assert_eq!(translate(&envelope("/tasks/exit", &exit("e1"))), None);
        let created = ContainerCreate::default();
        assert_eq!(translate(&envelope("/containers/create", &created)), None);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let hub = Hub::default();
        let mut receiver = hub.sender.subscribe();
        hub.tell(RuntimeEventKind::ContainerStarted, "other");
        assert!(receiver.try_recv().is_err());
        hub.learn("c1", TYPE_CONTAINER, "u1");
        hub.tell(RuntimeEventKind::ContainerStarted, "c1");
        assert_eq!(receiver.try_recv().unwrap().pod_uid, "u1");
    }
}
