//! postStart and preStop (upstream: `pkg/kubelet/lifecycle`).

use crate::client::events::Level;
use crate::kubelet::context::Context;
use crate::kubelet::pod::Role;
use crate::kubelet::{handlers, pod};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use std::time::Duration;
use tokio::time::Instant;

const AGENT: &str = "kube-lifecycle/1.37";

/// What the process gets after its hook, as upstream.
const GRACE_AFTER_HOOK_MIN_SECONDS: u32 = 2;

/// A preStop hook that is due.
pub struct PreStop {
    path: String,
    container: Container,
    handler: LifecycleHandler,
}

impl PreStop {
    pub fn of(role: Role, container: &Container) -> Option<PreStop> {
        Some(PreStop {
            path: pod::field_path(role, &container.name),
            handler: container.lifecycle.as_ref()?.pre_stop.clone()?,
            container: container.clone(),
        })
    }

    /// Runs inside the grace period; returns what is left of it for the stop signal. Without any grace there is no hook.
    pub async fn run(self, context: &Context, pod: &Pod, id: &str, pod_ip: &str, grace_seconds: u32) -> u32 {
        if grace_seconds == 0 {
            return GRACE_AFTER_HOOK_MIN_SECONDS;
        }
        let begun = Instant::now();
        let limit = Duration::from_secs(u64::from(grace_seconds));
        let hook = run(context, pod, &self.handler, &self.container, id, pod_ip);
        if let Ok(Err(reason)) = tokio::time::timeout(limit, hook).await {
            tracing::debug!(pod = pod::full_name(pod), reason, "A preStop hook failed");
            let message = "PreStopHook failed".to_owned();
            context
                .recorder
                .event_at(pod, Some(self.path), Level::Warning, "FailedPreStopHook", message);
        }
        let spent = u32::try_from(begun.elapsed().as_secs()).unwrap_or(u32::MAX);
        grace_seconds.saturating_sub(spent).max(GRACE_AFTER_HOOK_MIN_SECONDS)
    }
}

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
