//! What this machine is and has, read from the kernel (upstream: cAdvisor's `machine` and `GetDirFsInfo`).

use crate::runtime::cgroups;
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

/// Figures that do not change while krust runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    /// Capacity in bytes by page size (`2Mi`).
    pub hugepages: BTreeMap<String, u64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
}

/// Figures that decide about pressure. None: the kernel does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is beyond the working set, which files' pages that were used lately belong to (upstream: cAdvisor).
    pub memory_available_bytes: Option<u64>,
    /// What the kernel thinks can be had without swapping.
    pub memory_estimate_bytes: Option<u64>,
    pub disk: Option<Disk>,
    /// That of the engine's images; None: not seen from here, and taken to be the same.
    pub image_disk: Option<Disk>,
    pub processes: Option<Processes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub size_bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processes {
    pub max: u64,
    pub used: u64,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

impl Machine {
    pub fn read() -> Self {
        let meminfo = read("/proc/meminfo");
        let machine_id = read("/etc/machine-id");
        let system_uuid = match read("/sys/class/dmi/id/product_uuid") {
            uuid if uuid.is_empty() => machine_id.clone(),
            uuid => uuid,
        };
        let uname = nix::sys::utsname::uname().ok();
        Self {
            cpus: cpus(),
            memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
            swap_bytes: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or(0),
            hugepages: hugepages(),
            machine_id,
            system_uuid,
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            kernel_version: uname
                .map(|u| u.release().to_string_lossy().into_owned())
                .unwrap_or_default(),
            os_image: os_image(&read("/etc/os-release")),
            architecture: go_architecture(std::env::consts::ARCH).to_owned(),
        }
    }
}

impl Usage {
    /// `path` is on the file system that pods' files live on, `images` on that of the images.
    pub fn read(path: &Path, images: Option<&Path>) -> Self {
        let meminfo = read("/proc/meminfo");
        Self {
            memory_available_bytes: memory_available(&meminfo),
            memory_estimate_bytes: meminfo_bytes(&meminfo, "MemAvailable"),
            disk: disk(path),
            image_disk: images.and_then(disk),
            processes: processes(&read("/proc/sys/kernel/pid_max"), &read("/proc/loadavg")),
        }
    }
}

fn cpus() -> u64 {
    // The machine's CPUs, not those this process may use: what other processes of the engine can have.
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
        .ok()
        .flatten();
    online.and_then(|count| u64::try_from(count).ok()).unwrap_or(1)
}

fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is free, and the files' pages that nobody used lately.
fn memory_available(meminfo: &str) -> Option<u64> {
    let free = meminfo_bytes(meminfo, "MemFree")?;
    Some(free + meminfo_bytes(meminfo, "Inactive(file)").unwrap_or(0))
}

fn hugepages() -> BTreeMap<String, u64> {
    let pages = cgroups::pages();
    pages
        .map(|(size, count)| (page_size(size / 1024), size.saturating_mul(count)))
        .collect()
}

fn page_size(kib: u64) -> String {
    match kib {
        kib if kib >= 1 << 20 && kib % (1 << 20) == 0 => format!("{}Gi", kib >> 20),
        kib if kib >= 1 << 10 && kib % (1 << 10) == 0 => format!("{}Mi", kib >> 10),
        kib => format!("{kib}Ki"),
    }
}

fn os_image(os_release: &str) -> String {
    let pretty = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty
        .map(|name| name.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_default()
}

/// Go's name for what Rust calls it.
pub fn go_architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The file system that holds a path, which need not be there yet.
pub fn disk(path: &Path) -> Option<Disk> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    // The types of these fields differ between platforms.
    #[allow(clippy::useless_conversion)]
    let (block, blocks, available) = (
        u64::from(stat.fragment_size()),
        u64::from(stat.blocks()),
        u64::from(stat.blocks_available()),
    );
    #[allow(clippy::useless_conversion)]
    let (inodes, inodes_free) = (u64::from(stat.files()), u64::from(stat.files_free()));
    Some(Disk {
        size_bytes: block.saturating_mul(blocks),
        available_bytes: block.saturating_mul(available),
        inodes,
        inodes_free,
    })
}

fn processes(pid_max: &str, loadavg: &str) -> Option<Processes> {
    let (_, total) = loadavg.split_whitespace().nth(3)?.split_once('/')?;
    Some(Processes {
        max: pid_max.parse().ok()?,
        used: total.parse().ok()?,
    })
}

/// The address of the interface that the default route leaves by; loopback on a machine without a network.
pub fn default_address() -> IpAddr {
    let route = || -> std::io::Result<IpAddr> {
        // Connecting a UDP socket sends nothing: it only asks the routing table.
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        Ok(socket.local_addr()?.ip())
    };
    match route() {
        Ok(address) if !address.is_unspecified() => address,
        _ => IpAddr::from([127, 0, 0, 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_and_loadavg() {
        let meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\nInactive(file):  2 kB\n";
        assert_eq!(memory_available(meminfo), Some(3 << 10));
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(16 << 20));
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(8 << 20));
        assert_eq!(meminfo_bytes(meminfo, "SwapTotal"), None);
        let processes = processes("32768", "0.1 0.2 0.3 2/345 6789").unwrap();
        assert_eq!((processes.max, processes.used), (32768, 345));
    }

    #[test]
    fn names() {
        assert_eq!(page_size(2048), "2Mi");
        assert_eq!(page_size(1 << 20), "1Gi");
        assert_eq!(page_size(64), "64Ki");
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
    }

    #[test]
    fn this_machine_has_a_cpu_memory_and_a_disk() {
        let machine = Machine::read();
        assert!(machine.cpus >= 1);
        assert!(machine.memory_bytes > 0);
        let usage = Usage::read(Path::new("/"), None);
        assert!(usage.disk.unwrap().size_bytes > 0);
        assert!(usage.memory_available_bytes.unwrap() <= machine.memory_bytes);
    }
}
