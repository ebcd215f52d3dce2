//! Empties terminating namespaces and then releases them (upstream: `pkg/controller/namespace`).
//!
//! - [`content`]: deletes what is in a namespace; [`plan`]: what that is and what is left of it.
//! - [`conditions`]: what people are told of it meanwhile.
//! - [`waiting`]: looks again when something of what was left has changed.

mod conditions;
mod content;
mod plan;
mod waiting;

use super::Context;
use crate::client::ObjectKey;
use crate::client::discovery::Discovery;
use crate::client::work_queue::{Next, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::Duration;
use waiting::Waiting;

/// As many as upstream.
const WORKERS: usize = 10;
/// Who was let in before the deletion has written by then.
const LAST_WRITES: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the namespace: {0}")]
    Read(#[source] kube::Error),
    #[error("writing the namespace: {0}")]
    Write(#[source] kube::Error),
    #[error("{0}")]
    Content(String),
}

/// Runs until the context's shutdown.
pub async fn run(context: &Context) {
    let client = context.client("namespace-controller");
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("namespace");
    let added = queue.clone();
    context.informers.of::<Namespace>().on_change(move |change| {
        let was_ours = change.old.as_deref().is_some_and(plan::is_ours);
        if let Some(namespace) = change.new.as_deref()
            && plan::is_ours(namespace)
            && !was_ours
        {
            added.add_after(ObjectKey::of(namespace), LAST_WRITES);
        }
    });
    let controller = Controller {
        namespaces: Api::all(client.clone()),
        discovery: context.discovery.clone(),
        waiting: Waiting::new(client.clone(), queue.clone(), context.shutdown.clone()),
        client,
    };
    queue.run(WORKERS, &context.shutdown, |key| controller.sync(key)).await;
    controller.waiting.stopped().await;
}

struct Controller {
    client: Client,
    namespaces: Api<Namespace>,
    discovery: Discovery,
    waiting: Waiting,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let name = &key.name;
        let namespace = self.namespaces.get_opt(name).await.map_err(Error::Read)?;
        let Some(namespace) = namespace.filter(plan::is_ours) else {
            self.waiting.forget(name);
            return Ok(Next::Done);
        };
        let (resources, failure) = match self.discovery.fresh().await {
            Ok(resources) => {
                let failure = plan::discovery_failure(&resources.stale);
                (resources, failure)
            }
            // What was known before can go in any case.
            Err(error) => (self.discovery.current().await, Some(error.to_string())),
        };
        let since = namespace.metadata.deletion_timestamp.as_ref();
        let content = content::Namespace {
            client: &self.client,
            name,
            since: since.map_or_else(Timestamp::now, |time| time.0),
        };
        let emptied = content.empty(&resources, failure).await;
        let Some(namespace) = self.tell(namespace, &emptied.findings).await? else {
            return Ok(Next::Done);
        };
        let findings = emptied.findings;
        if !emptied.remaining.is_empty() {
            self.waiting.wait(name, emptied.remaining);
        }
        if findings.discovery.is_some() || !findings.failures.is_empty() {
            let failures = findings.discovery.into_iter().chain(findings.failures);
            return Err(Error::Content(failures.collect::<Vec<_>>().join(", ")));
        }
        if findings.remaining.is_empty() {
            self.finalize(namespace).await?;
        }
        Ok(Next::Done)
    }

    /// Writes the conditions if they are others now. None: the namespace is gone.
    async fn tell(
        &self,
        mut namespace: Namespace,
        findings: &conditions::Findings,
    ) -> Result<Option<Namespace>, Error> {
        let uid = namespace.metadata.uid.clone();
        loop {
            let status = namespace.status.get_or_insert_default();
            if !conditions::update(status, findings, Timestamp::now()) {
                return Ok(Some(namespace));
            }
            let name = namespace.metadata.name.clone().unwrap_or_default();
            let params = PostParams::default();
            match self.namespaces.replace_status(&name, &params, &namespace).await {
                Ok(written) => return Ok(Some(written)),
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(Error::Write(error)),
            }
            match self.namespaces.get_opt(&name).await.map_err(Error::Read)? {
                Some(current) if current.metadata.uid == uid => namespace = current,
                _ => return Ok(None),
            }
        }
    }

    /// Takes `kubernetes` out of spec.finalizers, which lets the API server remove the namespace.
    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let uid = namespace.metadata.uid.clone();
        let name = namespace.metadata.name.clone().unwrap_or_default();
        loop {
            let body = plan::without_finalizer(&namespace);
            let params = PostParams::default();
            match self
                .namespaces
                .replace_subresource("finalize", &name, &params, &body)
                .await
            {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 => break,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(Error::Write(error)),
            }
            match self.namespaces.get_opt(&name).await.map_err(Error::Read)? {
                Some(current) if current.metadata.uid == uid => namespace = current,
                _ => break,
            }
        }
        self.waiting.forget(&name);
        Ok(())
    }
}
