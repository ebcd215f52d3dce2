//! What every cluster has.

use crate::cluster::{Cluster, eventually};
use crate::resource::items;
use crate::runner::{Test, test};
use crate::support::hollow::Hollow;
use krust::client::informer::Informers;
use kube::api::ListParams;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub fn tests() -> Vec<Test> {
    vec![test(
        "[sig-architecture] Conformance Tests should have at least two untainted nodes",
        untainted_nodes,
    )]
}

/// On a server of its own, so that nobody else's pods go to these nodes.
async fn untainted_nodes(_: Cluster) {
    let cluster = Cluster::start_with(&[]).await;
    let hollow = Hollow::new(2, 110);
    hollow.register(&cluster.client()).await.unwrap();
    let stop = CancellationToken::new();
    let (player, client, ends) = (hollow.clone(), cluster.client(), stop.clone());
    let informers = Informers::new(client.clone(), stop.clone());
    let playing = tokio::spawn(async move { player.run(client, &informers, Duration::from_millis(15), ends).await });
    // They come tainted, and lose that when they are found ready.
    let nodes = cluster.core("nodes", None);
    let found = eventually("two nodes take pods", async || {
        let list = nodes.list(&ListParams::default()).await.unwrap();
        let free: Vec<String> = items(&list)
            .into_iter()
            .filter(|node| {
                let blocks = |taint: &serde_json::Value| taint["effect"] != "PreferNoSchedule";
                let taints = node["spec"]["taints"].as_array();
                node["spec"]["unschedulable"] != true
                    && crate::pods::condition(node, "Ready") == "True"
                    && !taints.into_iter().flatten().any(blocks)
            })
            .map(|node| node["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        (free.len() >= 2).then_some(free)
    })
    .await;
    assert_eq!(found, hollow.names);
    stop.cancel();
    playing.await.unwrap();
}
