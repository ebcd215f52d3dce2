//! ReplicationControllers: the controller of ReplicaSets for their elder kin (upstream: `pkg/controller/replication`).

use super::{Context, replicaset};
use k8s_openapi::api::core::v1::ReplicationController;

pub async fn run(context: &Context) {
    replicaset::run_for::<ReplicationController>(context).await;
}
