//! A container engine of the bench's own, as the tests have it: a daemon with its own data, socket and bridge, and busybox.

use crate::connection::Error;
use crate::krust::Server;
use crate::support::containerd::{Containerd, NAMESPACE};
use crate::support::dockerd::Dockerd;
use krust::runtime::Runtime;
use krust::runtime::containerd::{ContainerdRuntime, Options};
use krust::runtime::docker::DockerRuntime;
use std::sync::Arc;

pub enum Engine {
    Docker(Dockerd),
    Containerd(Containerd),
}

impl Engine {
    pub async fn start(name: &str) -> Result<Self, Error> {
        let start = match name {
            "docker" => || Self::Docker(Dockerd::start("bench")),
            "containerd" => || Self::Containerd(Containerd::start()),
            _ => return Err(format!("there is no engine {name}").into()),
        };
        Ok(tokio::task::spawn_blocking(start).await?)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::Containerd(_) => "containerd",
        }
    }

    /// What krust's environment says of it.
    fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Docker(engine) => vec![("KRUST_RUNTIME__DOCKER_HOST", engine.endpoint.clone())],
            Self::Containerd(engine) => vec![
                ("KRUST_RUNTIME__CONTAINERD_ADDRESS", engine.address.clone()),
                ("KRUST_RUNTIME__POD_RANGE", engine.pod_range.clone()),
                ("KRUST_RUNTIME__POD_BRIDGE", engine.pod_bridge.clone()),
            ],
        }
    }

    /// The backend, for calls without krust around them; its objects are marked with another cluster's id.
    pub async fn connect(&self, cluster_id: &str) -> Result<Arc<dyn Runtime>, Error> {
        Ok(match self {
            Self::Docker(engine) => DockerRuntime::connect(&engine.endpoint, cluster_id).await?,
            Self::Containerd(engine) => {
                let options = Options {
                    address: engine.address.clone(),
                    namespace: NAMESPACE.to_owned(),
                    image_namespaces: Vec::new(),
                    cluster_id: cluster_id.to_owned(),
                    state_dir: engine.state_dir(),
                    pod_range: engine.pod_range.clone(),
                    pod_bridge: engine.pod_bridge.clone(),
                    registries_dir: engine.state_dir().join("registries"),
                    logger: Some(env!("CARGO_BIN_EXE_krust").into()),
                };
                ContainerdRuntime::connect(options).await?
            }
        })
    }
}

/// Measures on each of these engines, with a krust on it.
pub async fn on_each(
    names: &[String],
    what: &str,
    measure: impl AsyncFn(&Engine, &Server) -> Result<(), Error>,
) -> Result<(), Error> {
    for name in names {
        println!("\n{what} on {name}");
        let engine = Engine::start(name).await?;
        let settings = engine.settings();
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let server = Server::start_cold(engine.name(), &settings).await?;
        let outcome = measure(&engine, &server).await;
        if outcome.is_err() {
            eprintln!("{}", server.log());
        }
        outcome?;
        server.stop().await?;
        // What ends a daemon waits.
        tokio::task::spawn_blocking(move || drop(engine)).await?;
    }
    Ok(())
}
