//! What the collector asks of the API server and does to it: metadata only
//! (upstream: `operations.go`, `patch.go`, and client-go's metadata client).

use super::identity::{Identity, Owner, Type, Uid, owners};
use super::plan::Policy;
use crate::client::discovery::{Discovery, Metadata, Resource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the object is not there")]
    NotFound,
    #[error("the object was changed meanwhile")]
    Conflict,
    #[error("nothing is served for {api_version} {kind}")]
    NotServed { api_version: String, kind: String },
    #[error(transparent)]
    Api(kube::Error),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 404 => Self::NotFound,
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            _ => Self::Api(error),
        }
    }
}

/// An object as it is stored now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    pub uid: Uid,
    pub resource_version: String,
    pub owners: Vec<Owner>,
    pub finalizers: Vec<String>,
    pub deleting: bool,
}

impl Latest {
    fn new(metadata: &ObjectMeta) -> Self {
        Self {
            uid: Uid::new(metadata.uid.as_deref().unwrap_or_default()),
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            owners: owners(metadata),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }

    pub fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|name| name == finalizer)
    }
}

/// The objects of a cluster. The real one is [`Server`]; tests have one in memory.
pub trait Cluster: Send + Sync {
    /// Whether objects of a type have namespaces; None if nothing like it is served.
    fn namespaced(&self, kind: &Type) -> impl Future<Output = Option<bool>> + Send;

    /// The object of that name, whatever its uid is.
    fn get(&self, identity: &Identity) -> impl Future<Output = Result<Latest, Failure>> + Send;

    /// Deletes the object of this uid and version.
    fn delete(
        &self,
        identity: &Identity,
        resource_version: &str,
        policy: Policy,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes owners from the object of this uid.
    fn drop_owners(&self, identity: &Identity, owners: &[Uid]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Makes the object of this uid block none of its owners.
    fn unblock(&self, identity: &Identity) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Replaces the finalizers of the object, which must have this version.
    fn set_finalizers(
        &self,
        identity: &Identity,
        resource_version: &str,
        finalizers: &[String],
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A cluster through its API server.
pub struct Server {
    client: Client,
    discovery: Discovery,
}

impl Server {
    pub fn new(client: Client, discovery: Discovery) -> Self {
        Self { client, discovery }
    }

    async fn resource(&self, kind: &Type) -> Option<Arc<Resource>> {
        let resources = self.discovery.current().await;
        resources.by_kind(&kind.api_version, &kind.kind).cloned()
    }

    async fn api(&self, identity: &Identity) -> Result<Api<Metadata>, Failure> {
        let resource = self.resource(&identity.kind).await;
        let resource = resource.ok_or_else(|| Failure::NotServed {
            api_version: identity.kind.api_version.to_string(),
            kind: identity.kind.kind.to_string(),
        })?;
        if resource.namespaced && identity.namespace.is_empty() {
            // Nothing has such a name.
            return Err(Failure::NotFound);
        }
        Ok(resource.api_in(self.client.clone(), &identity.namespace))
    }

    async fn patch(&self, identity: &Identity, patch: &Patch<Value>) -> kube::Result<()> {
        let api = match self.api(identity).await {
            Ok(api) => api,
            Err(Failure::Api(error)) => return Err(error),
            // What is not served has nothing to patch.
            Err(_) => return Ok(()),
        };
        api.patch(&identity.name, &PatchParams::default(), patch)
            .await
            .map(|_| ())
    }

    /// Changes the owners by a strategic patch, or, where the kind has none, by a merge patch of what there is.
    async fn patch_owners(
        &self,
        identity: &Identity,
        strategic: Value,
        change: impl Fn(&mut Vec<Value>),
    ) -> Result<(), Failure> {
        match self.patch(identity, &Patch::Strategic(strategic)).await {
            Err(kube::Error::Api(status)) if status.code == 415 => {}
            result => return Ok(result?),
        }
        let metadata = self.api(identity).await?.get(&identity.name).await?.metadata;
        if Latest::new(&metadata).uid != identity.uid {
            return Err(Failure::NotFound);
        }
        let references = metadata.owner_references.unwrap_or_default();
        let mut references: Vec<Value> = references.iter().map(|reference| json!(reference)).collect();
        change(&mut references);
        let merge = json!({"metadata": {
            "resourceVersion": metadata.resource_version,
            "ownerReferences": references,
        }});
        Ok(self.patch(identity, &Patch::Merge(merge)).await?)
    }
}

fn is_one_of(reference: &Value, owners: &[Uid]) -> bool {
    let uid = Uid::new(reference["uid"].as_str().unwrap_or_default());
    owners.contains(&uid)
}

impl Cluster for Server {
    async fn namespaced(&self, kind: &Type) -> Option<bool> {
        self.resource(kind).await.map(|resource| resource.namespaced)
    }

    async fn get(&self, identity: &Identity) -> Result<Latest, Failure> {
        let found = self.api(identity).await?.get(&identity.name).await?;
        Ok(Latest::new(&found.metadata))
    }

    async fn delete(&self, identity: &Identity, resource_version: &str, policy: Policy) -> Result<(), Failure> {
        let params = DeleteParams {
            propagation_policy: Some(match policy {
                Policy::Background => PropagationPolicy::Background,
                Policy::Foreground => PropagationPolicy::Foreground,
                Policy::Orphan => PropagationPolicy::Orphan,
            }),
            preconditions: Some(Preconditions {
                uid: Some(identity.uid.to_string()),
                resource_version: Some(resource_version.to_owned()),
            }),
            ..DeleteParams::default()
        };
        self.api(identity).await?.delete(&identity.name, &params).await?;
        Ok(())
    }

    async fn drop_owners(&self, identity: &Identity, owners: &[Uid]) -> Result<(), Failure> {
        let dropped = owners
            .iter()
            .map(|uid| json!({"$patch": "delete", "uid": uid.to_string()}));
        let dropped: Vec<Value> = dropped.collect();
        let strategic = json!({"metadata": {"uid": identity.uid.to_string(), "ownerReferences": dropped}});
        self.patch_owners(identity, strategic, |references| {
            references.retain(|reference| !is_one_of(reference, owners));
        })
        .await
    }

    async fn unblock(&self, identity: &Identity) -> Result<(), Failure> {
        let latest = self.get(identity).await?;
        let blocking: Vec<Uid> = (latest.owners.iter().filter(|owner| owner.blocks))
            .map(|owner| owner.uid.clone())
            .collect();
        let freed = blocking
            .iter()
            .map(|uid| json!({"uid": uid.to_string(), "blockOwnerDeletion": false}));
        let freed: Vec<Value> = freed.collect();
        let strategic = json!({"metadata": {"uid": identity.uid.to_string(), "ownerReferences": freed}});
        self.patch_owners(identity, strategic, |references| {
            for reference in references
                .iter_mut()
                .filter(|reference| is_one_of(reference, &blocking))
            {
                reference["blockOwnerDeletion"] = json!(false);
            }
        })
        .await
    }

    async fn set_finalizers(
        &self,
        identity: &Identity,
        resource_version: &str,
        finalizers: &[String],
    ) -> Result<(), Failure> {
        let merge = json!({"metadata": {
            "uid": identity.uid.to_string(), "resourceVersion": resource_version, "finalizers": finalizers,
        }});
        Ok(self.patch(identity, &Patch::Merge(merge)).await?)
    }
}
