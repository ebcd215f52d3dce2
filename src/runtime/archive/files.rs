//! The files of an archive: where they lie in it.

use super::{ArchiveError, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

#[derive(Clone, Debug)]
pub(super) enum Place {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A file without a name, gone when it is closed.
pub(super) fn temporary() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("krust-image-{}", uuid::Uuid::new_v4()));
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The archive without gzip.
pub(super) fn uncompressed(mut file: File) -> Result<File> {
    file.seek(SeekFrom::Start(0))?;
    let mut magic = Vec::new();
    (&file).take(6).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => {
            let mut plain = temporary()?;
            io::copy(&mut flate2::read::MultiGzDecoder::new(BufReader::new(file)), &mut plain)?;
            plain.flush()?;
            plain.seek(SeekFrom::Start(0))?;
            plain
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(ArchiveError::Compression("zstd")),
        [b'B', b'Z', b'h', ..] => return Err(ArchiveError::Compression("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(ArchiveError::Compression("xz")),
        _ => file,
    })
}

/// A path from the archive's root, as it is written in an index.
pub(super) fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

pub(super) fn entries(file: &File) -> Result<BTreeMap<String, Place>> {
    let mut entries = BTreeMap::new();
    let mut archive = tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek()? {
        let entry = match entry {
            // What the library says of a file of another kind quotes the file.
            Err(error) if entries.is_empty() && error.kind() == io::ErrorKind::Other => {
                return Err(ArchiveError::NoArchive);
            }
            entry => entry?,
        };
        let path = entry.path()?.into_owned();
        let place = match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Place::File {
                offset: entry.raw_file_position(),
                size: entry.size(),
            },
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let Some(target) = entry.link_name()? else { continue };
                // A hard link names its target from the root.
                let base = match entry.header().entry_type() {
                    tar::EntryType::Symlink => path.parent().map(PathBuf::from).unwrap_or_default(),
                    _ => PathBuf::new(),
                };
                Place::Link(normal(&base.join(target)))
            }
            _ => continue,
        };
        entries.insert(normal(&path), place);
    }
    Ok(entries)
}
