//! Other processes of krust beside its own container, for what has to be done in the network of the engine's host (upstream:
//! kube-proxy's DaemonSet, whose pods have the host's network).

use super::own_container::own_container;
use super::{Companion, Engine, Result, failed, files, is_not_found, labels, prepare};
use bollard::models::{ContainerCreateBody, HostConfig, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder};
use std::collections::HashMap;

/// Until it is killed.
const GRACE_SECONDS: i32 = 5;

pub(super) async fn start(engine: &Engine, companion: &Companion) -> Result<bool> {
    let Some(own) = own_container(engine).await? else {
        return Ok(false);
    };
    let name = name(engine, companion.name);
    // The path is that of the image, which is the same.
    let program = std::env::current_exe().map_err(|error| failed("start", &name, error.to_string()))?;
    remove(engine, &name).await?;
    let body = ContainerCreateBody {
        image: own.image.clone(),
        entrypoint: Some(vec![program.display().to_string()]),
        cmd: Some(companion.arguments.clone()),
        labels: Some(HashMap::from([
            (labels::CLUSTER.to_string(), engine.cluster_id.clone()),
            (labels::TYPE.to_string(), labels::TYPE_COMPANION.to_string()),
        ])),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_string()),
            cap_add: Some(vec!["NET_ADMIN".to_string()]),
            // Settings of the network lie in /proc/sys.
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ON_FAILURE),
                maximum_retry_count: Some(3),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let created = engine.docker.create_container(Some(options), body).await;
    let id = created
        .map_err(|error| engine.error("create", "container", &name, error))?
        .id;
    let (file, content) = &companion.file;
    files::upload(engine, &id, "/", &[files::Entry::file(file, 0o600, content)]).await?;
    let started = engine.docker.start_container(&id, None::<StartContainerOptions>).await;
    started.map_err(|error| engine.error("start", "container", &name, error))?;
    Ok(true)
}

pub(super) async fn stop(engine: &Engine, companion: &str) -> Result<()> {
    let name = name(engine, companion);
    let options = StopContainerOptionsBuilder::default().t(GRACE_SECONDS).build();
    match engine.docker.stop_container(&name, Some(options)).await {
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(engine.error("stop", "container", &name, error)),
        Ok(()) => remove(engine, &name).await,
    }
}

async fn remove(engine: &Engine, name: &str) -> Result<()> {
    let removed = prepare::try_to_remove(&engine.docker, name).await;
    removed.map_err(|error| engine.error("remove", "container", name, error))
}

fn name(engine: &Engine, companion: &str) -> String {
    format!("krust_{companion}_{}", engine.cluster_id)
}
