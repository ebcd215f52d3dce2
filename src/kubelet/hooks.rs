//! postStart and preStop (upstream: `pkg/kubelet/lifecycle`).

use crate::client::events::Level;
use crate::kubelet::context::Context;
use crate::kubelet::{handlers, pod};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::Duration;

const AGENT: &str = "kube-lifecycle/1.37";

/// Runs a hook to its end. The caller bounds its time. The error is for the container's status; events do not show it, as
/// there may be secrets in it.
pub async fn run(
    context: &Context,
    pod: &Pod,
    handler: &LifecycleHandler,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    let of = format!(
        "for Container {:?} in Pod {:?} failed",
        container.name,
        pod::full_name(pod)
    );
    if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let ran = handlers::run(&*context.runtime, container_id, command).await;
        let command = command.join(" ");
        let (error, output) = match ran {
            Ok(ran) if ran.code == 0 => return Ok(()),
            Ok(ran) => {
                let error = format!("command '{command}' exited with {}: {}", ran.code, ran.stderr);
                (error, ran.stdout + &ran.stderr)
            }
            Err(error) => (error, String::new()),
        };
        let hook = format!("Exec lifecycle hook ([{command}])");
        Err(format!("{hook} {of} - error: {error}, message: {output:?}"))
    } else if let Some(action) = &handler.http_get {
        let told = |text: String| {
            let recorder = &context.recorder;
            recorder.event_at(pod, None, Level::Warning, "LifecycleHTTPFallback", text);
        };
        let asked = handlers::http::hook(action, container, pod_ip, AGENT, told).await;
        let path = action.path.as_deref().unwrap_or_default();
        asked.map_err(|error| format!("HTTP lifecycle hook ({path}) {of} - error: {error}"))
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        // Upstream keeps tcpSocket in the type and refuses to run it.
        Err("Cannot run handler: invalid handler: no exec, httpGet or sleep".to_owned())
    }
}
