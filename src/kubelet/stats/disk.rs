//! What files take (upstream: `pkg/volume/metrics_du.go`, `pkg/volume/util/fs`).

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes on disk and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    pub bytes: u64,
    pub inodes: u64,
}

/// What is below `path`, itself included, as `du` counts: blocks, links once, and no other file systems.
/// What vanishes meanwhile counts as nothing. Blocks the thread.
pub fn usage(path: &Path) -> DiskUsage {
    let mut total = DiskUsage::default();
    let Ok(root) = std::fs::symlink_metadata(path) else {
        return total;
    };
    let (device, mut seen) = (root.dev(), HashSet::new());
    let mut directories = Vec::new();
    let mut add = |metadata: &std::fs::Metadata| {
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
            return;
        }
        total.bytes += metadata.blocks() * 512;
        total.inodes += 1;
    };
    add(&root);
    if root.is_dir() {
        directories.push(path.to_owned());
    }
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // Of the entry itself, not of what a link leads to.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            add(&metadata);
            if metadata.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_once_and_links_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("big"), vec![1; 1 << 20]).unwrap();
        let inside = root.path().join("a/b");
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(inside.join("file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(inside.join("file"), root.path().join("again")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let found = usage(root.path());
        // root, a, b, file, link
        assert_eq!(found.inodes, 5);
        assert!((100_000..1 << 19).contains(&found.bytes), "{}", found.bytes);
        assert_eq!(usage(&root.path().join("absent")), DiskUsage::default());
    }
}
