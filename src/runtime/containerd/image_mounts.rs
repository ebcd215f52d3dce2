//! Images as volumes: a view of the image's file system, mounted where krust wants it (upstream: the CRI plugin's
//! `container_image_mount.go`).

use super::snapshots::{self, SNAPSHOTTER};
use super::{Parts, Result, RuntimeError, failed, images};
use containerd_client::services::v1::snapshots::ViewSnapshotRequest;
use containerd_client::tonic::Code;
use containerd_client::types::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Keeps the daemon's garbage collection from a snapshot that no container refers to.
const GC_ROOT: &str = "containerd.io/gc.root";

impl Parts {
    pub(super) async fn mount_image(&self, image: &str, directory: &Path) -> Result<()> {
        if is_mounted(directory) {
            return Ok(());
        }
        let found = self.image(image).await?;
        let found = found.ok_or_else(|| RuntimeError::NotFound {
            what: "image",
            id: image.to_string(),
        })?;
        let lease = snapshots::create_lease(&self.engine).await?;
        let mounted = self.mount_leased(&lease, &found.content, directory).await;
        snapshots::delete_lease(&self.engine, &lease).await;
        mounted
    }

    async fn mount_leased(&self, lease: &str, image: &images::Content, directory: &Path) -> Result<()> {
        let engine = &self.engine;
        let parent = snapshots::unpacked(engine, lease, image).await?;
        let key = key(directory);
        let view = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_string(),
            key: key.clone(),
            parent,
            labels: HashMap::from([(GC_ROOT.to_string(), jiff::Timestamp::now().to_string())]),
        };
        let mounts = match engine.snapshots().view(engine.leased(lease, view)).await {
            Ok(made) => made.into_inner().mounts,
            // Made before krust was interrupted.
            Err(status) if status.code() == Code::AlreadyExists => snapshots::mounts(engine, &key).await?,
            Err(status) => return Err(engine.error("mount", "snapshot", &key, status)),
        };
        let subject = directory.display().to_string();
        let done = std::fs::create_dir_all(directory).and_then(|()| mount_all(&mounts, directory));
        done.map_err(|error| failed("mount an image on", &subject, error))
    }

    pub(super) async fn unmount_image(&self, directory: &Path) -> Result<()> {
        if is_mounted(directory) {
            let unmounted = umount2(directory, MntFlags::MNT_DETACH);
            unmounted.map_err(|error| failed("unmount", &directory.display().to_string(), error))?;
        }
        snapshots::remove(&self.engine, &key(directory)).await
    }
}

/// The name of the view for a place.
fn key(directory: &Path) -> String {
    let digest = Sha256::digest(directory.as_os_str().as_encoded_bytes());
    format!("krust-image-{}", hex::encode(digest))
}

fn is_mounted(directory: &Path) -> bool {
    let place = |path: &Path| std::fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let Some(here) = place(directory) else {
        return false;
    };
    // A bind mount may be of the same device: the kernel's list is what counts.
    let listed = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points = listed.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| place(Path::new(point)) == Some(here))
}

fn mount_all(mounts: &[Mount], directory: &Path) -> std::io::Result<()> {
    for wanted in mounts {
        let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
        for option in &wanted.options {
            match option.as_str() {
                "ro" => flags |= MsFlags::MS_RDONLY,
                "rw" => {}
                "bind" => flags |= MsFlags::MS_BIND,
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                other => data.push(other),
            }
        }
        let data = data.join(",");
        let data = Some(data.as_str()).filter(|data| !data.is_empty());
        let (source, kind) = (wanted.source.as_str(), wanted.r#type.as_str());
        mount(Some(source), directory, Some(kind), flags, data)?;
        if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
            // The kernel takes this only when it is there.
            let again = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, directory, None::<&str>, again, None::<&str>)?;
        }
    }
    Ok(())
}
