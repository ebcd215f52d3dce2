//! What the scheduler watches, and how it takes it in (upstream: `eventhandlers.go`).

use super::engine::Engine;
use super::framework::Event;
use super::objects::{Objects, Table};
use crate::client::ObjectKey;
use crate::client::informer::{Change, Informers, Watched};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, DeviceTaintRule, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// One change of anything that is watched.
pub enum News {
    Node(Change<Node>),
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
    Claim(Change<PersistentVolumeClaim>),
    Volume(Change<PersistentVolume>),
    StorageClass(Change<StorageClass>),
    CsiNode(Change<CSINode>),
    CsiDriver(Change<CSIDriver>),
    Capacity(Change<CSIStorageCapacity>),
    Attachment(Change<VolumeAttachment>),
    Budget(Change<PodDisruptionBudget>),
    Service(Change<Service>),
    ReplicationController(Change<ReplicationController>),
    ReplicaSet(Change<ReplicaSet>),
    StatefulSet(Change<StatefulSet>),
    ResourceClaim(Change<ResourceClaim>),
    ResourceSlice(Change<ResourceSlice>),
    DeviceClass(Change<DeviceClass>),
    DeviceTaintRule(Change<DeviceTaintRule>),
}

/// Sends what happens to `news`; the future ends once all lists are in.
pub fn subscribe(informers: &Informers, news: &UnboundedSender<News>) -> impl Future<Output = ()> + use<> {
    // What pods refer to comes first, so that they find it.
    let listed = (
        (
            one(informers, news, News::Namespace),
            one(informers, news, News::Claim),
            one(informers, news, News::Volume),
            one(informers, news, News::StorageClass),
            one(informers, news, News::CsiNode),
            one(informers, news, News::CsiDriver),
            one(informers, news, News::Capacity),
            one(informers, news, News::Attachment),
        ),
        (
            one(informers, news, News::Budget),
            one(informers, news, News::Service),
            one(informers, news, News::ReplicationController),
            one(informers, news, News::ReplicaSet),
            one(informers, news, News::StatefulSet),
            one(informers, news, News::ResourceClaim),
            one(informers, news, News::ResourceSlice),
            one(informers, news, News::DeviceClass),
        ),
        (
            one(informers, news, News::DeviceTaintRule),
            one(informers, news, News::Node),
            one(informers, news, News::Pod),
        ),
    );
    async move {
        let (a, b, c) = listed;
        tokio::join!(a.0, a.1, a.2, a.3, a.4, a.5, a.6, a.7);
        tokio::join!(b.0, b.1, b.2, b.3, b.4, b.5, b.6, b.7);
        tokio::join!(c.0, c.1, c.2);
    }
}

fn one<K: Watched>(
    informers: &Informers,
    news: &UnboundedSender<News>,
    wrap: fn(Change<K>) -> News,
) -> impl Future<Output = ()> + use<K> {
    let informer = informers.of::<K>();
    let news = news.clone();
    informer.on_change(move |change: &Change<K>| {
        // The receiver is gone at the end only.
        let _ = news.send(wrap(change.clone()));
    });
    async move { informer.synced().await }
}

/// Puts the change into its table.
fn set<K: Watched>(table: impl Fn(&mut Objects) -> &mut Table<K>, engine: &mut Engine, told: &Change<K>) {
    if let Some(object) = told.object() {
        let key = ObjectKey::of(&**object);
        table(&mut engine.objects).set(&key.namespace, &key.name, told.new.clone());
    }
}

impl News {
    pub fn tell(self, engine: &mut Engine, now: Instant) {
        match self {
            News::Node(told) => engine.on_node(told.old.as_deref(), told.new, now),
            News::Pod(told) => engine.on_pod(told.old.as_deref(), told.new, now),
            News::Namespace(told) => {
                let name = told.object().and_then(|namespace| namespace.metadata.name.clone());
                let labels = told
                    .new
                    .map(|namespace| namespace.metadata.labels.clone().unwrap_or_default());
                engine.cache.set_namespace(&name.unwrap_or_default(), labels);
            }
            News::Claim(told) => {
                set(|objects| &mut objects.claims, engine, &told);
                if let Some(new) = &told.new {
                    let old = told.old.as_deref();
                    engine.happened(&Event::Claim { old, new }, now);
                }
            }
            News::Volume(told) => {
                set(|objects| &mut objects.volumes, engine, &told);
                if let Some(new) = &told.new {
                    let old = told.old.as_deref();
                    engine.happened(&Event::Volume { old, new }, now);
                }
            }
            News::StorageClass(told) => {
                set(|objects| &mut objects.storage_classes, engine, &told);
                if let Some(new) = &told.new {
                    let old = told.old.as_deref();
                    engine.happened(&Event::StorageClass { old, new }, now);
                }
            }
            News::CsiNode(told) => {
                set(|objects| &mut objects.csi_nodes, engine, &told);
                if let Some(new) = &told.new {
                    let old = told.old.as_deref();
                    engine.happened(&Event::CsiNode { old, new }, now);
                }
            }
            News::CsiDriver(told) => {
                set(|objects| &mut objects.csi_drivers, engine, &told);
                engine.happened(&Event::CsiDriver, now);
            }
            News::Capacity(told) => {
                set(|objects| &mut objects.capacities, engine, &told);
                if let Some(new) = &told.new {
                    let old = told.old.as_deref();
                    engine.happened(&Event::StorageCapacity { old, new }, now);
                }
            }
            News::Attachment(told) => {
                set(|objects| &mut objects.attachments, engine, &told);
                if told.new.is_none() {
                    engine.happened(&Event::VolumeAttachmentRemoved, now);
                }
            }
            News::Budget(told) => set(|objects| &mut objects.budgets, engine, &told),
            News::Service(told) => set(|objects| &mut objects.services, engine, &told),
            News::ReplicationController(told) => set(|objects| &mut objects.replication_controllers, engine, &told),
            News::ReplicaSet(told) => set(|objects| &mut objects.replica_sets, engine, &told),
            News::StatefulSet(told) => set(|objects| &mut objects.stateful_sets, engine, &told),
            News::ResourceClaim(told) => {
                set(|objects| &mut objects.resource_claims, engine, &told);
                if let Some(uid) = told.object().and_then(|claim| claim.metadata.uid.clone()) {
                    engine.objects.claim_is_shown(&uid, told.new.as_deref());
                }
                let (old, new) = (told.old.as_deref(), told.new.as_deref());
                engine.happened(&Event::ResourceClaim { old, new }, now);
            }
            News::ResourceSlice(told) => {
                set(|objects| &mut objects.resource_slices, engine, &told);
                engine.happened(&Event::ResourceSlice, now);
            }
            // They taint what slices tell of.
            News::DeviceTaintRule(told) => {
                set(|objects| &mut objects.device_taint_rules, engine, &told);
                engine.happened(&Event::ResourceSlice, now);
            }
            News::DeviceClass(told) => {
                set(|objects| &mut objects.device_classes, engine, &told);
                engine.happened(&Event::DeviceClass, now);
            }
        }
    }
}
