//! `krust cri-log`: writes the log of one container (upstream: containerd's `binary://` loggers).

use crate::app::container_log;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct CriLogArguments {
    /// Directory of the log.
    directory: PathBuf,
    /// Directory of named pipes, in place of a shim's.
    #[arg(long)]
    pipes: Option<PathBuf>,
}

pub fn run(arguments: &CriLogArguments, terminal: bool) -> anyhow::Result<()> {
    let written = match &arguments.pipes {
        Some(pipes) => container_log::run_on_named_pipes(&arguments.directory, pipes),
        None => container_log::run_as_shim_logger(&arguments.directory, terminal),
    };
    written.with_context(|| format!("cannot write the log in {}", arguments.directory.display()))
}
