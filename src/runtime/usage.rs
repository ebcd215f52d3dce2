//! What containers have used, and how the kernel tells (upstream: CRI's `ContainerStats` and `PodSandboxStats`,
//! runc's `libcontainer/cgroups/fs` and `fs2`).

use super::cgroups::{Groups, keyed};
use std::path::Path;
use std::time::SystemTime;

/// What a running container, or the sandbox of a pod, has used since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Of the container or sandbox.
    pub id: String,
    pub read_at: SystemTime,
    pub cpu_nanos: u64,
    /// With the page cache.
    pub memory_bytes: u64,
    /// Without what of the page cache can be given back at once.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
    /// Of the network that a pod's containers share, if it is not the host's; loopback is left out.
    pub interfaces: Vec<Interface>,
}

/// What went through a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received_bytes: u64,
    pub received_errors: u64,
    pub sent_bytes: u64,
    pub sent_errors: u64,
}

/// What a container's own layer of files and its log take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub bytes: u64,
    /// None where the engine does not count them.
    pub inodes: Option<u64>,
    /// What its log takes beside the layer.
    pub log_bytes: u64,
}

impl Usage {
    /// Nothing used so far.
    pub fn none(id: &str, read_at: SystemTime) -> Usage {
        Usage {
            id: id.to_owned(),
            read_at,
            cpu_nanos: 0,
            memory_bytes: 0,
            working_set_bytes: 0,
            rss_bytes: 0,
            page_faults: 0,
            major_page_faults: 0,
            processes: 0,
            interfaces: Vec::new(),
        }
    }

    /// Takes memory's figures from the fields of a `memory.stat`, of either version of cgroups.
    pub fn set_memory(&mut self, bytes: u64, field: impl Fn(&str) -> Option<u64>) {
        let either = |old, new| field(old).or_else(|| field(new)).unwrap_or(0);
        self.memory_bytes = bytes;
        self.working_set_bytes = bytes.saturating_sub(either("total_inactive_file", "inactive_file"));
        self.rss_bytes = either("total_rss", "anon");
        self.page_faults = either("total_pgfault", "pgfault");
        self.major_page_faults = either("total_pgmajfault", "pgmajfault");
    }
}

/// Reads the figures of the control groups that a process is in; None when it is gone.
pub fn of_process(id: &str, pid: u32) -> Option<Usage> {
    read(id, &Groups::of_process(pid)?)
}

/// What went through the interfaces of a process's network namespace.
pub fn interfaces_of(pid: u32) -> Vec<Interface> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    interfaces(&table)
}

/// What the machine as a whole has used, by its root groups; processes of the kernel are left out of memory.
pub fn of_machine() -> Option<Usage> {
    let mut usage = Usage::none("/", SystemTime::now());
    usage.cpu_nanos = machine_cpu_nanos(&std::fs::read_to_string("/proc/stat").ok()?, ticks_per_second())?;
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    let total = field("MemTotal")?;
    usage.memory_bytes = total.saturating_sub(field("MemFree")?);
    let inactive = field("Inactive(file)").unwrap_or(0);
    usage.working_set_bytes = usage.memory_bytes.saturating_sub(inactive);
    usage.rss_bytes = field("AnonPages").unwrap_or(0);
    let vmstat = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    usage.page_faults = keyed(&vmstat, "pgfault").unwrap_or(0);
    usage.major_page_faults = keyed(&vmstat, "pgmajfault").unwrap_or(0);
    usage.interfaces = interfaces(&std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default());
    Some(usage)
}

fn ticks_per_second() -> u64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
    ticks
        .and_then(|ticks| u64::try_from(ticks).ok())
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100)
}

/// user, nice, system, irq, softirq and steal of the first line; guests' time is in user's.
fn machine_cpu_nanos(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum();
    Some(busy.saturating_mul(1_000_000_000 / ticks_per_second))
}

fn read(id: &str, groups: &Groups) -> Option<Usage> {
    let text = |directory: &Path, file: &str| std::fs::read_to_string(directory.join(file)).ok();
    let number = |directory: &Path, file: &str| text(directory, file)?.trim().parse::<u64>().ok();
    let mut usage = Usage::none(id, SystemTime::now());
    if let (Some(cpu), Some(memory)) = (groups.of("cpuacct"), groups.of("memory")) {
        usage.cpu_nanos = number(cpu, "cpuacct.usage")?;
        let stat = text(memory, "memory.stat")?;
        usage.set_memory(number(memory, "memory.usage_in_bytes")?, |name| keyed(&stat, name));
        let pids = groups.of("pids").and_then(|pids| number(pids, "pids.current"));
        usage.processes = pids.unwrap_or(0);
        return Some(usage);
    }
    let directory = groups.unified.as_deref()?;
    usage.cpu_nanos = keyed(&text(directory, "cpu.stat")?, "usage_usec")?.saturating_mul(1000);
    let stat = text(directory, "memory.stat")?;
    usage.set_memory(number(directory, "memory.current")?, |name| keyed(&stat, name));
    usage.processes = number(directory, "pids.current").unwrap_or(0);
    Some(usage)
}

/// From `/proc/PID/net/dev`: two lines of heads, then `name: rx bytes, packets, errors, …, tx bytes, packets, errors, …`.
fn interfaces(table: &str) -> Vec<Interface> {
    let lines = table.lines().skip(2).filter_map(|line| {
        let (name, figures) = line.split_once(':')?;
        let figures: Vec<u64> = figures
            .split_whitespace()
            .map_while(|figure| figure.parse().ok())
            .collect();
        Some(Interface {
            name: name.trim().to_owned(),
            received_bytes: *figures.first()?,
            received_errors: *figures.get(2)?,
            sent_bytes: *figures.get(8)?,
            sent_errors: *figures.get(10)?,
        })
    });
    lines.filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn version_1() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("cpu,cpuacct/pod/c/cpuacct.usage", "1500000000\n"),
                ("memory/pod/c/memory.usage_in_bytes", "10000\n"),
                (
                    "memory/pod/c/memory.stat",
                    "rss 1\ntotal_rss 4000\ninactive_file 7\ntotal_inactive_file 3000\ntotal_pgfault 9\ntotal_pgmajfault 2\n",
                ),
                ("pids/pod/c/pids.current", "3\n"),
            ],
        );
        let groups = "12:pids:/pod/c\n3:cpu,cpuacct:/pod/c\n2:memory:/pod/c\n1:name=systemd:/x\n0::/\n";
        let usage = read("c", &Groups::parse(groups, root.path())).unwrap();
        assert_eq!((usage.cpu_nanos, usage.memory_bytes), (1_500_000_000, 10_000));
        assert_eq!((usage.working_set_bytes, usage.rss_bytes), (7000, 4000));
        assert_eq!((usage.page_faults, usage.major_page_faults, usage.processes), (9, 2, 3));
    }

    #[test]
    fn version_2() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("kubepods/c/cpu.stat", "usage_usec 2500\nuser_usec 1\n"),
                ("kubepods/c/memory.current", "5000\n"),
                (
                    "kubepods/c/memory.stat",
                    "anon 2000\ninactive_file 6000\npgfault 4\npgmajfault 1\n",
                ),
            ],
        );
        let usage = read("c", &Groups::parse("0::/kubepods/c\n", root.path())).unwrap();
        assert_eq!((usage.cpu_nanos, usage.rss_bytes), (2_500_000, 2000));
        assert_eq!(usage.working_set_bytes, 0, "never below nothing");
        assert_eq!((usage.page_faults, usage.major_page_faults, usage.processes), (4, 1, 0));
        assert_eq!(read("c", &Groups::parse("0::/gone\n", root.path())), None);
    }

    #[test]
    fn machines_and_networks() {
        let stat = "cpu  100 20 30 1000 50 6 7 8 9 0\ncpu0 1 1 1\n";
        assert_eq!(machine_cpu_nanos(stat, 100), Some(1_710_000_000));
        let table = "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let eth0 = Interface {
            name: "eth0".to_owned(),
            received_bytes: 100,
            received_errors: 3,
            sent_bytes: 200,
            sent_errors: 5,
        };
        assert_eq!(interfaces(table), [eth0]);
        assert!(of_machine().unwrap().working_set_bytes > 0);
    }
}
