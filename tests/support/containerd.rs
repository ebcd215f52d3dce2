//! A private containerd for a test binary: own data, socket and pod network, started once, stopped at its end.
//!
//! Needs root, `containerd` with `ctr` and runc (package containerd) and busybox-static; a test that misses one fails.
#![allow(dead_code)]

use super::dockerd::{engine_program, spawn_that_dies_with_us};
use super::images::{BUSYBOX, Image, busybox_archive};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

pub const NAMESPACE: &str = "k8s.io";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The engine of this test binary.
pub fn shared() -> &'static Containerd {
    static SHARED: OnceLock<Containerd> = OnceLock::new();
    static AT_EXIT: OnceLock<()> = OnceLock::new();
    extern "C" fn stop() {
        if let Some(shared) = SHARED.get() {
            shared.stop();
        }
    }
    let shared = SHARED.get_or_init(Containerd::start);
    // Statics are not dropped.
    // SAFETY: the handler touches nothing that is gone by then.
    AT_EXIT.get_or_init(|| assert_eq!(unsafe { libc::atexit(stop) }, 0));
    shared
}

pub struct Containerd {
    /// Path of the socket.
    pub address: String,
    pub pod_range: String,
    pub pod_bridge: String,
    directory: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Containerd {
    pub fn start() -> Containerd {
        Self::start_with("", 0, None)
    }

    /// One besides the shared one, whose data is on a disk of its own of that size, in memory.
    pub fn start_on_small_disk(bytes: u64) -> Containerd {
        Self::start_with("-small", 125, Some(bytes))
    }

    fn start_with(name: &str, number: u32, disk_bytes: Option<u64>) -> Containerd {
        let process = std::process::id();
        let directory = std::env::temp_dir().join(format!("krust-containerd-{process}{name}"));
        std::fs::create_dir_all(directory.join("root")).unwrap();
        if let Some(bytes) = disk_bytes {
            super::mounts::disk_in_memory(&directory.join("root"), bytes);
        }
        let containerd = Containerd {
            address: directory.join("containerd.sock").display().to_string(),
            // Of an address range that few use.
            pod_range: format!("10.214.{}.0/24", (process + number) % 250),
            pod_bridge: format!("kr{}{process}", if number == 0 { "c" } else { "d" }),
            directory,
            child: Mutex::new(None),
        };
        containerd.spawn();
        containerd.import(&Image::new(BUSYBOX, &busybox_archive(&[])));
        containerd
    }

    /// Where krust may keep its files for this engine.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("krust")
    }

    /// Of its data.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn spawn(&self) {
        let configuration = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = {:?}\n[plugins.\"io.containerd.internal.v1.opt\"]\n  path = {:?}\n",
            self.path("root"),
            self.path("state"),
            self.address,
            self.path("opt")
        );
        std::fs::write(self.path("config.toml"), configuration).unwrap();
        let log = std::fs::File::create(self.path("log")).unwrap();
        let mut command = engine_program("containerd");
        command
            .args(["--config", &self.path("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *self.child.lock().unwrap() = Some(spawn_that_dies_with_us(command, "containerd (package containerd)"));
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&self.address).is_err() {
            let ended = self
                .child
                .lock()
                .unwrap()
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && started.elapsed() < START_TIMEOUT,
                "containerd does not start:\n{}",
                std::fs::read_to_string(self.path("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("the engine runs").id()
    }

    /// `kill -9`: tasks go on.
    pub fn kill(&self) {
        let mut running = self.child.lock().unwrap().take().expect("the engine runs");
        running.kill().unwrap();
        running.wait().unwrap();
    }

    /// Starts it again after `kill`.
    pub fn start_again(&self) {
        self.spawn();
    }

    /// stdout of a ctr command that must succeed.
    pub fn ctr(&self, arguments: &[&str]) -> String {
        let mut command = engine_program("ctr");
        command
            .args(["--address", &self.address, "--namespace", NAMESPACE])
            .args(arguments);
        let output = command.output().expect("ctr (package containerd) runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ids of the containers of a krust, sandboxes and dead ones included.
    pub fn containers_of(&self, cluster_id: &str) -> Vec<String> {
        let filter = format!("labels.\"krust.dev/cluster\"=={cluster_id}");
        let listed = self.ctr(&["containers", "list", "--quiet", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Gives the engine an image.
    pub fn import(&self, image: &Image<'_>) {
        let archive = self.directory.join("image.tar");
        std::fs::write(&archive, image.oci_archive()).unwrap();
        self.ctr(&["images", "import", archive.to_str().unwrap()]);
        std::fs::remove_file(archive).unwrap();
    }

    /// Stops the engine and what ran on it, and removes its files and network.
    pub fn stop(&self) {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return;
        };
        self.kill_tasks();
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let quiet = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            let _ = command
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        };
        quiet("ip", &["link", "delete", &self.pod_bridge]);
        quiet("nft", &["delete", "table", "ip", &self.pod_bridge]);
        self.delete_forward_rules();
        let _ = nix::mount::umount2(&self.directory.join("root"), nix::mount::MntFlags::MNT_DETACH);
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// Those that krust inserts into a chain which is not its own.
    fn delete_forward_rules(&self) {
        const CHAIN: [&str; 3] = ["ip", "filter", "FORWARD"];
        let listed = Command::new("nft")
            .args(["--handle", "list", "chain"])
            .args(CHAIN)
            .output();
        let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for rule in listed
            .unwrap_or_default()
            .lines()
            .filter(|rule| rule.contains(&self.pod_bridge))
        {
            if let Some((_, handle)) = rule.rsplit_once("# handle ") {
                let mut command = Command::new("nft");
                let _ = command
                    .args(["delete", "rule"])
                    .args(CHAIN)
                    .args(["handle", handle])
                    .status();
            }
        }
    }

    /// Tasks outlive the daemon: each has a shim.
    fn kill_tasks(&self) {
        let ctr = |arguments: &[&str]| {
            let mut command = engine_program("ctr");
            command
                .args(["--address", &self.address, "--namespace", NAMESPACE])
                .args(arguments);
            command
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let listed = ctr(&["tasks", "list", "--quiet"]).unwrap_or_default();
        for id in listed.lines() {
            let _ = ctr(&["tasks", "delete", "--force", id]);
            // What a failed test did not clean up.
            let _ = std::fs::remove_dir_all(format!("/dev/shm/krust-{id}"));
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop();
    }
}
