//! File systems in memory for a krust that cannot mount where the engine sees it: volumes of the engine, each kept mounted
//! by a container that does nothing (upstream: `emptydir` with the medium `Memory`).

use super::own_container::SharedDirectory;
use super::{DockerRuntime, Engine, Memory, Result, failed, is_conflict, is_not_found, labels, prepare};
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListVolumesOptionsBuilder, RemoveVolumeOptions,
    StartContainerOptions,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Those that are there since before a restart of krust stand for their paths again.
pub(super) async fn find(engine: &Engine, shared: &mut SharedDirectory) -> Result<()> {
    let own = [
        labels::cluster_filter(&engine.cluster_id),
        labels::type_filter(labels::TYPE_MEMORY),
    ];
    let filters = HashMap::from([("label".to_string(), own.to_vec())]);
    let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
    let listed = engine.docker.list_volumes(Some(options)).await;
    let listed = listed.map_err(|error| engine.error("list", "volumes", "volumes", error))?;
    for volume in listed.volumes.into_iter().flatten() {
        if let Some(path) = volume.labels.get(labels::MEMORY_PATH) {
            shared.replace(Path::new(path), Some(volume.mountpoint.into()));
        }
    }
    Ok(())
}

impl DockerRuntime {
    pub(super) fn on_engine(&self, path: &str) -> String {
        match self.shared_directory.read().as_ref() {
            Some(shared) => shared.on_engine(path),
            None => path.to_owned(),
        }
    }

    pub(super) async fn hold_memory(&self, path: &Path, memory: Memory) -> Result<()> {
        let name = self.memory_name(path)?;
        let own: HashMap<String, String> = [
            (labels::CLUSTER, self.engine.cluster_id.as_str()),
            (labels::TYPE, labels::TYPE_MEMORY),
            (labels::MEMORY_PATH, &path.display().to_string()),
        ]
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into();
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            driver: Some("local".to_string()),
            driver_opts: Some(options(memory)),
            labels: Some(own.clone()),
            ..Default::default()
        };
        // One that is there is the answer.
        let volume = self.engine.docker.create_volume(request).await;
        let volume = volume.map_err(|error| self.engine.error("create", "volume", &name, error))?;
        self.hold(&name, own).await?;
        if let Some(shared) = self.shared_directory.write().as_mut() {
            shared.replace(path, Some(PathBuf::from(volume.mountpoint)));
        }
        Ok(())
    }

    /// Its content is there while somebody has it mounted.
    async fn hold(&self, name: &str, own: HashMap<String, String>) -> Result<()> {
        let inspected = self
            .engine
            .docker
            .inspect_container(name, None::<InspectContainerOptions>)
            .await;
        match inspected {
            Ok(found) if found.state.as_ref().is_some_and(|state| state.running == Some(true)) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {
                let body = ContainerCreateBody {
                    image: Some(self.prepared.pause_image(&self.engine).await?.to_string()),
                    labels: Some(own),
                    host_config: Some(HostConfig {
                        network_mode: Some("none".to_string()),
                        mounts: Some(vec![Mount {
                            typ: Some(MountType::VOLUME),
                            source: Some(name.to_string()),
                            target: Some("/memory".to_string()),
                            ..Default::default()
                        }]),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                let options = CreateContainerOptionsBuilder::default().name(name).build();
                match self.engine.docker.create_container(Some(options), body).await {
                    Ok(_) => {}
                    Err(error) if is_conflict(&error) => {}
                    Err(error) => return Err(self.engine.error("create", "container", name, error)),
                }
            }
            Err(error) => return Err(self.engine.error("inspect", "container", name, error)),
        }
        let started = self
            .engine
            .docker
            .start_container(name, None::<StartContainerOptions>)
            .await;
        started.map_err(|error| self.engine.error("start", "container", name, error))
    }

    pub(super) async fn release_memory(&self, path: &Path) -> Result<()> {
        let is_held = |shared: &SharedDirectory| shared.is_replaced(path);
        if !self.shared_directory.read().as_ref().is_some_and(is_held) {
            return Ok(());
        }
        let name = self.memory_name(path)?;
        prepare::try_to_remove(&self.engine.docker, &name)
            .await
            .map_err(|error| self.engine.error("remove", "container", &name, error))?;
        let removed = self
            .engine
            .docker
            .remove_volume(&name, None::<RemoveVolumeOptions>)
            .await;
        match removed {
            Err(error) if !is_not_found(&error) => return Err(self.engine.error("remove", "volume", &name, error)),
            _ => {}
        }
        if let Some(shared) = self.shared_directory.write().as_mut() {
            shared.replace(path, None);
        }
        Ok(())
    }

    /// Of the volume and of its container: engines allow letters, digits, `.`, `_` and `-`.
    fn memory_name(&self, path: &Path) -> Result<String> {
        let below = self
            .shared_directory
            .read()
            .as_ref()
            .and_then(|shared| shared.below(path));
        let below =
            below.ok_or_else(|| failed("mount", &path.display().to_string(), "it is in no shared directory"))?;
        Ok(name(&self.engine.cluster_id, &below))
    }
}

fn name(cluster_id: &str, path: &Path) -> String {
    let escaped = |byte: u8| match byte {
        b'/' => ".".to_string(),
        byte if byte.is_ascii_alphanumeric() || byte == b'-' => char::from(byte).to_string(),
        byte => format!("_{byte:02x}"),
    };
    let path: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .copied()
        .map(escaped)
        .collect();
    format!("krust_{cluster_id}_{path}")
}

fn options(memory: Memory) -> HashMap<String, String> {
    let mut options = vec![format!("mode={:o}", memory.mode)];
    options.extend(memory.size_bytes.map(|size| format!("size={size}")));
    options.extend(memory.group.map(|group| format!("gid={group}")));
    [("type", "tmpfs"), ("device", "tmpfs"), ("o", &options.join(","))]
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_a_name_of_its_own() {
        assert_eq!(
            name("c", Path::new("pods/u-1/volumes/kubernetes.io~empty-dir/v")),
            "krust_c_pods.u-1.volumes.kubernetes_2eio_7eempty-dir.v"
        );
    }

    #[test]
    fn what_the_kernel_is_asked() {
        let memory = Memory {
            size_bytes: Some(4096),
            mode: 0o2777,
            group: Some(7),
        };
        assert_eq!(options(memory)["o"], "mode=2777,size=4096,gid=7");
    }
}
