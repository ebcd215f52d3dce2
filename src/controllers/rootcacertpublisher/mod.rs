//! Every namespace has the certificate of the cluster's authority in `kube-root-ca.crt`, which pods mount beside their
//! token (upstream: `pkg/controller/certificates/rootcacertpublisher`).

mod plan;

use super::Context;
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use plan::Step;

const NAME: &str = "root-ca-cert-publisher";
const WORKERS: usize = 2;

#[derive(Debug, thiserror::Error)]
#[error("publishing the root certificate in {namespace}: {source}")]
struct Error {
    namespace: String,
    source: kube::Error,
}

/// Runs until shutdown.
pub async fn run(ctx: &Context) {
    let (namespaces, maps) = (ctx.informers.of::<Namespace>(), ctx.informers.of::<ConfigMap>());
    // Before it is known what is there, nothing is missing.
    let synced = async {
        tokio::join!(namespaces.synced(), maps.synced());
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    let queue: WorkQueue<String> = WorkQueue::new("rootcacertpublisher");
    let of_namespaces = queue.clone();
    namespaces.on_change(move |change| {
        if let Some(namespace) = &change.new {
            of_namespaces.add(namespace.name_any());
        }
    });
    let of_maps = queue.clone();
    maps.on_change(move |change| {
        let map = change
            .object()
            .filter(|map| map.metadata.name.as_deref() == Some(plan::NAME));
        if let Some(map) = map {
            of_maps.add(map.namespace().unwrap_or_default());
        }
    });
    let (client, certificate) = (ctx.client(NAME), ctx.pki.authority_pem());
    let publish = |namespace: String| {
        let (namespaces, maps, client) = (&namespaces, &maps, &client);
        async move {
            let exists = namespaces.get("", &namespace);
            if exists.is_none_or(|exists| exists.metadata.deletion_timestamp.is_some()) {
                return Ok(Next::Done);
            }
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
            let done = match plan::step(maps.get(&namespace, plan::NAME).as_deref(), certificate) {
                Step::Nothing => return Ok(Next::Done),
                Step::Create(map) => api.create(&PostParams::default(), &map).await,
                Step::Update(map) => api.replace(plan::NAME, &PostParams::default(), &map).await,
            };
            match done {
                Ok(_) => Ok(Next::Done),
                // Somebody was faster, or it has gone: the change is on its way, and comes here.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Next::Done),
                Err(error) if super::pods::is_namespace_terminating(&error) => Ok(Next::Done),
                Err(source) => Err(Error { namespace, source }),
            }
        }
    };
    queue.run(WORKERS, &ctx.shutdown, publish).await;
}
