//! Images on the engine (upstream: dockershim's `docker_image.go`).

use super::super::pause;
use super::super::reference::{Reference, is_image_id};
use super::{Engine, Image, RegistryAuth, Result, failed, is_not_found};
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use futures_util::StreamExt;
use std::io;
use std::path::Path;
use tokio_util::io::{StreamReader, SyncIoBridge};

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
    }))
}

/// All images but the pause image, which is not the cluster's to see or clean up.
pub(super) async fn list(engine: &Engine) -> Result<Vec<Image>> {
    let images = engine
        .docker
        .list_images(None::<ListImagesOptions>)
        .await
        .map_err(|error| engine.error("list", "engine", "images", error))?;
    let known =
        |names: Vec<String>| -> Vec<String> { names.into_iter().filter(|name| !name.contains("<none>")).collect() };
    Ok(images
        .into_iter()
        .map(|image| Image {
            id: image.id,
            repo_tags: known(image.repo_tags),
            repo_digests: known(image.repo_digests),
            size_bytes: size(image.size),
            user: String::new(),
        })
        .filter(|image| !image.repo_tags.iter().any(|tag| tag.starts_with(pause::REPOSITORY)))
        .collect())
}

/// Pulls and returns the image's id.
pub(super) async fn pull(engine: &Engine, image: &str, auth: Option<&RegistryAuth>) -> Result<String> {
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
    let credentials = auth.map(|auth| DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.clone()),
        serveraddress: Some(auth.server.clone()),
        ..Default::default()
    });
    let mut progress = std::pin::pin!(engine.docker.create_image(Some(options), None, credentials));
    while let Some(step) = progress.next().await {
        match step {
            Ok(step) => tracing::trace!(image, id = step.id, status = step.status, "pulling"),
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
        Err(error) => Err(engine.error("inspect", "image", image, error)),
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
