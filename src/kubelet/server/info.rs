//! What the kubelet tells about itself and its pods: `/pods`, `/runningpods`, `/healthz`, `/metrics`,
//! `/configz`.

use super::Server;
use super::error::ServerError;
use crate::runtime::SandboxState;
use http::StatusCode;
use poem::Response;
use prometheus::{Encoder as _, TextEncoder};
use serde_json::json;
use std::collections::BTreeMap;

/// Every pod of this node, as a PodList.
pub fn pods(server: &Server) -> Result<Response, ServerError> {
    let pods = server.lookup.pods();
    let items: Vec<_> = pods.iter().map(|pod| pod.as_ref()).collect();
    json_response(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// The pods that the runtime runs, known to the API or not: names and running containers only.
pub async fn running_pods(server: &Server) -> Result<Response, ServerError> {
    let sandboxes = server.runtime.list_pod_sandboxes().await?;
    let mut containers: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for container in server.runtime.list_containers().await? {
        if container.state == crate::runtime::ContainerState::Running {
            let shown = json!({"name": container.name, "image": container.image, "resources": {}});
            containers.entry(container.sandbox_id).or_default().push(shown);
        }
    }
    let items: Vec<_> = sandboxes
        .into_iter()
        .filter(|sandbox| sandbox.state == SandboxState::Ready)
        .map(|sandbox| {
            json!({
                "metadata": {
                    "name": sandbox.pod.name,
                    "namespace": sandbox.pod.namespace,
                    "uid": sandbox.pod.uid,
                },
                "spec": {"containers": containers.remove(&sandbox.id).unwrap_or_default()},
                "status": {},
            })
        })
        .collect();
    json_response(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

pub fn ok() -> Response {
    Response::builder().content_type("text/plain; charset=utf-8").body("ok")
}

/// Upstream's sync loop stands still while the runtime does not answer; so does a node's health here.
pub async fn healthz(server: &Server) -> Result<Response, ServerError> {
    match server.runtime.version().await {
        Ok(_) => Ok(ok()),
        Err(error) => {
            let text = format!("[+]ping ok\n[-]syncloop failed: {error}\nhealthz check failed");
            Err(ServerError::new(StatusCode::INTERNAL_SERVER_ERROR, text))
        }
    }
}

/// The process's metrics.
pub fn metrics() -> Result<Response, ServerError> {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder
        .encode(&prometheus::gather(), &mut text)
        .map_err(|error| ServerError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Response::builder().content_type(encoder.format_type()).body(text))
}

/// The configuration that the kubelet runs with.
pub fn configuration(server: &Server) -> Result<Response, ServerError> {
    json_response(&json!({"kubeletconfig": server.configuration}))
}

pub fn json_response(value: &serde_json::Value) -> Result<Response, ServerError> {
    Ok(Response::builder()
        .content_type("application/json")
        .body(value.to_string()))
}
