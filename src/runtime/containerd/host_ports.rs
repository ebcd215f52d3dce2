//! Host ports of sandboxes: which there are is read from the sandboxes' records, so that nothing is left when krust is
//! killed (upstream: `go-cni`'s port mappings).

use super::super::netns::{HostPort, protocol_name};
use super::record::{self, SandboxRecord};
use super::{Parts, PortMapping, Result, failed, network_failed};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// One reads the records and sets the ports at a time: the last one has read the newest. The ports are the machine's, so
/// all of this process take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Parts {
    /// Leads the node's ports to the sandboxes whose records say so. `opening` is one that is starting: it fails if others
    /// have its ports.
    pub(super) async fn publish(&self, opening: Option<(&str, &[PortMapping])>) -> Result<()> {
        let _turn = TURN.lock().await;
        let all = self.recorded_ports().await?;
        if let Some((id, mappings)) = opening {
            for mapping in mappings {
                address(&mapping.host_ip)?;
            }
            let own = all.iter().filter(|(of, _)| of == id);
            for (_, port) in own {
                if all.iter().any(|(of, other)| of != id && other.meets(port)) {
                    let subject = format!("{}/{}", port.port, protocol_name(port.protocol));
                    return Err(failed("publish port", &subject, "port is already allocated"));
                }
            }
        }
        let ports = all.into_iter().map(|(_, port)| port).collect();
        let set = self.network.set_host_ports(ports).await;
        set.map_err(|error| network_failed("the host ports", &error))
    }

    /// Makes the bridge for the first pod, with the rules that all pods on it need.
    pub(super) async fn make_network(&self) -> Result<()> {
        if self.network.is_made() {
            return Ok(());
        }
        let _turn = TURN.lock().await;
        let ports = self.recorded_ports().await?.into_iter().map(|(_, port)| port).collect();
        let made = self.network.make(ports).await;
        made.map_err(|error| network_failed("the bridge", &error))
    }

    /// Puts right what a kill has left behind.
    pub(super) async fn recover_network(&self) -> Result<()> {
        let _turn = TURN.lock().await;
        let ports: BTreeSet<HostPort> = self.recorded_ports().await?.into_iter().map(|(_, port)| port).collect();
        if let Err(error) = self.network.recover(ports).await {
            tracing::warn!(%error, "the network of the pods cannot be looked after yet");
        }
        Ok(())
    }

    /// The host ports of all sandboxes on the bridge, with the sandboxes' ids.
    async fn recorded_ports(&self) -> Result<Vec<(String, HostPort)>> {
        let mut ports = Vec::new();
        for (pod, container) in self.engine.addressed().await? {
            if !self.network.range().contains(pod) {
                continue;
            }
            let sandbox: SandboxRecord = record::record(&container);
            for mapping in sandbox.host_ports {
                // One that could not be read did not start.
                let Ok(address) = address(&mapping.host_ip) else {
                    continue;
                };
                let port = HostPort {
                    address,
                    protocol: mapping.protocol,
                    port: mapping.host_port,
                    pod: (pod, mapping.container_port),
                };
                ports.push((container.id.clone(), port));
            }
        }
        Ok(ports)
    }
}

/// The node's address that a port is on; None: all of them.
fn address(text: &str) -> Result<Option<Ipv4Addr>> {
    match text.parse() {
        _ if text.is_empty() => Ok(None),
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ok(None),
        Ok(IpAddr::V4(address)) => Ok(Some(address)),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Ok(None),
        Ok(IpAddr::V6(_)) => Err(failed("publish a port on", text, "pods have addresses of IPv4 only")),
        Err(_) => Err(failed("publish a port on", text, "this is no IP address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_address() {
        assert_eq!(address("").unwrap(), None);
        assert_eq!(address("0.0.0.0").unwrap(), None);
        assert_eq!(address("127.0.0.1").unwrap(), Some(Ipv4Addr::LOCALHOST));
        assert!(address("fd00::1").is_err() && address("host").is_err());
    }
}
