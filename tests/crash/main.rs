//! `kill -9` at random moments, of krust and of the engine under it; and the machine's own end.
//!
//! `CRASH_ROUNDS` sets the number of kills of each test, `CRASH_SEED` the seed.

mod images;
mod node_shutdown;
mod pods;
mod store;
#[path = "../support/mod.rs"]
mod support;

use kube::Client;
use support::krust::Krust;

fn rounds(default: u32) -> u32 {
    std::env::var("CRASH_ROUNDS").map_or(default, |n| n.parse().expect("CRASH_ROUNDS is a number"))
}

fn seed() -> u64 {
    std::env::var("CRASH_SEED").map_or(1, |n| n.parse().expect("CRASH_SEED is a number"))
}

async fn client(krust: &Krust) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(krust.kubeconfig()).expect("the admin kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .expect("a client config");
    Client::try_from(config).expect("a client")
}
