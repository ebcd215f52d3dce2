//! What the node and its pods use (upstream: `pkg/kubelet/stats`, `pkg/kubelet/server/stats`).
//!
//! Nothing is measured unless somebody asks: [`sampler`] reads the counters then, and remembers them for a while, so
//! that the next who asks sees what was used in between. [`disk`] measures files, [`summary`] and [`exposition`] are
//! the two forms in which all of it is told.

pub mod disk;
pub mod exposition;
pub mod files;
pub mod sampler;
pub mod summary;

pub use files::Files;
pub use sampler::{Figures, PodFigures, Sampler, Snapshot};

use crate::kubelet::node::figures::{Machine, Usage as NodeUsage};
use crate::runtime::Runtime;
use files::PodFiles;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// All that is measured on this node.
pub struct Stats {
    pub sampler: Sampler,
    pub files: Files,
    data_dir: PathBuf,
    /// Where the engine's images are, if that can be seen.
    pub image_directory: OnceLock<PathBuf>,
    machine: OnceLock<(u64, u64)>,
}

impl Stats {
    /// Pods' files live below `data_dir`.
    pub fn new(runtime: Arc<dyn Runtime>, data_dir: &Path) -> Arc<Stats> {
        Arc::new(Stats {
            sampler: Sampler::new(runtime.clone()),
            files: Files::new(runtime, data_dir),
            data_dir: data_dir.to_owned(),
            image_directory: OnceLock::new(),
            machine: OnceLock::new(),
        })
    }

    /// The node as a whole.
    pub fn node(&self) -> NodeUsage {
        NodeUsage::read(&self.data_dir, self.image_directory.get().map(PathBuf::as_path))
    }

    /// Whether images and containers' layers are on another disk than pods' files (upstream: `HasDedicatedImageFs`).
    pub fn has_image_disk(&self) -> bool {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|found| found.dev());
        let images = self.image_directory.get().and_then(|path| device(path));
        images.is_some() && images != device(&self.data_dir)
    }

    /// Processors, and bytes of memory.
    pub fn machine(&self) -> (u64, u64) {
        *self.machine.get_or_init(|| {
            let machine = Machine::read();
            (machine.cpus, machine.memory_bytes)
        })
    }

    /// When the machine started.
    pub fn booted_at(&self) -> Option<SystemTime> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.trim().parse().ok()?))
    }

    /// What the files of all pods take, by uid.
    pub async fn files_of(&self, snapshot: &Snapshot, age_max: Duration) -> BTreeMap<String, Arc<PodFiles>> {
        let mut found = BTreeMap::new();
        for pod in &snapshot.pods {
            let containers = pod.containers.iter().map(|one| (one.id.clone(), one.name.clone()));
            let containers: Vec<_> = containers.collect();
            let files = self.files.of(&pod.pod.uid, &containers, age_max).await;
            found.insert(pod.pod.uid.clone(), files);
        }
        found
    }
}
