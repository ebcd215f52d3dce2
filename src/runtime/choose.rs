//! Picks the container runtime named by the configuration (upstream: the kubelet's `--container-runtime-endpoint`).

use super::{ImageStore, Result, Runtime, RuntimeError, RuntimeVersion, containerd, docker};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// Where Docker listens unless `DOCKER_HOST` or the configuration says otherwise.
pub const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// Where containerd listens unless the configuration says otherwise.
pub const DEFAULT_CONTAINERD_ADDRESS: &str = "/run/containerd/containerd.sock";

/// The setting `runtime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeChoice {
    Docker,
    Containerd,
    /// Docker if its socket answers, else containerd.
    #[default]
    Auto,
    /// No node agent: the API alone.
    None,
}

impl RuntimeChoice {
    pub const ALLOWED: &'static str = "docker, containerd, auto or none";
}

impl fmt::Display for RuntimeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Auto => "auto",
            Self::None => "none",
        })
    }
}

impl FromStr for RuntimeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "docker" => Ok(Self::Docker),
            "containerd" => Ok(Self::Containerd),
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            other => Err(format!("unknown runtime {other:?}: must be {}", RuntimeChoice::ALLOWED)),
        }
    }
}

/// What the chooser and the backends need to know.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    pub choice: RuntimeChoice,
    /// Marks this krust's objects on the engine, so that several krusts on one engine leave each other's alone.
    /// A label value that stays the same over restarts.
    pub cluster_id: String,
    /// `unix:///path`, `tcp://host:port` or `http://host:port`; None: `DOCKER_HOST`, then [`DEFAULT_DOCKER_HOST`].
    pub docker_host: Option<String>,
    /// Path of containerd's socket; None: [`DEFAULT_CONTAINERD_ADDRESS`].
    pub containerd_address: Option<String>,
    /// containerd's namespace; None: [`containerd::DEFAULT_NAMESPACE`].
    pub containerd_namespace: Option<String>,
    /// Further namespaces whose images may be used.
    pub containerd_image_namespaces: Vec<String>,
    /// IPv4 network of pods whose network is krust's; None: [`containerd::DEFAULT_POD_RANGE`].
    pub pod_range: Option<String>,
    /// Their bridge; None: [`containerd::DEFAULT_POD_BRIDGE`].
    pub pod_bridge: Option<String>,
    /// Settings of registries; None: [`containerd::DEFAULT_REGISTRIES_DIR`].
    pub registries_dir: Option<PathBuf>,
    /// Directory for what a backend keeps on disk (containerd: logs, network namespaces).
    pub state_dir: PathBuf,
}

/// The runtime that was taken, and what to tell the user about it.
#[derive(Clone)]
pub struct Chosen {
    pub runtime: Arc<dyn Runtime>,
    pub version: RuntimeVersion,
    /// The address that answered.
    pub endpoint: String,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen")
            .field("version", &self.version)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Why no runtime could be taken, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    #[error(
        "runtime \"docker\": {0}. Start Docker (Debian and Ubuntu: apt-get install docker.io), or name its socket in DOCKER_HOST"
    )]
    Docker(#[source] RuntimeError),
    #[error(
        "runtime \"containerd\": {0}. Start containerd (Debian and Ubuntu: apt-get install containerd), or name its socket in the setting runtime.containerd_address"
    )]
    Containerd(#[source] RuntimeError),
    #[error(
        "no container runtime answers. Docker: {docker}. containerd: {containerd}. Install one (Debian and Ubuntu: apt-get install docker.io), \
         name its socket in DOCKER_HOST, or run the API alone with --runtime none"
    )]
    Neither {
        docker: RuntimeError,
        containerd: RuntimeError,
    },
}

/// Connects to the chosen runtime; None with [`RuntimeChoice::None`].
pub async fn choose(options: &RuntimeOptions) -> Result<Option<Chosen>, ChooseError> {
    match options.choice {
        RuntimeChoice::None => Ok(None),
        RuntimeChoice::Docker => connect_docker(options).await.map(Some).map_err(ChooseError::Docker),
        RuntimeChoice::Containerd => connect_containerd(options)
            .await
            .map(Some)
            .map_err(ChooseError::Containerd),
        RuntimeChoice::Auto => {
            let docker = match connect_docker(options).await {
                Ok(chosen) => return Ok(Some(chosen)),
                Err(error) => error,
            };
            match connect_containerd(options).await {
                Ok(chosen) => {
                    tracing::info!(%docker, "Docker does not answer, containerd does");
                    Ok(Some(chosen))
                }
                Err(containerd) => Err(ChooseError::Neither { docker, containerd }),
            }
        }
    }
}

/// The images of the chosen engine, without a thing for pods, and the address that answered; None with
/// [`RuntimeChoice::None`].
pub async fn choose_images(options: &RuntimeOptions) -> Result<Option<(Arc<dyn ImageStore>, String)>, ChooseError> {
    let of_docker = async || {
        let endpoint = docker_endpoint(options);
        let store = docker::connect_images(&endpoint, &options.cluster_id).await?;
        Ok((store, endpoint))
    };
    let of_containerd = async || {
        let daemon = containerd_options(options);
        let address = daemon.address.clone();
        Ok((containerd::connect_images(daemon).await?, address))
    };
    match options.choice {
        RuntimeChoice::None => Ok(None),
        RuntimeChoice::Docker => of_docker().await.map(Some).map_err(ChooseError::Docker),
        RuntimeChoice::Containerd => of_containerd().await.map(Some).map_err(ChooseError::Containerd),
        RuntimeChoice::Auto => match of_docker().await {
            Ok(found) => Ok(Some(found)),
            Err(docker) => match of_containerd().await {
                Ok(found) => Ok(Some(found)),
                Err(containerd) => Err(ChooseError::Neither { docker, containerd }),
            },
        },
    }
}

fn docker_endpoint(options: &RuntimeOptions) -> String {
    options
        .docker_host
        .clone()
        .or_else(|| std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()))
        .unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_string())
}

fn containerd_options(options: &RuntimeOptions) -> containerd::Options {
    let or = |set: &Option<String>, default: &str| set.clone().unwrap_or_else(|| default.to_string());
    containerd::Options {
        address: or(&options.containerd_address, DEFAULT_CONTAINERD_ADDRESS),
        namespace: or(&options.containerd_namespace, containerd::DEFAULT_NAMESPACE),
        image_namespaces: options.containerd_image_namespaces.clone(),
        cluster_id: options.cluster_id.clone(),
        state_dir: options.state_dir.clone(),
        pod_range: or(&options.pod_range, containerd::DEFAULT_POD_RANGE),
        pod_bridge: or(&options.pod_bridge, containerd::DEFAULT_POD_BRIDGE),
        registries_dir: match &options.registries_dir {
            Some(directory) => directory.clone(),
            None => containerd::DEFAULT_REGISTRIES_DIR.into(),
        },
        logger: None,
    }
}

async fn connect_docker(options: &RuntimeOptions) -> Result<Chosen> {
    let endpoint = docker_endpoint(options);
    let runtime: Arc<dyn Runtime> = docker::connect(&endpoint, &options.cluster_id).await?;
    chosen(runtime, endpoint).await
}

async fn connect_containerd(options: &RuntimeOptions) -> Result<Chosen> {
    let daemon = containerd_options(options);
    let address = daemon.address.clone();
    let runtime = containerd::connect(daemon).await?;
    chosen(runtime, address).await
}

async fn chosen(runtime: Arc<dyn Runtime>, endpoint: String) -> Result<Chosen> {
    let version = runtime.version().await?;
    Ok(Chosen {
        runtime,
        version,
        endpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(choice: RuntimeChoice) -> RuntimeOptions {
        RuntimeOptions {
            choice,
            cluster_id: "test".into(),
            docker_host: Some("unix:///nonexistent/docker.sock".into()),
            containerd_address: Some("/nonexistent/containerd.sock".into()),
            containerd_namespace: None,
            containerd_image_namespaces: Vec::new(),
            pod_range: None,
            pod_bridge: None,
            registries_dir: None,
            state_dir: "/nonexistent".into(),
        }
    }

    #[test]
    fn choices_round_trip_and_name_what_is_allowed() {
        for choice in [
            RuntimeChoice::Docker,
            RuntimeChoice::Containerd,
            RuntimeChoice::Auto,
            RuntimeChoice::None,
        ] {
            assert_eq!(choice.to_string().parse::<RuntimeChoice>(), Ok(choice));
        }
        let error = "podman".parse::<RuntimeChoice>().unwrap_err();
        assert!(
            error.contains("podman") && error.contains(RuntimeChoice::ALLOWED),
            "{error}"
        );
    }

    #[tokio::test]
    async fn none_needs_no_engine() {
        assert!(choose(&options(RuntimeChoice::None)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn errors_name_the_endpoint_and_the_way_out() {
        let error = choose(&options(RuntimeChoice::Docker)).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/docker.sock"), "{error}");
        assert!(error.contains("DOCKER_HOST"), "{error}");
        let error = choose(&options(RuntimeChoice::Auto)).await.unwrap_err();
        assert!(matches!(error, ChooseError::Neither { .. }));
        let error = error.to_string();
        assert!(
            error.contains("/nonexistent/docker.sock") && error.contains("--runtime none"),
            "{error}"
        );
    }
}
