//! What a cluster's network begins with: the ServiceCIDR and the Service `kubernetes`, whose endpoints are this server
//! (upstream: `pkg/controlplane/controller/{defaultservicecidr,kubernetesservice}`).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::apiserver::ApiServer;
use crate::apiserver::service_endpoints::SERVICE_NAME_LABEL;
use crate::config::Settings;
use crate::registry::network::{Cidr, Family, address};

const NAME: &str = "kubernetes";

/// The configured ranges, at most one per IP family.
pub(super) fn service_ranges(settings: &Settings) -> Result<Vec<Cidr>, AppError> {
    let text = &settings.network.service_range;
    let wrong = |reason: &str| AppError::Setting {
        key: "network.service_range",
        reason: format!("{text:?} is not allowed: {reason}"),
    };
    let mut ranges: Vec<Cidr> = Vec::new();
    for part in text.split(',').map(str::trim) {
        let range = Cidr::parse(part).filter(Cidr::is_masked);
        let range = range.ok_or_else(|| wrong("it must be a range like 10.43.0.0/16"))?;
        if ranges.iter().any(|other| other.family() == range.family()) {
            return Err(wrong("it may hold one range of each IP family"));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// The addresses of the Service `kubernetes`, one of each range.
pub(super) fn first_addresses(settings: &Settings) -> Result<Vec<IpAddr>, AppError> {
    let ranges = service_ranges(settings)?;
    Ok(ranges
        .iter()
        .map(|range| address(range.family(), range.usable().0))
        .collect())
}

pub(super) fn node_ports(settings: &Settings) -> Result<RangeInclusive<u16>, AppError> {
    let text = &settings.network.node_port_range;
    let ends = text
        .split_once('-')
        .map(|(low, high)| (low.trim().parse(), high.trim().parse()));
    match ends {
        Some((Ok(low), Ok(high))) if 0 < low && low <= high => Ok(low..=high),
        _ => Err(AppError::Setting {
            key: "network.node_port_range",
            reason: format!("{text:?} is not allowed: it must be two ports like 30000-32767"),
        }),
    }
}

/// Makes what is missing, and brings the endpoints up to date.
pub(super) async fn create(
    client: &Client,
    settings: &Settings,
    server: &ApiServer,
    listen: SocketAddr,
) -> Result<(), AppError> {
    let ranges = server.allocators.ranges();
    let cidrs: Vec<String> = ranges.iter().map(Cidr::masked).collect();
    let api = kind(client, "networking.k8s.io", "ServiceCIDR", "servicecidrs", None);
    let ready = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }]});
    if ensure(&api, "the ServiceCIDR", json!({"spec": {"cidrs": cidrs}})).await? {
        patch(&api, "the ServiceCIDR", Some("status"), json!({"status": ready})).await?;
    }
    let Some(range) = ranges.first() else { return Ok(()) };
    let (first, _) = range.usable();
    let ip = address(range.family(), first);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let port = json!({"name": "https", "protocol": "TCP", "port": 443, "targetPort": listen.port()});
    let service = json!({
        "metadata": {"labels": labels},
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": [range.family().name()],
            "ipFamilyPolicy": "SingleStack", "ports": [port], "sessionAffinity": "None", "type": "ClusterIP",
        },
    });
    let api = kind(client, "", "Service", "services", Some("default"));
    if !ensure(&api, "the Service kubernetes", service).await? {
        patch(&api, "the Service kubernetes", None, json!({"spec": {"ports": [port]}})).await?;
    }
    match advertised(settings, listen.ip()) {
        Some(ip) => endpoints(client, ip, listen.port()).await,
        None => {
            tracing::debug!("the Service kubernetes has no endpoints: no address of this machine can be reached");
            Ok(())
        }
    }
}

/// Puts right what somebody does to the Service `kubernetes` or its endpoints, until `stop` (upstream looks at them every
/// ten seconds).
pub(super) async fn keep(
    client: Client,
    settings: Settings,
    server: Arc<ApiServer>,
    listen: SocketAddr,
    stop: CancellationToken,
) {
    let only_ours = || watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let mut changes = futures_util::stream::SelectAll::new();
    for (group, name, plural) in [
        ("", "Service", "services"),
        ("", "Endpoints", "endpoints"),
        ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
    ] {
        let api = kind(&client, group, name, plural, Some("default"));
        changes.push(watcher(api, only_ours()).default_backoff().boxed());
    }
    while next_write(&mut changes, "the Service kubernetes", &stop).await {
        if let Err(error) = create(&client, &settings, &server, listen).await {
            tracing::warn!(%error, "the Service kubernetes could not be put right");
        }
    }
}

/// Waits until an object of `changes` is written or deleted, by this process, too; false with `stop`.
pub(super) async fn next_write<K>(
    changes: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
    what: &str,
    stop: &CancellationToken,
) -> bool {
    while let Some(Some(change)) = stop.run_until_cancelled(changes.next()).await {
        match change {
            Ok(Event::Apply(_) | Event::Delete(_)) => return true,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the watch of {what} broke and is retried"),
        }
    }
    false
}

/// The address at which pods find this server: the one it listens on, else the node's.
pub(super) fn advertised(settings: &Settings, listen: IpAddr) -> Option<IpAddr> {
    let usable = |ip: &IpAddr| !ip.is_loopback() && !ip.is_unspecified();
    let route = || {
        // Connecting a UDP socket sends nothing: it only asks the routing table.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let configured = settings.node.ip.parse().ok();
    [Some(listen), configured]
        .into_iter()
        .flatten()
        .find(usable)
        .or_else(|| route().filter(usable))
}

async fn endpoints(client: &Client, ip: IpAddr, port: u16) -> Result<(), AppError> {
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let subsets = json!({
        "metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": ip}], "ports": ports}],
    });
    let slice = json!({
        "metadata": {"labels": {SERVICE_NAME_LABEL: NAME}},
        "addressType": Family::of(ip).name(),
        "endpoints": [{"addresses": [ip], "conditions": {"ready": true}}],
        "ports": ports,
    });
    for (group, name, plural, what, body) in [
        ("", "Endpoints", "endpoints", "the Endpoints kubernetes", subsets),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            "endpointslices",
            "the EndpointSlice kubernetes",
            slice,
        ),
    ] {
        let api = kind(client, group, name, plural, Some("default"));
        if !ensure(&api, what, body.clone()).await? {
            patch(&api, what, None, body).await?;
        }
    }
    Ok(())
}

fn kind(client: &Client, group: &str, kind: &str, plural: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Creates the object `kubernetes` unless it is there; true if it was not.
async fn ensure(api: &Api<DynamicObject>, what: &'static str, mut body: Value) -> Result<bool, AppError> {
    let failed = |source: kube::Error| AppError::Network {
        what,
        source: Box::new(source),
    };
    body["metadata"]["name"] = json!(NAME);
    let object: DynamicObject = serde_json::from_value(body).map_err(|error| failed(kube::Error::SerdeError(error)))?;
    // Looked for first: its address is taken, so that another create would be refused for that.
    if api.get_opt(NAME).await.map_err(failed)?.is_some() {
        return Ok(false);
    }
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

async fn patch(
    api: &Api<DynamicObject>,
    what: &'static str,
    subresource: Option<&str>,
    body: Value,
) -> Result<(), AppError> {
    let (params, body) = (PatchParams::default(), Patch::Merge(body));
    let done = match subresource {
        Some("status") => api.patch_status(NAME, &params, &body).await,
        _ => api.patch(NAME, &params, &body).await,
    };
    done.map(drop).map_err(|source| AppError::Network {
        what,
        source: Box::new(source),
    })
}
