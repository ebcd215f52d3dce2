//! krust in a container of the engine that it drives: what it writes has another path for the engine, which resolves
//! the sources of mounts on its own host.

use super::{Engine, Result, RuntimeError};
use bollard::models::{ContainerInspectResponse, MountPoint};
use bollard::query_parameters::InspectContainerOptions;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A directory that containers may mount, under both its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedDirectory {
    here: PathBuf,
    on_engine: PathBuf,
    /// What stands for directories below it.
    replaced: HashMap<PathBuf, PathBuf>,
}

impl SharedDirectory {
    /// Finds out how the engine calls a directory of ours. None if krust is not in a container of this engine, or
    /// the directory is in no volume or mount of it.
    pub async fn find(engine: &Engine, directory: &Path) -> Result<Option<SharedDirectory>> {
        let mounts = own_container(engine).await?.and_then(|found| found.mounts.as_deref());
        let on_engine = translate(mounts.unwrap_or_default(), directory);
        Ok(on_engine.map(|on_engine| SharedDirectory {
            here: directory.to_owned(),
            on_engine,
            replaced: HashMap::new(),
        }))
    }

    /// From now on another path of the engine's stands for one of ours; None: not any more.
    pub fn replace(&mut self, path: &Path, other: Option<PathBuf>) {
        match other {
            Some(other) => self.replaced.insert(path.to_owned(), other),
            None => self.replaced.remove(path),
        };
    }

    /// What is left of one of our paths without the directory's.
    pub fn below(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.here).ok().map(Path::to_owned)
    }

    pub fn is_replaced(&self, path: &Path) -> bool {
        self.replaced.contains_key(path)
    }

    /// The engine's path for one of ours; paths outside of the directory are the engine's already.
    pub fn on_engine(&self, path: &str) -> String {
        let path = Path::new(path);
        let Ok(below) = path.strip_prefix(&self.here) else {
            return path.display().to_string();
        };
        let replaced = path.ancestors().find_map(|above| {
            let other = self.replaced.get(above)?;
            Some((other, path.strip_prefix(above).ok()?))
        });
        let (root, rest) = replaced.unwrap_or((&self.on_engine, below));
        match rest.as_os_str().is_empty() {
            true => root.display().to_string(),
            false => root.join(rest).display().to_string(),
        }
    }
}

/// The container of this engine in which krust runs; the engine is asked once.
pub(super) async fn own_container(engine: &Engine) -> Result<Option<&ContainerInspectResponse>> {
    let found = engine.own_container.get_or_try_init(|| inspect(engine)).await?;
    Ok(found.as_ref())
}

async fn inspect(engine: &Engine) -> Result<Option<ContainerInspectResponse>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(id) = own_container_id(&mountinfo) else {
        return Ok(None);
    };
    let found = engine
        .docker
        .inspect_container(&id, None::<InspectContainerOptions>)
        .await;
    match found.map_err(|error| engine.error("inspect", "container", &id, error)) {
        Ok(found) => Ok(Some(found)),
        // Another engine's.
        Err(RuntimeError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Docker mounts these files from a directory that is named after the container. Fields of mountinfo: id, parent,
/// device, root of the mount in its file system, mount point, … (proc_pid_mountinfo(5)).
fn own_container_id(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&point) {
            return None;
        }
        let (_, rest) = root.split_once("/containers/")?;
        let id = rest.split('/').next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_string())
    })
}

/// Through the mount that is nearest to the path.
fn translate(mounts: &[MountPoint], path: &Path) -> Option<PathBuf> {
    mounts
        .iter()
        .filter_map(|mount| {
            Some((
                Path::new(mount.destination.as_ref()?),
                Path::new(mount.source.as_ref()?),
            ))
        })
        .filter_map(|(destination, source)| Some((destination, source, path.strip_prefix(destination).ok()?)))
        .max_by_key(|(destination, ..)| destination.components().count())
        .map(|(_, source, rest)| source.join(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_container_is_found_and_no_other() {
        let (own, other) = ("a".repeat(64), "b".repeat(64));
        let mountinfo = format!(
            "1 0 0:20 / / rw - overlay overlay rw\n\
             2 1 0:21 / /var/lib/docker/containers/{other}/mounts/shm rw - tmpfs shm rw\n\
             3 1 8:1 /containers/{other}/hostname /mnt/hostname rw - ext4 /dev/sdb rw\n\
             4 1 8:1 /var/lib/docker/containers/{own}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda rw\n"
        );
        assert_eq!(own_container_id(&mountinfo), Some(own));
        assert_eq!(own_container_id("1 0 8:1 / / rw - ext4 /dev/sda rw\n"), None);
        assert_eq!(
            own_container_id("1 0 8:1 /containers/short/hosts /etc/hosts rw - ext4 x rw"),
            None
        );
    }

    #[test]
    fn paths_go_through_the_nearest_mount() {
        let mount = |destination: &str, source: &str| MountPoint {
            destination: Some(destination.into()),
            source: Some(source.into()),
            ..Default::default()
        };
        let mounts = [
            mount("/var/lib/krust", "/srv/volume"),
            mount("/var/lib/krust/pods", "/srv/pods"),
            mount("/var/run/docker.sock", "/var/run/docker.sock"),
        ];
        let translated = |path: &str| translate(&mounts, Path::new(path)).map(|path| path.display().to_string());
        assert_eq!(translated("/var/lib/krust/a"), Some("/srv/volume/a".into()));
        assert_eq!(translated("/var/lib/krust/pods/a"), Some("/srv/pods/a".into()));
        assert_eq!(translated("/var/lib/krusty"), None);
        let mut shared = SharedDirectory {
            here: "/var/lib/krust".into(),
            on_engine: "/srv/volume".into(),
            replaced: HashMap::new(),
        };
        assert_eq!(shared.on_engine("/var/lib/krust/pods/x"), "/srv/volume/pods/x");
        assert_eq!(shared.on_engine("/etc/passwd"), "/etc/passwd");
        shared.replace(Path::new("/var/lib/krust/pods/x"), Some("/volumes/x".into()));
        assert_eq!(shared.on_engine("/var/lib/krust/pods/x"), "/volumes/x");
        assert_eq!(shared.on_engine("/var/lib/krust/pods/x/sub"), "/volumes/x/sub");
        assert_eq!(shared.on_engine("/var/lib/krust/pods/xx"), "/srv/volume/pods/xx");
        shared.replace(Path::new("/var/lib/krust/pods/x"), None);
        assert_eq!(shared.on_engine("/var/lib/krust/pods/x/y"), "/srv/volume/pods/x/y");
    }
}
