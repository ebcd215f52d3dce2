//! `krust cri-log`: writes the log of one container (upstream: containerd's `binary://` loggers).

use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct CriLogArguments {
    /// Directory of the log.
    directory: PathBuf,
}

pub fn run(arguments: &CriLogArguments, terminal: bool) -> anyhow::Result<()> {
    crate::app::run_container_logger(&arguments.directory, terminal)
        .with_context(|| format!("cannot write the log in {}", arguments.directory.display()))
}
