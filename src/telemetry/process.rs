//! What every Prometheus client tells about its process, from `/proc/self` (upstream: client_golang's collector).

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start_seconds: Gauge,
    threads: Gauge,
}

impl ProcessCollector {
    pub fn new() -> ProcessCollector {
        let gauge = |name, help| Gauge::with_opts(Opts::new(name, help));
        let build = || -> prometheus::Result<ProcessCollector> {
            Ok(ProcessCollector {
                cpu_seconds: Counter::new(
                    "process_cpu_seconds_total",
                    "User and system CPU time spent, in seconds.",
                )?,
                resident_bytes: gauge("process_resident_memory_bytes", "Resident memory, in bytes.")?,
                virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory, in bytes.")?,
                open_fds: gauge("process_open_fds", "Open file descriptors.")?,
                max_fds: gauge("process_max_fds", "Limit of open file descriptors.")?,
                start_seconds: gauge(
                    "process_start_time_seconds",
                    "Start of the process, in seconds since 1970.",
                )?,
                threads: gauge("process_threads", "Threads of the process.")?,
            })
        };
        build().expect("the names above are valid metric names")
    }

    /// Reads what the kernel knows; what can not be read keeps its last value.
    fn update(&self) -> Option<()> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second column is the program's name in brackets, and may hold blanks; the columns count from there.
        let columns: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let column = |number: usize| columns.get(number - 3)?.parse::<f64>().ok();
        let sysconf = |name| nix::unistd::sysconf(name).ok().flatten().map(|value| value as f64);
        let ticks = sysconf(nix::unistd::SysconfVar::CLK_TCK)?;
        let cpu_seconds = (column(14)? + column(15)?) / ticks;
        self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
        self.threads.set(column(20)?);
        self.virtual_bytes.set(column(23)?);
        self.resident_bytes
            .set(column(24)? * sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?);
        self.start_seconds.set(boot_seconds()? + column(22)? / ticks);
        self.open_fds
            .set(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64);
        let (limit, _) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok()?;
        self.max_fds.set(limit as f64);
        Some(())
    }

    fn all(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.open_fds,
            &self.max_fds,
            &self.start_seconds,
            &self.threads,
        ]
    }
}

fn boot_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.update();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_process_is_in_the_metrics() {
        crate::telemetry::register_process_metrics();
        crate::telemetry::register_process_metrics();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&prometheus::gather())
            .unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("{name} in {text}"));
            let value: f64 = line.split(' ').next_back().unwrap().parse().unwrap();
            assert!(value > 0.0 || name == "process_cpu_seconds_total", "{line}");
        }
    }
}
