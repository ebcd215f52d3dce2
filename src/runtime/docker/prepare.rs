//! What the first pod needs from the engine: the pause image, and which oom scores may be set.

use super::super::pause::{self, Architecture};
use super::{Engine, Result, failed, labels, root_cause, status};
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder, RemoveContainerOptions};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Upstream's score for sandboxes (`PodInfraOOMAdj`).
pub const SANDBOX_OOM_SCORE_ADJ: i64 = -998;

/// What was found out, once.
#[derive(Default)]
pub(super) struct Prepared {
    pause_image: OnceCell<String>,
    negative_oom_scores: OnceCell<bool>,
}

impl Prepared {
    /// Finds everything out before a pod asks. What fails here is tried again, and told, when a pod asks.
    pub async fn ahead(&self, engine: &Engine) {
        if let Err(error) = remove_left_probes(engine).await {
            tracing::debug!(%error, "probes of an earlier start stay");
        }
        if let Err(error) = self.negative_oom_scores(engine).await {
            tracing::warn!(%error, "cannot prepare the engine for pods yet");
        }
    }

    /// Reference of the pause image, which is imported if it is absent.
    pub async fn pause_image(&self, engine: &Engine) -> Result<&str> {
        self.pause_image
            .get_or_try_init(|| import(engine, false))
            .await
            .map(String::as_str)
    }

    /// Imports the pause image although it was there: somebody has removed it.
    pub async fn restore_pause_image(&self, engine: &Engine) -> Result<()> {
        import(engine, true).await.map(drop)
    }

    /// Whether the engine may make processes less likely to be killed than itself. It may not where it runs without
    /// CAP_SYS_RESOURCE; the kernel says so only when a container starts, hence the trial.
    pub async fn negative_oom_scores(&self, engine: &Engine) -> Result<bool> {
        let found = self.negative_oom_scores.get_or_try_init(|| async {
            let image = self.pause_image(engine).await?;
            let Err(refused) = try_start(engine, image, SANDBOX_OOM_SCORE_ADJ).await else {
                return Ok(true);
            };
            // Only if the same starts without a score was it the score.
            try_start(engine, image, 0).await?;
            tracing::warn!(
                %refused,
                "Docker may not set negative oom scores (it lacks CAP_SYS_RESOURCE): they are set to 0 from here on, \
                 so guaranteed pods are not spared when memory runs out"
            );
            Ok(false)
        });
        found.await.copied()
    }

    /// The answer of `negative_oom_scores` if it is known already.
    pub fn negative_oom_scores_known(&self) -> Option<bool> {
        self.negative_oom_scores.get().copied()
    }
}

async fn import(engine: &Engine, even_if_present: bool) -> Result<String> {
    let architecture = Architecture::parse(&engine.architecture).ok_or_else(|| {
        let message = format!(
            "there is no pause program for the architecture {:?}",
            engine.architecture
        );
        failed("import", "pause image", message)
    })?;
    let reference = pause::reference(architecture);
    if !even_if_present && super::images::inspect(engine, &reference).await?.is_some() {
        return Ok(reference);
    }
    let layer = pause::layer(architecture).map_err(|error| failed("import", &reference, error.to_string()))?;
    let (repository, tag) = reference.split_once(':').unwrap_or((&reference, "latest"));
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .changes(vec![format!("ENTRYPOINT [\"{}\"]", pause::PATH)])
        .build();
    let body = bollard::body_full(Bytes::from(layer));
    engine
        .docker
        .create_image(Some(options), Some(body), None)
        .try_collect::<Vec<_>>()
        .await
        .map_err(|error| engine.error("import", "image", &reference, error))?;
    tracing::debug!(image = reference, "pause image imported");
    Ok(reference)
}

/// Starts and removes a pause container.
async fn try_start(engine: &Engine, image: &str, oom_score_adj: i64) -> Result<()> {
    let host = HostConfig {
        oom_score_adj: Some(oom_score_adj),
        ..Default::default()
    };
    let id = create_probe(engine, image, host).await?;
    let started = engine
        .docker
        .start_container(&id, None::<bollard::query_parameters::StartContainerOptions>)
        .await
        .map_err(|error| engine.error("start", "container", &id, error));
    remove_probe(engine, &id).await;
    started
}

/// A container without a network that lives shortly, if it starts at all. One that is left is removed at the next start.
pub(super) async fn create_probe(engine: &Engine, image: &str, host: HostConfig) -> Result<String> {
    let name = format!("krust_probe_{}", uuid::Uuid::new_v4());
    let body = ContainerCreateBody {
        image: Some(image.to_string()),
        // An image of nothing but files has no command of its own.
        cmd: Some(vec!["none".to_string()]),
        labels: Some(HashMap::from([
            (labels::CLUSTER.to_string(), engine.cluster_id.clone()),
            (labels::TYPE.to_string(), labels::TYPE_PROBE.to_string()),
        ])),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_string()),
            ..host
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let created = engine.docker.create_container(Some(options), body).await;
    created
        .map(|created| created.id)
        .map_err(|error| engine.error("create", "image", image, error))
}

async fn remove_left_probes(engine: &Engine) -> Result<()> {
    let left = status::list_by_type(engine, labels::TYPE_PROBE).await?;
    futures_util::stream::iter(left.iter().filter_map(|probe| probe.id.as_deref()))
        .for_each(|id| remove_probe(engine, id))
        .await;
    Ok(())
}

/// Tries again for two minutes when the engine does not do it, since it may be about to restart.
pub(super) async fn remove_probe(engine: &Engine, id: &str) {
    let Err(error) = try_to_remove(&engine.docker, id).await else {
        return;
    };
    tracing::debug!(error = root_cause(&error), id, "a probe cannot be removed yet");
    let (docker, id) = (engine.docker.clone(), id.to_owned());
    tokio::spawn(async move {
        for seconds in [1, 2, 4, 8, 16, 32, 64] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if try_to_remove(&docker, &id).await.is_ok() {
                return;
            }
        }
        tracing::debug!(id, "a probe stays until the next start");
    });
}

/// What is gone is fine.
pub(super) async fn try_to_remove(
    docker: &bollard::Docker,
    id: &str,
) -> std::result::Result<(), bollard::errors::Error> {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..Default::default()
    };
    match docker.remove_container(id, Some(options)).await {
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        removed => removed,
    }
}
