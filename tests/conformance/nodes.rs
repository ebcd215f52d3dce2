//! The real engines that pods of tests run on: private ones, with the images of the tests.

use crate::agnhost;
use crate::pods::{AGNHOST, AGNHOST_TWO, BUSYBOX_TWO, SAYER, USER};
use crate::support::images::{Image, busybox_archive};
use crate::support::krust::Krust;
use crate::support::{containerd, dockerd};
use std::fmt;
use std::sync::OnceLock;

/// An engine that krust drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Docker,
    Containerd,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        })
    }
}

impl Backend {
    pub const ALL: &'static [Self] = &[Self::Docker, Self::Containerd];

    /// Starts the engine, if it is not, and a server with a node on it. Blocks.
    pub fn start(self) -> Krust {
        let images = images();
        // Rules for Services are this machine's: each server of each process has a range of its own.
        let share = (std::process::id() * 2 + self as u32) % 120;
        let services = format!("10.{}.{}.0/20", 216 + share / 16, share % 16 * 16);
        let node_ports = format!("{}-{}", 20_000 + share * 100, 20_000 + share * 100 + 99);
        match self {
            Self::Docker => {
                let engine = dockerd::shared();
                images.iter().for_each(|image| engine.import(image));
                let settings = [
                    ("KRUST_RUNTIME__DOCKER_HOST", engine.endpoint.as_str()),
                    ("KRUST_NETWORK__SERVICE_RANGE", &services),
                    ("KRUST_NETWORK__NODE_PORT_RANGE", &node_ports),
                ];
                Krust::start_for_pods(&["--runtime", "docker"], &settings)
            }
            Self::Containerd => {
                let engine = containerd::shared();
                images.iter().for_each(|image| engine.import(image));
                let settings = [
                    ("KRUST_RUNTIME__CONTAINERD_ADDRESS", engine.address.as_str()),
                    ("KRUST_RUNTIME__POD_RANGE", &engine.pod_range),
                    ("KRUST_RUNTIME__POD_BRIDGE", &engine.pod_bridge),
                    ("KRUST_NETWORK__SERVICE_RANGE", &services),
                    ("KRUST_NETWORK__NODE_PORT_RANGE", &node_ports),
                ];
                Krust::start_for_pods(&["--runtime", "containerd"], &settings)
            }
        }
    }
}

impl Backend {
    /// Ids of all containers of a server on its engine.
    pub fn containers_of(self, krust: &Krust) -> Vec<String> {
        match self {
            Self::Docker => dockerd::shared().containers_of(krust),
            Self::Containerd => containerd::shared().containers_of(&krust.cluster_id()),
        }
    }
}

/// Besides busybox, which every engine has from its start.
fn images() -> Vec<Image<'static>> {
    static LAYERS: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (plain, server) = LAYERS.get_or_init(|| {
        let program = this_program();
        (busybox_archive(&[]), busybox_archive(&[(agnhost::PATH, &program)]))
    });
    let serving = Image {
        entrypoint: &["/agnhost"],
        command: &["wait"],
        ..Image::new(AGNHOST, server)
    };
    vec![
        Image::new(BUSYBOX_TWO, plain),
        Image {
            user: "1000",
            ..Image::new(USER, plain)
        },
        serving,
        Image {
            name: AGNHOST_TWO,
            ..serving
        },
        Image {
            name: SAYER,
            entrypoint: &["/agnhost", "say"],
            command: &["default", "arguments"],
            ..serving
        },
    ]
}

/// The binary of these tests, without what only debuggers need.
fn this_program() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(agnhost::PATH);
    let mut strip = std::process::Command::new("strip");
    let status = strip
        .arg("-o")
        .arg(&path)
        .arg(std::env::current_exe().unwrap())
        .status();
    assert!(status.expect("strip (package binutils) runs").success());
    std::fs::read(path).unwrap()
}
