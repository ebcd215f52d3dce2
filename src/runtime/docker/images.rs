//! Images on the engine (upstream: dockershim's `docker_image.go`).

use super::super::archive::{Archive, ArchiveError, ArchivedImage, DOCKER_LIST};
use super::super::pause;
use super::super::reference::{Reference, is_image_id};
use super::{Engine, Image, ImageStore, PullProgress, RegistryAuth, Result, failed, is_not_found, labels};
use async_trait::async_trait;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptions,
    RemoveImageOptions, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::io::{StreamReader, SyncIoBridge};

const PIECE_BYTES: usize = 512 << 10;

/// By id or reference; None if it is not there.
pub(super) async fn status(engine: &Engine, image: &str) -> Result<Option<Image>> {
    if !is_image_id(image) {
        Reference::parse(image)?;
    }
    Ok(inspect(engine, image).await?.map(|found| Image {
        id: found.id.unwrap_or_default(),
        repo_tags: found.repo_tags.unwrap_or_default(),
        repo_digests: found.repo_digests.unwrap_or_default(),
        size_bytes: size(found.size.unwrap_or(0)),
        user: found.config.and_then(|config| config.user).unwrap_or_default(),
        pinned: false,
    }))
}

/// All images but the pause image, which is not the cluster's to see or clean up.
pub(super) async fn list(engine: &Engine) -> Result<Vec<Image>> {
    let images = engine
        .docker
        .list_images(None::<ListImagesOptions>)
        .await
        .map_err(|error| engine.error("list", "engine", "images", error))?;
    let used = used_by_others(engine).await?;
    let known =
        |names: Vec<String>| -> Vec<String> { names.into_iter().filter(|name| !name.contains("<none>")).collect() };
    Ok(images
        .into_iter()
        .map(|image| Image {
            pinned: used.contains(&image.id),
            id: image.id,
            repo_tags: known(image.repo_tags),
            repo_digests: known(image.repo_digests),
            size_bytes: size(image.size),
            user: String::new(),
        })
        .filter(|image| !image.repo_tags.iter().any(|tag| tag.starts_with(pause::REPOSITORY)))
        .collect())
}

/// Ids of images whose containers are not krust's.
async fn used_by_others(engine: &Engine) -> Result<HashSet<String>> {
    let options = ListContainersOptionsBuilder::default().all(true).build();
    let listed = engine.docker.list_containers(Some(options)).await;
    let listed = listed.map_err(|error| engine.error("list", "engine", "containers", error))?;
    let others = listed.into_iter().filter(|container| {
        let cluster = container.labels.as_ref().and_then(|all| all.get(labels::CLUSTER));
        cluster != Some(&engine.cluster_id)
    });
    Ok(others.filter_map(|container| container.image_id).collect())
}

/// Pulls and returns the image's id.
pub(super) async fn pull(
    engine: &Engine,
    image: &str,
    auth: Option<&RegistryAuth>,
    progress: &PullProgress,
) -> Result<String> {
    let reference = Reference::parse(image)?;
    let version = reference
        .digest
        .as_deref()
        .or(reference.tag_or_latest())
        .unwrap_or("latest");
    let options = CreateImageOptionsBuilder::default()
        .from_image(&reference.repository())
        .tag(version)
        .build();
    let credentials = auth.map(credentials);
    let mut layers = Layers::default();
    let mut steps = std::pin::pin!(engine.docker.create_image(Some(options), None, credentials));
    while let Some(step) = steps.next().await {
        match step {
            Ok(step) => layers.take(&step, progress),
            // "No such image" here is the registry's answer.
            Err(EngineError::DockerResponseServerError { message, .. }) => return Err(failed("pull", image, message)),
            Err(error) => return Err(engine.error("pull", "image", image, error)),
        }
    }
    match inspect(engine, image).await? {
        Some(found) => Ok(found.id.unwrap_or_default()),
        None => Err(failed("pull", image, "the image is not there after it was pulled")),
    }
}

/// What the engine tells of the layers of a pull: bytes that were got, and of how many.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    fn take(&mut self, step: &CreateImageInfo, progress: &PullProgress) {
        let Some(id) = &step.id else { return };
        let layer = self.0.entry(id.clone()).or_default();
        let detail = step.progress_detail.as_ref();
        let figure = |value: Option<i64>| {
            value
                .and_then(|bytes| u64::try_from(bytes).ok())
                .filter(|bytes| *bytes > 0)
        };
        match step.status.as_deref() {
            Some("Downloading") => {
                layer.0 = figure(detail.and_then(|detail| detail.current)).unwrap_or(layer.0);
                layer.1 = figure(detail.and_then(|detail| detail.total)).unwrap_or(layer.1);
            }
            // It goes on with what it does to the layer.
            Some("Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete") => layer.0 = layer.1,
            _ => return,
        }
        progress.set_total(self.0.values().map(|(_, total)| total).sum());
        progress.set_got(self.0.values().map(|(got, _)| got).sum());
    }
}

/// Removes every name of an image, and with the last one the image.
pub(super) async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let Some(found) = inspect(engine, id).await? else {
        return Ok(());
    };
    let tags = found.repo_tags.unwrap_or_default();
    let digests = found.repo_digests.unwrap_or_default();
    // With one name the id will do, and takes the digest along.
    let mut names = if tags.len() > 1 { tags } else { Vec::new() };
    if names.is_empty() && digests.len() > 1 {
        names = digests;
    }
    names.push(id.to_string());
    for name in names {
        match engine
            .docker
            .remove_image(&name, None::<RemoveImageOptions>, None)
            .await
        {
            Err(error) if !is_not_found(&error) => return Err(engine.error("remove", "image", &name, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Where the engine keeps its data.
pub(super) async fn directory(engine: &Engine) -> Result<PathBuf> {
    let info = engine.docker.info().await;
    let info = info.map_err(|error| engine.error("ask for", "engine", "information", error))?;
    let root = info.docker_root_dir.filter(|root| !root.is_empty());
    let root = root.ok_or_else(|| failed("find", "the directory of images", "Docker does not tell it"))?;
    Ok(PathBuf::from(root))
}

/// The engine's images by themselves.
pub(super) struct Store(pub Arc<Engine>);

#[async_trait]
impl ImageStore for Store {
    async fn list(&self) -> Result<Vec<Image>> {
        list(&self.0).await
    }

    async fn load(&self, archive: Arc<Archive>) -> Result<Vec<String>> {
        let names: Vec<String> = archive.images.iter().flat_map(|image| image.names.clone()).collect();
        let subject = names.join(", ");
        let head = match archive.is_dockers() {
            true => Vec::new(),
            false => docker_list(&archive).map_err(|error| failed("load", &subject, error.to_string()))?,
        };
        let body = stream::once(async move { Ok(Bytes::from(head)) }).chain(pieces(archive.file()));
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut steps = std::pin::pin!(self.0.docker.import_image_stream(options, body, None));
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| self.0.error("load", "image", &subject, error))?;
            if let Some(detail) = step.error_detail {
                return Err(failed("load", &subject, detail.message.unwrap_or_default()));
            }
        }
        if archive.is_dockers() && archive.is_renamed() {
            for image in &archive.images {
                self.tag(image).await?;
            }
        }
        Ok(names)
    }
}

impl Store {
    /// Gives a loaded image the names that its archive does not say.
    async fn tag(&self, image: &ArchivedImage) -> Result<()> {
        let manifest: serde_json::Value = serde_json::from_slice(&image.root.bytes).unwrap_or_default();
        let id = manifest["config"]["digest"].as_str().unwrap_or_default();
        for name in &image.names {
            let reference = Reference::parse(name)?;
            let options = TagImageOptionsBuilder::default()
                .repo(&reference.repository())
                .tag(reference.tag_or_latest().unwrap_or("latest"))
                .build();
            let tagged = self.0.docker.tag_image(id, Some(options)).await;
            tagged.map_err(|error| self.0.error("name", "image", name, error))?;
        }
        Ok(())
    }
}

/// What an archive of another kind lacks for the engine, as the beginning of a tar archive.
fn docker_list(archive: &Archive) -> Result<Vec<u8>, ArchiveError> {
    let architecture = pause::Architecture::host().map(pause::Architecture::oci_name);
    let list = archive.docker_list(|index| {
        let manifests = index["manifests"].as_array()?;
        let is_ours = |entry: &&serde_json::Value| match entry.get("platform") {
            Some(platform) => {
                platform["os"] == "linux"
                    && platform["architecture"].as_str().map(str::to_owned) == architecture.map(str::to_owned)
            }
            None => true,
        };
        let entry = manifests.iter().find(is_ours)?;
        entry["digest"].as_str().map(str::to_owned)
    })?;
    let mut head = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(list.len() as u64);
    header.set_mode(0o644);
    head.append_data(&mut header, DOCKER_LIST, list.as_slice())?;
    // Without the blocks that would end the archive.
    let mut bytes = head.get_ref().clone();
    bytes.truncate(512 + list.len().div_ceil(512) * 512);
    Ok(bytes)
}

/// A file from its beginning to its end.
fn pieces(file: Arc<File>) -> impl Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(0u64, move |offset| {
        let file = file.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let count = file.read_at(&mut piece, offset)?;
                piece.truncate(count);
                io::Result::Ok(piece)
            });
            let piece = read.await.map_err(io::Error::other)??;
            let next = offset + piece.len() as u64;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), next)))
        }
    })
}

/// Puts the files of an image into a directory, unless that is done. The engine has no call to mount an image, and where
/// its layers are is its own affair: it gives out the file system of a container that never starts.
pub(super) async fn unpack(engine: &Engine, image: &str, directory: &Path) -> Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let id = super::prepare::create_probe(engine, image, Default::default()).await?;
    let exported = engine
        .docker
        .export_container(&id)
        .map(|piece| piece.map_err(io::Error::other));
    let reader = SyncIoBridge::new(StreamReader::new(Box::pin(exported)));
    let target = directory.to_owned();
    let unpacked = tokio::task::spawn_blocking(move || unpack_archive(reader, &target)).await;
    super::prepare::remove_probe(engine, &id).await;
    let unpacked = unpacked.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    unpacked.map_err(|error| failed("unpack", image, error.to_string()))
}

/// The directory appears when it is complete.
fn unpack_archive(reader: impl io::Read, directory: &Path) -> io::Result<()> {
    let part = directory.with_extension("part");
    match std::fs::remove_dir_all(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::create_dir_all(&part)?,
    }
    let mut archive = tar::Archive::new(reader);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.unpack(&part)?;
    // The engine's own mark of a container.
    let _ = std::fs::remove_file(part.join(".dockerenv"));
    std::fs::rename(&part, directory)
}

/// None if it is not there.
pub(super) async fn inspect(engine: &Engine, image: &str) -> Result<Option<ImageInspect>> {
    match engine.docker.inspect_image(image).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        // A name that older engines take for none: the pull tells.
        Err(EngineError::DockerResponseServerError { status_code: 400, .. }) => Ok(None),
        Err(error) => Err(engine.error("inspect", "image", image, error)),
    }
}

fn credentials(auth: &RegistryAuth) -> DockerCredentials {
    let serveraddress = Some(auth.server.clone());
    match auth.identity_token() {
        Some(token) => DockerCredentials {
            identitytoken: Some(token.to_owned()),
            serveraddress,
            ..Default::default()
        },
        None => DockerCredentials {
            username: Some(auth.username.clone()),
            password: Some(auth.password.clone()),
            serveraddress,
            ..Default::default()
        },
    }
}

/// `repo@sha256:…` of the repository that `name` is in, else of any, else the id.
pub(super) fn image_ref(image: &ImageInspect, name: &str) -> String {
    let digests = image.repo_digests.as_deref().unwrap_or_default();
    let repository = Reference::parse(name).ok().map(|reference| reference.repository());
    let same = |digest: &&String| Reference::parse(digest).is_ok_and(|digest| Some(digest.repository()) == repository);
    digests
        .iter()
        .find(same)
        .or(digests.first())
        .or(image.id.as_ref())
        .cloned()
        .unwrap_or_default()
}

fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_of_the_repository_that_was_asked_for() {
        let digest = |repository: &str| format!("{repository}@sha256:{}", "a".repeat(64));
        let image = ImageInspect {
            id: Some("sha256:id".into()),
            repo_digests: Some(vec![digest("mirror.example/nginx"), digest("nginx")]),
            ..Default::default()
        };
        assert_eq!(image_ref(&image, "nginx:1.27"), digest("nginx"));
        assert_eq!(image_ref(&image, "docker.io/library/nginx"), digest("nginx"));
        assert_eq!(image_ref(&image, "sha256:id"), digest("mirror.example/nginx"));
        let local = ImageInspect {
            repo_digests: None,
            ..image
        };
        assert_eq!(image_ref(&local, "nginx"), "sha256:id");
    }
}
