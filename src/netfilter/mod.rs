//! The kernel's packet filter: rules are set with `nft`, tracked connections are forgotten over netlink (upstream:
//! `sigs.k8s.io/knftables`, `pkg/proxy/conntrack`).

pub mod conntrack;
mod netlink;
pub mod watch;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

#[derive(Debug, thiserror::Error)]
pub enum NetfilterError {
    #[error("nft (Debian and Ubuntu: apt-get install nftables) does not start: {0}")]
    Start(#[source] std::io::Error),
    #[error("nft: {0}")]
    Nft(String),
    #[error("tracked connections: {0}")]
    Conntrack(#[source] std::io::Error),
}

/// Gives `nft` a script, which is done as a whole or not at all.
pub async fn apply(script: &str) -> Result<(), NetfilterError> {
    run("nft", &["-f", "-"], script).await.map(drop)
}

/// What a command prints, with this on its standard input.
pub async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, NetfilterError> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NetfilterError::Start)?;
    if let Some(mut stdin) = child.stdin.take()
        && !input.is_empty()
    {
        stdin.write_all(input.as_bytes()).await.map_err(NetfilterError::Start)?;
    }
    let output = child.wait_with_output().await.map_err(NetfilterError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NetfilterError::Nft(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Whether what goes from port to port of a bridge passes the rules for IP packets. Where it does not, an answer does
/// not come back through them.
pub fn sees_bridged(bridge: &str) -> bool {
    let is_on = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    // The module's directory: a bridge has its switch even without the module.
    Path::new("/proc/sys/net/bridge").exists()
        && (is_on("/proc/sys/net/bridge/bridge-nf-call-iptables")
            || is_on(&format!("/sys/class/net/{bridge}/bridge/nf_call_iptables")))
}

/// Lets answers to what this host sent from 127.0.0.1 come back from a bridge.
pub fn route_localnet(bridge: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), "1")
}

/// The bridges of this host on which one of the addresses is, by name.
pub fn bridges_of<'a>(addresses: impl Iterator<Item = &'a Ipv4Addr> + Clone) -> Vec<String> {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut bridges: Vec<String> = networks(&routes)
        .into_iter()
        .filter(|(interface, network, mask)| {
            let mut addresses = addresses.clone();
            Path::new(&format!("/sys/class/net/{interface}/bridge")).exists()
                && addresses.any(|address| u32::from(*address) & mask == *network)
        })
        .map(|(interface, ..)| interface)
        .collect();
    bridges.sort();
    bridges.dedup();
    bridges
}

/// Interface, network and mask of the routes without a gateway.
fn networks(routes: &str) -> Vec<(String, u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, network, gateway, _, _, _, _, mask, ..] = fields[..] else {
            return None;
        };
        let mask = number(mask)?;
        (number(gateway)? == 0 && mask != 0).then_some((interface.to_owned(), number(network)?, mask))
    };
    routes.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_interfaces() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    krust0\t00002A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let network = u32::from(Ipv4Addr::new(10, 42, 0, 0));
        assert_eq!(networks(text), [("krust0".to_owned(), network, 0xffff_ff00)]);
    }
}
