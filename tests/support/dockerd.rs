//! A private Docker engine for a test binary: own data, socket and bridge, started once, stopped at its end.
//!
//! Needs root, `dockerd` (package docker.io), `ip` (iproute2), `iptables` and busybox-static; a test that misses one fails.
#![allow(dead_code)]

use super::images::{BUSYBOX, Image, busybox_archive};
use bytes::Bytes;
use futures_util::TryStreamExt;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine of this test binary.
pub fn shared() -> &'static Dockerd {
    static SHARED: OnceLock<Dockerd> = OnceLock::new();
    SHARED.get_or_init(|| Dockerd::start("shared"))
}

pub struct Dockerd {
    /// `unix:///…/docker.sock`
    pub endpoint: String,
    /// Address of the bridge, which is this host's in the containers' network.
    pub gateway: String,
    directory: PathBuf,
    bridge: String,
    subnet: String,
    /// Further flags of the engine.
    flags: Vec<String>,
    child: Mutex<Option<Child>>,
}

/// What is still to be stopped when the process exits: statics are not dropped.
static RUNNING: Mutex<Vec<Remains>> = Mutex::new(Vec::new());

#[derive(Clone)]
struct Remains {
    pid: u32,
    directory: PathBuf,
    bridge: String,
}

impl Dockerd {
    /// Starts an engine. `name` tells several of one test binary apart.
    pub fn start(name: &str) -> Dockerd {
        Self::start_with(name, None, &[])
    }

    /// One whose data is on a disk of its own of that size, in memory, with further flags.
    pub fn start_with(name: &str, disk_bytes: Option<u64>, flags: &[&str]) -> Dockerd {
        static COUNT: Mutex<u32> = Mutex::new(0);
        let count = {
            let mut count = COUNT.lock().unwrap();
            *count += 1;
            *count
        };
        let process = std::process::id();
        let directory = std::env::temp_dir().join(format!("krust-dockerd-{process}-{name}"));
        std::fs::create_dir_all(directory.join("data")).unwrap();
        if let Some(bytes) = disk_bytes {
            super::mounts::disk_in_memory(&directory.join("data"), bytes);
        }
        // Of an address range that few use, one network for each engine at a time.
        let network = (process * 7 + count) % 250;
        let dockerd = Dockerd {
            endpoint: format!("unix://{}", directory.join("docker.sock").display()),
            gateway: format!("10.213.{network}.1"),
            bridge: format!("krt{process}-{count}").chars().take(15).collect(),
            subnet: format!("10.213.{network}.1/24"),
            directory,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            child: Mutex::new(None),
        };
        // Without an address of its own a bridge takes one of its ports', and changes it with every pod that comes or
        // goes: connections through it then hang until the other end's ARP entry has aged.
        let mac = format!("02:42:0a:d5:{network:02x}:01");
        run(
            "ip",
            &["link", "add", &dockerd.bridge, "address", &mac, "type", "bridge"],
        );
        run("ip", &["address", "add", &dockerd.subnet, "dev", &dockerd.bridge]);
        run("ip", &["link", "set", &dockerd.bridge, "up"]);
        // Another engine on this machine may have had the firewall drop what goes between containers.
        run("iptables", &forward_rule("--insert", &dockerd.bridge));
        dockerd.spawn();
        dockerd.import(&Image::new(BUSYBOX, &busybox_archive(&[])));
        dockerd
    }

    /// Of its data.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    /// Stops the engine; containers end with it.
    pub fn stop(&self) {
        let mut child = self.child.lock().unwrap();
        if let Some(mut running) = child.take() {
            kill(Pid::from_raw(running.id() as i32), Signal::SIGTERM).unwrap();
            running.wait().unwrap();
            RUNNING.lock().unwrap().retain(|remains| remains.pid != running.id());
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("the engine runs").id()
    }

    /// `kill -9`.
    pub fn kill(&self) {
        let mut running = self.child.lock().unwrap().take().expect("the engine runs");
        running.kill().unwrap();
        running.wait().unwrap();
        RUNNING.lock().unwrap().retain(|remains| remains.pid != running.id());
        // Its own containerd ends with it, but looks alive as long as nobody has reaped it.
        let _ = std::fs::remove_file(self.directory.join("exec/containerd/containerd.pid"));
    }

    /// Starts it again after `stop` or `kill`.
    pub fn start_again(&self) {
        self.spawn();
    }

    fn spawn(&self) {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let log = std::fs::File::create(path("log")).unwrap();
        let namespace = format!("krust-test-{}", self.bridge);
        let mut command = engine_program("dockerd");
        command
            .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["--pidfile", &path("docker.pid"), "--host", &self.endpoint])
            .args(["--bridge", &self.bridge, "--iptables=false", "--ip-masq=false"])
            .args(["--containerd-namespace", &namespace])
            .args(["--containerd-plugins-namespace", &format!("{namespace}-plugins")])
            .args(&self.flags)
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = spawn_that_dies_with_us(command, "dockerd (package docker.io)");
        register(Remains {
            pid: child.id(),
            directory: self.directory.clone(),
            bridge: self.bridge.clone(),
        });
        *self.child.lock().unwrap() = Some(child);
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let ended = self
                .child
                .lock()
                .unwrap()
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && started.elapsed() < START_TIMEOUT,
                "dockerd does not start:\n{}",
                std::fs::read_to_string(path("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Gives the engine an image.
    pub fn import(&self, image: &Image<'_>) {
        let (repository, tag) = image.name.split_once(':').unwrap();
        let options = bollard::query_parameters::CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .changes(image.instructions())
            .build();
        let body = bollard::body_full(Bytes::copy_from_slice(image.layer));
        let endpoint = self.endpoint.clone();
        // On a thread of its own: the caller may be within an async runtime.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let docker = bollard::Docker::connect_with_host(&endpoint).unwrap();
                let docker = docker.negotiate_version().await.unwrap();
                docker
                    .create_image(Some(options), Some(body), None)
                    .try_collect::<Vec<_>>()
                    .await
                    .unwrap();
            });
        })
        .join()
        .unwrap();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
        tidy(&self.directory, &self.bridge);
    }
}

/// A program of an engine: of the directory that `KRUST_TEST_ENGINES` names (as scripts/install-engines.sh makes them), else
/// the installed one. What it starts itself is from there, too.
pub fn engine_program(name: &str) -> Command {
    let Some(directory) = std::env::var_os("KRUST_TEST_ENGINES") else {
        return Command::new(name);
    };
    let programs = Path::new(&directory).join("bin");
    let program = programs.join(name);
    assert!(
        program.is_file(),
        "{} of KRUST_TEST_ENGINES is not there",
        program.display()
    );
    let usual = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&usual))).unwrap();
    let mut command = Command::new(program);
    command.env("PATH", path);
    command
}

/// The kernel ends the child when the thread that started it ends, so that one stays until the process ends.
pub fn spawn_that_dies_with_us(mut command: Command, name: &str) -> Child {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
                Ok(())
            });
        }
        sender.send(command.spawn()).unwrap();
        loop {
            std::thread::park();
        }
    });
    let started = receiver.recv().unwrap();
    started.unwrap_or_else(|error| panic!("{name} must be installed, and started as root: {error}"))
}

fn register(remains: Remains) {
    static ONCE: OnceLock<()> = OnceLock::new();
    RUNNING.lock().unwrap().push(remains);
    ONCE.get_or_init(|| {
        // SAFETY: the handler touches nothing that is gone by then.
        assert_eq!(unsafe { libc::atexit(stop_all) }, 0);
    });
}

extern "C" fn stop_all() {
    let Ok(running) = RUNNING.lock().map(|running| running.clone()) else {
        return;
    };
    for remains in &running {
        let _ = kill(Pid::from_raw(remains.pid as i32), Signal::SIGTERM);
    }
    for remains in running {
        let started = Instant::now();
        let pid = Pid::from_raw(remains.pid as i32);
        let flags = nix::sys::wait::WaitPidFlag::WNOHANG;
        while started.elapsed() < STOP_TIMEOUT
            && matches!(
                nix::sys::wait::waitpid(pid, Some(flags)),
                Ok(nix::sys::wait::WaitStatus::StillAlive)
            )
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        tidy(&remains.directory, &remains.bridge);
    }
}

/// Lets the bridge's containers reach each other.
fn forward_rule<'a>(action: &'a str, bridge: &'a str) -> [&'a str; 9] {
    [
        "--wait",
        action,
        "FORWARD",
        "--in-interface",
        bridge,
        "--out-interface",
        bridge,
        "--jump",
        "ACCEPT",
    ]
}

fn tidy(directory: &Path, bridge: &str) {
    let _ = Command::new("iptables").args(forward_rule("--delete", bridge)).status();
    let _ = Command::new("ip").args(["link", "delete", bridge]).status();
    // The engine leaves the host's network namespace mounted, and more if it was killed.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(directory)) {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
    let _ = std::fs::remove_dir_all(directory);
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
