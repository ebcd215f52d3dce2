//! What the files of a pod take: its containers' own layers and logs, and its volumes on the node's disk
//! (upstream: `pkg/kubelet/server/stats/volume_stat_calculator.go`, `pkg/kubelet/eviction/helpers.go` `localVolumeNames`).

use super::disk::{self, DiskUsage};
use crate::runtime::{Runtime, Written};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The plug-ins whose volumes are directories of the node's disk that are there for one pod.
const MEASURED: [&str; 5] = ["empty-dir", "configmap", "secret", "downward-api", "projected"];

/// What was measured is forgotten after so long.
const REMEMBERED: Duration = Duration::from_secs(600);

#[derive(Clone, Debug, Default)]
pub struct PodFiles {
    /// By name. Those in memory are counted as well.
    pub volumes: BTreeMap<String, DiskUsage>,
    /// By name of the container.
    pub containers: BTreeMap<String, Written>,
}

/// Measures, and remembers for a while: it may take the disk long.
pub struct Files {
    runtime: Arc<dyn Runtime>,
    pods: PathBuf,
    measured: Mutex<BTreeMap<String, (Instant, Arc<PodFiles>)>>,
}

impl Files {
    /// The pods' directories are below `data_dir`.
    pub fn new(runtime: Arc<dyn Runtime>, data_dir: &Path) -> Files {
        Files {
            runtime,
            pods: data_dir.join("pods"),
            measured: Mutex::default(),
        }
    }

    /// What a pod's files take, as it was at most `age_max` ago. `containers` are ids and names.
    pub async fn of(&self, uid: &str, containers: &[(String, String)], age_max: Duration) -> Arc<PodFiles> {
        if let Some((at, found)) = self.measured.lock().get(uid)
            && at.elapsed() < age_max
        {
            return found.clone();
        }
        let found = Arc::new(self.measure(uid, containers).await);
        let mut measured = self.measured.lock();
        // Pods that are gone are not asked for again.
        measured.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        measured.insert(uid.to_owned(), (Instant::now(), found.clone()));
        found
    }

    /// The same as it is now.
    pub async fn measure(&self, uid: &str, containers: &[(String, String)]) -> PodFiles {
        let directory = self.pods.join(uid).join("volumes");
        let volumes = tokio::task::spawn_blocking(move || volumes(&directory)).await;
        let mut found = PodFiles {
            // A panic of the walk, which has nothing that panics.
            volumes: volumes.unwrap_or_default(),
            containers: BTreeMap::new(),
        };
        for (id, name) in containers {
            match self.runtime.written(id).await {
                Ok(written) => {
                    found.containers.insert(name.clone(), written);
                }
                Err(error) => tracing::debug!(id, %error, "a container's files could not be measured"),
            }
        }
        found
    }
}

fn volumes(directory: &Path) -> BTreeMap<String, DiskUsage> {
    let mut found = BTreeMap::new();
    for plugin in MEASURED {
        let plugin = directory.join(format!("kubernetes.io~{plugin}"));
        for entry in std::fs::read_dir(plugin).into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                found.insert(name, disk::usage(&entry.path()));
            }
        }
    }
    found
}
