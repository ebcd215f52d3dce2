//! Ingresses, network policies, endpoints, and the objects of the address allocator; nodes and namespaces.

use super::{create, kind, object, table, update};
use crate::registry::strategy::Target;
use serde_json::{Value, json};

const GROUP: &str = "networking.k8s.io";

#[test]
fn ingresses_are_checked() {
    let paths = |path: Value| json!({"spec": {"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}});
    let service = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingresses = kind(GROUP, "v1", "ingresses");
    table(
        &ingresses,
        vec![
            (
                paths(json!({"path": "/", "pathType": "Prefix", "backend": service})),
                "",
            ),
            (
                json!({"spec": {}}),
                "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
            ),
            (
                paths(json!({"path": "/", "backend": service})),
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
            ),
            (paths(json!({"path": "a", "pathType": "Exact", "backend": service})), {
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"
            }),
            (
                paths(json!({"path": "/a//b/..", "pathType": "Exact", "backend": service})),
                {
                    "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/..\": must not contain '//'\n\
 spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/..\": cannot end with '/..'"
                },
            ),
            (paths(json!({"path": "/", "pathType": "Prefix"})), {
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required"
            }),
            (
                paths(json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s"}}})),
                { "spec.rules[0].http.paths[0].backend: Required value: port name or number is required" },
            ),
            (
                json!({"spec": {"defaultBackend": service, "rules": [{"host": "10.0.0.1"}]}}),
                { "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address" },
            ),
        ],
    );
    table(
        &kind(GROUP, "v1", "ingressclasses"),
        vec![
            (json!({"spec": {"controller": "example.com/c"}}), ""),
            (json!({"spec": {"controller": "c"}}), {
                "spec.controller: Invalid value: \"c\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            }),
            (json!({"spec": {"controller": "example.com/a b"}}), {
                "spec.controller: Invalid value: \"a b\": Invalid path (regex used for validation is \
                 '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
            }),
            (
                json!({"spec": {"controller": "e.com/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}}),
                { "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'" },
            ),
        ],
    );
}

#[test]
fn network_policies_are_checked() {
    let ingress = |rule: Value| json!({"spec": {"podSelector": {}, "ingress": [rule]}});
    let policies = kind(GROUP, "v1", "networkpolicies");
    table(
        &policies,
        vec![
            (ingress(json!({"ports": [{"port": 80, "endPort": 90}]})), ""),
            (ingress(json!({"ports": [{"port": 80, "endPort": 70}]})), {
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`"
            }),
            (ingress(json!({"ports": [{"endPort": 70}]})), {
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is not specified"
            }),
            (
                ingress(json!({"from": [{}]})),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                ingress(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]})),
                { "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer" },
            ),
            (
                ingress(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]})),
                {
                    "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`"
                },
            ),
            (json!({"spec": {"podSelector": {}, "policyTypes": ["Both"]}}), {
                "spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\""
            }),
        ],
    );
    let ports = |port: Value| ingress(json!({"ports": [port]}));
    table(
        &policies,
        vec![(ports(json!({"port": 80, "protocol": "ICMP"})), {
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\""
        })],
    );
    let (created, _) = create(
        &policies,
        &json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}),
    );
    assert_eq!(created["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(created["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
}

#[test]
fn service_ranges_are_checked() {
    let ranges = kind(GROUP, "v1", "servicecidrs");
    table(
        &ranges,
        vec![
            (json!({"spec": {"cidrs": ["10.0.0.0/16", "fd00::/112"]}}), ""),
            (
                json!({"spec": {}}),
                "spec.cidrs: Required value: at least one CIDR required",
            ),
            (json!({"spec": {"cidrs": ["10.0.0.0/16", "10.1.0.0/16"]}}), {
                "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP \
             family, i.e 192.168.0.0/24 and 2001:db8::/64"
            }),
            (json!({"spec": {"cidrs": ["10.0.0.1/16"]}}), {
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/16\": must not have bits set beyond the prefix length"
            }),
            (
                json!({"spec": {"cidrs": ["10.0.0.0/16", "fd00::/112", "10.1.0.0/16"]}}),
                {
                    "spec.cidrs: Invalid value: {\"CIDRs\":[\"10.0.0.0/16\",\"fd00::/112\",\"10.1.0.0/16\"]}: may only hold up \
                 to 2 values"
                },
            ),
        ],
    );
    let range = |cidrs: Value| json!({"spec": {"cidrs": cidrs}});
    let one = range(json!(["10.0.0.0/16"]));
    assert_eq!(
        update(&ranges, &range(json!(["10.0.0.0/16", "fd00::/112"])), &one),
        Vec::<String>::new()
    );
    assert_eq!(
        update(&ranges, &range(json!(["10.1.0.0/16"])), &one),
        ["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"]
    );
}

#[test]
fn endpoint_slices_are_checked() {
    let slices = kind("discovery.k8s.io", "v1", "endpointslices");
    let slice =
        |address: &str| json!({"addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"port": 1}]});
    table(
        &slices,
        vec![
            (slice("10.0.0.1"), ""),
            (json!({"endpoints": []}), "addressType: Required value"),
            (
                slice("fd00::1"),
                "endpoints[0].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
            ),
            (slice("127.0.0.1"), {
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            }),
        ],
    );
    let old = slice("10.0.0.1");
    let mut other = old.clone();
    other["addressType"] = json!("FQDN");
    other["endpoints"] = json!([]);
    assert_eq!(
        update(&slices, &other, &old),
        ["addressType: Invalid value: null: field is immutable"]
    );
}

#[test]
fn endpoints_are_checked() {
    let endpoints = kind("", "v1", "endpoints");
    let subset = |subset: Value| json!({"subsets": [subset]});
    let address = |address: Value| subset(json!({"addresses": [address]}));
    let port = |port: Value| subset(json!({"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [port]}));
    let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                 with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    let hostname = format!("subsets[0].addresses[0].hostname: Invalid value: \"A\": {label}");
    table(
        &endpoints,
        vec![
            (json!({}), ""),
            (port(json!({"port": 1})), ""),
            (
                subset(json!({"ports": [{"port": 1}]})),
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
            ),
            (address(json!({"ip": "a"})), {
                "subsets[0].addresses[0].ip: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)\nsubsets[0].addresses[0].ip: Invalid value: \"a\": must be a valid IP address"
            }),
            (address(json!({"ip": "0.0.0.0"})), {
                "subsets[0].addresses[0].ip: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)"
            }),
            (address(json!({"ip": "fe80::1"})), {
                "subsets[0].addresses[0].ip: Invalid value: \"fe80::1\": may not be in the link-local range \
                 (169.254.0.0/16, fe80::/10)"
            }),
            (address(json!({"ip": "10.0.0.1", "hostname": "A"})), &hostname),
            (port(json!({"port": 0, "protocol": "HTTP", "appProtocol": "a/b/c"})), {
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive\n\
                 subsets[0].ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"\n\
                 subsets[0].ports[0].appProtocol: Invalid value: \"a/b/c\": a valid label key must consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
                 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            }),
            (
                subset(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"name": "b", "port": 2}]})),
                "subsets[0].ports[0].name: Required value",
            ),
        ],
    );
    let wrong = address(json!({"ip": "127.0.0.1"}));
    assert_eq!(update(&endpoints, &wrong, &wrong), Vec::<String>::new());
    assert_eq!(update(&endpoints, &wrong, &json!({})).len(), 1);
    let warnings = |value: &Value| endpoints.strategy.warnings(&object(value), None);
    let long =
        "subsets[0].addresses[0].ip: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
    let mut written = address(json!({"ip": "fd00:0::1"}));
    assert_eq!(warnings(&written), [long]);
    written["metadata"] = json!({"labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}});
    assert!(warnings(&written).is_empty());
    let slices = kind("discovery.k8s.io", "v1", "endpointslices");
    let names = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b.c"]}]});
    assert_eq!(
        slices.strategy.warnings(&object(&names), None),
        ["spec.addressType: FQDN endpoints are deprecated"]
    );
}

#[test]
fn nodes_are_checked() {
    let nodes = kind("", "v1", "nodes");
    let ranges = |ranges: Value| json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ranges}});
    table(
        &nodes,
        vec![
            (ranges(json!(["10.0.0.0/24", "fd00::/64"])), ""),
            (ranges(json!(["10.0.0.0/24", "10.0.1.0/24"])), {
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each \
             IP family"
            }),
            (json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}), {
                "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \
             \"PreferNoSchedule\", \"NoExecute\""
            }),
        ],
    );
    let (old, _) = create(&nodes, &json!({"spec": {"podCIDR": "10.0.0.0/24", "providerID": "p"}}));
    assert_eq!(old["spec"]["podCIDRs"], json!(["10.0.0.0/24"]));
    let fixed = "node updates may not change podCIDR except from \"\" to valid";
    let new = json!({"spec": {"podCIDR": "10.1.0.0/24", "providerID": "p"}});
    assert_eq!(
        update(&nodes, &new, &old),
        [format!("spec.podCIDRs: Forbidden: {fixed}")]
    );
    assert_eq!(update(&nodes, &old, &json!({"spec": {}})), Vec::<String>::new());
}

#[test]
fn finalizers_of_namespaces_and_their_phase_are_checked() {
    let namespaces = kind("", "v1", "namespaces");
    table(
        &namespaces,
        vec![(json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["a"]}}), {
            "spec.finalizers: Invalid value: \"a\": name is neither a standard finalizer name nor is it fully qualified"
        })],
    );
    let active = object(&json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}}));
    let ending = object(&json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
    let errors = namespaces.strategy.validate_update(&ending, &active, Target::Status);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = "may only be 'Active' if `deletionTimestamp` is empty";
    assert_eq!(
        errors,
        [format!("status.Phase: Invalid value: \"Terminating\": {expected}")]
    );
    assert!(
        namespaces
            .strategy
            .validate_update(&active, &active, Target::Status)
            .is_empty()
    );
}
