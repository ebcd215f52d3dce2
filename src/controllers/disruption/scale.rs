//! How many pods the owners of some pods want (upstream: the finders of `disruption.go`).

use crate::client::informer::{Informer, Informers};
use crate::controllers::int_or_percent::NotAPercentage;
use crate::controllers::{ownership, pods};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::Api;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{self, ApiCapabilities, ApiResource};
use kube::{Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
    #[error("no matches for kind {kind:?} in version {version:?}")]
    NoKind { kind: String, version: String },
    #[error("{}", pods::message_of(.0))]
    Call(#[from] kube::Error),
    #[error("{0}")]
    NotAPercentage(#[from] NotAPercentage),
}

impl Error {
    /// It may be otherwise next time, although nothing changes that would tell.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Call(_))
    }
}

/// The sum over all owners.
pub struct Scale {
    pub replicas: i32,
    /// Some of the pods have no owner.
    pub has_unmanaged: bool,
}

pub struct Scales {
    client: Client,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    deployments: Informer<Deployment>,
    stateful_sets: Informer<StatefulSet>,
}

impl Scales {
    pub fn new(client: Client, informers: &Informers) -> Self {
        Self {
            client,
            controllers: informers.of(),
            replica_sets: informers.of(),
            deployments: informers.of(),
            stateful_sets: informers.of(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(
            self.controllers.synced(),
            self.replica_sets.synced(),
            self.deployments.synced(),
            self.stateful_sets.synced(),
        );
    }

    /// Every owner of `selected` counts once.
    pub async fn of_owners(&self, selected: &[Arc<Pod>]) -> Result<Scale, Error> {
        let mut replicas_of: BTreeMap<String, i32> = BTreeMap::new();
        let mut known: BTreeSet<&str> = BTreeSet::new();
        let mut has_unmanaged = false;
        for pod in selected {
            let Some(owner) = ownership::controller_of(&pod.metadata) else {
                has_unmanaged = true;
                continue;
            };
            if !known.insert(&owner.uid) {
                continue;
            }
            let (uid, replicas) = match self.cached(&pod.metadata) {
                Some(found) => found,
                None => self.asked(&pod.metadata, owner).await?,
            };
            replicas_of.insert(uid, replicas);
        }
        let sum = replicas_of
            .values()
            .fold(0, |sum: i32, replicas| sum.saturating_add(*replicas));
        Ok(Scale {
            replicas: sum,
            has_unmanaged,
        })
    }

    /// Uid and replicas of who controls an object, if it is of a kind that is known here.
    fn cached(&self, object: &ObjectMeta) -> Option<(String, i32)> {
        if let Some(set) = ownership::controller_in(&self.replica_sets, object) {
            let is_of_deployment =
                ownership::controller_of(&set.metadata).is_some_and(|owner| owner.kind == "Deployment");
            if !is_of_deployment {
                return Some((set.uid()?, set.spec.replicas.unwrap_or(1)));
            }
            let deployment = ownership::controller_in(&self.deployments, &set.metadata)?;
            return Some((deployment.uid()?, deployment.spec.replicas.unwrap_or(1)));
        }
        if let Some(set) = ownership::controller_in(&self.stateful_sets, object) {
            return Some((set.uid()?, set.spec.replicas.unwrap_or(1)));
        }
        let controller = ownership::controller_in(&self.controllers, object)?;
        Some((controller.uid()?, controller.spec.as_ref()?.replicas.unwrap_or(1)))
    }

    /// The same from the API server, for any kind that has a scale.
    async fn asked(&self, object: &ObjectMeta, owner: &OwnerReference) -> Result<(String, i32), Error> {
        let none = || Error::NoController(object.name.clone().unwrap_or_default());
        let (resource, capabilities) = self.discovered(owner).await?;
        let namespace = object.namespace.as_deref().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let scale = match api.get_scale(&owner.name).await {
            Ok(scale) => scale,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let has_scale = capabilities
                    .subresources
                    .iter()
                    .any(|(subresource, _)| subresource.plural.ends_with("/scale") || subresource.plural == "scale");
                return Err(match has_scale {
                    true => none(),
                    false => Error::NoScale(group_resource(&resource)),
                });
            }
            Err(error) => return Err(error.into()),
        };
        let uid = scale.metadata.uid.clone().unwrap_or_default();
        if uid != owner.uid {
            return Err(none());
        }
        Ok((uid, scale.spec.and_then(|spec| spec.replicas).unwrap_or(0)))
    }

    async fn discovered(&self, owner: &OwnerReference) -> Result<(ApiResource, ApiCapabilities), Error> {
        let (group, version) = owner
            .api_version
            .split_once('/')
            .unwrap_or(("", owner.api_version.as_str()));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        match discovery::pinned_kind(&self.client, &kind).await {
            Ok(found) => Ok(found),
            Err(kube::Error::Api(status)) if status.code != 404 => Err(kube::Error::Api(status).into()),
            Err(kube::Error::Api(_) | kube::Error::Discovery(_)) => Err(Error::NoKind {
                kind: owner.kind.clone(),
                version: owner.api_version.clone(),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

fn group_resource(resource: &ApiResource) -> String {
    match resource.group.as_str() {
        "" => resource.plural.clone(),
        group => format!("{}.{group}", resource.plural),
    }
}
