//! `krust server` (upstream: `kube-apiserver` and friends).

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::app;
use crate::config::{LogFormat, Settings, Sources, load};
use crate::telemetry;

#[derive(Args, Default)]
pub(super) struct ServerArguments {
    /// A TOML file with settings; may be given several times, later ones win.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Where database, certificates and kubeconfig are kept [default: /var/lib/krust, or ~/.local/share/krust].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address and port of the API [default: [::]:6443].
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// What runs the pods: docker, containerd, auto, or none [default: auto].
    #[arg(long, value_name = "RUNTIME")]
    pub runtime: Option<String>,
    /// Name of this machine's node [default: its host name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// A file of fixed tokens: TOKEN,USER,UID,"GROUP,GROUP" a line.
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<String>,
    /// A further name or address for the server's certificate; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
}

impl ServerArguments {
    /// The settings of all layers.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let flags = [
            ("server.data_dir", &self.data_dir),
            ("server.listen", &self.listen),
            ("runtime.kind", &self.runtime),
            ("node.name", &self.node_name),
            ("server.token_auth_file", &self.token_auth_file),
        ];
        let overrides = flags
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .collect();
        let mut settings = load(&Sources::from_process(self.config.clone(), overrides))?;
        settings.server.tls_sans.extend(self.tls_san.iter().cloned());
        Ok(settings)
    }
}

pub(super) fn run(arguments: &ServerArguments) -> anyhow::Result<()> {
    let settings = arguments.settings()?;
    telemetry::start_logs(&settings.log.filter, settings.log.format == LogFormat::Json)?;
    telemetry::register_process_metrics();
    raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the threads of the server")?;
    let result = runtime.block_on(app::run(settings));
    // Blocking work that is still under way (a read of a file, say) must not hold up the end.
    runtime.shutdown_background();
    Ok(result?)
}

/// As Go's runtime does: the soft limit is for programs that use select(2), and a watch is a file.
fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files, so that connections may be refused");
    }
}
