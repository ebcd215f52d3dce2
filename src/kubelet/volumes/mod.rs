//! Volumes that are directories and files of the node (upstream: `pkg/volume`, `volumemanager`).
//!
//! They live in `<data_dir>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>` and are bind-mounted by the engine.
//! Preparing is idempotent; doing it again brings changed ConfigMaps and Secrets into running pods.

mod atomic;
mod claims;
mod content;
mod directory;
mod hosts;
mod huge_pages;
mod mounts;
mod nfs;
mod ownership;
mod tmpfs;
mod tokens;
mod watch;

pub use mounts::recursive_readonly;
pub use watch::Watches;

use crate::kubelet::FileSharing;
use crate::kubelet::container::ConfigError;
use crate::kubelet::downward::NodeFigures;
use crate::kubelet::objects::{Objects, References, Versions};
use crate::kubelet::pod;
use crate::runtime::{Runtime, RuntimeError};
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Pod, Volume};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokens::Tokens;

const EMPTY_DIR: &str = "empty-dir";
const IMAGE: &str = "image";

/// Why a volume cannot be had; shown in the event FailedMount.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {cause}")]
    SetUp {
        volume: String,
        #[source]
        cause: SetUpError,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error(transparent)]
    Object(#[from] ConfigError),
    #[error("{}references non-existent {kind} key: {key}", before(.kind))]
    NoSuchKey { kind: &'static str, key: String },
    #[error("invalid path {0:?}: it must be relative and stay inside the volume")]
    Path(String),
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("{operation} {path}: {source}")]
    Io {
        operation: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("volume type {0} is not supported by this node agent")]
    UnsupportedType(String),
    #[error("volumes of type {kind} need files that the container engine can mount: {reason}")]
    NoSharedFiles { kind: String, reason: String },
    #[error("volumes of type {kind} need mounts that the container engine sees, and krust runs in a container")]
    NoSharedMounts { kind: &'static str },
    /// As upstream's mounter says it.
    #[error("mount failed: {status}\nMounting command: mount\nMounting arguments: {arguments}\nOutput: {output}\n")]
    Mount {
        status: String,
        arguments: String,
        output: String,
    },
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{0}")]
    Claim(String),
    #[error("{0}")]
    HugePages(String),
    #[error("failed to fetch token: {0}")]
    TokenFetch(String),
    #[error("token {token} expired and refresh failed: {reason}")]
    TokenExpired { token: String, reason: String },
    /// Of the sources of one volume.
    #[error("[{0}]")]
    Several(String),
}

/// Upstream names the object of one kind and not of the other.
fn before(kind: &str) -> &'static str {
    match kind {
        "config" => "configmap ",
        _ => "",
    }
}

fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> SetUpError {
    let path = path.display().to_string();
    move |source| SetUpError::Io {
        operation,
        path,
        source,
    }
}

/// The volumes of this node's pods.
#[derive(Clone)]
pub struct Volumes {
    root: PathBuf,
    files: FileSharing,
    client: kube::Client,
    runtime: Arc<dyn Runtime>,
    tokens: Arc<Tokens>,
    /// Whether the engine can make all that is mounted in a volume read-only.
    recursive_readonly: bool,
}

impl Volumes {
    pub fn new(
        data_dir: &Path,
        files: FileSharing,
        client: kube::Client,
        runtime: Arc<dyn Runtime>,
        recursive_readonly: bool,
    ) -> Self {
        let root = data_dir.join("pods");
        // The engine resolves paths from its own working directory.
        let root = std::path::absolute(&root).unwrap_or(root);
        Self {
            root,
            files,
            client,
            runtime,
            tokens: Arc::default(),
            recursive_readonly,
        }
    }

    /// Makes every volume of the pod ready to be mounted; tells which versions of their sources they show.
    pub async fn prepare(&self, pod: &Pod, node: NodeFigures) -> Result<Versions, VolumeError> {
        let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
        if volumes.is_empty() {
            return Ok(Versions::default());
        }
        let mut references = References::default();
        references.add_volumes(pod);
        let fail = |volume: &Volume, cause: SetUpError| VolumeError::SetUp {
            volume: volume.name.clone(),
            cause,
        };
        let objects = Objects::fetch(&self.client, pod::namespace(pod), references).await;
        let objects = objects.map_err(|cause| fail(&volumes[0], cause.into()))?;
        for volume in volumes {
            let result = self.prepare_one(pod, volume, &objects, node).await;
            result.map_err(|cause| fail(volume, cause))?;
        }
        Ok(objects.versions())
    }

    /// Whether a token in the pod's volumes is to be renewed.
    pub fn tokens_are_due(&self, uid: &str) -> bool {
        self.tokens.are_due(uid, SystemTime::now())
    }

    async fn prepare_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        objects: &Objects,
        node: NodeFigures,
    ) -> Result<(), SetUpError> {
        if let Some(host_path) = &volume.host_path {
            return self.prepare_host_path(host_path).await;
        }
        if let Some(name) = claims::claim_name(pod, volume) {
            return self.prepare_claim(pod, volume, &name).await;
        }
        let Some(plugin) = plugin(volume) else {
            return Err(SetUpError::UnsupportedType(type_name(volume)));
        };
        if let FileSharing::Unavailable(reason) = &self.files {
            return Err(SetUpError::NoSharedFiles {
                kind: type_name(volume),
                reason: reason.clone(),
            });
        }
        if volume.image.is_some() {
            // Made when a container that mounts it starts, which is when it may be pulled.
            return Ok(());
        }
        let path = self.path(pod, plugin, &volume.name);
        let group = pod::spec(pod).security_context.as_ref().and_then(|s| s.fs_group);
        self.make_pod_directory(pod)?;
        if let Some(source) = &volume.nfs {
            if self.files != FileSharing::Shared {
                return Err(SetUpError::NoSharedMounts { kind: "nfs" });
            }
            return nfs::mount(&path, source, &[]).await;
        }
        if let Some(empty_dir) = &volume.empty_dir {
            if self.is_engines_memory(volume) {
                // The directory says that something is to be given back.
                std::fs::create_dir_all(&path).map_err(io("create", &path))?;
                return Ok(self
                    .runtime
                    .mount_memory(&path, directory::memory(empty_dir, group))
                    .await?);
            }
            return directory::empty_dir(&path, empty_dir, pod, group);
        }
        let payload = content::payload(pod, volume, objects, node, &self.tokens, &self.client).await?;
        // As upstream: only what a ConfigMap says may be on a disk.
        if volume.config_map.is_none() && self.files == FileSharing::Shared {
            tmpfs::make(&path)?;
        }
        atomic::write(&path, &payload, group)
    }

    /// Checks, or makes, what the type asks for.
    async fn prepare_host_path(&self, source: &HostPathVolumeSource) -> Result<(), SetUpError> {
        let kind = source.type_.as_deref().unwrap_or_default();
        if kind.is_empty() {
            return Ok(());
        }
        let path = Path::new(&source.path);
        let (FileSharing::OwnFiles(reason) | FileSharing::Unavailable(reason)) = &self.files else {
            return match directory::check(source, directory::look(path))? {
                Some(kind) => directory::make(path, kind),
                None => Ok(()),
            };
        };
        let found = match self.runtime.look_at(path).await {
            Err(RuntimeError::Unsupported(_)) => {
                return Err(SetUpError::NoSharedFiles {
                    kind: format!("hostPath with type {kind}"),
                    reason: reason.clone(),
                });
            }
            found => found?,
        };
        match directory::check(source, found)? {
            Some(kind) => Ok(self.runtime.make_at(path, kind).await?),
            None => Ok(()),
        }
    }

    /// Whether the engine mounts it, as what krust mounts is not seen by the engine.
    fn is_engines_memory(&self, volume: &Volume) -> bool {
        let source = volume.empty_dir.as_ref();
        let in_memory = source.is_some_and(|source| source.medium.as_deref() == Some("Memory"));
        in_memory && matches!(self.files, FileSharing::OwnFiles(_))
    }

    /// Makes a volume that shows an image, which is on the node.
    pub async fn mount_image(&self, pod: &Pod, volume: &Volume, image: &str) -> Result<(), SetUpError> {
        self.make_pod_directory(pod)?;
        let path = self.path(pod, IMAGE, &volume.name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        Ok(self.runtime.mount_image(image, &path).await?)
    }

    async fn prepare_claim(&self, pod: &Pod, volume: &Volume, name: &str) -> Result<(), SetUpError> {
        let link = self.path(pod, claims::PLUGIN, &volume.name);
        if claims::remembered(&link).is_some() {
            // A claim keeps its volume; one that goes away meanwhile takes nothing from a pod that has it.
            return Ok(());
        }
        let claims::Found {
            source,
            made_here,
            takes_group,
        } = claims::find(&self.client, pod, volume, name).await?;
        match (made_here, &self.files) {
            (false, _) => self.prepare_host_path(&source).await?,
            (true, FileSharing::Unavailable(reason)) => {
                return Err(SetUpError::NoSharedFiles {
                    kind: type_name(volume),
                    reason: reason.clone(),
                });
            }
            (true, _) => claims::make(Path::new(&source.path))?,
        }
        let context = pod::spec(pod).security_context.as_ref();
        if let (true, Some(context)) = (takes_group, context)
            && let Some(group) = context.fs_group
            && (made_here || matches!(self.files, FileSharing::Shared | FileSharing::SamePaths))
        {
            let claim = volume.persistent_volume_claim.as_ref();
            let wanted = ownership::Wanted {
                group,
                readonly: claim.is_some_and(|claim| claim.read_only == Some(true)),
                on_root_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch"),
            };
            let path = PathBuf::from(&source.path);
            let changed = tokio::task::spawn_blocking(move || ownership::set(&path, wanted)).await;
            changed
                .map_err(|panic| io("change the group of", Path::new(&source.path))(std::io::Error::other(panic)))??;
        }
        self.make_pod_directory(pod)?;
        claims::remember(&link, Path::new(&source.path))
    }

    /// Only root looks below a pod's directory; the engine mounts the volumes themselves.
    fn make_pod_directory(&self, pod: &Pod) -> Result<(), SetUpError> {
        use std::os::unix::fs::DirBuilderExt;
        let directory = self.pod_directory(pod::uid(pod));
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o750).create(&directory);
        made.map_err(io("create", &directory))
    }

    fn pod_directory(&self, uid: &str) -> PathBuf {
        self.root.join(uid)
    }

    fn path(&self, pod: &Pod, plugin: &str, volume: &str) -> PathBuf {
        let plugin = format!("kubernetes.io~{plugin}");
        self.pod_directory(pod::uid(pod))
            .join("volumes")
            .join(plugin)
            .join(volume)
    }

    /// Removes everything that was made for the pod; a pod without files is fine.
    pub async fn remove(&self, uid: &str) -> Result<(), SetUpError> {
        self.tokens.forget(uid);
        let directory = self.pod_directory(uid);
        let of = |plugin: &str| std::fs::read_dir(directory.join("volumes").join(format!("kubernetes.io~{plugin}")));
        for image in of(IMAGE).into_iter().flatten().flatten() {
            self.runtime.unmount_image(&image.path()).await?;
        }
        for empty_dir in of(EMPTY_DIR).into_iter().flatten().flatten() {
            self.runtime.unmount_memory(&empty_dir.path()).await?;
        }
        let inner = directory.clone();
        let removed = tokio::task::spawn_blocking(move || directory::remove(&inner)).await;
        match removed {
            Ok(result) => result,
            Err(panic) => Err(io("remove", &directory)(std::io::Error::other(panic))),
        }
    }

    /// Uids of the pods that files were made for.
    pub fn known_uids(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }
}

/// The directory name of a volume type that is made of our own files.
fn plugin(volume: &Volume) -> Option<&'static str> {
    if volume.empty_dir.is_some() {
        Some(EMPTY_DIR)
    } else if volume.config_map.is_some() {
        Some("configmap")
    } else if volume.secret.is_some() {
        Some("secret")
    } else if volume.downward_api.is_some() {
        Some("downward-api")
    } else if volume.projected.is_some() {
        Some("projected")
    } else if volume.image.is_some() {
        Some(IMAGE)
    } else if volume.nfs.is_some() {
        Some("nfs")
    } else {
        None
    }
}

/// The field of the volume that says its type, as the API spells it.
fn type_name(volume: &Volume) -> String {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    let mut names = fields.as_object().into_iter().flat_map(|map| map.keys());
    names
        .find(|key| *key != "name")
        .cloned()
        .unwrap_or_else(|| "none".to_owned())
}
