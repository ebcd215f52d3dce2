//! Processes of sandboxes and containers (upstream: containerd's `task.go`).

use super::{Engine, Result, failed, gone_is_fine};
use containerd_client::services::v1::{
    CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest,
    StartRequest, WaitRequest,
};
use containerd_client::tonic::Code;
use containerd_client::types::v1::{Process, Status};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a kill may take before the daemon counts as unresponsive.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);

impl Engine {
    /// None if there is no task.
    pub async fn task(&self, id: &str) -> Result<Option<Process>> {
        let request = self.request(GetRequest {
            container_id: id.to_string(),
            exec_id: String::new(),
        });
        match self.tasks().get(request).await {
            Ok(found) => Ok(found.into_inner().process),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error("look at", "task", id, status)),
        }
    }

    pub async fn all_tasks(&self) -> Result<HashMap<String, Process>> {
        let listed = self.tasks().list(self.request(ListTasksRequest::default())).await;
        let listed = listed.map_err(|status| self.error("list", "tasks", "tasks", status))?;
        // The list gives the container's id as the task's.
        let tasks = listed.into_inner().tasks.into_iter();
        Ok(tasks.map(|task| (task.id.clone(), task)).collect())
    }

    /// Makes the process, which waits to be started; returns its id.
    pub async fn create_task(&self, request: CreateTaskRequest) -> Result<u32> {
        let id = request.container_id.clone();
        let created = self.tasks().create(self.request(request)).await;
        let created = created.map_err(|status| self.error("create", "container", &id, status))?;
        Ok(created.into_inner().pid)
    }

    pub async fn start_task(&self, id: &str) -> Result<()> {
        let request = self.request(StartRequest {
            container_id: id.to_string(),
            exec_id: String::new(),
        });
        let started = self.tasks().start(request).await;
        started
            .map(drop)
            .map_err(|status| self.error("start", "container", id, status))
    }

    /// Runs the work when no other of this process has its turn at the container: the one who sees an end and the one
    /// who asked for it come at the same time.
    pub async fn in_turn<T>(&self, id: &str, work: impl Future<Output = T>) -> T {
        let turn = Arc::clone(self.turns.lock().entry(id.to_string()).or_default());
        let done = {
            let _turn = turn.lock().await;
            work.await
        };
        let mut turns = self.turns.lock();
        // Nobody waits who took it from the map before.
        if Arc::strong_count(&turn) == 2 {
            turns.remove(id);
        }
        done
    }

    /// Removes a task that has ended. Returns when its log is complete. What is gone is fine.
    pub async fn delete_task(&self, id: &str) -> Result<()> {
        self.in_turn(id, self.delete_task_in_turn(id)).await
    }

    /// The second of two at the same time would find the shim going away, which the daemon takes for a failure.
    pub async fn delete_task_in_turn(&self, id: &str) -> Result<()> {
        match self.delete_task_alone(id).await {
            // Another krust on this daemon was quicker.
            Err(_) if self.task(id).await?.is_none() => Ok(()),
            deleted => deleted,
        }
    }

    async fn delete_task_alone(&self, id: &str) -> Result<()> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_string(),
        });
        let deleted = self.tasks().delete(request).await;
        gone_is_fine(
            deleted
                .map(drop)
                .map_err(|status| self.error("delete", "task", id, status)),
        )
    }

    /// What has ended, or is gone, is fine.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        let request = self.request(KillRequest {
            container_id: id.to_string(),
            signal: u32::try_from(signal).unwrap_or(0),
            ..Default::default()
        });
        match self.tasks().kill(request).await {
            Ok(_) => Ok(()),
            Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(()),
            Err(status) => Err(self.error("signal", "container", id, status)),
        }
    }

    /// Waits until it has ended; false when the time is over before.
    pub async fn wait_for_end(&self, id: &str, at_most: Duration) -> Result<bool> {
        let request = self.request(WaitRequest {
            container_id: id.to_string(),
            exec_id: String::new(),
        });
        match tokio::time::timeout(at_most, async { self.tasks().wait(request).await }).await {
            Err(_) => Ok(false),
            Ok(Ok(_)) => Ok(true),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(true),
            Ok(Err(status)) => Err(self.error("wait for", "container", id, status)),
        }
    }

    /// SIGKILL, and the wait for the end.
    pub async fn kill(&self, id: &str) -> Result<()> {
        self.signal(id, libc::SIGKILL).await?;
        if self.wait_for_end(id, KILL_TIMEOUT).await? {
            return Ok(());
        }
        Err(failed("kill", id, "it does not end"))
    }

    /// The container's record goes last of what the daemon has of it: while it is there, the rest is found.
    pub async fn delete_container(&self, id: &str) -> Result<()> {
        super::snapshots::remove(self, id).await?;
        let request = self.request(DeleteContainerRequest { id: id.to_string() });
        let deleted = self.containers().delete(request).await;
        gone_is_fine(
            deleted
                .map(drop)
                .map_err(|status| self.error("delete", "container", id, status)),
        )
    }
}

/// Whether the process is there and has not ended. The daemon knows no state of a task whose shim does not answer within
/// two seconds, as on a busy machine: that is no end, and a shim that is gone takes its task with it.
pub(super) fn is_alive(task: &Process) -> bool {
    task.status() != Status::Stopped
}

/// The process of a task that is alive; None where the daemon does not know it at the moment.
pub(super) fn pid(task: &Process) -> Option<u32> {
    Some(task.pid).filter(|pid| *pid != 0)
}
