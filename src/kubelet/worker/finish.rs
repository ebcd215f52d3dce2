//! The end of a pod whose containers have stopped: final status, DELETE, cleaning up
//! (upstream: `SyncTerminatedPod`, `TerminatePod`).

use super::{Done, Worker};
use crate::client;
use crate::kubelet::node::chain;
use crate::kubelet::pod;
use crate::kubelet::state::Step;
use crate::kubelet::status::patch;
use k8s_openapi::api::core::v1::PodStatus;
use kube::api::{DeleteParams, Patch, PatchParams};
use std::time::{Duration, SystemTime};

const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    No,
    Running,
    Done,
}

#[derive(Default)]
pub(super) struct Finishing {
    delete: Stage,
    clean: Stage,
    retry_at: Option<SystemTime>,
}

impl Finishing {
    /// The final status is being written, or was.
    pub fn has_begun(&self) -> bool {
        self.delete != Stage::No
    }

    /// The pod is deleted from the API.
    pub fn is_deleted(&self) -> bool {
        self.delete == Stage::Done
    }

    pub fn due(&self) -> Option<SystemTime> {
        self.retry_at
    }
}

impl Worker {
    /// Goes on with the end of a pod of which nothing runs any more; true when there is nothing left to do.
    pub(super) fn finish(&mut self, status: &PodStatus) -> bool {
        // That of a static pod's mirror is not the pod's: only its file ends it.
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        if !deleting && !self.gone {
            // It ended by itself: its logs stay until it is deleted.
            return false;
        }
        if self.finishing.retry_at.is_some_and(|at| at > SystemTime::now()) {
            return false;
        }
        self.finishing.retry_at = None;
        if self.gone || self.finishing.delete == Stage::Done {
            match self.finishing.clean {
                Stage::No => self.clean(),
                Stage::Running => {}
                // Without the API's own word that the pod is gone (finalizers) it is kept in mind.
                Stage::Done if self.gone => {
                    self.context.pods.remove(&self.record);
                    return true;
                }
                Stage::Done => {}
            }
            return false;
        }
        if self.finishing.delete == Stage::No && !self.reporter.is_writing() {
            self.delete(status);
        }
        false
    }

    /// Writes the final status and deletes the pod from the API, if it still is this one.
    fn delete(&mut self, status: &PodStatus) {
        self.finishing.delete = Stage::Running;
        let old = self.pod.status.clone().unwrap_or_default();
        let change = patch::difference(&self.record.uid, &old, status);
        let (api, name, uid) = (self.api(), pod::name(&self.pod).to_owned(), self.record.uid.clone());
        self.tasks.spawn(async move {
            let gone = |error: &kube::Error| matches!(error, kube::Error::Api(a) if matches!(a.code, 404 | 409));
            if let Some(change) = change {
                match api
                    .patch_status(&name, &PatchParams::default(), &Patch::Strategic(change))
                    .await
                {
                    Err(error) if !gone(&error) => return Done::Deleted(Err(error)),
                    _ => {}
                }
            }
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(client::only(Some(uid))),
                ..DeleteParams::default()
            };
            match api.delete(&name, &parameters).await {
                Err(error) if !gone(&error) => Done::Deleted(Err(error)),
                _ => Done::Deleted(Ok(())),
            }
        });
    }

    pub(super) fn deleted(&mut self, result: Result<(), kube::Error>) {
        match result {
            Ok(()) => self.finishing.delete = Stage::Done,
            Err(error) => {
                tracing::warn!(
                    pod = pod::full_name(&self.pod), error = %chain(&error),
                    "A pod that has ended could not be deleted; trying again"
                );
                self.finishing.delete = Stage::No;
                self.finishing.retry_at = Some(SystemTime::now() + RETRY);
            }
        }
    }

    /// Removes the containers and logs of a pod that has ended and is still there; the API keeps how they ended.
    pub(super) fn clear(&mut self) {
        let runtime = &self.memory.runtime;
        if !pod::is_finished(&self.pod) || runtime.running().next().is_some() || self.finishing.has_begun() {
            return;
        }
        for id in runtime
            .sandboxes
            .iter()
            .map(|sandbox| sandbox.id.clone())
            .collect::<Vec<_>>()
        {
            let runtime = self.context.runtime.clone();
            self.spawn(Step::Remove(id.clone()), async move {
                let removed = runtime.remove_pod_sandbox(&id).await;
                Done::Removed(id, removed)
            });
        }
    }

    /// Removes sandboxes, containers and files.
    fn clean(&mut self) {
        self.finishing.clean = Stage::Running;
        let (context, uid) = (self.context.clone(), self.record.uid.clone());
        let sandboxes: Vec<String> = self.memory.runtime.sandboxes.iter().map(|s| s.id.clone()).collect();
        self.tasks.spawn(async move {
            for id in sandboxes {
                if let Err(error) = context.runtime.remove_pod_sandbox(&id).await {
                    return Done::Cleaned(Err(error.to_string()));
                }
            }
            Done::Cleaned(context.volumes.remove(&uid).await.map_err(|error| error.to_string()))
        });
    }

    pub(super) fn cleaned(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.finishing.clean = Stage::Done;
                self.memory.runtime = Default::default();
            }
            Err(error) => {
                tracing::warn!(
                    pod = pod::full_name(&self.pod),
                    error,
                    "A pod's remains could not be removed; trying again"
                );
                self.finishing.clean = Stage::No;
                self.finishing.retry_at = Some(SystemTime::now() + RETRY);
            }
        }
    }
}
