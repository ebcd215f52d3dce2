//! What leads from Services to pods on this machine: the service proxy, and the cluster's DNS with its Service `kube-dns`
//! (upstream: `cmd/kube-proxy/app`; kubeadm's `addons/dns`).

use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;

use super::{AppError, Core, Parts, network};
use crate::client::informer::Informers;
use crate::config::Settings;
use crate::network::{dns, proxy};
use crate::registry::network::{Cidr, Family, address};

/// The tenth address of the range is that of DNS, as in most clusters.
const DNS_OFFSET: u128 = 10;

/// Starts both. The answer is where pods of this node ask for names; nowhere if nobody could listen there.
pub(super) async fn start(
    settings: &Settings,
    core: &Core,
    node: &str,
    parts: &mut Parts,
) -> Result<Vec<String>, AppError> {
    let ranges = network::service_ranges(settings)?;
    let Some(range) = ranges.iter().find(|range| range.family() == Family::V4) else {
        tracing::warn!("connections to Services are led to their endpoints with addresses of IPv4 only");
        return Ok(Vec::new());
    };
    let informers = Informers::new(core.client("system:kube-proxy", &[]), parts.stop.clone());
    let sources = proxy::Sources::new(&informers);
    let run = proxy::run(sources.clone(), node.to_owned(), range.masked(), parts.stop.clone());
    parts.tasks.spawn("service proxy", async move {
        run.await;
        informers.stopped().await;
    });
    let client = core.client("system:apiserver", &["system:masters"]);
    match listen(&client, range).await {
        Ok((server, address)) => {
            parts
                .tasks
                .spawn("cluster DNS", server.run(sources, parts.stop.clone()));
            Ok(vec![address.to_string()])
        }
        Err(reason) => {
            tracing::warn!(reason, "the cluster has no DNS: pods have that of this host");
            Ok(Vec::new())
        }
    }
}

async fn listen(client: &Client, range: &Cidr) -> Result<(dns::Server, Ipv4Addr), String> {
    let number = range.base() + DNS_OFFSET;
    let address = match address(Family::V4, number) {
        IpAddr::V4(address) if number <= range.usable().1 => address,
        _ => return Err(format!("the range {} is too small", range.masked())),
    };
    let server = dns::Server::listen(address).await.map_err(|error| error.to_string())?;
    match ensure_service(client, address).await {
        Ok(()) => Ok((server, address)),
        Err(reason) => {
            server.close().await;
            Err(reason)
        }
    }
}

/// The label keeps proxies off: the address is this host's own.
async fn ensure_service(client: &Client, address: Ipv4Addr) -> Result<(), String> {
    const NAME: &str = "kube-dns";
    let failed = |error: kube::Error| format!("the Service {NAME} cannot be made: {error}");
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    if let Some(found) = services.get_opt(NAME).await.map_err(failed)? {
        let found = found.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();
        return match found == address.to_string() {
            true => Ok(()),
            false => Err(format!(
                "the Service {NAME} has the address {found:?} and not {address}"
            )),
        };
    }
    let labels = json!({
        "k8s-app": "kube-dns", "kubernetes.io/name": "KubeDNS", "kubernetes.io/cluster-service": "true",
        proxy::PROXY_NAME_LABEL: "krust",
    });
    let service = json!({
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"clusterIP": address, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ]},
    });
    let service = serde_json::from_value(service).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    services
        .create(&PostParams::default(), &service)
        .await
        .map(drop)
        .map_err(failed)
}
