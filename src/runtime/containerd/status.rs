//! What containers are doing: the daemon's tasks together with what was recorded of ended ones
//! (upstream: the CRI plugin's `container_status.go`, `events.go`).

use super::record::{self, Change, ContainerRecord, End, TYPE_CONTAINER};
use super::{ContainerState, ContainerStatus, Parts, Result, RuntimeEventKind, engine, files, gone_is_fine};
use containerd_client::services::v1::Container;
use containerd_client::types::v1::{Process, Status};
use std::time::SystemTime;

/// Upstream's code and reason for an end that nobody saw, such as the node's.
const LOST_CODE: i32 = 255;
const LOST_REASON: &str = "Unknown";
const OOM_REASON: &str = "OOMKilled";

impl Parts {
    pub(super) async fn list(&self) -> Result<Vec<ContainerStatus>> {
        let listed = tokio::try_join!(self.engine.list(TYPE_CONTAINER, None), self.engine.all_tasks());
        let (containers, tasks) = listed?;
        let mut statuses = Vec::with_capacity(containers.len());
        for container in &containers {
            let status = match describe(container, tasks.get(&container.id)) {
                Some(status) => Some(status),
                // It has just ended, or the two lists were not made at the same moment.
                None => gone_is_fine(self.status(&container.id).await.map(Some))?,
            };
            statuses.extend(status);
        }
        Ok(statuses)
    }

    pub(super) async fn status(&self, id: &str) -> Result<ContainerStatus> {
        let container = self.engine.container(id, TYPE_CONTAINER).await?;
        let task = self.engine.task(id).await?;
        if let Some(status) = describe(&container, task.as_ref()) {
            return Ok(status);
        }
        self.engine.in_turn(id, self.record_end(id)).await?;
        let container = self.engine.container(id, TYPE_CONTAINER).await?;
        describe(&container, None).ok_or_else(|| super::RuntimeError::NotFound {
            what: "container",
            id: id.to_string(),
        })
    }

    /// Records the end of a container whose process has ended, tells of it, and lets its shim go.
    pub(super) async fn settle(&self, id: &str) -> Result<()> {
        let work = async {
            match self.record_end(id).await? {
                true => self.engine.delete_task_in_turn(id).await,
                false => Ok(()),
            }
        };
        self.engine.in_turn(id, work).await
    }

    /// Records how a container ended, unless that was done, and tells of it; to be called in its turn, as the first
    /// record is the true one: the cgroup that knows of a kill for memory goes with the task. Returns whether its task
    /// has ended and is still there.
    async fn record_end(&self, id: &str) -> Result<bool> {
        let container = self.engine.container(id, TYPE_CONTAINER).await?;
        let task = self.engine.task(id).await?;
        let has_ended = task.as_ref().is_some_and(|task| task.status() == Status::Stopped);
        if record::end(&container).is_some() {
            return Ok(has_ended);
        }
        // The time of the start is recorded before it: without one, what ended had not begun.
        let has_begun = record::started_at(&container).is_some();
        let end = match task {
            Some(task) if has_ended && has_begun => {
                let mut end = end_of(&task);
                let pod_uid = record::label(&container, record::POD_UID);
                if end.exit_code != 0 && files::was_oom_killed(&self.engine, pod_uid, id) {
                    end.reason = OOM_REASON.to_string();
                }
                end
            }
            None if has_begun => End {
                exit_code: LOST_CODE,
                finished_at: SystemTime::now(),
                reason: LOST_REASON.to_string(),
                message: "the container's process is gone, and nobody saw how it ended".to_string(),
            },
            _ => return Ok(has_ended),
        };
        self.engine.change(id, Change::End(end)).await?;
        self.events.tell(RuntimeEventKind::ContainerExited, id);
        Ok(has_ended)
    }

    /// Settles what ended while nobody listened.
    pub(super) async fn settle_all(&self) -> Result<()> {
        let listed = tokio::try_join!(self.engine.list(TYPE_CONTAINER, None), self.engine.all_tasks());
        let (containers, tasks) = listed?;
        let stopped = |container: &&Container| {
            let task = tasks.get(&container.id);
            task.is_some_and(|task| task.status() == Status::Stopped)
        };
        for container in containers.iter().filter(stopped) {
            gone_is_fine(self.settle(&container.id).await)?;
        }
        Ok(())
    }
}

fn end_of(task: &Process) -> End {
    End {
        exit_code: i32::try_from(task.exit_status).unwrap_or(LOST_CODE),
        finished_at: engine::time(task.exited_at.as_ref()).unwrap_or_else(SystemTime::now),
        reason: String::new(),
        message: String::new(),
    }
}

/// None if it has ended and its end is not recorded yet: what is told of an end is what is recorded.
fn describe(container: &Container, task: Option<&Process>) -> Option<ContainerStatus> {
    let record: ContainerRecord = record::record(container);
    let started_at = record::started_at(container);
    let (state, end) = match (record::end(container), task.map(Process::status)) {
        (Some(end), _) => (ContainerState::Exited, Some(end)),
        (None, Some(Status::Running | Status::Paused | Status::Pausing)) => (ContainerState::Running, None),
        (None, Some(Status::Created)) => (ContainerState::Created, None),
        // Its shim does not answer in time: it does what it did.
        (None, Some(Status::Unknown)) if started_at.is_some() => (ContainerState::Running, None),
        (None, Some(Status::Unknown)) => (ContainerState::Created, None),
        // Killed before it began, by a removal that was cut off.
        (None, None | Some(Status::Stopped)) if started_at.is_none() => (ContainerState::Created, None),
        (None, None | Some(Status::Stopped)) => return None,
    };
    let oom_killed = record::label(container, record::OOM) == "true";
    let reason = match &end {
        None => "",
        Some(end) if !end.reason.is_empty() => &end.reason,
        Some(end) if end.exit_code == 0 => "Completed",
        Some(_) if oom_killed => OOM_REASON,
        Some(_) => "Error",
    };
    Some(ContainerStatus {
        id: container.id.clone(),
        sandbox_id: record.sandbox_id,
        name: record.name,
        attempt: record.attempt,
        pod_uid: record.pod_uid,
        state,
        created_at: engine::time(container.created_at.as_ref()).unwrap_or(SystemTime::UNIX_EPOCH),
        started_at: started_at.filter(|_| state != ContainerState::Created),
        finished_at: end.as_ref().map(|end| end.finished_at),
        exit_code: end.as_ref().map_or(0, |end| end.exit_code),
        reason: reason.to_string(),
        message: end.map(|end| end.message).unwrap_or_default(),
        image: record.image,
        image_ref: record.image_ref,
        labels: record.labels,
        annotations: record.annotations,
        tty: record.tty,
        user: record.user,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tasks::is_alive;
    use super::*;

    #[test]
    fn a_shim_that_does_not_answer_has_not_ended() {
        let started = Container {
            extensions: record::started(SystemTime::UNIX_EPOCH),
            ..Default::default()
        };
        for (container, status, alive, state) in [
            (
                Container::default(),
                Status::Created,
                true,
                Some(ContainerState::Created),
            ),
            (
                Container::default(),
                Status::Unknown,
                true,
                Some(ContainerState::Created),
            ),
            (started.clone(), Status::Running, true, Some(ContainerState::Running)),
            (started.clone(), Status::Unknown, true, Some(ContainerState::Running)),
            (started.clone(), Status::Stopped, false, None),
            (
                Container::default(),
                Status::Stopped,
                false,
                Some(ContainerState::Created),
            ),
        ] {
            let task = Process {
                status: status.into(),
                ..Default::default()
            };
            assert_eq!(is_alive(&task), alive, "{status:?}");
            assert_eq!(
                describe(&container, Some(&task)).map(|found| found.state),
                state,
                "{status:?}"
            );
        }
        assert!(describe(&started, None).is_none());
    }
}
