//! Images in the daemon's store (upstream: the CRI plugin's `image_*.go`).

use super::super::oci::ImageDefaults;
use super::super::reference::{Reference, is_image_id};
use super::engine::Namespace;
use super::{Engine, Image, Result, RuntimeError, failed, record, snapshots};
use containerd_client::services::v1::{
    self, DeleteImageRequest, ListContainersRequest, ListImagesRequest, PluginsRequest, ReadContentRequest,
};
use containerd_client::tonic::Code;
use containerd_client::types::Descriptor as EngineDescriptor;
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Manifests and configurations are far smaller.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;
/// The CRI plugin's label of images that must stay.
const PINNED: &str = "io.cri-containerd.pinned";
/// Indexes that point to indexes.
pub(super) const INDEX_DEPTH_MAX: usize = 4;

/// What an image's manifest and configuration say. It never changes: the digest is that of the content.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Digest of the configuration, which is the image's id.
    pub id: String,
    pub size_bytes: u64,
    pub defaults: ImageDefaults,
    pub stop_signal: String,
    /// Layers from the lowest, and the digests of what they unpack to.
    pub layers: Vec<Descriptor>,
    pub diff_ids: Vec<String>,
}

/// An image, and the digest under which it was asked for.
pub(super) struct Found {
    pub content: Arc<Content>,
    /// `repo@sha256:…`, or the id.
    pub image_ref: String,
}

/// Contents by the digest of what the image's name points to.
#[derive(Default)]
pub(super) struct Cache(Mutex<HashMap<String, Arc<Content>>>);

impl Content {
    /// Names of the snapshots of the layers, the last of which is the image's file system
    /// (image-spec, "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<String> {
        self.diff_ids
            .iter()
            .scan(String::new(), |chain, diff_id| {
                *chain = match chain.as_str() {
                    "" => diff_id.clone(),
                    parent => format!("sha256:{}", hex::encode(Sha256::digest(format!("{parent} {diff_id}")))),
                };
                Some(chain.clone())
            })
            .collect()
    }
}

/// By id or reference, in this krust's own namespace.
pub(super) async fn find(engine: &Engine, cache: &Cache, image: &str) -> Result<Option<Found>> {
    let stored = find_in(engine, cache, &engine.namespace, image).await?;
    Ok(stored.map(|(stored, content)| found(&stored, content)))
}

/// The same in the other namespaces whose images may be used, in their order.
pub(super) async fn find_elsewhere(
    engine: &Engine,
    cache: &Cache,
    image: &str,
) -> Result<Option<(Namespace, v1::Image)>> {
    for namespace in &engine.image_namespaces {
        if let Some((stored, _)) = find_in(engine, cache, namespace, image).await? {
            return Ok(Some((namespace.clone(), stored)));
        }
    }
    Ok(None)
}

async fn find_in(
    engine: &Engine,
    cache: &Cache,
    namespace: &Namespace,
    image: &str,
) -> Result<Option<(v1::Image, Arc<Content>)>> {
    if is_image_id(image) {
        for stored in list_stored(engine, namespace).await? {
            let Some(content) = content_if_complete(engine, cache, namespace, &stored).await? else {
                continue;
            };
            if content.id == image {
                return Ok(Some((stored, content)));
            }
        }
        return Ok(None);
    }
    let reference = Reference::parse(image)?;
    let wanted = |stored: &v1::Image| {
        if stored.name == reference.to_string() {
            return true;
        }
        // By digest it is the same under every tag.
        let digest = stored.target.as_ref().map(|target| target.digest.as_str());
        let same_repository =
            || Reference::parse(&stored.name).is_ok_and(|name| name.repository() == reference.repository());
        reference.digest.is_some() && reference.digest.as_deref() == digest && same_repository()
    };
    let Some(stored) = list_stored(engine, namespace).await?.into_iter().find(wanted) else {
        return Ok(None);
    };
    // What others have may be of another platform, or a part only.
    let content = match *namespace == engine.namespace {
        true => Some(content(engine, cache, namespace, &stored).await?),
        false => content_if_complete(engine, cache, namespace, &stored).await?,
    };
    Ok(content.map(|content| (stored, content)))
}

fn found(stored: &v1::Image, content: Arc<Content>) -> Found {
    Found {
        image_ref: repo_digest(stored).unwrap_or_else(|| content.id.clone()),
        content,
    }
}

pub(super) async fn status(engine: &Engine, cache: &Cache, image: &str) -> Result<Option<Image>> {
    let id = match find(engine, cache, image).await? {
        Some(found) => found.content.id.clone(),
        None => match find_elsewhere(engine, cache, image).await? {
            Some((namespace, stored)) => content(engine, cache, &namespace, &stored).await?.id.clone(),
            None => return Ok(None),
        },
    };
    // Who else uses it matters to those who remove images only, and costs a list of containers.
    let images = list_with(engine, cache, &HashSet::new()).await?;
    Ok(images.into_iter().find(|listed| listed.id == id))
}

/// One entry for each image, with all its names.
pub(super) async fn list(engine: &Engine, cache: &Cache) -> Result<Vec<Image>> {
    let used = used_by_others(engine).await?;
    list_with(engine, cache, &used).await
}

async fn list_with(engine: &Engine, cache: &Cache, used: &HashSet<String>) -> Result<Vec<Image>> {
    let mut images: BTreeMap<String, Image> = BTreeMap::new();
    for namespace in std::iter::once(&engine.namespace).chain(&engine.image_namespaces) {
        let own = *namespace == engine.namespace;
        for stored in list_stored(engine, namespace).await? {
            let Some(content) = content_if_complete(engine, cache, namespace, &stored).await? else {
                continue;
            };
            let image = images.entry(content.id.clone()).or_insert_with(|| Image {
                id: content.id.clone(),
                size_bytes: content.size_bytes,
                user: content.defaults.user.clone(),
                // What others have is theirs to remove.
                pinned: !own,
                ..Default::default()
            });
            let held = stored.labels.get(PINNED).is_some_and(|value| value == "pinned");
            image.pinned |= own && (held || used.contains(&stored.name));
            if Reference::parse(&stored.name).is_ok_and(|name| name.tag.is_some())
                && !image.repo_tags.contains(&stored.name)
            {
                image.repo_tags.push(stored.name.clone());
            }
            image
                .repo_digests
                .extend(repo_digest(&stored).filter(|digest| !image.repo_digests.contains(digest)));
        }
    }
    Ok(images.into_values().collect())
}

/// Names of images in this krust's namespace whose containers are not krust's.
async fn used_by_others(engine: &Engine) -> Result<HashSet<String>> {
    let request = engine.request(ListContainersRequest {
        filters: vec![format!("labels.{:?}!={:?}", record::CLUSTER, engine.options.cluster_id)],
    });
    let listed = engine.containers().list(request).await;
    let listed = listed.map_err(|status| engine.error("list", "containers", "containers", status))?;
    Ok(listed
        .into_inner()
        .containers
        .into_iter()
        .map(|container| container.image)
        .collect())
}

/// Removes every name of an image in this krust's namespace; its content goes when nothing else refers to it.
pub(super) async fn remove(engine: &Engine, cache: &Cache, id: &str) -> Result<()> {
    let mut names = Vec::new();
    for stored in list_stored(engine, &engine.namespace).await? {
        if let Some(content) = content_if_complete(engine, cache, &engine.namespace, &stored).await?
            && content.id == id
        {
            names.push(stored.name);
        }
    }
    while let Some(name) = names.pop() {
        let request = DeleteImageRequest {
            name: name.clone(),
            // The last waits until the space is free.
            sync: names.is_empty(),
            ..Default::default()
        };
        match engine.images().delete(engine.request(request)).await {
            Err(status) if status.code() != Code::NotFound => {
                return Err(engine.error("remove", "image", &name, status));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the daemon's layers are (upstream: the CRI plugin's `imageFSPath`).
pub(super) async fn directory(engine: &Engine) -> Result<PathBuf> {
    let filter = format!("type==io.containerd.snapshotter.v1,id=={}", snapshots::SNAPSHOTTER);
    let request = engine.request(PluginsRequest { filters: vec![filter] });
    let plugins = engine.introspection().plugins(request).await;
    let plugins = plugins.map_err(|status| engine.error("ask for", "plugins", snapshots::SNAPSHOTTER, status))?;
    let roots = plugins.into_inner().plugins;
    let root = roots.iter().find_map(|plugin| plugin.exports.get("root"));
    let root = root.ok_or_else(|| failed("find", "the directory of images", "containerd does not tell it"))?;
    Ok(PathBuf::from(root))
}

/// `repo@sha256:…` of a stored image; None where its name is no reference.
fn repo_digest(stored: &v1::Image) -> Option<String> {
    let reference = Reference::parse(&stored.name).ok()?;
    Some(format!("{}@{}", reference.repository(), stored.target.as_ref()?.digest))
}

async fn list_stored(engine: &Engine, namespace: &Namespace) -> Result<Vec<v1::Image>> {
    let request = engine.request_in(namespace, ListImagesRequest::default());
    let listed = engine.images().list(request).await;
    let listed = listed.map_err(|status| engine.error("list", "images", "images", status))?;
    Ok(listed.into_inner().images)
}

/// Images of other platforms, or whose content is gone, are not this node's.
async fn content_if_complete(
    engine: &Engine,
    cache: &Cache,
    namespace: &Namespace,
    stored: &v1::Image,
) -> Result<Option<Arc<Content>>> {
    match content(engine, cache, namespace, stored).await {
        Ok(content) => Ok(Some(content)),
        Err(error @ RuntimeError::Unavailable { .. }) => Err(error),
        Err(error) => {
            tracing::debug!(image = stored.name, %error, "an image on containerd cannot be used here");
            Ok(None)
        }
    }
}

async fn content(engine: &Engine, cache: &Cache, namespace: &Namespace, stored: &v1::Image) -> Result<Arc<Content>> {
    let target = stored.target.clone().unwrap_or_default();
    let known = cache.0.lock().get(&target.digest).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let content = Arc::new(read_content(engine, namespace, &stored.name, &target).await?);
    cache.0.lock().insert(target.digest, Arc::clone(&content));
    Ok(content)
}

pub(super) async fn read_content(
    engine: &Engine,
    namespace: &Namespace,
    name: &str,
    target: &EngineDescriptor,
) -> Result<Content> {
    let (mut digest, mut media_type) = (target.digest.clone(), target.media_type.clone());
    for _ in 0..INDEX_DEPTH_MAX {
        if !is_index(&media_type) {
            return read_manifest(engine, namespace, name, &digest).await;
        }
        let index: ImageIndex = document(engine, namespace, name, &digest).await?;
        let chosen = entry_for_this_platform(&index);
        let chosen = chosen.ok_or_else(|| failed("use", name, "the image has no variant for this platform"))?;
        (digest, media_type) = (chosen.digest().to_string(), chosen.media_type().to_string());
    }
    Err(failed("use", name, "the image's indexes are nested too deeply"))
}

async fn read_manifest(engine: &Engine, namespace: &Namespace, name: &str, digest: &str) -> Result<Content> {
    let manifest: ImageManifest = document(engine, namespace, name, digest).await?;
    let id = manifest.config().digest().to_string();
    let configuration: ImageConfiguration = document(engine, namespace, name, &id).await?;
    let config = configuration.config().clone().unwrap_or_default();
    let layers_bytes: u64 = manifest.layers().iter().map(Descriptor::size).sum();
    Ok(Content {
        size_bytes: manifest.config().size() + layers_bytes,
        defaults: ImageDefaults {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
        },
        stop_signal: config.stop_signal().clone().unwrap_or_default(),
        layers: manifest.layers().clone(),
        diff_ids: configuration.rootfs().diff_ids().clone(),
        id,
    })
}

pub(super) fn entry_for_this_platform(index: &ImageIndex) -> Option<&Descriptor> {
    index.manifests().iter().find(|entry| is_for_this_platform(entry))
}

pub(super) fn is_index(media_type: &str) -> bool {
    media_type.ends_with("image.index.v1+json") || media_type.ends_with("manifest.list.v2+json")
}

fn is_for_this_platform(entry: &Descriptor) -> bool {
    let here = match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64,
        "aarch64" => Arch::ARM64,
        other => Arch::Other(other.to_string()),
    };
    // Without a platform it is the only one.
    entry
        .platform()
        .as_ref()
        .is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == here)
}

async fn document<T: DeserializeOwned>(engine: &Engine, namespace: &Namespace, name: &str, digest: &str) -> Result<T> {
    let bytes = read_document(engine, namespace, name, digest).await?;
    serde_json::from_slice(&bytes).map_err(|error| failed("read", name, format!("{digest}: {error}")))
}

pub(super) async fn read_document(engine: &Engine, namespace: &Namespace, name: &str, digest: &str) -> Result<Vec<u8>> {
    let read = ReadContentRequest {
        digest: digest.to_string(),
        ..Default::default()
    };
    let request = engine.request_in(namespace, read);
    let error = |status| engine.error("read", "image content", digest, status);
    let mut stream = engine.content().read(request).await.map_err(error)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.message().await.map_err(error)? {
        bytes.extend_from_slice(&piece.data);
        if bytes.len() > DOCUMENT_BYTES_MAX {
            let message = format!("{digest} is too large for an image's description");
            return Err(failed("read", name, message));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids() {
        let content = Content {
            diff_ids: vec!["sha256:a".into(), "sha256:b".into()],
            ..Default::default()
        };
        let ids = content.chain_ids();
        assert_eq!(ids[0], "sha256:a");
        let second = hex::encode(Sha256::digest("sha256:a sha256:b"));
        assert_eq!(ids[1], format!("sha256:{second}"));
    }

    #[test]
    fn kinds_of_documents() {
        assert!(is_index("application/vnd.oci.image.index.v1+json"));
        assert!(is_index("application/vnd.docker.distribution.manifest.list.v2+json"));
        assert!(!is_index("application/vnd.docker.distribution.manifest.v2+json"));
    }
}
