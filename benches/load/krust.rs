//! The release build of krust as a child process in a directory of its own: start-up time and memory.

use crate::connection::{Error, Target};
use crate::stats::show;
use crate::support::mounts::unmount_below;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(30);

pub struct Server {
    child: Child,
    data_dir: tempfile::TempDir,
}

impl Server {
    /// Starts with an empty data directory and prints how long `/readyz` took, and node Ready where there is one.
    /// What it must know of an engine is in its environment.
    pub async fn start_cold(runtime: &str, environment: &[(&str, &str)]) -> Result<Self, Error> {
        println!("krust, runtime {runtime}, empty data directory");
        let server = Self::start_with(runtime, environment).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.report_memory("idle");
        Ok(server)
    }

    /// Starts in an empty directory with more in its environment.
    pub async fn start_with(runtime: &str, environment: &[(&str, &str)]) -> Result<Self, Error> {
        let data_dir = tempfile::tempdir()?;
        let port = free_port()?;
        let started = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_krust"))
            .args([
                "server",
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--runtime",
                runtime,
                "--data-dir",
            ])
            .arg(data_dir.path())
            .env("KRUST_NODE__KUBELET_LISTEN", "127.0.0.1:0")
            .env("KRUST_NODE__IP", "127.0.0.1")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(data_dir.path().join("krust.log"))?)
            .spawn()?;
        let mut server = Self { child, data_dir };
        server.wait_for("/readyz", started, |_| true).await?;
        println!("{:<36} {:>9}", "start to /readyz", show(started.elapsed()));
        if runtime != "none" {
            let ready = |body: &[u8]| String::from_utf8_lossy(body).contains(r#""reason":"KubeletReady""#);
            server.wait_for("/api/v1/nodes", started, ready).await?;
            println!("{:<36} {:>9}", "start to node Ready", show(started.elapsed()));
        }
        Ok(server)
    }

    async fn wait_for(&mut self, path: &str, started: Instant, good: impl Fn(&[u8]) -> bool) -> Result<(), Error> {
        loop {
            if let Ok(target) = self.target()
                && let Ok(mut connection) = target.connect().await
                && let Ok(body) = connection.call(hyper::Method::GET, path, bytes::Bytes::new()).await
                && good(&body)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("krust ended with {status}: {}", self.log()).into());
            }
            if started.elapsed() > START_MAX {
                return Err(format!("no good answer at {path}: {}", self.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.path().join("krust.log")).unwrap_or_default()
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.path().join("admin.kubeconfig")
    }

    pub fn target(&self) -> Result<Target, Error> {
        Target::from_kubeconfig(&self.kubeconfig())
    }

    /// A client as others have it, under the administrator's name.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory of the process.
    pub fn resident_kib(&self) -> Option<f64> {
        self.status_kib("VmRSS:")
    }

    fn status_kib(&self, line_name: &str) -> Option<f64> {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"));
        status.ok()?.lines().find_map(|line| {
            line.strip_prefix(line_name)?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<f64>()
                .ok()
        })
    }

    pub fn report_memory(&self, when: &str) {
        if let (Some(now), Some(peak)) = (self.resident_kib(), self.status_kib("VmHWM:")) {
            println!(
                "{:<36} {:>5.1} MiB, {:.1} MiB at most so far",
                format!("resident memory, {when}"),
                now / 1024.0,
                peak / 1024.0
            );
        }
    }

    /// What the process has used of processors so far.
    pub fn cpu(&self) -> Result<Duration, Error> {
        cpu_of(&self.child.id().to_string())
    }

    /// What the server has counted so far.
    pub async fn counted(&self) -> Result<Counted, Error> {
        let mut admin = self.target()?.connect().await?;
        let text = admin.call(hyper::Method::GET, "/metrics", bytes::Bytes::new()).await?;
        Counted::read(&String::from_utf8_lossy(&text)).ok_or("the server does not count its writes".into())
    }

    /// The database's file and its log.
    pub fn database_bytes(&self) -> u64 {
        let files = std::fs::read_dir(self.data_dir.path()).into_iter().flatten().flatten();
        files
            .filter(|file| file.file_name().to_string_lossy().contains(".db"))
            .filter_map(|file| file.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    pub async fn stop(mut self) -> Result<(), Error> {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::SIGTERM,
        )?;
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("krust did not stop within 15 s of SIGTERM".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Does nothing to a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        unmount_below(self.data_dir.path());
    }
}

/// Counts out of the server's metrics.
pub struct Counted {
    /// To the database.
    pub writes: u64,
    /// Requests that have ended, by what they asked.
    requests: BTreeMap<String, u64>,
}

impl Counted {
    fn read(metrics: &str) -> Option<Self> {
        let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        let lines = |name: &'static str| metrics.lines().filter(move |line| line.starts_with(name));
        let mut requests = BTreeMap::new();
        for line in lines("apiserver_request_total{") {
            *requests.entry(asked(line)).or_default() += value(line)?;
        }
        let writes = lines("krust_storage_writes_total ").next().and_then(value)?;
        Some(Self { writes, requests })
    }

    /// The most frequent first.
    pub fn requests_since(&self, before: &Self) -> Vec<(&str, u64)> {
        let more = |what: &String| self.requests[what] - before.requests.get(what).copied().unwrap_or_default();
        let made = self.requests.keys().map(|what| (what.as_str(), more(what)));
        let mut made: Vec<_> = made.filter(|(_, count)| *count > 0).collect();
        made.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        made
    }
}

/// `PATCH leases`, `PUT nodes/status (409)`: what a line of the metric counts.
fn asked(line: &str) -> String {
    let label = |name: &str| {
        let from = line.split_once(&format!("{name}=\"")).map_or("", |(_, rest)| rest);
        from.split('"').next().unwrap_or_default().to_owned()
    };
    let part = match label("subresource").as_str() {
        "" => String::new(),
        part => format!("/{part}"),
    };
    let code = match label("code").as_str() {
        code if code < "400" => String::new(),
        code => format!(" ({code})"),
    };
    format!("{} {}{part}{code}", label("verb"), label("resource"))
}

/// The time on processors of a process and of those of its children that have ended: on a busy machine it says more
/// than a clock.
pub fn cpu_of(process: &str) -> Result<Duration, Error> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process).join("stat"))?;
    // The name before it may have spaces.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(4).flat_map(str::parse).collect();
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.ok_or("no length of ticks")?;
    Ok(Duration::from_secs_f64(
        ticks.iter().sum::<u64>() as f64 / second as f64,
    ))
}

fn free_port() -> Result<u16, Error> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
