//! The krust binary as a child process in a data directory of its own.

use super::free_port;
use super::kubectl::Kubectl;
use super::mounts::unmount_below;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);

pub struct Krust {
    child: Option<Child>,
    pub port: u16,
    /// Where it listens.
    host: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    data_dir: tempfile::TempDir,
    cluster_id: OnceLock<String>,
}

impl Krust {
    /// Starts `krust server` with the given further arguments and waits for `/readyz`.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1", arguments, environment)
    }

    /// One that pods reach, too: it listens on all addresses.
    pub fn start_for_pods(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut all = vec![("KRUST_NODE__KUBELET_LISTEN", "0.0.0.0:0"), ("KRUST_NODE__IP", "")];
        all.extend(environment);
        Self::start_at("0.0.0.0", arguments, &all)
    }

    fn start_at(host: &'static str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut krust = Self {
            child: None,
            port: free_port(),
            host,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            data_dir: tempfile::tempdir().expect("a data directory"),
            cluster_id: OnceLock::new(),
        };
        krust.start_again();
        krust
    }

    /// For the next start.
    #[allow(dead_code)]
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the stopped or killed server on the same port and data directory.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "krust is running");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log file");
        let child = Command::new(env!("CARGO_BIN_EXE_krust"))
            .arg("server")
            .args(["--listen", &format!("{}:{}", self.host, self.port), "--data-dir"])
            .arg(self.data_dir())
            .args(&self.arguments)
            .env("KRUST_NODE__KUBELET_LISTEN", "127.0.0.1:0")
            .env("KRUST_NODE__IP", "127.0.0.1")
            .envs(self.environment.iter().cloned())
            // Which is not krust's, and krust refuses what it does not know.
            .env_remove("KRUST_TEST_ENGINES")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log file twice"))
            .stderr(log)
            .spawn()
            .expect("krust starts");
        self.child = Some(child);
        let started = Instant::now();
        while !self.is_ready() {
            let status = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().expect("krust's state"));
            assert!(status.is_none(), "krust ended with {status:?}:\n{}", self.log());
            assert!(started.elapsed() < START_MAX, "krust is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_ready(&self) -> bool {
        self.plain_get("/readyz")
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// One GET over plain HTTP as root on loopback: head and body as they came.
    pub fn plain_get(&self, path: &str) -> Option<String> {
        use std::io::{Read, Write};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("krust is running").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("krust is running");
        child.kill().expect("SIGKILL");
        child.wait().expect("krust's end");
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.stop_by(nix::sys::signal::SIGTERM)
    }

    /// The signal, and the exit code.
    pub fn stop_by(&mut self, signal: nix::sys::signal::Signal) -> Option<i32> {
        let mut child = self.child.take().expect("krust is running");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("the signal");
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = child.try_wait().expect("krust's state") {
                return status.code();
            }
            if Instant::now() > deadline {
                child.kill().expect("SIGKILL");
                child.wait().expect("krust's end");
                panic!("krust did not stop within {STOP_MAX:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }
    /// What marks this krust's containers on an engine: the uid of kube-system. Ask while it runs; it is kept.
    pub fn cluster_id(&self) -> String {
        let read = || {
            let answer = self.plain_get("/api/v1/namespaces/kube-system").expect("an answer");
            let body = answer.split_once("\r\n\r\n").expect("a head and a body").1;
            let namespace: serde_json::Value = serde_json::from_str(body).expect("the namespace as JSON");
            namespace["metadata"]["uid"].as_str().expect("its uid").to_owned()
        };
        self.cluster_id.get_or_init(read).clone()
    }
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }
    fn log_file(&self) -> PathBuf {
        self.data_dir().join("krust.log")
    }
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// kubectl of the version (`1.32`) with the admin kubeconfig.
    pub fn kubectl(&self, version: &str) -> Kubectl {
        Kubectl::new(
            version,
            self.kubeconfig(),
            self.data_dir().join(format!("kubectl-cache-{version}")),
        )
    }
}

impl Krust {
    /// Its rules outlive it, as pods do.
    fn forget_services(&self) {
        let has_node = |argument: &String| argument == "docker" || argument == "containerd";
        if !self.arguments.iter().any(has_node) {
            return;
        }
        let settings = self.environment.iter().rev();
        let mut ranges = settings.filter(|(name, _)| name == "KRUST_NETWORK__SERVICE_RANGE");
        let range = ranges.next().map_or("10.43.0.0/16", |(_, range)| range.as_str());
        forget_services(range);
    }
}

/// Takes away what a krust with this range of Services has set on this machine.
pub fn forget_services(range: &str) {
    let quiet = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        // It may not have come so far.
        let _ = command.args(arguments).stderr(Stdio::null()).status();
    };
    let table = format!("krust_{}", range.replace(['.', '/'], "_"));
    quiet("nft", &["delete", "table", "ip", &table]);
    if let Some(Ok(base)) = range.split('/').next().map(str::parse::<std::net::Ipv4Addr>) {
        let dns = std::net::Ipv4Addr::from(u32::from(base) + 10);
        quiet("ip", &["address", "delete", &format!("{dns}/32"), "dev", "lo"]);
    }
}

impl Drop for Krust {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        unmount_below(self.data_dir.path());
        self.forget_services();
        if std::thread::panicking() {
            eprintln!("--- krust's log ---\n{}", self.log());
        }
    }
}
