//! What krust mounts for pods, and pods that still run keep.
#![allow(dead_code)]

use std::path::Path;

/// Unmounts everything below a directory that is about to be removed.
pub fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Makes a file system of that size in a directory.
pub fn disk_in_memory(directory: &Path, bytes: u64) {
    let options = format!("size={bytes}");
    let flags = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(Some("disk"), directory, Some("tmpfs"), flags, Some(options.as_str()));
    mounted.expect("a disk in memory (as root)");
}

/// What is left on the file system of a path.
pub fn free_bytes(path: &Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(path).unwrap();
    stat.blocks_available() * stat.fragment_size()
}
