//! The engine's events: one connection, shared by everyone who listens (upstream: the kubelet's evented PLEG).

use super::{Engine, Result, RuntimeEvent, RuntimeEventKind, labels, status};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::task::AbortOnDropHandle;

/// Events that a slow reader may be behind before it is told to list again.
const BUFFER_EVENTS_MAX: usize = 4096;
/// The longest line that is taken for an event.
const LINE_BYTES_MAX: usize = 1 << 20;
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(100);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(5);

/// What listeners are told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Runtime(RuntimeEvent),
    ExecEnded { exec_id: String },
}

/// Reads the engine's events and hands them on. The reader ends when the hub is dropped.
pub(super) struct Hub {
    sender: broadcast::Sender<Event>,
    _reader: AbortOnDropHandle<()>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
}

#[derive(Deserialize, Default)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: HashMap<String, String>,
}

impl Hub {
    /// Returns when the stream is open: what happens from then on is seen.
    pub async fn start(engine: Arc<Engine>, statuses: Arc<status::Cache>) -> Result<Hub> {
        let sender = broadcast::channel(BUFFER_EVENTS_MAX).0;
        let answer = open(&engine).await?;
        let reader = tokio::spawn(read(engine, statuses, sender.clone(), answer));
        Ok(Hub {
            sender,
            _reader: AbortOnDropHandle::new(reader),
        })
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    pub fn runtime_events(&self) -> BoxStream<'static, RuntimeEvent> {
        BroadcastStream::new(self.sender.subscribe())
            .filter_map(|event| async move {
                match event {
                    Ok(Event::Runtime(event)) => Some(event),
                    Ok(Event::ExecEnded { .. }) => None,
                    Err(_lagged) => Some(RuntimeEvent::resync()),
                }
            })
            .boxed()
    }
}

async fn open(engine: &Engine) -> Result<super::raw::Answer> {
    let filters = serde_json::json!({
        "type": ["container"],
        "label": [labels::cluster_filter(&engine.cluster_id)],
        "event": ["start", "die", "oom", "destroy", "exec_die"],
    });
    let query: String = form_urlencoded(&filters.to_string());
    engine
        .raw
        .get("watch", "engine", "events", &format!("/events?filters={query}"))
        .await
}

/// Percent-encodes everything but letters and digits.
pub(super) fn form_urlencoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

async fn read(
    engine: Arc<Engine>,
    statuses: Arc<status::Cache>,
    sender: broadcast::Sender<Event>,
    mut answer: super::raw::Answer,
) {
    loop {
        let mut pending = Vec::new();
        let reason = loop {
            match answer.chunk().await {
                Some(Ok(chunk)) => {
                    pending.extend_from_slice(&chunk);
                    deliver(&mut pending, &statuses, &sender);
                    if pending.len() > LINE_BYTES_MAX {
                        break "an event without end".to_string();
                    }
                }
                Some(Err(error)) => break error.to_string(),
                None => break "the engine closed it".to_string(),
            }
        };
        tracing::warn!(endpoint = %engine.endpoint, reason, "the stream of Docker's events broke, connecting again");
        let mut delay = RECONNECT_DELAY_MIN;
        answer = loop {
            tokio::time::sleep(delay).await;
            match open(&engine).await {
                Ok(answer) => break answer,
                Err(error) => tracing::debug!(%error, "Docker does not answer yet"),
            }
            delay = (delay * 2).min(RECONNECT_DELAY_MAX);
        };
        tracing::info!(endpoint = %engine.endpoint, "the stream of Docker's events is open again");
        statuses.forget_all();
        let _ = sender.send(Event::Runtime(RuntimeEvent::resync()));
    }
}

/// Takes the complete lines out of `pending`.
fn deliver(pending: &mut Vec<u8>, statuses: &status::Cache, sender: &broadcast::Sender<Event>) {
    let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
        return;
    };
    for line in pending[..end]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        match serde_json::from_slice::<Message>(line) {
            Ok(message) => {
                if !message.action.starts_with("exec_") {
                    statuses.forget(&message.actor.id);
                }
                if let Some(event) = translate(message) {
                    // An error means that nobody listens.
                    let _ = sender.send(event);
                }
            }
            Err(error) => tracing::warn!(%error, "unreadable event from Docker"),
        }
    }
    pending.drain(..=end);
}

fn translate(message: Message) -> Option<Event> {
    let attribute = |key: &str| {
        message
            .actor
            .attributes
            .get(key)
            .map(String::as_str)
            .unwrap_or_default()
    };
    if message.action == "exec_die" {
        return Some(Event::ExecEnded {
            exec_id: attribute("execID").to_string(),
        });
    }
    let kind = match (attribute(labels::TYPE), message.action.as_str()) {
        (labels::TYPE_SANDBOX, "start") => RuntimeEventKind::SandboxStarted,
        (labels::TYPE_SANDBOX, "die") => RuntimeEventKind::SandboxStopped,
        (labels::TYPE_CONTAINER, "start") => RuntimeEventKind::ContainerStarted,
        (labels::TYPE_CONTAINER, "die") => RuntimeEventKind::ContainerExited,
        (labels::TYPE_CONTAINER, "destroy") => RuntimeEventKind::ContainerRemoved,
        _ => return None,
    };
    Some(Event::Runtime(RuntimeEvent {
        kind,
        pod_uid: attribute(labels::POD_UID).to_string(),
        container_id: message.actor.id,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_delivered_when_complete() {
        let statuses = status::Cache::default();
        let (sender, mut receiver) = broadcast::channel(8);
        let line = br#"{"Action":"die","Actor":{"ID":"c1","Attributes":{"io.kubernetes.docker.type":"container","io.kubernetes.pod.uid":"u1"}}}"#;
        let mut pending = line[..50].to_vec();
        deliver(&mut pending, &statuses, &sender);
        assert!(receiver.try_recv().is_err());
        pending.extend_from_slice(&line[50..]);
        pending.extend_from_slice(
            b"\nnot json\n{\"Action\":\"exec_die\",\"Actor\":{\"ID\":\"c1\",\"Attributes\":{\"execID\":\"e1\"}}}\n{",
        );
        deliver(&mut pending, &statuses, &sender);
        assert_eq!(
            receiver.try_recv().unwrap(),
            Event::Runtime(RuntimeEvent {
                kind: RuntimeEventKind::ContainerExited,
                pod_uid: "u1".into(),
                container_id: "c1".into()
            })
        );
        assert_eq!(receiver.try_recv().unwrap(), Event::ExecEnded { exec_id: "e1".into() });
        assert!(receiver.try_recv().is_err());
        assert_eq!(pending, b"{");
    }

    #[test]
    fn encoding() {
        assert_eq!(form_urlencoded(r#"{"a":1}"#), "%7B%22a%22%3A1%7D");
    }
}
