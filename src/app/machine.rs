//! Whether this machine is going down (upstream's kubelet hears it from logind over D-Bus).

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// Longer than systemd takes to answer while it stops everything.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Asked when krust is told to stop: by whoever restarts it, or because everything stops. Without systemd nobody knows.
pub(super) async fn is_shutting_down() -> bool {
    let mut asked = Command::new("systemctl");
    asked
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    match timeout(ANSWER_MAX, asked.kill_on_drop(true).output()).await {
        // Its exit code says only whether all is well.
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        Ok(Err(_)) => false,
        Err(_) => {
            tracing::warn!("systemd does not say whether the machine shuts down: pods are left running");
            false
        }
    }
}
