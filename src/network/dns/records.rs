//! Which names there are in a cluster (upstream: Kubernetes' DNS specification 1.1.0, CoreDNS' plug-in `kubernetes`). Pure.

use super::message::{A, ANY, Answer, CNAME, Data, NS, PTR, Record, SOA, SRV, TXT};
use crate::client::endpoint_slices::service_of;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use rand::seq::SliceRandom;
use std::net::Ipv4Addr;
use std::sync::Arc;

pub const ZONE: &str = "cluster.local";
const VERSION: &str = "1.1.0";
const TTL_SECONDS: u32 = 5;

/// Where the answers come from.
pub trait Lookup {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn has_services(&self, namespace: &str) -> bool;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn services_at(&self, cluster_ip: Ipv4Addr) -> Vec<Arc<Service>>;
    fn slices_with(&self, address: Ipv4Addr) -> Vec<Arc<EndpointSlice>>;
}

/// What is known of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Answer(Answer),
    /// The name is another one's, which is not of the cluster: an answer to be completed.
    Elsewhere(Answer, String),
    /// Others are to be asked.
    NotOurs,
}

/// Answers for a name in lower case.
pub fn find(lookup: &impl Lookup, name: &str, kind: u16) -> Found {
    if let Some(address) = reversed(name) {
        return match pointers(lookup, address) {
            records if records.is_empty() => Found::NotOurs,
            names => {
                let records = names.into_iter().map(|target| record(name, Data::Name(PTR, target)));
                finish(name, kind, Some(records.collect()))
            }
        };
    }
    let Some(rest) = name.strip_suffix(ZONE) else {
        return Found::NotOurs;
    };
    let Some(rest) = rest.strip_suffix('.').or(rest.is_empty().then_some("")) else {
        return Found::NotOurs;
    };
    let labels: Vec<&str> = rest.split('.').rev().filter(|label| !label.is_empty()).collect();
    let exists = || Some(Vec::new());
    let records = match labels[..] {
        [] => Some(vec![soa(name), record(name, Data::Name(NS, format!("ns.dns.{ZONE}")))]),
        ["dns-version"] => Some(vec![record(name, Data::Txt(VERSION.to_owned()))]),
        ["svc"] | ["pod"] => exists(),
        ["svc" | "pod", namespace] => lookup.has_services(namespace).then(Vec::new),
        ["pod", namespace, address] => {
            let address = lookup.has_services(namespace).then(|| undashed(address)).flatten();
            address.map(|address| vec![record(name, Data::A(address))])
        }
        ["svc", namespace, service, ref rest @ ..] => {
            let Some(found) = lookup.service(namespace, service) else {
                return finish(name, kind, None);
            };
            let Some(spec) = &found.spec else {
                return finish(name, kind, None);
            };
            if spec.type_.as_deref() == Some("ExternalName") {
                return match rest {
                    [] => external(lookup, name, kind, spec),
                    _ => finish(name, kind, None),
                };
            }
            let whole = format!("{service}.{namespace}.svc.{ZONE}");
            let slices = lookup.slices(namespace, service);
            of_service(name, &whole, spec, &slices, rest)
        }
        _ => None,
    };
    let mut found = finish(name, kind, records);
    if let Found::Answer(answer) = &mut found
        && kind == SRV
    {
        answer.additional = targets(lookup, &answer.records);
    }
    found
}

/// The records below the name of a Service.
fn of_service(
    name: &str,
    whole: &str,
    spec: &ServiceSpec,
    slices: &[Arc<EndpointSlice>],
    rest: &[&str],
) -> Option<Vec<Record>> {
    let addresses = cluster_ips(spec);
    let headless = addresses.is_empty();
    match *rest {
        [] if headless => {
            let endpoints = endpoints(slices);
            let addresses = endpoints.iter().map(|(_, address)| record(name, Data::A(*address)));
            let mut records: Vec<Record> = addresses.collect();
            // Without any, there is no such name.
            if records.is_empty() {
                return None;
            }
            records.sort_by_key(|record| format!("{:?}", record.data));
            records.dedup();
            records.shuffle(&mut rand::rng());
            records.extend(ports(name, whole, spec, slices, None));
            Some(records)
        }
        [] => {
            let mut records: Vec<Record> = addresses.into_iter().map(|ip| record(name, Data::A(ip))).collect();
            records.extend(ports(name, whole, spec, slices, None));
            Some(records)
        }
        [host] if headless && !host.starts_with('_') => {
            let named = endpoints(slices);
            let named = named
                .iter()
                .filter(|(endpoint, address)| host_of(endpoint, *address) == host);
            let records: Vec<Record> = named.map(|(_, address)| record(name, Data::A(*address))).collect();
            (!records.is_empty()).then_some(records)
        }
        [protocol, port] => {
            let wanted = (port.strip_prefix('_')?, protocol.strip_prefix('_')?);
            let records = ports(name, whole, spec, slices, Some(wanted));
            (!records.is_empty()).then_some(records)
        }
        _ => None,
    }
}

/// SRV records of the ports, or of the one with this name and protocol.
fn ports(
    name: &str,
    whole: &str,
    spec: &ServiceSpec,
    slices: &[Arc<EndpointSlice>],
    wanted: Option<(&str, &str)>,
) -> Vec<Record> {
    let is_wanted = |port: Option<&str>, protocol: Option<&str>| match wanted {
        None => true,
        Some((wanted_port, wanted_protocol)) => {
            port.unwrap_or_default().eq_ignore_ascii_case(wanted_port)
                && protocol.unwrap_or("TCP").eq_ignore_ascii_case(wanted_protocol)
        }
    };
    let mut targets: Vec<(u16, String)> = Vec::new();
    if cluster_ips(spec).is_empty() {
        for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
            let listed = slice.ports.iter().flatten();
            let numbers: Vec<u16> = listed
                .filter(|port| is_wanted(port.name.as_deref(), port.protocol.as_deref()))
                .filter_map(|port| u16::try_from(port.port?).ok())
                .collect();
            for (endpoint, address) in endpoints(std::slice::from_ref(slice)) {
                let host = host_of(&endpoint, address);
                targets.extend(numbers.iter().map(|number| (*number, format!("{host}.{whole}"))));
            }
        }
    } else {
        let listed = spec.ports.iter().flatten();
        targets.extend(
            listed
                .filter(|port| is_wanted(port.name.as_deref(), port.protocol.as_deref()))
                .filter_map(|port| Some((u16::try_from(port.port).ok()?, whole.to_owned()))),
        );
    }
    targets.sort();
    targets.dedup();
    let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
    let records = targets.into_iter();
    records
        .map(|(port, target)| record(name, Data::Srv { port, target, weight }))
        .collect()
}

/// The addresses of the targets of SRV records.
fn targets(lookup: &impl Lookup, records: &[Record]) -> Vec<Record> {
    let mut names: Vec<&String> = records
        .iter()
        .filter_map(|record| match &record.data {
            Data::Srv { target, .. } => Some(target),
            _ => None,
        })
        .collect();
    names.dedup();
    let addresses = names.into_iter().filter_map(|name| match find(lookup, name, A) {
        Found::Answer(answer) => Some(answer.records),
        _ => None,
    });
    addresses.flatten().collect()
}

/// An ExternalName.
fn external(lookup: &impl Lookup, name: &str, kind: u16, spec: &ServiceSpec) -> Found {
    let target = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.');
    let target = target.to_ascii_lowercase();
    let mut answer = Answer {
        records: vec![record(name, Data::Name(CNAME, target.clone()))],
        ..Answer::default()
    };
    if matches!(kind, CNAME | ANY) || target == name {
        return Found::Answer(answer);
    }
    // Another name of the cluster may be a name of yet another: once is enough.
    match find_without_names(lookup, &target, kind) {
        Found::Answer(found) => {
            answer.records.extend(found.records);
            Found::Answer(answer)
        }
        _ => Found::Elsewhere(answer, target),
    }
}

fn find_without_names(lookup: &impl Lookup, name: &str, kind: u16) -> Found {
    let labels: Vec<&str> = name.split('.').collect();
    let is_external = matches!(labels[..], [service, namespace, ..] if lookup
        .service(namespace, service)
        .is_some_and(|service| service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))));
    match is_external && name.ends_with(ZONE) {
        true => Found::Answer(Answer::default()),
        false => find(lookup, name, kind),
    }
}

/// The names of an address.
fn pointers(lookup: &impl Lookup, address: Ipv4Addr) -> Vec<String> {
    let of = |metadata: &kube::core::ObjectMeta| metadata.namespace.clone().unwrap_or_default();
    let mut names = Vec::new();
    for service in lookup.services_at(address) {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        names.push(format!("{name}.{}.svc.{ZONE}", of(&service.metadata)));
    }
    if !names.is_empty() {
        return names;
    }
    for slice in lookup.slices_with(address) {
        let label = service_of(&slice);
        let Some(service) = label.and_then(|key| lookup.service(&key.namespace, &key.name)) else {
            continue;
        };
        let headless = service.spec.as_ref().is_some_and(|spec| cluster_ips(spec).is_empty());
        let name = service.metadata.name.as_deref().unwrap_or_default();
        for (endpoint, other) in endpoints(std::slice::from_ref(&slice)) {
            // Those without a name of their own have one only below a headless Service.
            if other == address && (headless || endpoint.hostname.is_some()) {
                let host = host_of(&endpoint, address);
                names.push(format!("{host}.{name}.{}.svc.{ZONE}", of(&slice.metadata)));
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// The records of the kind; with none of them, who is to be believed that there is none.
fn finish(name: &str, kind: u16, records: Option<Vec<Record>>) -> Found {
    let no_such_name = records.is_none();
    let of_kind = |record: &Record| kind == ANY || kind_of(&record.data) == kind;
    let records: Vec<Record> = records.into_iter().flatten().filter(of_kind).collect();
    let authority = match records.is_empty() && reversed(name).is_none() {
        true => vec![soa(ZONE)],
        false => Vec::new(),
    };
    Found::Answer(Answer {
        no_such_name,
        records,
        authority,
        additional: Vec::new(),
    })
}

fn kind_of(data: &Data) -> u16 {
    match data {
        Data::A(_) => A,
        Data::Aaaa(_) => super::message::AAAA,
        Data::Name(kind, _) => *kind,
        Data::Srv { .. } => SRV,
        Data::Txt(_) => TXT,
        Data::Soa(..) => SOA,
    }
}

fn record(name: &str, data: Data) -> Record {
    Record {
        name: name.to_owned(),
        ttl: TTL_SECONDS,
        data,
    }
}

fn soa(name: &str) -> Record {
    record(name, Data::Soa(format!("ns.dns.{ZONE}"), format!("hostmaster.{ZONE}")))
}

pub fn cluster_ips(spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let listed = spec.cluster_ips.iter().flatten();
    let listed: Vec<Ipv4Addr> = listed.filter_map(|ip| ip.parse().ok()).collect();
    match listed.is_empty() {
        true => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
        false => listed,
    }
}

/// Endpoints that are ready, with their addresses.
pub fn endpoints(slices: &[Arc<EndpointSlice>]) -> Vec<(Endpoint, Ipv4Addr)> {
    let slices = slices.iter().filter(|slice| slice.address_type == "IPv4");
    let all = slices.flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = all.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let addresses = ready.flat_map(|endpoint| {
        let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
        addresses.map(move |address| (endpoint.clone(), address))
    });
    addresses.collect()
}

/// What an endpoint is called below its Service.
fn host_of(endpoint: &Endpoint, address: Ipv4Addr) -> String {
    match endpoint.hostname.as_deref() {
        Some(name) if !name.is_empty() => name.to_ascii_lowercase(),
        _ => address.to_string().replace('.', "-"),
    }
}

fn undashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// The address of a name that asks for names.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let address = name.strip_suffix(".in-addr.arpa")?;
    let octets: Vec<&str> = address.split('.').rev().collect();
    octets.join(".").parse().ok()
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
