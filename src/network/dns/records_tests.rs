//! The names of a small cluster.

use super::super::message::AAAA;
use super::*;
use serde_json::{Value, json};

struct Small {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Small {
    fn new() -> Self {
        let service = |name: &str, spec: Value| {
            let object = json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let slice = |service: &str, endpoints: Value| {
            let object = json!({
                "metadata": {"namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
                "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            });
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
        Self {
            services: vec![
                service("web", json!({"clusterIP": "10.43.0.9", "ports": ports})),
                service("db", json!({"clusterIP": "None", "ports": ports})),
                service("idle", json!({"clusterIP": "None", "ports": ports})),
                service("out", json!({"type": "ExternalName", "externalName": "Example.org."})),
                service(
                    "in",
                    json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"}),
                ),
            ],
            slices: vec![
                slice("web", json!([{"addresses": ["10.42.0.2"]}])),
                slice(
                    "db",
                    json!([
                        {"addresses": ["10.42.0.3"], "hostname": "db-0"}, {"addresses": ["10.42.0.4"]},
                        {"addresses": ["10.42.0.5"], "conditions": {"ready": false}},
                    ]),
                ),
            ],
        }
    }
}

impl Lookup for Small {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        let named = |service: &&Arc<Service>| {
            service.metadata.namespace.as_deref() == Some(namespace) && service.metadata.name.as_deref() == Some(name)
        };
        self.services.iter().find(named).cloned()
    }

    fn has_services(&self, namespace: &str) -> bool {
        namespace == "ns"
    }

    fn slices(&self, _: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let labelled = |slice: &&Arc<EndpointSlice>| {
            slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service
        };
        self.slices.iter().filter(labelled).cloned().collect()
    }

    fn services_at(&self, ip: Ipv4Addr) -> Vec<Arc<Service>> {
        let at = |service: &&Arc<Service>| cluster_ips(service.spec.as_ref().unwrap()).contains(&ip);
        self.services.iter().filter(at).cloned().collect()
    }

    fn slices_with(&self, address: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        let with = |slice: &&Arc<EndpointSlice>| {
            let found = endpoints(std::slice::from_ref(*slice));
            found.iter().any(|(_, other)| *other == address)
        };
        self.slices.iter().filter(with).cloned().collect()
    }
}

/// What an answer holds, in words.
fn ask(name: &str, kind: u16) -> String {
    let (answer, more) = match find(&Small::new(), name, kind) {
        Found::NotOurs => return "not ours".to_owned(),
        Found::Answer(answer) => (answer, String::new()),
        Found::Elsewhere(answer, name) => (answer, format!(" then {name}")),
    };
    if answer.no_such_name {
        assert!(matches!(answer.authority[0].data, Data::Soa(..)));
        return "no such name".to_owned();
    }
    let mut words: Vec<String> = answer
        .records
        .iter()
        .map(|record| match &record.data {
            Data::A(ip) => ip.to_string(),
            Data::Name(_, name) => name.clone(),
            Data::Srv { port, target, .. } => format!("{target}:{port}"),
            Data::Txt(text) => text.clone(),
            other => format!("{other:?}"),
        })
        .collect();
    words.sort();
    words.join(" ") + &more
}

#[test]
fn services() {
    for (name, kind, expected) in [
        ("web.ns.svc.cluster.local", A, "10.43.0.9"),
        ("web.ns.svc.cluster.local", AAAA, ""),
        ("nobody.ns.svc.cluster.local", A, "no such name"),
        ("web.other.svc.cluster.local", A, "no such name"),
        (
            "_http._tcp.web.ns.svc.cluster.local",
            SRV,
            "web.ns.svc.cluster.local:80",
        ),
        ("_http._udp.web.ns.svc.cluster.local", SRV, "no such name"),
        ("web.ns.svc.cluster.local", SRV, "web.ns.svc.cluster.local:80"),
        ("db.ns.svc.cluster.local", A, "10.42.0.3 10.42.0.4"),
        ("idle.ns.svc.cluster.local", A, "no such name"),
        ("db-0.db.ns.svc.cluster.local", A, "10.42.0.3"),
        ("10-42-0-4.db.ns.svc.cluster.local", A, "10.42.0.4"),
        ("10-42-0-5.db.ns.svc.cluster.local", A, "no such name"),
        (
            "_http._tcp.db.ns.svc.cluster.local",
            SRV,
            "10-42-0-4.db.ns.svc.cluster.local:8080 db-0.db.ns.svc.cluster.local:8080",
        ),
        ("out.ns.svc.cluster.local", CNAME, "example.org"),
        ("out.ns.svc.cluster.local", A, "example.org then example.org"),
        ("in.ns.svc.cluster.local", A, "10.43.0.9 web.ns.svc.cluster.local"),
    ] {
        assert_eq!(ask(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn addresses_and_what_is_above_names() {
    for (name, kind, expected) in [
        ("9.0.43.10.in-addr.arpa", PTR, "web.ns.svc.cluster.local"),
        ("3.0.42.10.in-addr.arpa", PTR, "db-0.db.ns.svc.cluster.local"),
        ("4.0.42.10.in-addr.arpa", PTR, "10-42-0-4.db.ns.svc.cluster.local"),
        ("2.0.42.10.in-addr.arpa", PTR, "not ours"),
        ("8.8.8.8.in-addr.arpa", PTR, "not ours"),
        ("10-42-0-2.ns.pod.cluster.local", A, "10.42.0.2"),
        ("x.ns.pod.cluster.local", A, "no such name"),
        ("ns.svc.cluster.local", A, ""),
        ("svc.cluster.local", A, ""),
        ("other.svc.cluster.local", A, "no such name"),
        ("x.cluster.local", A, "no such name"),
        ("dns-version.cluster.local", TXT, "1.1.0"),
        ("cluster.local", NS, "ns.dns.cluster.local"),
        ("example.org", A, "not ours"),
        ("mycluster.local", A, "not ours"),
    ] {
        assert_eq!(ask(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn targets_of_ports_come_with_their_addresses() {
    let Found::Answer(answer) = find(&Small::new(), "_http._tcp.db.ns.svc.cluster.local", SRV) else {
        panic!("an answer");
    };
    assert_eq!(answer.additional.len(), 2);
}
