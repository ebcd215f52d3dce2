//! Writing the pod's status: only when it differs, small changes gathered for a moment
//! (upstream: `pkg/kubelet/status/status_manager.go`).

use super::{Done, Worker};
use crate::kubelet::node::chain;
use crate::kubelet::pod;
use crate::kubelet::static_pods;
use crate::kubelet::status::patch;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A start makes several small changes in a row: they are one write.
const GATHER: Duration = Duration::from_millis(150);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Reporter {
    due: Option<SystemTime>,
    /// After an error nothing is written sooner.
    not_before: Option<SystemTime>,
    writing: bool,
}

impl Reporter {
    /// When to come back; nothing to do while a write is under way: its end wakes the worker.
    pub fn due(&self) -> Option<SystemTime> {
        self.due.filter(|_| !self.writing)
    }

    pub fn is_writing(&self) -> bool {
        self.writing
    }
}

impl Worker {
    /// Starts a write if the status differs from what the server has and the time has come.
    pub(super) fn report_when_due(&mut self, status: &PodStatus, ending: bool) {
        if self.gone || self.finishing.has_begun() || self.reporter.writing {
            return;
        }
        // A static pod without a mirror has nobody to tell.
        let Some(uid) = self.record.api_uid() else {
            return;
        };
        let old = self.pod.status.clone().unwrap_or_default();
        let Some(change) = patch::difference(&uid, &old, status) else {
            self.reporter.due = None;
            return;
        };
        let now = SystemTime::now();
        let deleting = self.pod.metadata.deletion_timestamp.is_some();
        let gather = if (ending && deleting) || !is_urgent(&old, status) {
            GATHER
        } else {
            Duration::ZERO
        };
        let due = self.reporter.due.unwrap_or(now + gather).min(now + gather);
        let due = self.reporter.not_before.map_or(due, |at| due.max(at));
        self.reporter.due = Some(due);
        if due > now {
            return;
        }
        self.reporter.due = None;
        self.reporter.writing = true;
        let (api, name) = (self.api(), pod::name(&self.pod).to_owned());
        self.tasks.spawn(async move {
            let patched = api
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(change))
                .await;
            Done::Reported(patched.map(Box::new))
        });
    }

    pub(super) fn api(&self) -> Api<Pod> {
        Api::namespaced(self.context.client.clone(), pod::namespace(&self.pod))
    }

    pub(super) fn reported(&mut self, result: Result<Box<Pod>, kube::Error>) {
        self.reporter.writing = false;
        match result {
            Ok(pod) => {
                self.reporter.not_before = None;
                let seen = match self.record.is_static() {
                    true => Arc::new(static_pods::seen_as(&self.pod, &pod)),
                    false => Arc::from(pod),
                };
                self.adopt(seen);
            }
            // The pod is gone or replaced: the watch says so as well.
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                self.reporter.not_before = self.record.is_static().then(|| SystemTime::now() + RETRY);
            }
            Err(error) => {
                tracing::warn!(
                    pod = pod::full_name(&self.pod), error = %chain(&error),
                    "A pod's status could not be written; trying again"
                );
                self.reporter.not_before = Some(SystemTime::now() + RETRY);
            }
        }
    }
}

/// What people and controllers wait for is written at once.
fn is_urgent(old: &PodStatus, new: &PodStatus) -> bool {
    type Summary = Vec<(String, bool, bool, Option<String>, bool)>;
    let summary = |status: &PodStatus| -> Summary {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let all = lists.into_iter().flatten().flatten();
        let one = |c: &ContainerStatus| {
            let state = c.state.clone().unwrap_or_default();
            let waiting = state.waiting.and_then(|waiting| waiting.reason);
            (
                c.name.clone(),
                state.running.is_some(),
                state.terminated.is_some(),
                waiting,
                c.ready,
            )
        };
        all.map(one).collect()
    };
    let first = old.container_statuses.is_none() && new.phase.as_deref() == Some("Pending");
    old.phase != new.phase || (!first && summary(old) != summary(new))
}
