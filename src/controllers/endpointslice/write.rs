//! Writes slices, and remembers what the cache does not show yet.

use crate::client::informer::Informer;
use crate::client::{self, ObjectKey};
use crate::controllers::expectations::Expectations;
use crate::controllers::pods::is_namespace_terminating;
use crate::managed_by;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {slice} EndpointSlice for {owner}: {source}")]
pub struct WriteError {
    verb: &'static str,
    slice: String,
    owner: ObjectKey,
    pub source: kube::Error,
}

pub struct Writer {
    client: Client,
    written: Expectations,
}

impl Writer {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            written: Expectations::default(),
        }
    }

    /// Whether the cache shows what was written for `owner`.
    pub fn is_seen(&self, owner: &ObjectKey, slices: &Informer<EndpointSlice>) -> bool {
        self.written.fulfilled(owner, slices)
    }

    pub fn forget(&self, owner: &ObjectKey) {
        self.written.forget(owner);
    }

    /// Stops at the first failure; what is left is found by the next look.
    pub async fn write(
        &self,
        owner: &ObjectKey,
        create: &[EndpointSlice],
        update: &[EndpointSlice],
        delete: &[Arc<EndpointSlice>],
    ) -> Result<(), WriteError> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &owner.namespace);
        let failed = |verb: &'static str, slice: &EndpointSlice| {
            let (slice, owner) = (slice.name_any(), owner.clone());
            move |source| WriteError {
                verb,
                slice,
                owner,
                source,
            }
        };
        for slice in create {
            match api.create(&PostParams::default(), slice).await {
                Ok(slice) => self.written.written(owner, &slice),
                // Nothing can be created there any more, and what is there goes.
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(failed("create", slice)(error)),
            }
        }
        for slice in update {
            let written = api.replace(&slice.name_any(), &PostParams::default(), slice).await;
            self.written.written(owner, &written.map_err(failed("update", slice))?);
        }
        for slice in delete {
            let parameters = DeleteParams::default().preconditions(client::only(slice.uid()));
            match api.delete(&slice.name_any(), &parameters).await {
                Ok(_) => self.written.deleted(owner, &**slice),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(failed("delete", slice)(error)),
            }
        }
        Ok(())
    }
}

/// Whether `manager` keeps the slice.
pub fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice
        .labels()
        .get(managed_by::ENDPOINT_SLICES)
        .is_some_and(|by| by == manager)
}
