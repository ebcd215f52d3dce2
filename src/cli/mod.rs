//! The commands, one file each (upstream: `cmd/`).

mod cri_log;
mod image;
mod kubeconfig;
mod merge;
mod server;
mod service_network;
mod version;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  krust                                     start a server; the same as krust server
  krust server --runtime none               the API alone, without a container engine
  krust server --config config/docker.toml  settings from a file; config/default.toml shows them all
  kubectl --server=http://localhost:6443 get nodes
                                            as root, or as the user that runs the server
  krust kubeconfig --merge                  add the context krust to your own kubeconfig
  krust image load app.tar                  give the engine an image; docker save app | krust image load - does the same
  docker run -d --name krust -p 6443:6443 -v /var/run/docker.sock:/var/run/docker.sock krust
  docker exec krust krust kubeconfig > kubeconfig
                                            the server in a container, its pods beside it

Every setting also is an environment variable: server.listen is KRUST_SERVER__LISTEN.
RUST_LOG sets what is logged, like RUST_LOG=info,krust::kubelet=debug.";

/// Kubernetes in one program: API server, scheduler, controllers and a node that runs pods on Docker or containerd.
#[derive(Parser)]
#[command(name = "krust", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: server::ServerArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Start a server: the API and, unless the runtime is none, a node that runs pods. This is the default.
    Server(server::ServerArguments),
    /// Print a kubeconfig for the server on this machine, or add it to your own.
    Kubeconfig(kubeconfig::KubeconfigArguments),
    /// Load images into the engine, and list them.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Print the version of krust and of the Kubernetes API that it serves.
    Version,
    /// Lead connections to Services to their endpoints, and answer DNS; started by a server in a container.
    #[command(hide = true)]
    ServiceNetwork(service_network::ServiceNetworkArguments),
    /// Write a container's log; started by the container's shim.
    #[command(hide = true)]
    CriLog(cri_log::CriLogArguments),
    /// The same for a container with a terminal.
    #[command(hide = true)]
    CriLogTty(cri_log::CriLogArguments),
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("krust: the TLS provider is set already");
        return ExitCode::FAILURE;
    }
    let result = match cli.command.unwrap_or(Command::Server(cli.server)) {
        Command::Server(arguments) => server::run(&arguments),
        Command::Kubeconfig(arguments) => kubeconfig::run(&arguments),
        Command::Image(command) => image::run(&command),
        Command::Version => version::run(),
        Command::ServiceNetwork(arguments) => service_network::run(&arguments),
        Command::CriLog(arguments) => cri_log::run(&arguments, false),
        Command::CriLogTty(arguments) => cri_log::run(&arguments, true),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("krust: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes. Most errors of ours name their cause already, and twice is once too often.
fn explain(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            told if told.contains(&cause) => text,
            told => format!("{told}: {cause}"),
        }
    })
}

/// Prints to standard output. A reader that closed it early is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("no such file")
            .context("cannot read x: no such file")
            .context("cannot start");
        assert_eq!(explain(&error), "cannot start: cannot read x: no such file");
    }

    #[test]
    fn no_command_is_server() {
        let cli = Cli::try_parse_from(["krust", "--listen", "127.0.0.1:1"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.server.listen.as_deref(), Some("127.0.0.1:1"));
        let cli = Cli::try_parse_from(["krust", "server", "--config", "a", "--config", "b"]).unwrap();
        let Some(Command::Server(arguments)) = cli.command else {
            panic!("not the server command")
        };
        assert_eq!(arguments.config.len(), 2);
        assert!(Cli::try_parse_from(["krust", "sever"]).is_err());
    }
}
