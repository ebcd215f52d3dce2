//! Mirrors Endpoints that people keep by hand into EndpointSlices (upstream: `pkg/controller/endpointslicemirroring`).

mod plan;

use super::Context;
use super::endpointslice::write::{WriteError, Writer, is_managed_by};
use crate::client::ObjectKey;
use crate::client::endpoint_slices::service_of;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::managed_by::ENDPOINT_SLICE_MIRRORING_CONTROLLER as MANAGER;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use plan::{ADDRESSES_MAX, is_mirrored, may_be_mirrored, plan, without_selector};

const NAME: &str = "endpointslicemirroring-controller";
const WORKERS: usize = 5;

struct Controller {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    by_service: Index<EndpointSlice>,
    writer: Writer,
    recorder: Recorder,
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let slices = ctx.informers.of::<EndpointSlice>();
    let controller = Controller {
        services: ctx.informers.of::<Service>(),
        endpoints: ctx.informers.of::<Endpoints>(),
        by_service: slices.index(|slice| {
            let ours = service_of(slice).filter(|_| is_managed_by(slice, MANAGER));
            ours.map(|service| service.to_string()).into_iter().collect()
        }),
        slices,
        writer: Writer::new(ctx.client(NAME)),
        recorder: ctx.recorder_as(NAME, "endpoint-slice-mirroring-controller"),
    };
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("endpointslicemirroring");
    controller.subscribe(&queue);
    let synced = async {
        tokio::join!(
            controller.services.synced(),
            controller.endpoints.synced(),
            controller.slices.synced()
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    queue.run(WORKERS, &ctx.shutdown, |key| controller.sync(key)).await;
}

impl Controller {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>) {
        let tell = queue.clone();
        self.services.on_change(move |change| {
            let by_hand = change.each().filter(|service| without_selector(service));
            by_hand.for_each(|service| tell.add(ObjectKey::of(&**service)));
        });
        let tell = queue.clone();
        self.endpoints.on_change(move |change| {
            let by_hand = change.each().filter(|endpoints| may_be_mirrored(endpoints));
            by_hand.for_each(|endpoints| tell.add(ObjectKey::of(&**endpoints)));
        });
        let tell = queue.clone();
        self.slices.on_change(move |change| {
            let ours = change.each().filter(|slice| is_managed_by(slice, MANAGER));
            ours.filter_map(|slice| service_of(slice))
                .for_each(|service| tell.add(service));
        });
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, WriteError> {
        if !self.writer.is_seen(&key, &self.slices) {
            return Ok(Next::Retry);
        }
        let mut slices = self.by_service.get(&key.to_string());
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        let service = self.services.get_key(&key);
        let endpoints = self.endpoints.get_key(&key);
        let Some(endpoints) = endpoints.filter(|endpoints| is_mirrored(endpoints, service.as_deref())) else {
            self.writer.write(&key, &[], &[], &slices).await?;
            return Ok(Next::Done);
        };
        let plan = plan(&endpoints, &slices);
        if plan.invalid > 0 {
            let count = plan.invalid;
            let message = format!("Skipped {count} invalid IP addresses when mirroring to EndpointSlices");
            self.recorder
                .event(&*endpoints, Level::Warning, "InvalidIPAddress", message);
        }
        if plan.skipped > plan.invalid {
            let message = format!(
                "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} \
                 addresses were skipped",
                plan.skipped
            );
            self.recorder
                .event(&*endpoints, Level::Warning, "TooManyAddressesToMirror", message);
        }
        self.writer
            .write(&key, &plan.create, &plan.update, &plan.delete)
            .await?;
        Ok(Next::Done)
    }
}
