//! The calls that keep a history of templates; what is to be done says [`super::history`]
//! (upstream: `realHistory` in `pkg/controller/history`).

use super::history::{self, Candidate};
use crate::client::informer::Informer;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use std::sync::Arc;

/// Revisions as one controller reads and writes them.
pub struct Revisions {
    client: Client,
    pub cache: Informer<ControllerRevision>,
}

impl Revisions {
    pub fn new(client: Client, cache: Informer<ControllerRevision>) -> Self {
        Self { client, cache }
    }

    pub fn api(&self, namespace: &str) -> Api<ControllerRevision> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates the revision, unless it is there already. None if its name is taken by another one: the collisions are
    /// to be counted up.
    pub async fn create(
        &self,
        candidate: &Candidate,
        collisions: i32,
    ) -> kube::Result<Option<Arc<ControllerRevision>>> {
        let api = self.api(&candidate.namespace);
        let revision = candidate.revision(collisions);
        let taken = match api.create(&PostParams::default(), &revision).await {
            Ok(created) => return Ok(Some(self.shown(created).await)),
            Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => {
                api.get(&revision.name_any()).await?
            }
            Err(error) => return Err(error),
        };
        Ok((taken.data == revision.data).then(|| Arc::new(taken)))
    }

    /// Makes a revision the newest.
    pub async fn renumber(&self, revision: &ControllerRevision, number: i64) -> kube::Result<Arc<ControllerRevision>> {
        if history::number(revision) == number {
            return Ok(Arc::new(revision.clone()));
        }
        let mut newest = revision.clone();
        newest.revision = Some(number);
        self.replace(newest).await
    }

    pub async fn replace(&self, revision: ControllerRevision) -> kube::Result<Arc<ControllerRevision>> {
        let api = self.api(&revision.namespace().unwrap_or_default());
        let written = api
            .replace(&revision.name_any(), &PostParams::default(), &revision)
            .await?;
        Ok(self.shown(written).await)
    }

    pub async fn delete(&self, revision: &ControllerRevision) -> kube::Result<()> {
        let api = self.api(&revision.namespace().unwrap_or_default());
        match api.delete(&revision.name_any(), &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whoever comes next finds in the cache what was written.
    async fn shown(&self, written: ControllerRevision) -> Arc<ControllerRevision> {
        let version = written.metadata.resource_version.as_deref().unwrap_or_default();
        self.cache.seen(version).await;
        Arc::new(written)
    }
}
