//! Root file systems of containers (upstream: containerd's `pkg/unpack`, `snapshots`).

use super::super::oci::user::Accounts;
use super::super::usage::Written;
use super::images::Content;
use super::user_namespace::snapshot_labels;
use super::{Engine, Result, failed, record};
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
    UsageRequest,
};
use containerd_client::services::v1::{ApplyRequest, CreateRequest, DeleteRequest, Lease, ListRequest};
use containerd_client::tonic::Code;
use containerd_client::types::{Descriptor as EngineDescriptor, Mount};
use oci_spec::image::Descriptor;
use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

pub const SNAPSHOTTER: &str = "overlayfs";
/// What a lease kept is garbage after this time, if krust ended before it deleted the lease.
const LEASE_TIME: Duration = Duration::from_secs(3600);
/// The longest passwd or group file that is read.
const ACCOUNTS_BYTES_MAX: u64 = 1 << 20;

/// Keeps the daemon's garbage collection from what no container refers to yet.
pub(super) async fn create_lease(engine: &Engine) -> Result<String> {
    let expires = jiff::Timestamp::try_from(SystemTime::now() + LEASE_TIME);
    let expires = expires.map_err(|error| failed("create", "a lease", error))?;
    let id = format!("krust-{}", uuid::Uuid::new_v4());
    let request = engine.request(CreateRequest {
        id: id.clone(),
        labels: HashMap::from([
            ("containerd.io/gc.expire".to_string(), expires.to_string()),
            (record::CLUSTER.to_string(), engine.options.cluster_id.clone()),
        ]),
    });
    let created = engine.leases().create(request).await;
    created.map_err(|status| engine.error("create", "lease", &id, status))?;
    Ok(id)
}

pub(super) async fn delete_lease(engine: &Engine, id: &str) {
    delete(engine, id, false).await;
}

/// What it kept is gone when this returns: a disk that was full has room again.
pub(super) async fn delete_lease_and_content(engine: &Engine, id: &str) {
    delete(engine, id, true).await;
}

async fn delete(engine: &Engine, id: &str, sync: bool) {
    let request = engine.request(DeleteRequest {
        id: id.to_string(),
        sync,
    });
    if let Err(status) = engine.leases().delete(request).await {
        tracing::debug!(id, error = status.message(), "a lease stays until it expires");
    }
}

/// Takes away what an earlier run of this krust had in hand when it was killed. This run's own leases are younger than its
/// first connection.
pub(super) async fn delete_abandoned_leases(engine: &Engine) -> Result<()> {
    static CONNECTED: OnceLock<SystemTime> = OnceLock::new();
    let connected = CONNECTED.get_or_init(SystemTime::now);
    let request = engine.request(ListRequest {
        filters: vec![format!("labels.{:?}=={:?}", record::CLUSTER, engine.options.cluster_id)],
    });
    let listed = engine.leases().list(request).await;
    let listed = listed.map_err(|status| engine.error("list", "leases", "leases", status))?;
    let is_older = |lease: &Lease| {
        let created = lease.created_at.and_then(|time| SystemTime::try_from(time).ok());
        created.is_some_and(|created| created < *connected)
    };
    for lease in listed.into_inner().leases.iter().filter(|lease| is_older(lease)) {
        delete_lease(engine, &lease.id).await;
    }
    Ok(())
}

/// Makes a writable file system from an image, which is unpacked if nobody has done so.
/// With `user_ids` it shows owners as those of a pod whose ids start there.
pub(super) async fn prepare(
    engine: &Engine,
    lease: &str,
    key: &str,
    image: &Content,
    user_ids: Option<u32>,
) -> Result<Vec<Mount>> {
    let parent = unpacked(engine, lease, image).await?;
    prepare_on(engine, lease, key, &parent, snapshot_labels(user_ids)).await
}

/// The name of the snapshot that is the image's file system, which is unpacked if nobody has done so.
pub(super) async fn unpacked(engine: &Engine, lease: &str, image: &Content) -> Result<String> {
    let chain = image.chain_ids();
    let mut parent = String::new();
    for (chain_id, layer) in chain.iter().zip(&image.layers) {
        if !exists(engine, chain_id).await? {
            unpack(engine, lease, &parent, chain_id, layer).await?;
        }
        parent.clone_from(chain_id);
    }
    Ok(parent)
}

async fn prepare_on(
    engine: &Engine,
    lease: &str,
    key: &str,
    parent: &str,
    labels: HashMap<String, String>,
) -> Result<Vec<Mount>> {
    let message = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_string(),
        key: key.to_string(),
        parent: parent.to_string(),
        labels,
    };
    let prepared = engine.snapshots().prepare(engine.leased(lease, message)).await;
    let prepared = prepared.map_err(|status| engine.error("prepare", "snapshot", key, status))?;
    Ok(prepared.into_inner().mounts)
}

async fn exists(engine: &Engine, name: &str) -> Result<bool> {
    let request = engine.request(StatSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_string(),
        key: name.to_string(),
    });
    match engine.snapshots().stat(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(engine.error("look at", "snapshot", name, status)),
    }
}

async fn unpack(engine: &Engine, lease: &str, parent: &str, chain_id: &str, layer: &Descriptor) -> Result<()> {
    let key = format!("krust-unpack-{}", uuid::Uuid::new_v4());
    let mounts = prepare_on(engine, lease, &key, parent, HashMap::new()).await?;
    let unpacked = async {
        let apply = ApplyRequest {
            diff: Some(EngineDescriptor {
                media_type: layer.media_type().to_string(),
                digest: layer.digest().to_string(),
                size: i64::try_from(layer.size()).unwrap_or(i64::MAX),
                annotations: HashMap::new(),
            }),
            mounts,
            ..Default::default()
        };
        let applied = engine.diff().apply(engine.leased(lease, apply)).await;
        applied.map_err(|status| engine.error("unpack", "layer", layer.digest().as_ref(), status))?;
        let commit = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_string(),
            name: chain_id.to_string(),
            key: key.clone(),
            labels: HashMap::new(),
        };
        match engine.snapshots().commit(engine.leased(lease, commit)).await {
            Err(status) if status.code() != Code::AlreadyExists => {
                Err(engine.error("commit", "snapshot", chain_id, status))
            }
            committed => Ok(committed.is_ok()),
        }
    };
    let committed = unpacked.await;
    if !matches!(committed, Ok(true)) {
        // Another one was quicker, or it failed.
        remove(engine, &key).await?;
    }
    committed.map(drop)
}

/// How a container's file system is mounted.
pub(super) async fn mounts(engine: &Engine, key: &str) -> Result<Vec<Mount>> {
    let request = engine.request(MountsRequest {
        snapshotter: SNAPSHOTTER.to_string(),
        key: key.to_string(),
    });
    let mounts = engine.snapshots().mounts(request).await;
    let mounts = mounts.map_err(|status| engine.error("mount", "snapshot", key, status))?;
    Ok(mounts.into_inner().mounts)
}

/// What is gone is fine.
pub(super) async fn remove(engine: &Engine, key: &str) -> Result<()> {
    let request = engine.request(RemoveSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_string(),
        key: key.to_string(),
    });
    match engine.snapshots().remove(request).await {
        Err(status) if status.code() != Code::NotFound => Err(engine.error("remove", "snapshot", key, status)),
        _ => Ok(()),
    }
}

/// What was written over the image.
pub(super) async fn written(engine: &Engine, key: &str) -> Result<Written> {
    let request = engine.request(UsageRequest {
        snapshotter: SNAPSHOTTER.to_string(),
        key: key.to_string(),
    });
    let usage = engine.snapshots().usage(request).await;
    let usage = usage
        .map_err(|status| engine.error("measure", "snapshot", key, status))?
        .into_inner();
    Ok(Written {
        bytes: u64::try_from(usage.size).unwrap_or(0),
        inodes: u64::try_from(usage.inodes).ok(),
        log_bytes: 0,
    })
}

/// The image's users and groups, read from its layers without mounting them.
pub(super) fn accounts(mounts: &[Mount]) -> Accounts {
    let layers = layers(mounts);
    Accounts {
        passwd: read(&layers, "etc/passwd"),
        group: read(&layers, "etc/group"),
    }
}

/// Directories of an overlay from the uppermost, or the one of a bind mount.
fn layers(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.first() else {
        return Vec::new();
    };
    if mount.r#type != "overlay" {
        return vec![PathBuf::from(&mount.source)];
    }
    let option = |name: &str| {
        let mut options = mount.options.iter();
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let lower = option("lowerdir").into_iter().flat_map(|lower| lower.split(':'));
    option("upperdir").into_iter().chain(lower).map(PathBuf::from).collect()
}

/// The uppermost file of that name; empty if there is none. Links are not followed: they would lead out of the image.
fn read(layers: &[PathBuf], name: &str) -> String {
    for layer in layers {
        let path = layer.join(name);
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        // A character device stands for a file that is deleted in this layer.
        if metadata.file_type().is_char_device() || !metadata.is_file() {
            return String::new();
        }
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let mut bytes = Vec::new();
        let read = file.and_then(|file| file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes));
        return match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        };
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let layer = |name: &str| directory.path().join(name);
        for (name, text) in [("one", "lower"), ("two", "upper")] {
            std::fs::create_dir_all(layer(name).join("etc")).unwrap();
            std::fs::write(layer(name).join("etc/passwd"), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/group", layer("two").join("etc/group")).unwrap();
        let mount = Mount {
            r#type: "overlay".into(),
            options: vec![
                "index=off".into(),
                format!("upperdir={}", layer("new").display()),
                format!("lowerdir={}:{}", layer("two").display(), layer("one").display()),
            ],
            ..Default::default()
        };
        let found = accounts(std::slice::from_ref(&mount));
        assert_eq!((found.passwd.as_str(), found.group.as_str()), ("upper", ""));
        let bind = Mount {
            r#type: "bind".into(),
            source: layer("one").display().to_string(),
            ..Default::default()
        };
        assert_eq!(accounts(&[bind]).passwd, "lower");
    }
}
