//! Figures of tasks from the kernel, which the daemon's process ids lead to (upstream: `pkg/cri/server/container_stats.go`).

use super::super::usage::{Usage, Written, interfaces_of, of_process};
use super::tasks::is_alive;
use super::{Parts, Result, snapshots};

impl Parts {
    pub(super) async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        let tasks = self.engine.all_tasks().await?;
        let alive = ids
            .iter()
            .filter_map(|id| Some((id, tasks.get(id).filter(|task| is_alive(task))?.pid)));
        let own_network = std::fs::read_link("/proc/self/ns/net").ok();
        let read = alive.filter_map(|(id, pid)| {
            let mut usage = of_process(id, pid)?;
            // With the host's network there is nothing that is the pod's alone.
            let network = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            if network != own_network {
                usage.interfaces = interfaces_of(pid);
            }
            Some(usage)
        });
        Ok(read.collect())
    }

    pub(super) async fn written(&self, id: &str) -> Result<Written> {
        let mut written = snapshots::written(&self.engine, id).await?;
        let files = std::fs::read_dir(self.engine.log_directory(id))
            .into_iter()
            .flatten()
            .flatten();
        let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        written.log_bytes = sizes.sum();
        Ok(written)
    }
}
