//! ConfigMaps and Secrets that a pod refers to, fetched before they are needed
//! (upstream: `pkg/kubelet/{configmap,secret}`).

use crate::kubelet::container::ConfigError;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::Api;
use std::collections::{BTreeMap, BTreeSet};

/// Names of the objects that something refers to, all in the pod's namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl References {
    /// Those of a container's environment.
    pub fn add_environment(&mut self, container: &Container) {
        for from in container.env_from.as_deref().unwrap_or_default() {
            self.config_maps
                .extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            self.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            self.config_maps
                .extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            self.secrets
                .extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }

    /// Those of a pod's volumes.
    pub fn add_volumes(&mut self, pod: &Pod) {
        for volume in crate::kubelet::pod::spec(pod).volumes.iter().flatten() {
            self.config_maps
                .extend(volume.config_map.as_ref().map(|v| v.name.clone()));
            self.secrets
                .extend(volume.secret.as_ref().and_then(|v| v.secret_name.clone()));
            let projected = volume.projected.iter().flat_map(|v| v.sources.iter().flatten());
            for source in projected {
                self.config_maps
                    .extend(source.config_map.as_ref().map(|v| v.name.clone()));
                self.secrets.extend(source.secret.as_ref().map(|v| v.name.clone()));
            }
        }
    }
}

/// The resourceVersion of each object that was asked for; None is one that does not exist.
#[derive(Debug, Default)]
pub struct Versions {
    pub config_maps: BTreeMap<String, Option<String>>,
    pub secrets: BTreeMap<String, Option<String>>,
}

/// What was found; None is an object that does not exist.
#[derive(Debug, Default)]
pub struct Objects {
    config_maps: BTreeMap<String, Option<ConfigMap>>,
    secrets: BTreeMap<String, Option<Secret>>,
}

impl Objects {
    /// Gets all that is referred to. A missing object is no error here: whoever needs it says so.
    pub async fn fetch(client: &kube::Client, namespace: &str, references: References) -> Result<Self, ConfigError> {
        let mut objects = Self::default();
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        for name in references.config_maps {
            let found = config_maps.get_opt(&name).await;
            let found = found.map_err(|source| ConfigError::Fetch {
                kind: "configmap",
                name: name.clone(),
                source: Box::new(source),
            })?;
            objects.config_maps.insert(name, found);
        }
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for name in references.secrets {
            let found = secrets.get_opt(&name).await;
            let found = found.map_err(|source| ConfigError::Fetch {
                kind: "secret",
                name: name.clone(),
                source: Box::new(source),
            })?;
            objects.secrets.insert(name, found);
        }
        Ok(objects)
    }

    pub fn versions(&self) -> Versions {
        Versions {
            config_maps: versions(&self.config_maps),
            secrets: versions(&self.secrets),
        }
    }

    #[cfg(test)]
    pub fn put_config_map(&mut self, name: &str, object: Option<ConfigMap>) {
        self.config_maps.insert(name.to_owned(), object);
    }

    #[cfg(test)]
    pub fn put_secret(&mut self, name: &str, object: Option<Secret>) {
        self.secrets.insert(name.to_owned(), object);
    }

    /// None if there is no such object; an error if it was not fetched.
    pub fn config_map(&self, name: &str) -> Result<Option<&ConfigMap>, ConfigError> {
        let found = self.config_maps.get(name).map(Option::as_ref);
        found.ok_or_else(|| ConfigError::ObjectNotFound {
            kind: "configmap",
            name: name.to_owned(),
        })
    }

    pub fn secret(&self, name: &str) -> Result<Option<&Secret>, ConfigError> {
        let found = self.secrets.get(name).map(Option::as_ref);
        found.ok_or_else(|| ConfigError::ObjectNotFound {
            kind: "secret",
            name: name.to_owned(),
        })
    }
}

fn versions<K: kube::Resource>(objects: &BTreeMap<String, Option<K>>) -> BTreeMap<String, Option<String>> {
    let version = |object: &Option<K>| {
        object
            .as_ref()
            .and_then(|object| object.meta().resource_version.clone())
    };
    objects
        .iter()
        .map(|(name, object)| (name.clone(), version(object)))
        .collect()
}
