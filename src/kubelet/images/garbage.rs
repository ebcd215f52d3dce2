//! Removes images that nobody uses when the disk is full, or when they are old (upstream: `image_gc_manager.go`,
//! `kubelet.go` `StartGarbageCollection`). Off unless it is configured: the engine's images are the user's.

use super::garbage_plan::{Policy, Records, too_little};
use crate::client::events::{Level, Recorder};
use crate::kubelet::node::figures::disk;
use crate::kubelet::pod;
use crate::kubelet::pods::Pods;
use crate::runtime::reference::Reference;
use crate::runtime::{Image, Runtime, RuntimeError};
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// All of it, as upstream tells it.
const WANTED_MAX: u64 = i64::MAX as u64;

#[derive(Debug, thiserror::Error)]
enum GarbageError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    #[error("{0}")]
    TooLittle(String),
    #[error("wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {errors}")]
    Deletion { wanted: u64, freed: u64, errors: String },
    #[error("wanted to free images older than {age}, encountered errors in image deletion: {errors}")]
    OldOnes { age: String, errors: String },
}

/// See the module's description.
pub struct Garbage {
    pub runtime: Arc<dyn Runtime>,
    pub pods: Arc<Pods>,
    pub recorder: Recorder,
    pub node_name: String,
    pub policy: Policy,
    /// Where the node's disk is looked at if the engine's directory cannot be seen.
    pub data_dir: PathBuf,
    pub records: Mutex<Records>,
}

impl Garbage {
    /// Looks until `shutdown`, if it is to at all.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if !self.policy.is_on() {
            return;
        }
        let mut ticks = interval(self.policy.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.collect().await {
                Ok(()) => failed = false,
                Err(error) => {
                    tracing::warn!(%error, "Unused images could not be removed");
                    // The first failure may be one of the start.
                    if std::mem::replace(&mut failed, true) {
                        self.event("ImageGCFailed", error.to_string());
                    }
                }
            }
        }
    }

    fn event(&self, reason: &'static str, message: String) {
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node_name.clone()),
            uid: Some(self.node_name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.about(about, Level::Warning, reason, message);
    }

    async fn collect(&self) -> Result<(), GarbageError> {
        let mut records = self.records.lock().await;
        let used = self.observe(&mut records).await?;
        let old = records.too_old(&self.policy, &used, SystemTime::now());
        let (_, errors) = self.remove(&mut records, old, WANTED_MAX).await;
        if !errors.is_empty() {
            return Err(GarbageError::OldOnes {
                age: pod::go_duration(self.policy.age_max),
                errors: aggregate(errors),
            });
        }
        let directory = self.runtime.image_directory().await.unwrap_or_default();
        let directory = if directory.exists() { &directory } else { &self.data_dir };
        let size = disk(directory).filter(|disk| disk.size_bytes > 0);
        let Some(size) = size else {
            self.event("InvalidDiskCapacity", GarbageError::Capacity.to_string());
            return Err(GarbageError::Capacity);
        };
        let (percent, wanted) = self.policy.to_free(size.size_bytes, size.available_bytes);
        let Some(wanted) = wanted else { return Ok(()) };
        tracing::info!(
            percent,
            wanted,
            "The disk of images is full: removing those that nobody uses"
        );
        let unused = records.for_space(&self.policy, &used, SystemTime::now());
        let freed = self.free(&mut records, unused, wanted).await?;
        if freed < wanted {
            let message = too_little(percent, size.size_bytes, freed);
            self.event("FreeDiskSpaceFailed", message.clone());
            return Err(GarbageError::TooLittle(message));
        }
        Ok(())
    }

    /// Removes all that may be removed, before pods have to go. Returns the bytes that this made free.
    pub async fn free_all(&self) -> u64 {
        if !self.policy.is_on() {
            return 0;
        }
        let mut records = self.records.lock().await;
        let freed = async {
            let used = self.observe(&mut records).await?;
            let unused = records.for_space(&self.policy, &used, SystemTime::now());
            self.free(&mut records, unused, WANTED_MAX).await
        };
        freed.await.unwrap_or_else(|error: GarbageError| {
            tracing::warn!(%error, "Unused images could not be removed");
            0
        })
    }

    /// Returns the ids of the images that are used.
    async fn observe(&self, records: &mut Records) -> Result<HashSet<String>, RuntimeError> {
        let (images, containers) = tokio::try_join!(self.runtime.list_images(), self.runtime.list_containers())?;
        let mut wanted: HashSet<String> = HashSet::new();
        for container in &containers {
            wanted.insert(container.image_ref.clone());
            wanted.extend(full_name(&container.image));
        }
        for record in self.pods.all() {
            let pod = record.pod();
            if pod::is_finished(&pod) {
                continue;
            }
            let spec = pod::spec(&pod);
            let volumes = spec.volumes.iter().flatten();
            let volumes = volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
            wanted.extend(volumes.filter_map(full_name));
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            wanted.extend(containers.filter_map(|container| full_name(container.image.as_deref()?)));
        }
        let used: HashSet<String> = images
            .iter()
            .filter(|image| is_one_of(image, &wanted))
            .map(|image| image.id.clone())
            .collect();
        records.observe(&images, &used, SystemTime::now());
        Ok(used)
    }

    /// Removes images until so much is free; an error if one of them could not be removed.
    async fn free(&self, records: &mut Records, images: Vec<(String, u64)>, wanted: u64) -> Result<u64, GarbageError> {
        match self.remove(records, images, wanted).await {
            (freed, errors) if errors.is_empty() => Ok(freed),
            (freed, errors) => Err(GarbageError::Deletion {
                wanted,
                freed,
                errors: aggregate(errors),
            }),
        }
    }

    /// The same: the bytes that are free now, and what went wrong. Goes on when an image cannot be removed.
    async fn remove(&self, records: &mut Records, images: Vec<(String, u64)>, wanted: u64) -> (u64, Vec<String>) {
        let (mut freed, mut errors) = (0u64, Vec::new());
        for (id, bytes) in images {
            tracing::info!(id, bytes, "Removing an image that nobody uses");
            match self.runtime.remove_image(&id).await {
                Ok(()) => {
                    records.forget(&id);
                    freed += bytes;
                }
                Err(error) => errors.push(error.cause()),
            }
            if freed >= wanted {
                break;
            }
        }
        (freed, errors)
    }
}

/// Several errors as upstream tells them together: each text once.
fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match errors.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", errors.join(", ")),
    }
}

fn full_name(name: &str) -> Option<String> {
    Reference::parse(name).ok().map(|reference| reference.to_string())
}

/// By its id or one of its names.
fn is_one_of(image: &Image, wanted: &HashSet<String>) -> bool {
    let mut names = image.repo_tags.iter().chain(&image.repo_digests);
    wanted.contains(&image.id)
        || names.any(|name| wanted.contains(name) || full_name(name).is_some_and(|name| wanted.contains(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_together() {
        let texts = |all: &[&str]| aggregate(all.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(texts(&["a"]), "a");
        assert_eq!(texts(&["a", "a"]), "a");
        assert_eq!(texts(&["a", "b", "a"]), "[a, b]");
    }
}
