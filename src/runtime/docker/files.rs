//! Files of a pod that its containers see and krust reads, such as termination messages.
//!
//! They lie in a volume of the sandbox. Its directory is on the engine's host, which need not be krust's (krust may
//! run in a container that has only the socket): where krust sees the directory it uses it, else it goes through the
//! engine's archive calls.

use super::super::TERMINATION_MESSAGE_BYTES_MAX;
use super::{Engine, Result, RuntimeError, failed, is_not_found, sandbox};
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the volume is mounted in the sandbox.
pub const DIRECTORY: &str = "/krust";
const TAR_BLOCK_BYTES: usize = 512;

/// Knows where the volumes of sandboxes are on the engine's host.
#[derive(Default)]
pub(super) struct PodFiles {
    directories: Mutex<HashMap<String, PathBuf>>,
}

impl PodFiles {
    /// Takes the directory out of an inspection that was made for something else.
    pub fn learn(&self, sandbox_id: &str, found: &ContainerInspectResponse) -> Option<PathBuf> {
        let mounts = found.mounts.as_ref()?;
        let volume = mounts
            .iter()
            .find(|mount| mount.destination.as_deref() == Some(DIRECTORY))?;
        let directory = PathBuf::from(volume.source.as_ref()?);
        self.directories
            .lock()
            .insert(sandbox_id.to_string(), directory.clone());
        Some(directory)
    }

    pub fn forget(&self, sandbox_id: &str) {
        self.directories.lock().remove(sandbox_id);
    }

    async fn directory(&self, engine: &Engine, sandbox_id: &str) -> Result<PathBuf> {
        let known = self.directories.lock().get(sandbox_id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = sandbox::inspect(engine, sandbox_id).await?;
        self.learn(sandbox_id, &found)
            .ok_or_else(|| failed("inspect", sandbox_id, "the sandbox has no volume for the pod's files"))
    }

    /// Makes an empty file that every user may write, and returns its path on the engine's host.
    pub async fn create(&self, engine: &Engine, sandbox_id: &str, name: &str) -> Result<String> {
        let directory = self.directory(engine, sandbox_id).await?;
        let path = directory.join(name);
        match create_here(&path) {
            Ok(()) => {}
            Err(error) if out_of_sight(&error) => {
                upload(engine, sandbox_id, DIRECTORY, &[Entry::file(name, 0o666, &[])]).await?
            }
            Err(error) => return Err(failed("create", &path.display().to_string(), error.to_string())),
        }
        Ok(path.display().to_string())
    }

    /// The last bytes of a file; none if it is not there any more.
    pub async fn tail(&self, engine: &Engine, sandbox_id: &str, name: &str) -> Result<Vec<u8>> {
        let path = match self.directory(engine, sandbox_id).await {
            Ok(directory) => directory.join(name),
            Err(RuntimeError::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        match tail_here(&path) {
            Ok(tail) => Ok(tail),
            Err(error) if out_of_sight(&error) => download_tail(engine, sandbox_id, name).await,
            Err(error) => Err(failed("read", &path.display().to_string(), error.to_string())),
        }
    }
}

/// The engine's directories are not krust's, or not open to it.
fn out_of_sight(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied
    )
}

// One small file each, on a local disk: quicker than handing it to another thread.
fn create_here(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o666)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // The mode above is subject to the umask.
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

fn tail_here(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(
        length.saturating_sub(TERMINATION_MESSAGE_BYTES_MAX as u64),
    ))?;
    let mut tail = Vec::new();
    file.take(TERMINATION_MESSAGE_BYTES_MAX as u64).read_to_end(&mut tail)?;
    Ok(tail)
}

#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub mode: u32,
    pub group: u64,
}

/// A file or an empty directory to be made by [`upload`].
pub(super) struct Entry<'a> {
    name: &'a str,
    kind: tar::EntryType,
    owner: Owner,
    content: &'a [u8],
}

impl<'a> Entry<'a> {
    pub fn file(name: &'a str, mode: u32, content: &'a [u8]) -> Self {
        Self {
            name,
            kind: tar::EntryType::Regular,
            owner: Owner { mode, group: 0 },
            content,
        }
    }

    pub fn directory(name: &'a str, owner: Owner) -> Self {
        Self {
            name,
            kind: tar::EntryType::Directory,
            owner,
            content: &[],
        }
    }
}

/// Makes files and directories in a directory of a container, by the engine.
pub(super) async fn upload(engine: &Engine, container: &str, directory: &str, entries: &[Entry<'_>]) -> Result<()> {
    let mut archive = tar::Builder::new(Vec::new());
    let written = entries.iter().try_for_each(|entry| {
        let mut header = tar::Header::new_gnu();
        header.set_size(entry.content.len() as u64);
        header.set_mode(entry.owner.mode);
        header.set_gid(entry.owner.group);
        header.set_entry_type(entry.kind);
        archive.append_data(&mut header, entry.name, entry.content)
    });
    let archive = written
        .and_then(|()| archive.into_inner())
        .map_err(|error| failed("create", directory, error.to_string()))?;
    let options = UploadToContainerOptionsBuilder::default().path(directory).build();
    engine
        .docker
        .upload_to_container(container, Some(options), bollard::body_full(Bytes::from(archive)))
        .await
        .map_err(|error| engine.error("upload", "container", container, error))
}

async fn download_tail(engine: &Engine, sandbox_id: &str, name: &str) -> Result<Vec<u8>> {
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(&format!("{DIRECTORY}/{name}"))
        .build();
    let mut stream = engine.docker.download_from_container(sandbox_id, Some(options));
    let mut tail = TarTail::default();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => tail.push(&chunk),
            Err(error) if is_not_found(&error) => return Ok(Vec::new()),
            Err(error) => return Err(engine.error("download", "sandbox", sandbox_id, error)),
        }
    }
    Ok(tail.kept)
}

/// Keeps the last bytes of the one file in a tar archive, whatever its size.
#[derive(Default)]
struct TarTail {
    header: Vec<u8>,
    /// Bytes of the file still to come, once the header is complete.
    left: u64,
    kept: Vec<u8>,
}

impl TarTail {
    fn push(&mut self, mut chunk: &[u8]) {
        if self.header.len() < TAR_BLOCK_BYTES {
            let taken = chunk.len().min(TAR_BLOCK_BYTES - self.header.len());
            self.header.extend_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            if self.header.len() == TAR_BLOCK_BYTES {
                self.left = tar::Header::from_byte_slice(&self.header).entry_size().unwrap_or(0);
            }
        }
        let taken = chunk.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= taken as u64;
        self.kept.extend_from_slice(&chunk[..taken]);
        let excess = self.kept.len().saturating_sub(TERMINATION_MESSAGE_BYTES_MAX);
        self.kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_file_in_pieces() {
        let content: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, "f", content.as_slice()).unwrap();
        let archive = archive.into_inner().unwrap();
        for size in [1, 7, 511, 512, 513, 4096, 100_000] {
            let mut tail = TarTail::default();
            archive.chunks(size).for_each(|chunk| tail.push(chunk));
            assert_eq!(
                tail.kept,
                content[content.len() - TERMINATION_MESSAGE_BYTES_MAX..],
                "{size}"
            );
        }
    }

    #[test]
    fn files_here() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("message");
        create_here(&path).unwrap();
        assert_eq!(tail_here(&path).unwrap(), b"");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        std::fs::write(&path, "x".repeat(5000) + "end").unwrap();
        let tail = tail_here(&path).unwrap();
        assert_eq!(tail.len(), TERMINATION_MESSAGE_BYTES_MAX);
        assert!(tail.ends_with(b"xend"));
        assert!(out_of_sight(&tail_here(&directory.path().join("absent")).unwrap_err()));
    }
}
