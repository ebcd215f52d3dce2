//! What leads from Services to pods on this machine: the service proxy, and the cluster's DNS with its Service `kube-dns`
//! (upstream: `cmd/kube-proxy/app`; kubeadm's `addons/dns`).

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::{AppError, Core, Parts, kubeconfig, network};
use crate::client::informer::Informers;
use crate::config::Settings;
use crate::network::{dns, proxy};
use crate::registry::network::{Cidr, Family, address};
use crate::runtime::choose::Chosen;
use crate::runtime::{Companion, Runtime};
use crate::transport::pki::Pki;

/// The tenth address of the range is that of DNS, as in most clusters.
const DNS_OFFSET: u128 = 10;
const NO_DNS: &str = "the cluster has no DNS: pods have that of this host";
const USER: &str = "system:kube-proxy";
const COMPANION: &str = "service-network";
const COMPANION_KUBECONFIG: &str = "kubeconfig";
/// Until another process answers for DNS.
const DNS_WAIT: Duration = Duration::from_secs(10);
/// Half of what its certificate is valid for.
const COMPANION_LIFE: Duration = Duration::from_secs(182 * 24 * 3600);

/// Starts both, in another process where krust is in a container of the engine: its network is not that of the host. The
/// answer is where pods of this node ask for names; nowhere if nobody could listen there.
pub(super) async fn start(
    settings: &Settings,
    core: &Core,
    chosen: &Chosen,
    node: &str,
    parts: &mut Parts,
) -> Result<Vec<String>, AppError> {
    let ranges = network::service_ranges(settings)?;
    let Some(range) = ranges.iter().find(|range| range.family() == Family::V4) else {
        tracing::warn!("connections to Services are led to their endpoints with addresses of IPv4 only");
        return Ok(Vec::new());
    };
    let client = core.client("system:apiserver", &["system:masters"]);
    match network::advertised(settings, core.address.ip()) {
        Some(ip) if crate::transport::pki::in_container() => {
            let beside = Beside {
                runtime: chosen.runtime.clone(),
                pki: core.pki.clone(),
                server: kubeconfig::local_url((ip, core.address.port()).into()),
                node: node.to_owned(),
                range: range.masked(),
            };
            match beside.start(&client, range).await {
                Ok(Led::Here) => {}
                Ok(led) => {
                    let dns = led.dns();
                    let kept = beside.keep(dns, parts.stop.clone());
                    parts.tasks.spawn("service network", kept);
                    return Ok(dns.iter().map(ToString::to_string).collect());
                }
                Err(reason) => {
                    tracing::warn!(reason, "connections to Services are not led to their endpoints");
                    return Ok(Vec::new());
                }
            }
        }
        _ => {}
    }
    let informers = Informers::new(core.client(USER, &[]), parts.stop.clone());
    let sources = proxy::Sources::new(&informers);
    let run = proxy::run(sources.clone(), node.to_owned(), range.masked(), parts.stop.clone());
    parts.tasks.spawn("service proxy", async move {
        run.await;
        informers.stopped().await;
    });
    match listen(&client, range).await {
        Ok((server, address)) => {
            parts
                .tasks
                .spawn("cluster DNS", server.run(sources, parts.stop.clone()));
            Ok(vec![address.to_string()])
        }
        Err(reason) => {
            tracing::warn!(reason, "{NO_DNS}");
            Ok(Vec::new())
        }
    }
}

/// Who leads to Services and answers for DNS.
enum Led {
    /// This process: krust is not in a container of the engine.
    Here,
    /// The companion, with DNS at this address.
    Beside(Ipv4Addr),
    /// The companion, but nobody answers for DNS.
    BesideWithoutDns,
}

impl Led {
    fn dns(&self) -> Option<Ipv4Addr> {
        match self {
            Led::Beside(address) => Some(*address),
            Led::Here | Led::BesideWithoutDns => None,
        }
    }
}

/// Both in a companion.
struct Beside {
    runtime: Arc<dyn Runtime>,
    pki: Arc<Pki>,
    /// URL of this server.
    server: String,
    node: String,
    range: String,
}

impl Beside {
    async fn start(&self, client: &Client, range: &Cidr) -> Result<Led, String> {
        let address = dns_address(range);
        if !self.start_companion(address.clone().ok()).await? {
            return Ok(Led::Here);
        }
        let answered = async {
            let address = address?;
            ensure_service(client, address).await?;
            match is_reached(address).await {
                true => Ok(address),
                false => Err(format!("nobody answers at {address}")),
            }
        };
        let answered: Result<Ipv4Addr, String> = answered.await;
        Ok(match answered {
            Ok(address) => Led::Beside(address),
            Err(reason) => {
                tracing::warn!(reason, "{NO_DNS}");
                Led::BesideWithoutDns
            }
        })
    }

    async fn start_companion(&self, dns: Option<Ipv4Addr>) -> Result<bool, String> {
        let pair = self.pki.client(USER).map_err(|error| error.to_string())?;
        let kubeconfig = kubeconfig::kubeconfig(&self.server, self.pki.authority_pem(), &pair);
        let path = format!("/{COMPANION_KUBECONFIG}");
        let words = [
            COMPANION,
            "--kubeconfig",
            &path,
            "--node",
            &self.node,
            "--range",
            &self.range,
        ];
        let mut arguments = words.map(str::to_owned).to_vec();
        arguments.extend(dns.iter().flat_map(|dns| ["--dns".to_owned(), dns.to_string()]));
        let companion = Companion {
            name: COMPANION,
            arguments,
            file: (COMPANION_KUBECONFIG, kubeconfig.into_bytes()),
        };
        let started = self.runtime.start_companion(&companion).await;
        started.map_err(|error| error.to_string())
    }

    /// Until `stop`; in time there is a new one, with a new certificate.
    async fn keep(self, dns: Option<Ipv4Addr>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(COMPANION_LIFE))
            .await
            .is_some()
        {
            if let Err(reason) = self.start_companion(dns).await {
                tracing::error!(reason, "the service network cannot be renewed");
            }
        }
        if let Err(error) = self.runtime.stop_companion(COMPANION).await {
            tracing::debug!(%error, "the service network stays");
        }
    }
}

/// Waits until somebody listens.
async fn is_reached(address: Ipv4Addr) -> bool {
    let reached = async {
        while TcpStream::connect((address, dns::PORT)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DNS_WAIT, reached).await.is_ok()
}

/// What a process of its own needs to know.
pub struct Apart {
    pub kubeconfig: PathBuf,
    pub node: String,
    /// Addresses of Services.
    pub range: String,
    pub dns: Option<Ipv4Addr>,
}

/// Runs both for a server elsewhere, until a signal.
pub async fn run_apart(apart: Apart) -> Result<(), AppError> {
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let client = client_of(&apart.kubeconfig).await.map_err(AppError::Client)?;
    let stop = CancellationToken::new();
    let informers = Informers::new(client, stop.clone());
    let sources = proxy::Sources::new(&informers);
    let answered = match apart.dns {
        None => None,
        Some(address) => Some(dns::Server::listen(address).await?.run(sources.clone(), stop.clone())),
    };
    let led = proxy::run(sources, apart.node, apart.range, stop.clone());
    let stopped = async {
        signals.stop().await;
        stop.cancel();
    };
    tokio::join!(led, stopped, async {
        if let Some(answered) = answered {
            answered.await;
        }
    });
    informers.stopped().await;
    Ok(())
}

async fn client_of(path: &std::path::Path) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    Ok(Client::try_from(config)?)
}

fn dns_address(range: &Cidr) -> Result<Ipv4Addr, String> {
    let number = range.base() + DNS_OFFSET;
    match address(Family::V4, number) {
        IpAddr::V4(address) if number <= range.usable().1 => Ok(address),
        _ => Err(format!("the range {} is too small", range.masked())),
    }
}

async fn listen(client: &Client, range: &Cidr) -> Result<(dns::Server, Ipv4Addr), String> {
    let address = dns_address(range)?;
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
