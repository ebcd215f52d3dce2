//! Pods reach the world under the node's address, by an nftables rule (upstream: the CNI plug-in `bridge`, `ipMasq`).

use super::PodRange;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Sets the rule. Without `nft` pods still reach one another and the node, so that is only told.
pub(super) async fn enable(bridge: &str, range: &PodRange) {
    if let Err(reason) = run(&rules(bridge, range)).await {
        tracing::warn!(
            bridge,
            %range,
            reason,
            "pods do not reach addresses outside of this node: nft (Debian and Ubuntu: apt-get install nftables) \
             could not set the rule that masquerades theirs"
        );
    }
}

/// Replaces the bridge's own table; of other tables nothing is touched.
fn rules(bridge: &str, range: &PodRange) -> String {
    format!(
        "table ip {bridge}\ndelete table ip {bridge}\ntable ip {bridge} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {range} ip daddr != {range} masquerade\n  }}\n}}\n"
    )
}

async fn run(rules: &str) -> Result<(), String> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(rules.as_bytes())
            .await
            .map_err(|error| error.to_string())?;
    }
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
}
