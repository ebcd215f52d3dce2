//! metrics.k8s.io, answered from what the kubelets say of their nodes and pods (upstream: metrics-server's `pkg/api`,
//! `pkg/scraper/client/resource`). Nothing is collected unless somebody asks: a kubelet knows by itself what was used
//! lately, so that a pod is there within a second of its start.

mod convert;

use super::codec::accept::Shape;
use super::context::Context;
use super::error::{ApiError, Subject};
use super::handlers::list::{self, Page};
use super::handlers::render;
use super::handlers::selection::Selection;
use super::options::ListOptions;
use super::subresources::connect::node;
use crate::registry::strategy::Object;
use crate::registry::{Kind, index_of, resource_metrics};
use crate::storage::{Entry, Key};
use crate::transport::dial::{KubeletClient, empty_body};
use convert::Summary;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Limited};
use poem::Response;
use poem::http::{Request, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const PODS: Subject<'static> = Subject {
    group: "",
    resource: "pods",
};
/// As metrics-server names what it does not find.
const POD_METRICS: Subject<'static> = Subject {
    group: resource_metrics::GROUP,
    resource: "podmetrics",
};
const NODE_METRICS: Subject<'static> = Subject {
    group: resource_metrics::GROUP,
    resource: "nodemetrics",
};

const SUMMARY_PATH: &str = "/stats/summary?only_cpu_and_memory=true";
/// The most that is read of what a kubelet says.
const SUMMARY_BYTES_MAX: usize = 64 << 20;
/// A kubelet that takes longer is left out, as by metrics-server.
const KUBELET_TIMEOUT: Duration = Duration::from_secs(10);
/// Kubelets that are asked at the same time.
const KUBELETS_MAX: usize = 32;

/// Whether objects of the kind are made here instead of being stored.
pub fn is_metrics(kind: &Kind) -> bool {
    kind.group == resource_metrics::GROUP
}

pub async fn handle(ctx: &Context, kind: &Arc<Kind>) -> Result<Response, ApiError> {
    if ctx.info.verb == "list" {
        let negotiated = ctx.negotiate(Shape::List)?;
        let options = ListOptions::from_query(&ctx.query, false)?;
        let selection = Selection::new(ctx, kind, &options)?;
        let revision = ctx.storage().revision();
        // Metrics carry names and labels of what they are about: what is selected there is selected here.
        let subjects = ctx.storage().list(kind.resource, ctx.list_namespace(kind), None);
        let subjects = subjects.map_err(ApiError::internal)?.entries;
        let subjects: Vec<_> = subjects
            .iter()
            .filter(|entry| selection.matches(entry))
            .cloned()
            .collect();
        let objects = measure(ctx, kind, &subjects).await;
        let entries = objects.into_iter().map(|object| entry(kind, &object));
        let page = Page::whole(revision, entries.collect::<Result<_, _>>()?);
        return list::respond_page(ctx, kind, &negotiated, &page).await;
    }
    let negotiated = ctx.negotiate(Shape::Object)?;
    let (namespace, name) = (&ctx.info.namespace, &ctx.info.name);
    let subject = ctx.storage().get(kind.resource, namespace, name);
    let missing = if kind.namespaced() { PODS } else { NODE_METRICS };
    let subject = subject.ok_or_else(|| ApiError::not_found(missing, name))?;
    let object = measure(ctx, kind, &[subject]).await.pop();
    let object = object.ok_or_else(|| match kind.namespaced() {
        true => ApiError::not_found(POD_METRICS, &format!("{namespace}/{name}")),
        false => ApiError::not_found(NODE_METRICS, name),
    })?;
    render::object(ctx, kind, &negotiated, StatusCode::OK, object).await
}

/// The metrics of those pods or nodes that there are some of, in the same order.
async fn measure(ctx: &Context, kind: &Kind, subjects: &[Arc<Entry>]) -> Vec<Object> {
    let node_of = |entry: &Entry| match kind.namespaced() {
        false => entry.key.name.to_string(),
        true => {
            let mut fields = entry.index.fields.iter();
            let found = fields.find(|(field, _)| *field == "spec.nodeName");
            found.map(|(_, node)| node.clone()).unwrap_or_default()
        }
    };
    let nodes: BTreeSet<String> = subjects
        .iter()
        .map(|entry| node_of(entry))
        .filter(|node| !node.is_empty())
        .collect();
    let Some(kubelets) = &ctx.server.kubelet_client else {
        return Vec::new();
    };
    let asked: Vec<_> = nodes.into_iter().map(|node| ask(ctx, kubelets, node)).collect();
    let answers: Vec<(String, Option<Summary>)> = futures_util::stream::iter(asked)
        .buffer_unordered(KUBELETS_MAX)
        .collect()
        .await;
    let summaries: BTreeMap<String, Summary> = answers
        .into_iter()
        .filter_map(|(node, summary)| Some((node, summary?)))
        .collect();
    let objects = subjects.iter().filter_map(|entry| {
        let summary = summaries.get(&node_of(entry))?;
        match kind.namespaced() {
            true => summary.pod_metrics(
                &entry.key.namespace,
                &entry.key.name,
                &entry.index.uid,
                &entry.index.labels,
            ),
            false => summary.node_metrics(&entry.key.name, &entry.index.labels),
        }
    });
    objects.collect()
}

async fn ask(ctx: &Context, kubelets: &KubeletClient, node: String) -> (String, Option<Summary>) {
    let answer = tokio::time::timeout(KUBELET_TIMEOUT, fetch(ctx, kubelets, &node)).await;
    let summary = match answer {
        Ok(Ok(summary)) => Some(summary),
        Ok(Err(error)) => {
            tracing::debug!(node, error, "a kubelet did not say what its pods use");
            None
        }
        Err(_) => {
            tracing::debug!(node, "a kubelet takes too long to say what its pods use");
            None
        }
    };
    (node, summary)
}

async fn fetch(ctx: &Context, kubelets: &KubeletClient, node: &str) -> Result<Summary, String> {
    let address = node::address(ctx.storage(), node).map_err(|error| error.message().to_owned())?;
    let request = Request::get(SUMMARY_PATH).body(empty_body());
    let request = request.map_err(|error| error.to_string())?;
    let answer = kubelets
        .request(&address, request)
        .await
        .map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), SUMMARY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn entry(kind: &Kind, object: &Object) -> Result<Arc<Entry>, ApiError> {
    let metadata = &object["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    Ok(Arc::new(Entry {
        key: Key::new(kind.storage_resource, text("namespace"), text("name")),
        revision: 0,
        bytes: serde_json::to_vec(object).map_err(ApiError::internal)?.into(),
        index: index_of(kind, object),
    }))
}
