//! A directory whose files change all at once (upstream: `pkg/volume/util/atomic_writer.go`).
//!
//! The files are in a directory of their own, `..data` is a link to it, and the visible names are links through
//! `..data`: renaming a new `..data` over the old one swaps them all.

use super::{SetUpError, io};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// None: whose process writes it.
    pub owner: Option<u32>,
}

/// Files by their path inside the volume.
pub type Payload = BTreeMap<String, File>;

/// Makes `target` hold exactly `payload`; nothing is touched when it already does.
pub fn write(target: &Path, payload: &Payload, group: Option<i64>) -> Result<(), SetUpError> {
    for path in payload.keys() {
        check(path)?;
    }
    fs::create_dir_all(target).map_err(io("create", target))?;
    set_mode(target, 0o755)?;
    let current = fs::read_link(target.join(DATA)).ok();
    if current.is_some() && read(&target.join(DATA)).as_ref() == Some(&wanted(payload, group)) {
        return Ok(());
    }
    let stamp = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    let name = format!("..{stamp}.{:09}", rand::random_range(0..1_000_000_000u32));
    let directory = target.join(&name);
    fs::create_dir(&directory).map_err(io("create", &directory))?;
    set_mode(&directory, 0o755)?;
    for (path, file) in wanted(payload, group) {
        let path = directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        fs::write(&path, &file.content).map_err(io("write", &path))?;
        let gid = group.and_then(|gid| u32::try_from(gid).ok());
        if gid.is_some() || file.owner.is_some() {
            std::os::unix::fs::lchown(&path, file.owner, gid).map_err(io("change the owner of", &path))?;
        }
        set_mode(&path, file.mode)?;
    }
    swap(target, &name)?;
    link_names(target, payload)?;
    if let Some(old) = current {
        let old = target.join(old);
        ignore_missing(fs::remove_dir_all(&old)).map_err(io("remove", &old))?;
    }
    Ok(())
}

/// With a group of the pod's own, that group may read everything, as upstream.
fn wanted(payload: &Payload, group: Option<i64>) -> Payload {
    let mut payload = payload.clone();
    if group.is_some() {
        for file in payload.values_mut() {
            file.mode |= 0o440;
        }
    }
    payload
}

fn check(path: &str) -> Result<(), SetUpError> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    match inside && !path.is_empty() && !path.starts_with("..") {
        true => Ok(()),
        false => Err(SetUpError::Path(path.to_owned())),
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), SetUpError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io("change the mode of", path))
}

fn swap(target: &Path, name: &str) -> Result<(), SetUpError> {
    let next = target.join(DATA_NEXT);
    ignore_missing(fs::remove_file(&next)).map_err(io("remove", &next))?;
    symlink(name, &next).map_err(io("link", &next))?;
    fs::rename(&next, target.join(DATA)).map_err(io("rename", &next))
}

/// One link per first path component; links to what is gone are removed.
fn link_names(target: &Path, payload: &Payload) -> Result<(), SetUpError> {
    let first = |path: &String| path.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = payload.keys().map(first).collect();
    for name in &names {
        let link = target.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(io("link", &link)(error)),
            _ => {}
        }
    }
    for entry in fs::read_dir(target).map_err(io("read", target))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            ignore_missing(fs::remove_file(entry.path())).map_err(io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What the directory holds now; None if it cannot be read.
fn read(directory: &Path) -> Option<Payload> {
    let mut payload = Payload::new();
    read_into(directory, "", &mut payload)?;
    Some(payload)
}

fn read_into(directory: &Path, prefix: &str, payload: &mut Payload) -> Option<()> {
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        let path = format!("{prefix}{}", entry.file_name().to_str()?);
        let metadata = entry.metadata().ok()?;
        if metadata.is_dir() {
            read_into(&entry.path(), &format!("{path}/"), payload)?;
        } else {
            let file = File {
                content: fs::read(entry.path()).ok()?,
                mode: metadata.permissions().mode() & 0o7777,
                owner: Some(metadata.uid()).filter(|uid| *uid != nix::unistd::geteuid().as_raw()),
            };
            payload.insert(path, file);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let file = |content: &str, mode| File {
            content: content.as_bytes().to_vec(),
            mode,
            owner: None,
        };
        files
            .iter()
            .map(|(path, content, mode)| ((*path).to_owned(), file(content, *mode)))
            .collect()
    }

    #[test]
    fn files_appear_change_and_disappear() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("v");
        write(&target, &payload(&[("a", "1", 0o644), ("dir/b", "2", 0o400)]), None).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "1");
        assert_eq!(fs::read_link(target.join("a")).unwrap(), Path::new("..data/a"));
        let mode = fs::metadata(target.join("dir/b")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);

        let before = fs::read_link(target.join(DATA)).unwrap();
        write(&target, &payload(&[("a", "1", 0o644), ("dir/b", "2", 0o400)]), None).unwrap();
        assert_eq!(
            fs::read_link(target.join(DATA)).unwrap(),
            before,
            "nothing changed, nothing is written"
        );

        write(&target, &payload(&[("a", "3", 0o644)]), None).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "3");
        assert!(!target.join("dir").exists());
        assert!(!target.join(before).exists(), "the old files are gone");
    }

    #[test]
    fn paths_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "", "..data"] {
            let result = write(&root.path().join("v"), &payload(&[(path, "", 0o644)]), None);
            assert!(matches!(result, Err(SetUpError::Path(_))), "{path:?}");
        }
    }
}
