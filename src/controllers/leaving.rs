//! Pods that have to leave because of a taint, of their node or of a device: who, when, and what they are told
//! (upstream: `TimedWorkerQueue` of `pkg/controller/tainteviction`, and its counterpart for devices).

use super::pods;
use crate::client::events::{Level, Recorder};
use crate::client::work_queue::Next;
use crate::client::{self, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
#[error("evicting pod {pod}: {source}")]
pub struct Error {
    pod: ObjectKey,
    source: kube::Error,
}

/// What is to be done about a pod now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// It need not leave any more, which is told.
    Cancelled,
    /// Look again then.
    Wait(Timestamp),
    Evict,
}

/// Who is to leave some time, and why. Pure.
pub struct Leaving<Why> {
    planned: HashMap<ObjectKey, (String, Why)>,
}

impl<Why> Default for Leaving<Why> {
    fn default() -> Self {
        Self {
            planned: HashMap::new(),
        }
    }
}

impl<Why> Leaving<Why> {
    /// Why a pod is to leave. One of the same name that was there before has another uid, and counts as gone.
    pub fn why(&self, key: &ObjectKey, uid: &str) -> Option<&Why> {
        let planned = self.planned.get(key).filter(|(of, _)| of == uid);
        planned.map(|(_, why)| why)
    }

    /// Takes in when a pod has to leave by now, if it has to.
    pub fn plan(&mut self, key: &ObjectKey, uid: &str, leaves: Option<(Timestamp, Why)>, now: Timestamp) -> Step {
        match leaves {
            None => {
                let cancelled = self.why(key, uid).is_some();
                self.planned.remove(key);
                if cancelled { Step::Cancelled } else { Step::Nothing }
            }
            Some((at, why)) => {
                self.planned.insert(key.clone(), (uid.to_owned(), why));
                if at <= now { Step::Evict } else { Step::Wait(at) }
            }
        }
    }

    /// The pod is gone, or on its way. Says why it was to leave.
    pub fn forget(&mut self, key: &ObjectKey) -> Option<Why> {
        self.planned.remove(key).map(|(_, why)| why)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }
}

/// What became of a pod that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Stays,
    Waits(Duration),
    /// It was not there any more.
    Gone,
    Evicted,
}

impl From<Outcome> for Next {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Waits(left) => Self::After(left),
            Outcome::Stays | Outcome::Gone | Outcome::Evicted => Self::Done,
        }
    }
}

/// What is said of evictions.
pub struct Words {
    pub event: &'static str,
    /// Whether events name the pod.
    pub with_name: bool,
    /// Of the pod's condition.
    pub reason: &'static str,
    pub message: &'static str,
}

/// Tells pods that they leave, and makes them.
pub struct Evictor<Why> {
    pub client: Client,
    pub recorder: Recorder,
    pub words: Words,
    pub leaving: Mutex<Leaving<Why>>,
}

impl<Why> Evictor<Why> {
    /// Does what is due about a pod that `leaves` then, or stays.
    pub async fn act(&self, key: &ObjectKey, pod: &Pod, leaves: Option<(Timestamp, Why)>) -> Result<Outcome, Error> {
        let (uid, now) = (pod.metadata.uid.as_deref().unwrap_or_default(), Timestamp::now());
        let step = self.leaving.lock().plan(key, uid, leaves, now);
        match step {
            Step::Nothing => Ok(Outcome::Stays),
            Step::Cancelled => {
                self.tell(pod, "Cancelling deletion", &format!(" of Pod {key}"));
                Ok(Outcome::Stays)
            }
            Step::Wait(at) => {
                let left = at.duration_since(now).unsigned_abs();
                Ok(Outcome::Waits(left.max(Duration::from_millis(1))))
            }
            Step::Evict => {
                self.tell(pod, "Marking for deletion", &format!(" Pod {key}"));
                let evicted = self.evict(pod).await;
                let evicted = evicted.map_err(|source| Error {
                    pod: key.clone(),
                    source,
                })?;
                self.leaving.lock().forget(key);
                Ok(if evicted { Outcome::Evicted } else { Outcome::Gone })
            }
        }
    }

    fn tell(&self, pod: &Pod, what: &str, of_which: &str) {
        let message = match self.words.with_name {
            true => format!("{what}{of_which}"),
            false => what.to_owned(),
        };
        self.recorder.event(pod, Level::Normal, self.words.event, message);
    }

    /// Says on the pod why it goes, and deletes it; false if it is gone, or another has its name by now.
    async fn evict(&self, pod: &Pod) -> kube::Result<bool> {
        let (metadata, name) = (&pod.metadata, pod.metadata.name.as_deref().unwrap_or_default());
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let told = pods::condition(pod, "DisruptionTarget")
            .is_some_and(|one| one.status == "True" && one.reason.as_deref() == Some(self.words.reason));
        if !told {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": self.words.reason, "message": self.words.message,
                "observedGeneration": metadata.generation, "lastTransitionTime": Time(Timestamp::now()),
            });
            let patch = json!({"metadata": {"uid": metadata.uid}, "status": {"conditions": [condition]}});
            let params = PatchParams::default();
            if !is_there(api.patch_status(name, &params, &Patch::Strategic(patch)).await)? {
                return Ok(false);
            }
        }
        let params = DeleteParams::default().preconditions(client::only(metadata.uid.clone()));
        is_there(api.delete(name, &params).await)
    }
}

/// 409: another pod has that name by now.
fn is_there<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}
