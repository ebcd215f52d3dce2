//! nftables rules of the pod network (upstream: the CNI plug-ins `bridge` (`ipMasq`) and `firewall`).
//!
//! Pods reach the world under the node's address. And where somebody forbids forwarding on this node, as Docker does,
//! what the pods' bridge forwards is allowed; the kernel asks that firewall between pods as well.

use super::PodRange;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The chain that iptables has for forwarding, and with it Docker.
const FORWARD_CHAIN: [&str; 3] = ["ip", "filter", "FORWARD"];

/// Sets the rules. Without `nft` pods still reach the node, so that is only told.
pub(super) async fn enable(bridge: &str, range: &PodRange) {
    let enabled = async {
        nft(&["-f", "-"], &masquerade(bridge, range)).await?;
        let list: Vec<&str> = ["list", "chain"].into_iter().chain(FORWARD_CHAIN).collect();
        // Without the chain nothing is forbidden.
        let chain = nft(&list, "").await.unwrap_or_default();
        match allow_forwarding(bridge, &chain) {
            Some(rules) => nft(&["-f", "-"], &rules).await.map(drop),
            None => Ok(()),
        }
    };
    if let Err(reason) = enabled.await {
        tracing::warn!(
            bridge,
            %range,
            reason,
            "pods do not reach addresses outside of this node, and perhaps not one another: nft (Debian and Ubuntu: \
             apt-get install nftables) could not set the rules for them"
        );
    }
}

/// Replaces the bridge's own table.
fn masquerade(bridge: &str, range: &PodRange) -> String {
    format!(
        "table ip {bridge}\ndelete table ip {bridge}\ntable ip {bridge} {{\n  chain postrouting {{\n    \
         type nat hook postrouting priority srcnat; policy accept;\n    \
         ip saddr {range} ip daddr != {range} masquerade\n  }}\n}}\n"
    )
}

/// Rules before all others of a chain that drops what it does not know; None if it does not, or has them.
fn allow_forwarding(bridge: &str, chain: &str) -> Option<String> {
    let name = format!("\"{bridge}\"");
    if !chain.contains("policy drop") || chain.contains(&name) {
        return None;
    }
    let chain = FORWARD_CHAIN.join(" ");
    let rule = |direction: &str| format!("insert rule {chain} {direction} {name} counter accept\n");
    Some(rule("iifname") + &rule("oifname"))
}

async fn nft(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take()
        && !input.is_empty()
    {
        stdin
            .write_all(input.as_bytes())
            .await
            .map_err(|error| error.to_string())?;
    }
    let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_is_allowed_once_and_only_where_it_is_forbidden() {
        let open = "type filter hook forward priority filter; policy accept;";
        assert_eq!(allow_forwarding("krust0", open), None);
        let closed = "type filter hook forward priority filter; policy drop;\noifname \"docker0\" accept";
        let rules = allow_forwarding("krust0", closed).unwrap();
        assert_eq!(rules.lines().count(), 2);
        assert_eq!(allow_forwarding("krust0", &(closed.to_string() + &rules)), None);
        assert_eq!(allow_forwarding("krust0", ""), None);
    }
}
