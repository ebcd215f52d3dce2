//! Keeps the Endpoints of Services with a selector (upstream: `pkg/controller/endpoint`).
//!
//! - [`subsets`]: their one form.
//! - [`plan`]: what they are to say.

pub mod plan;
mod subsets;

pub use subsets::addresses_of;

use super::Context;
use super::expectations::Expectations;
use super::pods::{is_namespace_terminating, message_of};
use super::service_endpoints::{Members, Seen, selector};
use crate::client::ObjectKey;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use plan::{LEADER, Step, next_step};
use std::collections::HashMap;

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 5;

#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} the Endpoints {key}: {source}")]
struct WriteError {
    verb: &'static str,
    key: ObjectKey,
    source: kube::Error,
}

struct Controller {
    client: Client,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    members: Members,
    seen: Mutex<HashMap<ObjectKey, Seen>>,
    written: Expectations,
    recorder: Recorder,
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let (services, pods) = (ctx.informers.of::<Service>(), ctx.informers.of::<Pod>());
    let controller = Controller {
        client: ctx.client(NAME),
        members: Members::new(&services, &pods),
        services,
        endpoints: ctx.informers.of::<Endpoints>(),
        seen: Mutex::default(),
        written: Expectations::default(),
        recorder: ctx.recorder(NAME),
    };
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("endpoint");
    let tell = queue.clone();
    controller.services.on_change(move |change| {
        let service = change.object().into_iter();
        service.for_each(|service| tell.add(ObjectKey::of(&**service)));
    });
    controller.members.feed(&queue);
    let synced = async {
        tokio::join!(
            controller.services.synced(),
            pods.synced(),
            controller.endpoints.synced()
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    // What lost its Service while nobody looked goes now, and only now: later ones may be made before their Service.
    let leftover = controller.endpoints.list();
    let leftover = leftover.iter().filter(|one| !one.annotations().contains_key(LEADER));
    leftover.for_each(|one| queue.add(ObjectKey::of(&**one)));
    let (tell, services) = (queue.clone(), controller.services.clone());
    controller.endpoints.on_change(move |change: &Change<Endpoints>| {
        let key = change.object().map(|endpoints| ObjectKey::of(&**endpoints));
        key.filter(|key| {
            services
                .get_key(key)
                .is_some_and(|service| selector(&service).is_some())
        })
        .into_iter()
        .for_each(|key| tell.add(key));
    });
    queue.run(WORKERS, &ctx.shutdown, |key| controller.sync(key)).await;
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, WriteError> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(service) = self.services.get_key(&key) else {
            self.seen.lock().remove(&key);
            self.written.forget(&key);
            self.members.forget(&key);
            return match api.delete(&key.name, &DeleteParams::default()).await {
                Ok(_) => Ok(Next::Done),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
                Err(source) => Err(WriteError {
                    verb: "delete",
                    key,
                    source,
                }),
            };
        };
        if selector(&service).is_none() {
            return Ok(Next::Done);
        }
        if !self.written.fulfilled(&key, &self.endpoints) {
            return Ok(Next::Retry);
        }
        let pods = self.members.pods_of(&service);
        let trigger = self.seen.lock().entry(key.clone()).or_default().look(&service, &pods);
        let current = self.endpoints.get_key(&key);
        let (verb, wanted, written) = match next_step(&service, &pods, current.as_deref(), trigger) {
            Step::Nothing => return Ok(Next::Done),
            Step::Create(new) => ("create", api.create(&PostParams::default(), &new).await, new),
            Step::Update(new) => (
                "update",
                api.replace(&key.name, &PostParams::default(), &new).await,
                new,
            ),
        };
        let source = match wanted {
            Ok(endpoints) => {
                self.written.written(&key, &endpoints);
                return Ok(Next::Done);
            }
            // Nothing can be created there any more.
            Err(error) if verb == "create" && is_namespace_terminating(&error) => return Ok(Next::Done),
            Err(error) => error,
        };
        if !matches!(&source, kube::Error::Api(status) if status.code == 409) {
            let (reason, what) = match verb {
                "create" => ("FailedToCreateEndpoint", "create endpoint for service"),
                _ => ("FailedToUpdateEndpoint", "update endpoint"),
            };
            let message = format!("Failed to {what} {key}: {}", message_of(&source));
            self.recorder.event(&*written, Level::Warning, reason, message);
        }
        Err(WriteError { verb, key, source })
    }
}
