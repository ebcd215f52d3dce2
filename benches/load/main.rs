//! `make bench`: a load generator that can be pointed at any Kubernetes API server.
//!
//! `cargo bench --bench load` starts the release build of krust in a directory of its own and measures it;
//! `cargo bench --bench load -- --kubeconfig FILE` measures a running server instead, without the start-up part.
//! Options: `--seconds N` per phase (default 3), `--connections 1,16,64`, `--image IMAGE` and `--engine-socket PATH`
//! for the pod start part (default: busybox on /var/run/docker.sock, left out with a message if nothing answers).
//! It prints figures and asserts none.

mod connection;
mod krust;
mod phases;
mod pods;
mod stats;

use connection::{Error, Target};
use std::path::PathBuf;

pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub seconds: u64,
    pub connections: Vec<usize>,
    pub image: String,
    pub engine_socket: String,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        kubeconfig: None,
        seconds: 3,
        connections: vec![1, 16, 64],
        image: "busybox".into(),
        engine_socket: "/var/run/docker.sock".into(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            // cargo bench passes this one itself.
            "--bench" => {}
            "--kubeconfig" => options.kubeconfig = Some(value()?.into()),
            "--seconds" => options.seconds = value()?.parse().map_err(|error| format!("--seconds: {error}"))?,
            "--image" => options.image = value()?,
            "--engine-socket" => options.engine_socket = value()?,
            "--connections" => {
                let parsed: Result<_, _> = value()?.split(',').map(str::parse).collect();
                options.connections = parsed.map_err(|error| format!("--connections: {error}"))?;
            }
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Error> {
    let options = options()?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider was installed before")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match &options.kubeconfig {
            Some(file) => phases::run(&Target::from_kubeconfig(file)?, &options).await?,
            None => {
                let server = krust::Server::start_cold("none", &options.engine_socket).await?;
                phases::run(&server.target()?, &options).await?;
                server.report_memory("after the load");
                server.stop().await?;
                pods::run(&options).await?;
            }
        }
        Ok::<_, Error>(())
    })
}
