//! `make bench`: a load generator that can be pointed at any Kubernetes API server.
//!
//! `cargo bench --bench load` starts the release build of krust in a directory of its own and measures it;
//! `cargo bench --bench load -- --kubeconfig FILE` measures a running server instead, without the start-up part.
//! Options: `--seconds N` per phase (default 3), `--connections 1,16,64`.
//! `--objects N` (default 10000; 100000 shows that creates do not slow down), `--watchers N`, `--write-rate N` and
//! `--churn-seconds N` size the other parts, `--definitions N` (default 1000) that of custom resources;
//! `--churn-history N` (seconds, default 5) is what the store remembers under churn, of `--churn-rate N` writes a second
//! (default: as many as it takes): an hour of churn is `--churn-seconds 3600 --churn-history 300 --churn-rate 50`;
//! `--nodes N` and `--pods N` that of scheduling and controllers (default 1000 and 10000);
//! `--idle-seconds N` (default 60) is how long an idle cluster is watched, and idle pods on an engine;
//! `--engines docker,containerd` are those that pods are started on, each with a daemon of its own (as tests do it: root);
//! `--streams N` (default 1000) are open at once, `--transfer-mebibytes N` (default 1024) is what is sent through one;
//! `--only load,size,watchers,definitions,scale,idle,churn,pods,streams` picks some.
//! It prints figures and asserts none.

mod churn;
mod connection;
mod definitions;
mod engine;
mod idle;
mod krust;
mod phases;
mod pods;
mod scale;
mod size;
mod stats;
mod streams;
#[path = "../../tests/support/mod.rs"]
mod support;
mod watchers;

use connection::{Error, Target};
use std::path::PathBuf;

pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub seconds: u64,
    pub connections: Vec<usize>,
    pub engines: Vec<String>,
    /// Open at the same time.
    pub streams: usize,
    pub transfer_bytes: u64,
    /// Pods that are stored in the part about sizes.
    pub objects: usize,
    pub watchers: usize,
    /// CustomResourceDefinitions that are made.
    pub definitions: usize,
    /// Writes a second that the watchers hear of.
    pub write_rate: usize,
    pub churn_seconds: u64,
    pub churn_history_seconds: u64,
    /// Writes a second; as many as it takes without.
    pub churn_rate: Option<u32>,
    /// Hollow nodes, and pods on them, of the part about scale.
    pub nodes: usize,
    pub pods: usize,
    pub idle_seconds: u64,
    only: Option<String>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.split(',').any(|name| name == part))
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        kubeconfig: None,
        seconds: 3,
        connections: vec![1, 16, 64],
        engines: vec!["docker".into(), "containerd".into()],
        streams: 1000,
        transfer_bytes: 1 << 30,
        objects: 10_000,
        watchers: 1000,
        definitions: 1000,
        write_rate: 200,
        churn_seconds: 60,
        churn_history_seconds: 5,
        churn_rate: None,
        nodes: 1000,
        pods: 10_000,
        idle_seconds: 60,
        only: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            // cargo bench passes this one itself.
            "--bench" => {}
            "--kubeconfig" => options.kubeconfig = Some(value()?.into()),
            "--seconds" => options.seconds = number(&value()?, &argument)?,
            "--objects" => options.objects = number(&value()?, &argument)?,
            "--definitions" => options.definitions = number(&value()?, &argument)?,
            "--watchers" => options.watchers = number(&value()?, &argument)?,
            "--write-rate" => options.write_rate = number(&value()?, &argument)?,
            "--churn-seconds" => options.churn_seconds = number(&value()?, &argument)?,
            "--churn-history" => options.churn_history_seconds = number(&value()?, &argument)?,
            "--churn-rate" => options.churn_rate = Some(number(&value()?, &argument)?),
            "--nodes" => options.nodes = number(&value()?, &argument)?,
            "--pods" => options.pods = number(&value()?, &argument)?,
            "--idle-seconds" => options.idle_seconds = number(&value()?, &argument)?,
            "--only" => options.only = Some(value()?),
            "--streams" => options.streams = number(&value()?, &argument)?,
            "--transfer-mebibytes" => options.transfer_bytes = number::<u64>(&value()?, &argument)? << 20,
            "--engines" => options.engines = value()?.split(',').map(str::to_owned).collect(),
            "--connections" => {
                let parsed: Result<_, _> = value()?.split(',').map(str::parse).collect();
                options.connections = parsed.map_err(|error| format!("--connections: {error}"))?;
            }
            _ => return Err(format!("unknown option {argument}")),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str, argument: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{argument}: {error}"))
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
            Some(file) => served(&Target::from_kubeconfig(file)?, &options, None).await?,
            None => {
                if options.wants("size") {
                    println!("The API alone, without controllers and scheduler");
                    let alone = [
                        ("KRUST_CONTROLLERS__ENABLED", "-*"),
                        ("KRUST_SCHEDULER__ENABLED", "false"),
                    ];
                    let server = krust::Server::start_with("none", &alone).await?;
                    size::run(&server.target()?, &options, Some(&server)).await?;
                    server.stop().await?;
                    println!("\nAll of krust");
                }
                if options.wants("load") || options.wants("size") || options.wants("watchers") {
                    let server = krust::Server::start_cold("none", &[]).await?;
                    served(&server.target()?, &options, Some(&server)).await?;
                    server.report_memory("after the load");
                    server.stop().await?;
                }
                if options.wants("definitions") {
                    // By themselves: what is measured is the memory.
                    let server = krust::Server::start_cold("none", &[]).await?;
                    definitions::run(&server.target()?, &options, Some(&server)).await?;
                    server.stop().await?;
                }
                if options.wants("scale") {
                    let server = krust::Server::start_cold("none", &[]).await?;
                    scale::run(&server, &options).await?;
                    server.stop().await?;
                }
                if options.wants("idle") {
                    idle::run(&options).await?;
                }
                if options.wants("churn") {
                    churn::run(&options).await?;
                }
                if options.wants("pods") {
                    pods::run(&options).await?;
                }
                if options.wants("streams") {
                    streams::run(&options).await?;
                }
            }
        }
        Ok::<_, Error>(())
    })
}

/// The parts that any server can be measured with.
async fn served(target: &Target, options: &Options, server: Option<&krust::Server>) -> Result<(), Error> {
    if options.wants("size") {
        size::run(target, options, server).await?;
    }
    if options.wants("watchers") {
        watchers::run(target, options).await?;
    }
    if options.wants("load") {
        phases::run(target, options).await?;
    }
    Ok(())
}
