//! postStart and preStop (upstream: `pkg/kubelet/lifecycle`).

use crate::kubelet::context::Context;
use crate::kubelet::handlers::{self, Outcome};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use std::time::Duration;

/// Runs a hook to its end. The caller bounds its time.
pub async fn run(
    context: &Context,
    handler: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
) -> Outcome {
    if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        handlers::exec(&*context.runtime, container_id, command).await
    } else if let Some(action) = &handler.http_get {
        handlers::http_get(action, container, pod_ip, "kube-lifecycle/1").await
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(String::new())
    } else {
        // Upstream keeps tcpSocket in the type and refuses to run it.
        Err("invalid handler: no exec, httpGet or sleep".to_owned())
    }
}
