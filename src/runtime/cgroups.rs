//! Control groups, version 1 and 2: where a process's are, and what the kernel counts and limits there (upstream: runc's
//! `libcontainer/cgroups`, containerd's `pkg/cri/server` for what is set and what is left out).

use super::Resources;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where they are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Where the kernel lists the sizes of its huge pages.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// What of them this machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// All controllers are version 2's.
    pub unified: bool,
    /// Swap can be limited.
    pub swap: bool,
    /// Huge pages can be limited.
    pub huge_pages: bool,
}

impl Abilities {
    pub fn read(root: &Path) -> Abilities {
        match std::fs::read_to_string(root.join("cgroup.controllers")) {
            Ok(controllers) => Abilities {
                unified: true,
                // Where it does not, the runtime knows and leaves it.
                swap: true,
                huge_pages: controllers.split_whitespace().any(|name| name == "hugetlb"),
            },
            Err(_) => Abilities {
                unified: false,
                swap: root.join("memory/memory.memsw.limit_in_bytes").exists(),
                huge_pages: root.join("hugetlb/cgroup.procs").exists(),
            },
        }
    }
}

/// The directories of a process's control groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// By controller; cgroups v1.
    by_controller: BTreeMap<String, PathBuf>,
    pub unified: Option<PathBuf>,
}

impl Groups {
    /// None when the process is gone.
    pub fn of_process(pid: u32) -> Option<Groups> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Some(Groups::parse(&text, Path::new(ROOT)))
    }

    /// From `/proc/PID/cgroup`: lines of `id:controllers:path`.
    pub fn parse(text: &str, root: &Path) -> Groups {
        let mut groups = Groups::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                groups.unified = Some(root.join(path));
                continue;
            }
            for controller in controllers.split(',') {
                groups
                    .by_controller
                    .insert(controller.to_owned(), root.join(controllers).join(path));
            }
        }
        groups
    }

    pub fn of(&self, controller: &str) -> Option<&Path> {
        self.by_controller.get(controller).map(PathBuf::as_path)
    }

    /// Limits pages of a size, as [`page_size`] names it: what is used, and what is set aside.
    pub fn limit_huge_pages(&self, size: &str, bytes: u64) -> io::Result<()> {
        let (group, unified) = match (self.of("hugetlb"), &self.unified) {
            (Some(group), _) => (group, false),
            (None, Some(group)) => (group.as_path(), true),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        let [used, reserved] = page_files(size, unified);
        std::fs::write(group.join(used), bytes.to_string())?;
        // Kernels before 5.7 do not count what is set aside.
        write_if_there(&group.join(reserved), &bytes.to_string())
    }

    /// Whoever is killed for memory takes all of the group along (upstream: `singleProcessOOMKill` is off). Only version 2
    /// knows that.
    pub fn kill_together(&self) -> io::Result<()> {
        let memory = self.unified.as_ref().filter(|_| self.of("memory").is_none());
        memory.map_or(Ok(()), |group| std::fs::write(group.join(KILL_TOGETHER), "1"))
    }
}

/// The file of version 2 that says whether a whole group is killed for memory.
pub const KILL_TOGETHER: &str = "memory.oom.group";

fn write_if_there(file: &Path, text: &str) -> io::Result<()> {
    match std::fs::OpenOptions::new().write(true).truncate(true).open(file) {
        Ok(mut file) => io::Write::write_all(&mut file, text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives a group that is there what its members share. Zero is no limit; controllers that are not there limit nothing.
/// The error names the file (upstream: `pkg/kubelet/cm`, `ResourceConfigForPod` and what sets it).
pub fn limit(root: &Path, group: &str, wanted: &Resources) -> Result<(), String> {
    let group = group.trim_start_matches('/');
    let unified = Abilities::read(root).unified;
    for (controller, file, text) in settings(wanted, unified) {
        let directory = if unified {
            root.to_owned()
        } else {
            root.join(controller)
        };
        let path = directory.join(group).join(&file);
        write_if_there(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The files that limit pages of a size: what is used, and what is set aside.
fn page_files(size: &str, unified: bool) -> [String; 2] {
    let limit = if unified { "max" } else { "limit_in_bytes" };
    ["", "rsvd."].map(|kind| format!("hugetlb.{size}.{kind}{limit}"))
}

/// Controller, file and content. A quota never stands beside another one's period for longer than a write.
fn settings(wanted: &Resources, unified: bool) -> Vec<(&'static str, String, String)> {
    let limit = |value: u64, none: &str| match value {
        0 => none.to_owned(),
        value => value.to_string(),
    };
    let period = if wanted.cpu_period == 0 {
        100_000
    } else {
        wanted.cpu_period
    };
    let quota = u64::try_from(wanted.cpu_quota).unwrap_or(0);
    let mut settings = Vec::new();
    let mut set = |controller, file: &str, text: String| settings.push((controller, file.to_owned(), text));
    if unified {
        if wanted.cpu_shares != 0 {
            set("cpu", "cpu.weight", weight(wanted.cpu_shares).to_string());
        }
        set("cpu", "cpu.max", format!("{} {period}", limit(quota, "max")));
        set("memory", "memory.max", limit(wanted.memory_limit_bytes, "max"));
    } else {
        if wanted.cpu_shares != 0 {
            set("cpu", "cpu.shares", wanted.cpu_shares.to_string());
        }
        set("cpu", "cpu.cfs_period_us", period.to_string());
        set("cpu", "cpu.cfs_quota_us", limit(quota, "-1"));
        set(
            "memory",
            "memory.limit_in_bytes",
            limit(wanted.memory_limit_bytes, "-1"),
        );
    }
    for (bytes_of_page, bytes) in &wanted.huge_pages {
        for file in page_files(&page_size(*bytes_of_page), unified) {
            set("hugetlb", &file, bytes.to_string());
        }
    }
    settings
}

/// Version 2's weight for shares of version 1: the least, the default and the most of one are those of the other, with a
/// parabola between their logarithms (upstream: `opencontainers/cgroups`, `ConvertCPUSharesToCgroupV2Value`).
pub fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        // From 2 to 262144 the power is between 1 and 10000.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10_f64.powf(exponent).ceil() as u64
        }
    }
}

/// How often the kernel killed a process for memory in a group, whose path is the same in all hierarchies.
pub fn oom_kills(root: &Path, group: &str) -> u64 {
    let group = group.trim_start_matches('/');
    let files = [
        root.join("memory").join(group).join("memory.oom_control"),
        root.join(group).join("memory.events"),
    ];
    let text = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    keyed(&text.unwrap_or_default(), "oom_kill").unwrap_or(0)
}

/// Removes a group and the one above it where nothing is left in them, in all hierarchies.
pub fn remove(root: &Path, group: &str) {
    let relative = Path::new(group.trim_start_matches('/'));
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path()).filter(|path| path.is_dir());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        for group in relative.ancestors().take(2) {
            match std::fs::remove_dir(hierarchy.join(group)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => break,
                _ => {}
            }
        }
    }
}

/// The number behind a name, in lines of `name number`.
pub fn keyed(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Bytes of each kind of huge page that the machine has, whether it has some of them or not.
pub fn page_sizes() -> Vec<u64> {
    let mut sizes: Vec<u64> = pages().map(|(size, _)| size).collect();
    sizes.sort_unstable();
    sizes
}

/// Whether the machine has set some huge pages aside.
pub fn has_huge_pages() -> bool {
    pages().any(|(_, count)| count > 0)
}

/// Sizes in bytes of the machine's huge pages, with how many there are.
pub fn pages() -> impl Iterator<Item = (u64, u64)> {
    let entries = std::fs::read_dir(HUGE_PAGES).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some((kib.checked_mul(1024)?, count.trim().parse().ok()?))
    })
}

/// A size as the kernel has it in the names of files: `2MB`.
pub fn page_size(bytes: u64) -> String {
    match bytes {
        bytes if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        bytes if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        bytes => format!("{}KB", bytes >> 10),
    }
}

/// The limit of every size of pages: who asks for none gets none.
pub fn page_limits(wanted: &BTreeMap<u64, u64>, sizes: &[u64]) -> Vec<(String, u64)> {
    let limit = |size: &u64| (page_size(*size), wanted.get(size).copied().unwrap_or(0));
    sizes.iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn what_a_machine_has() {
        let of = |files: &[(&str, &str)]| {
            let Abilities {
                unified,
                swap,
                huge_pages,
            } = Abilities::read(tree(files).path());
            (unified, swap, huge_pages)
        };
        let v1 = ("memory/memory.limit_in_bytes", "1");
        assert_eq!(of(&[v1]), (false, false, false));
        assert_eq!(
            of(&[
                v1,
                ("memory/memory.memsw.limit_in_bytes", "1"),
                ("hugetlb/cgroup.procs", "")
            ]),
            (false, true, true)
        );
        // Both versions: the controllers are version 1's.
        let beside = ("unified/cgroup.controllers", "hugetlb");
        assert_eq!(of(&[v1, beside]), (false, false, false));
        assert_eq!(
            of(&[("cgroup.controllers", "cpu io memory pids\n")]),
            (true, true, false)
        );
        assert_eq!(
            of(&[("cgroup.controllers", "cpu memory hugetlb\n")]),
            (true, true, true)
        );
    }

    #[test]
    fn what_a_group_shares() {
        let wanted = Resources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_bytes: 4096,
            huge_pages: BTreeMap::from([(2 << 20, 4 << 20)]),
            ..Default::default()
        };
        let none = Resources {
            cpu_shares: 2,
            ..Default::default()
        };
        let version_1 = |file: &str| format!("{}/krust/p/{file}", file.split('.').next().unwrap());
        let version_2 = |file: &str| format!("krust/p/{file}");
        let of_1 = [
            ("cpu.shares", "1024", "2"),
            ("cpu.cfs_period_us", "100000", "100000"),
            ("cpu.cfs_quota_us", "50000", "-1"),
            ("memory.limit_in_bytes", "4096", "-1"),
        ];
        let of_2 = [
            ("cpu.weight", "100", "1"),
            ("cpu.max", "50000 100000", "max 100000"),
            ("memory.max", "4096", "max"),
        ];
        let paths = |files: &[(&str, &'static str, &'static str)], path: &dyn Fn(&str) -> String| {
            let files = files.iter().map(|(file, first, then)| (path(file), *first, *then));
            files.collect::<Vec<_>>()
        };
        let both = [
            (None, paths(&of_1, &version_1)),
            (Some(("cgroup.controllers", "cpu memory")), paths(&of_2, &version_2)),
        ];
        for (mark, files) in both {
            let there = files.iter().map(|(file, ..)| (file.as_str(), "?")).chain(mark);
            let root = tree(&there.collect::<Vec<_>>());
            let read = |file: &String| std::fs::read_to_string(root.path().join(file)).unwrap();
            // The controller of huge pages is not there.
            limit(root.path(), "/krust/p", &wanted).unwrap();
            for (file, first, _) in &files {
                assert_eq!(read(file), *first, "{file}");
            }
            limit(root.path(), "/krust/p", &none).unwrap();
            for (file, _, then) in &files {
                assert_eq!(read(file), *then, "{file}");
            }
            limit(root.path(), "/krust/gone", &wanted).unwrap();
        }
        let refused = tree(&[("cgroup.controllers", ""), ("p/memory.max/is a directory", "")]);
        let error = limit(refused.path(), "p", &wanted).unwrap_err();
        assert!(error.contains("p/memory.max"), "{error}");
    }

    #[test]
    fn weights_of_shares() {
        for (shares, expected) in [
            (0, 1),
            (2, 1),
            (102, 17),
            (1024, 100),
            (2048, 174),
            (262_144, 10_000),
            (1 << 40, 10_000),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn all_of_a_group_are_killed_together() {
        let root = tree(&[("p/memory.oom.group", "0")]);
        let read = || std::fs::read_to_string(root.path().join("p/memory.oom.group")).unwrap();
        Groups::parse("3:memory:/p\n0::/p\n", root.path())
            .kill_together()
            .unwrap();
        assert_eq!(read(), "0", "version 1 has the controller");
        Groups::parse("0::/p\n", root.path()).kill_together().unwrap();
        assert_eq!(read(), "1");
    }

    #[test]
    fn kills_for_memory() {
        for (file, text, kills) in [
            (
                "memory/krust/p/c/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
                2,
            ),
            (
                "krust/p/c/memory.events",
                "low 0\noom 3\noom_kill 1\noom_group_kill 0\n",
                1,
            ),
            ("krust/p/c/memory.events", "low 0\noom 3\n", 0),
            ("krust/p/other/memory.events", "oom_kill 1\n", 0),
        ] {
            assert_eq!(oom_kills(tree(&[(file, text)]).path(), "/krust/p/c"), kills, "{file}");
        }
    }

    #[test]
    fn what_is_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        let made = ["memory/krust/p/c", "memory/krust/p/d", "pids/krust/p/c", "krust/p/c"];
        for group in made {
            std::fs::create_dir_all(root.path().join(group)).unwrap();
        }
        let there = || made.map(|group| root.path().join(group).exists());
        remove(root.path(), "/krust/p/c");
        assert_eq!(there(), [false, true, false, false]);
        // The last one takes the pod's with it; what is above may be about to be used.
        remove(root.path(), "/krust/p/d");
        assert_eq!(there(), [false; 4]);
        assert!(!root.path().join("memory/krust/p").exists() && root.path().join("memory/krust").exists());
        remove(root.path(), "/krust/p/c");
    }

    #[test]
    fn huge_pages() {
        let sizes = [64 << 10, 2 << 20, 1 << 30];
        let limits = page_limits(&BTreeMap::from([(2 << 20, 4 << 20), (16 << 30, 1)]), &sizes);
        let named = limits.iter().map(|(size, bytes)| (size.as_str(), *bytes));
        assert_eq!(named.collect::<Vec<_>>(), [("64KB", 0), ("2MB", 4 << 20), ("1GB", 0)]);
        for (cgroups, file) in [
            ("3:hugetlb:/p/c\n0::/\n", "hugetlb/p/c/hugetlb.2MB.limit_in_bytes"),
            ("0::/p/c\n", "p/c/hugetlb.2MB.max"),
        ] {
            let reserved = file.replace("2MB.", "2MB.rsvd.");
            let root = tree(&[(file, "0"), (&reserved, "0")]);
            let groups = Groups::parse(cgroups, root.path());
            groups.limit_huge_pages("2MB", 4 << 20).unwrap();
            for file in [file, &reserved] {
                let written = std::fs::read_to_string(root.path().join(file)).unwrap();
                assert_eq!(written, "4194304", "{file}");
            }
        }
        let none = Groups::parse("2:memory:/p/c\n", Path::new("/none"));
        assert!(none.limit_huge_pages("2MB", 0).is_err());
    }
}
