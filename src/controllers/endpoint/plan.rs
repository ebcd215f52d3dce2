//! What a Service's Endpoints is to say (upstream: `pkg/controller/endpoint`). Pure.

use super::subsets::{is_over_capacity, repack, truncate};
use crate::client::pods::target;
use crate::controllers::pods::is_ready;
use crate::controllers::service_endpoints::{
    HEADLESS, TRIGGER_TIME, belongs, hostname, is_headless, may_have_no_ports, pod_ips, ports, publishes_not_ready,
    target_port, trigger_text,
};
use crate::managed_by;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service, ServicePort};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// On Endpoints that are a lock and belong to no Service.
pub const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

#[derive(Debug, PartialEq)]
pub enum Step {
    Nothing,
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
}

/// `pods` are those that the Service's selector selects.
pub fn next_step(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    trigger: Option<Timestamp>,
) -> Step {
    let subsets = subsets(service, pods);
    if current.is_some_and(|current| is_current(current, service, &subsets)) {
        return Step::Nothing;
    }
    let mut new = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..Default::default()
        },
        subsets: None,
    });
    let mut subsets = subsets;
    let truncated = truncate(&mut subsets);
    new.subsets = Some(subsets);
    let mut labels = labels(service);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    new.metadata.labels = Some(labels);
    let annotations = new.annotations_mut();
    annotations.remove(TRIGGER_TIME);
    annotations.extend(trigger.map(|time| (TRIGGER_TIME.to_owned(), trigger_text(time))));
    annotations.remove(OVER_CAPACITY);
    annotations.extend(truncated.then(|| (OVER_CAPACITY.to_owned(), "truncated".to_owned())));
    if current == Some(&new) {
        // Still too many, and the same ones are left.
        return Step::Nothing;
    }
    match current {
        None => Step::Create(Box::new(new)),
        Some(_) => Step::Update(Box::new(new)),
    }
}

fn is_current(current: &Endpoints, service: &Service, wanted: &[EndpointSubset]) -> bool {
    let held = current.subsets.as_deref().unwrap_or_default();
    let mut labels = current.labels().clone();
    labels.remove(HEADLESS);
    let capacity = !is_over_capacity(held) && !current.annotations().contains_key(OVER_CAPACITY);
    // The server may have put them in another order.
    capacity && labels == self::labels(service) && repack(&without_revisions(held)) == wanted
}

/// The labels of a Service's Endpoints, but for the one that tells the headless.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    let manager = managed_by::ENDPOINT_CONTROLLER;
    labels.insert(managed_by::ENDPOINTS.to_owned(), manager.to_owned());
    labels
}

/// The revisions of targets left aside: pods change more often than their addresses.
fn without_revisions(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut subsets = subsets.to_vec();
    for subset in &mut subsets {
        let lists = [&mut subset.addresses, &mut subset.not_ready_addresses];
        for target in lists
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|address| address.target_ref.as_mut())
        {
            target.resource_version = None;
        }
    }
    subsets
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publishes = publishes_not_ready(service);
    let mut subsets = Vec::new();
    for pod in pods.iter().filter(|pod| belongs(pod, publishes)) {
        let Some(address) = address(service, pod) else { continue };
        let ready = publishes || is_ready(pod);
        let mut add = |ports: Option<Vec<EndpointPort>>| {
            let list = Some(vec![address.clone()]);
            let (addresses, not_ready_addresses) = if ready { (list, None) } else { (None, list) };
            subsets.push(EndpointSubset {
                addresses,
                not_ready_addresses,
                ports,
            });
        };
        if may_have_no_ports(service) {
            add(None);
        }
        for port in ports(service) {
            if let Some(number) = target_port(pod, port) {
                add(Some(vec![endpoint_port(port, number)]));
            }
        }
    }
    repack(&subsets)
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: port.name.clone(),
        port: number,
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let six = is_ipv6(service, pod);
    let ip = pod_ips(pod).find(|ip| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == six))?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(pod, service),
        node_name: node.filter(|name| !name.is_empty()),
        target_ref: Some(target(pod)),
    })
}

/// Endpoints have one family: the Service's first.
fn is_ipv6(service: &Service, pod: &Pod) -> bool {
    let spec = service.spec.as_ref();
    let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first());
    let of = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    match (family, spec.and_then(|spec| spec.cluster_ip.as_deref())) {
        (Some(family), _) => family == "IPv6",
        // Written by a server that knows no families.
        (None, Some(ip)) if !is_headless(service) => of(ip),
        _ => pod_ips(pod).next().is_some_and(of),
    }
}

#[cfg(test)]
mod tests {
    use super::super::subsets::CAPACITY;
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> Service {
        let mut whole = json!({"selector": {"app": "x"}, "clusterIP": "10.43.0.5", "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let metadata = json!({"name": "s", "namespace": "a", "labels": {"team": "t"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": whole})).unwrap()
    }

    fn pod(number: usize, ready: bool, more: Value) -> Arc<Pod> {
        let ips =
            json!([{"ip": format!("10.0.{}.{}", number / 250, number % 250 + 1)}, {"ip": format!("fd00::{number:x}")}]);
        let mut pod = json!({
            "metadata": {"name": format!("p{number}"), "namespace": "a", "uid": format!("uid-{number:05}")},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "podIPs": ips, "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (part, fields) in more.as_object().unwrap() {
            for (key, value) in fields.as_object().unwrap() {
                pod[part][key] = value.clone();
            }
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn created(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
        match next_step(service, pods, None, None) {
            Step::Create(endpoints) => {
                assert_eq!(next_step(service, pods, Some(&endpoints), None), Step::Nothing);
                *endpoints
            }
            step => panic!("{step:?}"),
        }
    }

    fn ips(list: &Option<Vec<EndpointAddress>>) -> Vec<&str> {
        list.iter().flatten().map(|address| address.ip.as_str()).collect()
    }

    #[test]
    fn addresses_are_split_by_readiness() {
        let endpoints = created(
            &service(json!({})),
            &[
                pod(1, true, json!({})),
                pod(0, false, json!({})),
                pod(2, true, json!({})),
            ],
        );
        let subset = &endpoints.subsets.as_ref().unwrap()[0];
        assert_eq!(
            (ips(&subset.addresses), ips(&subset.not_ready_addresses)),
            (vec!["10.0.0.2", "10.0.0.3"], vec!["10.0.0.1"])
        );
        let expected = json!({"ip": "10.0.0.2", "nodeName": "n",
            "targetRef": {"kind": "Pod", "namespace": "a", "name": "p1", "uid": "uid-00001"}});
        assert_eq!(
            serde_json::to_value(&subset.addresses.as_ref().unwrap()[0]).unwrap(),
            expected
        );
        assert_eq!(endpoints.labels()["team"], "t");
        assert_eq!(endpoints.labels()[managed_by::ENDPOINTS], "endpoint-controller");
        assert!(!endpoints.labels().contains_key(HEADLESS));
        assert!(created(&service(json!({})), &[]).subsets.unwrap().is_empty());
    }

    #[test]
    fn terminating_pods_are_there_only_if_all_are_published() {
        let going = pod(
            1,
            true,
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        assert!(
            created(&service(json!({})), std::slice::from_ref(&going))
                .subsets
                .unwrap()
                .is_empty()
        );
        let published = created(
            &service(json!({"publishNotReadyAddresses": true})),
            &[going, pod(2, false, json!({}))],
        );
        assert_eq!(ips(&published.subsets.unwrap()[0].addresses).len(), 2);
    }

    #[test]
    fn families_headless_services_and_host_names() {
        let six = created(
            &service(json!({"ipFamilies": ["IPv6", "IPv4"]})),
            &[pod(1, true, json!({}))],
        );
        assert_eq!(ips(&six.subsets.unwrap()[0].addresses), ["fd00::1"]);
        let named = pod(1, true, json!({"spec": {"hostname": "web-0", "subdomain": "s"}}));
        let headless = created(&service(json!({"clusterIP": "None", "ports": []})), &[named]);
        assert_eq!(headless.labels()[HEADLESS], "");
        let subset = &headless.subsets.unwrap()[0];
        assert_eq!(subset.ports, None);
        assert_eq!(subset.addresses.as_ref().unwrap()[0].hostname.as_deref(), Some("web-0"));
    }

    #[test]
    fn what_others_changed_is_put_right_and_foreign_annotations_stay() {
        let (service, pods) = (service(json!({})), [pod(1, true, json!({}))]);
        let mut endpoints = created(&service, &pods);
        endpoints.annotations_mut().insert("mine".to_owned(), "yes".to_owned());
        endpoints.subsets = None;
        let time: Timestamp = "2026-01-01T00:00:01Z".parse().unwrap();
        let Step::Update(updated) = next_step(&service, &pods, Some(&endpoints), Some(time)) else {
            panic!("no update")
        };
        assert_eq!(
            (
                updated.annotations()["mine"].as_str(),
                updated.annotations()[TRIGGER_TIME].as_str()
            ),
            ("yes", "2026-01-01T00:00:01Z")
        );
        // The server's own order does not matter, nor do the targets' revisions.
        let mut reordered = *updated;
        for address in reordered
            .subsets
            .iter_mut()
            .flatten()
            .flat_map(|subset| subset.addresses.iter_mut().flatten())
        {
            address.target_ref.as_mut().unwrap().resource_version = Some("7".to_owned());
        }
        assert_eq!(next_step(&service, &pods, Some(&reordered), None), Step::Nothing);
    }

    #[test]
    fn more_than_fit_are_truncated_and_marked_once() {
        let (service, pods) = (
            service(json!({})),
            (0..1100).map(|number| pod(number, true, json!({}))).collect::<Vec<_>>(),
        );
        let endpoints = created(&service, &pods);
        assert_eq!(endpoints.annotations()[OVER_CAPACITY], "truncated");
        assert_eq!(ips(&endpoints.subsets.as_ref().unwrap()[0].addresses).len(), CAPACITY);
        let Step::Update(fewer) = next_step(&service, &pods[..20], Some(&endpoints), None) else {
            panic!("no update")
        };
        assert!(!fewer.annotations().contains_key(OVER_CAPACITY));
    }
}
