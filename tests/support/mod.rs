//! What the integration tests share: krust as a child process, the kubectl binaries, container engines.
#![allow(dead_code)] // each test binary uses its own part of this

pub mod containerd;
pub mod dockerd;
pub mod engine;
pub mod hollow;
pub mod images;
pub mod krust;
pub mod kubectl;
pub mod mounts;
pub mod registry;
pub mod streams;

use std::path::PathBuf;

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A port on loopback that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    listener.local_addr().expect("its address").port()
}
