//! `krust service-network`: the service proxy and the cluster's DNS in a process of their own, started by a krust that
//! runs in a container (upstream: `cmd/kube-proxy`).

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::app::{Apart, run_service_network};
use crate::telemetry;

#[derive(Args)]
pub(super) struct ServiceNetworkArguments {
    /// How to reach the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    node: String,
    /// Addresses of Services.
    #[arg(long)]
    range: String,
    /// Address of the cluster's DNS; none without.
    #[arg(long)]
    dns: Option<Ipv4Addr>,
    #[arg(long, default_value = "info")]
    log: String,
}

pub(super) fn run(arguments: &ServiceNetworkArguments) -> anyhow::Result<()> {
    telemetry::start_logs(&arguments.log, false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the threads of the service network")?;
    Ok(runtime.block_on(run_service_network(Apart {
        kubeconfig: arguments.kubeconfig.clone(),
        node: arguments.node.clone(),
        range: arguments.range.clone(),
        dns: arguments.dns,
    }))?)
}
