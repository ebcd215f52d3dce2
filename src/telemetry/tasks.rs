//! Tasks with a name and an owner, so that none dies unheard.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};

/// The tasks of one owner.
#[derive(Default)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

/// How a task ended.
#[derive(Debug)]
pub struct TaskEnd {
    pub name: &'static str,
    /// The panic, if it was one.
    pub failure: Option<JoinError>,
}

impl Tasks {
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// The next task to end; `None` when none is left. Cancel-safe.
    pub async fn next_end(&mut self) -> Option<TaskEnd> {
        let (id, failure) = match self.set.join_next_with_id().await? {
            Ok((id, ())) => (id, None),
            Err(error) => (error.id(), Some(error)),
        };
        let name = self.names.remove(&id).unwrap_or("task");
        Some(TaskEnd { name, failure })
    }

    /// Waits for all tasks, which were told to stop. Those that do not within `limit` are named and cut.
    pub async fn drain(&mut self, limit: Duration) {
        let ended = async {
            while let Some(end) = self.next_end().await {
                if let Some(error) = end.failure {
                    tracing::error!(task = end.name, %error, "task failed while stopping");
                }
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            let mut names: Vec<&str> = self.names.values().copied().collect();
            names.sort_unstable();
            tracing::warn!(tasks = names.join(","), "cutting tasks that did not stop in time");
            self.set.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ends_and_panics_are_told_by_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("fine", async {});
        let end = tasks.next_end().await.unwrap();
        assert_eq!((end.name, end.failure.is_none()), ("fine", true));
        tasks.spawn("broken", async { panic!("as asked") });
        let end = tasks.next_end().await.unwrap();
        assert_eq!(
            (end.name, end.failure.is_some_and(|error| error.is_panic())),
            ("broken", true)
        );
        assert!(tasks.next_end().await.is_none());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_cut() {
        let mut tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        tasks.drain(Duration::from_millis(20)).await;
        assert!(tasks.next_end().await.is_none());
    }
}
