//! Files of the engine's host, for a krust that does not see them: the engine's archive calls look at, and write to, what
//! a container would have mounted, without starting it (upstream: `pkg/volume/util/hostutil`, `subpath`).

use super::{DockerRuntime, Engine, FileKind, Result, RuntimeError, failed, files, is_not_found, prepare};
use bollard::container::PathStatResponse;
use bollard::models::{HostConfig, Mount, MountType};
use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder};
use futures_util::StreamExt;
use std::path::{Component, Path, PathBuf};

/// Where the host's file is in the container.
const VIEW: &str = "/look";
/// More than the header of a file with what may stand before it.
const ENTRY_BYTES: usize = 4096;
/// Bits of Go's `os.FileMode`.
const DIRECTORY: u32 = 1 << 31;
const LINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const CHAR_DEVICE: u32 = 1 << 21;
const IRREGULAR: u32 = 1 << 19;

impl DockerRuntime {
    pub(super) async fn look_at_host(&self, path: &Path) -> Result<Option<FileKind>> {
        let Some(view) = self.view(path).await? else {
            return Ok(None);
        };
        let found = self.last_in(&view, stat(&self.engine, &view, VIEW)).await?;
        Ok(found.map(|found| kind(found.file_mode)))
    }

    pub(super) async fn make_at_host(&self, path: &Path, wanted: FileKind) -> Result<()> {
        let shown = path.display().to_string();
        let made = match (wanted, path.parent(), path.file_name()) {
            (FileKind::Directory, ..) => {
                // Mounts in this form are made where there is nothing.
                let host = HostConfig {
                    binds: Some(vec![format!("{shown}:{VIEW}")]),
                    ..Default::default()
                };
                let view = self.probe(host).await?;
                self.last_in(&view, stat(&self.engine, &view, VIEW)).await?.is_some()
            }
            (FileKind::File, Some(parent), Some(name)) => match self.view(parent).await? {
                None => false,
                Some(view) => {
                    let name = name.to_string_lossy();
                    let file = [files::Entry::file(&name, 0o644, &[])];
                    self.last_in(&view, files::upload(&self.engine, &view, VIEW, &file))
                        .await?;
                    true
                }
            },
            _ => false,
        };
        match made {
            true => Ok(()),
            false => Err(failed("create", &shown, "no such file or directory")),
        }
    }

    pub(super) async fn make_below_host(&self, root: &Path, path: &Path) -> Result<()> {
        let on_engine = self.on_engine(&root.display().to_string());
        let Some(view) = self.view(Path::new(&on_engine)).await? else {
            return Err(failed("look at", &on_engine, "no such file or directory"));
        };
        self.last_in(&view, make_in_view(&self.engine, &view, path)).await
    }

    /// Does the last work in a view, and removes it.
    async fn last_in<T>(&self, view: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = work.await;
        prepare::remove_probe(&self.engine, view).await;
        done
    }

    /// A container that would have the host's file mounted; None if there is nothing at the path.
    async fn view(&self, path: &Path) -> Result<Option<String>> {
        let host = HostConfig {
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(path.display().to_string()),
                target: Some(VIEW.to_string()),
                ..Default::default()
            }]),
            ..Default::default()
        };
        match self.probe(host).await {
            // The engine has no code for it.
            Err(RuntimeError::Failed { message, .. }) if message.contains("bind source path does not exist") => {
                Ok(None)
            }
            created => created.map(Some),
        }
    }

    async fn probe(&self, host: HostConfig) -> Result<String> {
        let image = self.prepared.pause_image(&self.engine).await?;
        prepare::create_probe(&self.engine, image, host).await
    }
}

async fn make_in_view(engine: &Engine, view: &str, path: &Path) -> Result<()> {
    let owner = owner(engine, view).await?;
    let mut at = PathBuf::from(VIEW);
    let mut missing = Vec::new();
    for component in path.components().filter(|component| *component != Component::CurDir) {
        at.push(component);
        let refused = |reason: &str| Err(failed("look at", &path.display().to_string(), reason));
        if !matches!(component, Component::Normal(_)) {
            return refused("it must be relative and not contain '..'");
        }
        let found = match missing.is_empty() {
            true => stat(engine, view, &at.display().to_string()).await?,
            false => None,
        };
        match found.map(|found| found.file_mode) {
            // Whoever may write to the volume may have put it there.
            Some(found) if found & LINK != 0 => return refused("it leads through a symbolic link"),
            Some(_) => {}
            None => missing.extend(at.strip_prefix(VIEW).ok().map(|path| path.display().to_string())),
        }
    }
    let entries = missing.iter().map(|path: &String| files::Entry::directory(path, owner));
    let entries: Vec<files::Entry<'_>> = entries.collect();
    match entries.is_empty() {
        true => Ok(()),
        false => files::upload(engine, view, VIEW, &entries).await,
    }
}

/// Mode and, where it passes it on, group of the view's directory.
async fn owner(engine: &Engine, view: &str) -> Result<files::Owner> {
    let options = DownloadFromContainerOptionsBuilder::default().path(VIEW).build();
    let mut archive = engine.docker.download_from_container(view, Some(options));
    let mut start = Vec::new();
    // The directory's own entry is the first.
    while start.len() < ENTRY_BYTES
        && let Some(piece) = archive.next().await
    {
        start.extend(piece.map_err(|error| engine.error("look at", "container", view, error))?);
    }
    let read = || {
        let mut archive = tar::Archive::new(start.as_slice());
        let header = archive
            .entries()?
            .next()
            .transpose()?
            .map(|entry| entry.header().clone());
        let header = header.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let mode = header.mode()? & 0o7777;
        let group = if mode & 0o2000 == 0 { 0 } else { header.gid()? };
        Ok(files::Owner { mode, group })
    };
    read().map_err(|error: std::io::Error| failed("look at", view, error.to_string()))
}

/// None if there is nothing.
async fn stat(engine: &Engine, container: &str, path: &str) -> Result<Option<PathStatResponse>> {
    let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
    match engine.docker.get_container_archive_info(container, Some(options)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(engine.error("look at", "path", path, error)),
    }
}

fn kind(mode: u32) -> FileKind {
    match mode {
        mode if mode & DIRECTORY != 0 => FileKind::Directory,
        mode if mode & SOCKET != 0 => FileKind::Socket,
        mode if mode & CHAR_DEVICE != 0 => FileKind::CharDevice,
        mode if mode & DEVICE != 0 => FileKind::BlockDevice,
        mode if mode & (LINK | NAMED_PIPE | IRREGULAR) != 0 => FileKind::Other,
        _ => FileKind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_go_has_them() {
        for (mode, expected) in [
            (DIRECTORY | 0o755, FileKind::Directory),
            (0o644, FileKind::File),
            (SOCKET | 0o660, FileKind::Socket),
            (DEVICE | CHAR_DEVICE | 0o666, FileKind::CharDevice),
            (DEVICE | 0o660, FileKind::BlockDevice),
            (NAMED_PIPE | 0o600, FileKind::Other),
        ] {
            assert_eq!(kind(mode), expected, "{mode:o}");
        }
    }
}
