//! Situations of slices, and random runs of the plan against a small API.

use super::*;
use crate::client::endpoint_slices::SERVICE_NAME;
use crate::managed_by::{ENDPOINT_SLICE_CONTROLLER as MANAGER, ENDPOINT_SLICES as MANAGED_BY};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

fn service(spec: Value) -> Service {
    let mut whole = json!({
        "selector": {"app": "x"}, "clusterIP": "10.43.0.5", "ipFamilies": ["IPv4"],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
    });
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": {"name": "s", "namespace": "a", "uid": "service-uid", "labels": {"team": "t"}},
        "spec": whole,
    }))
    .unwrap()
}

fn pod_with(name: &str, ips: &[&str], ready: bool, more: Value) -> Arc<Pod> {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"), "labels": {"app": "x"}},
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

fn pod(number: usize, ready: bool) -> Arc<Pod> {
    let ip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
    pod_with(&format!("p{number}"), &[&ip], ready, json!({}))
}

fn node(name: &str) -> Option<Arc<Node>> {
    let known = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z"}}});
    (name != "gone").then(|| Arc::new(serde_json::from_value(known).unwrap()))
}

/// Two zones of the same size; [`node`] is in neither.
fn zoned() -> Vec<Arc<Node>> {
    let node = |zone: &str| {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": zone, "labels": {"topology.kubernetes.io/zone": zone}},
                "status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]},
            }))
            .unwrap(),
        )
    };
    vec![node("z"), node("y")]
}

fn look(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    plan(&Observed {
        service,
        pods,
        node: &node,
        zones: &|| Zones::of(&zoned()),
        slices,
        trigger: None,
    })
}

/// An API that holds the slices of one Service.
#[derive(Clone, Default)]
struct Api {
    slices: BTreeMap<String, Arc<EndpointSlice>>,
    revision: usize,
    writes: usize,
}

impl Api {
    fn view(&self) -> Vec<Arc<EndpointSlice>> {
        self.slices.values().cloned().collect()
    }

    fn put(&mut self, mut slice: EndpointSlice) {
        self.revision += 1;
        self.writes += 1;
        slice.metadata.resource_version = Some(self.revision.to_string());
        let name = slice
            .metadata
            .name
            .get_or_insert_with(|| format!("s-{}", self.revision))
            .clone();
        self.slices.insert(name, Arc::new(slice));
    }

    /// False if a call was refused or never came: the rest is then left.
    fn apply(&mut self, plan: Plan, mut comes: impl FnMut() -> bool) -> bool {
        for slice in plan.create {
            if !comes() {
                return false;
            }
            self.put(slice);
        }
        for slice in plan.update {
            let held = self.slices.get(&slice.name_any());
            let current = held.is_some_and(|held| held.metadata.resource_version == slice.metadata.resource_version);
            if !current || !comes() {
                return false;
            }
            self.put(slice);
        }
        for slice in plan.delete {
            if !comes() {
                return false;
            }
            self.writes += 1;
            self.slices.remove(&slice.name_any());
        }
        true
    }

    /// Every slice's endpoint targets by slice.
    fn targets(&self) -> Vec<Vec<String>> {
        let targets = |slice: &Arc<EndpointSlice>| {
            let endpoints = slice.endpoints.iter().flatten();
            let names = endpoints.map(|endpoint| endpoint.target_ref.as_ref().unwrap().name.clone().unwrap());
            names.collect()
        };
        self.slices.values().map(targets).collect()
    }
}

fn settle(api: &mut Api, service: &Service, pods: &[Arc<Pod>]) {
    let plan = look(service, pods, &api.view());
    assert!(api.apply(plan, || true));
    let again = look(service, pods, &api.view());
    assert!(again.is_empty(), "a settled Service is written again: {again:?}");
}

#[test]
fn a_service_without_pods_has_one_empty_slice() {
    let mut api = Api::default();
    settle(&mut api, &service(json!({})), &[]);
    assert_eq!(api.targets(), [Vec::<String>::new()]);
    let slice = api.view().remove(0);
    let labels = json!({"team": "t", SERVICE_NAME: "s", MANAGED_BY: MANAGER});
    assert_eq!(serde_json::to_value(&slice.metadata.labels).unwrap(), labels);
    assert_eq!(slice.metadata.generate_name.as_deref(), Some("s-"));
    let owner = json!([{"apiVersion": "v1", "kind": "Service", "name": "s", "uid": "service-uid",
        "controller": true, "blockOwnerDeletion": true}]);
    assert_eq!(serde_json::to_value(&slice.metadata.owner_references).unwrap(), owner);
    // It is the one that the first pod goes to, and the last leaves.
    settle(&mut api, &service(json!({})), &[pod(1, true)]);
    assert_eq!(api.view()[0].name_any(), slice.name_any());
    settle(&mut api, &service(json!({})), &[]);
    assert_eq!((api.view()[0].name_any(), api.writes), (slice.name_any(), 3));
}

#[test]
fn conditions_follow_the_pod() {
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let table = [
        (true, json!({}), false, [true, true, false]),
        (false, json!({}), false, [false, false, false]),
        (true, deleted.clone(), false, [false, true, true]),
        (false, deleted.clone(), false, [false, false, true]),
        (false, json!({}), true, [true, false, false]),
        (true, deleted, true, [true, true, true]),
    ];
    for (ready, more, publish, expected) in table {
        let service = service(json!({"publishNotReadyAddresses": publish}));
        let plan = look(&service, &[pod_with("p", &["10.0.0.1"], ready, more)], &[]);
        let endpoint = &plan.create[0].endpoints.as_ref().unwrap()[0];
        let conditions = endpoint.conditions.clone().unwrap();
        let found = [conditions.ready, conditions.serving, conditions.terminating];
        assert_eq!(found, expected.map(Some));
        assert_eq!(
            (endpoint.zone.as_deref(), endpoint.node_name.as_deref()),
            (Some("z"), Some("n"))
        );
    }
}

#[test]
fn families_ports_and_names_split_slices() {
    let dual = service(json!({"ipFamilies": ["IPv6", "IPv4"], "ports": [
        {"name": "a", "port": 1, "targetPort": "named"}, {"name": "b", "port": 2, "appProtocol": "grpc"}]}));
    let named = |number: i32| json!({"spec": {"containers": [{"name": "c", "ports": [{"name": "named", "containerPort": number}]}]}});
    let pods = [
        pod_with("p1", &["10.0.0.1", "fd00::1"], true, named(7)),
        pod_with("p2", &["10.0.0.2", "fd00::0002"], true, named(8)),
        pod_with("p3", &["10.0.0.3"], true, json!({})),
    ];
    let plan = look(&dual, &pods, &[]);
    let mut found: Vec<_> = plan
        .create
        .iter()
        .map(|slice| {
            let ports: Vec<_> = slice
                .ports
                .iter()
                .flatten()
                .map(|port| (port.name.clone().unwrap(), port.port.unwrap()))
                .collect();
            let addresses: Vec<_> = slice
                .endpoints
                .iter()
                .flatten()
                .map(|e| e.addresses.join(","))
                .collect();
            (slice.address_type.clone(), ports, addresses)
        })
        .collect();
    found.sort();
    let port = |name: &str, number| (name.to_owned(), number);
    let row =
        |family: &str, ports: Vec<(String, i32)>, address: &str| (family.to_owned(), ports, vec![address.to_owned()]);
    assert_eq!(
        found,
        [
            row("IPv4", vec![port("a", 7), port("b", 2)], "10.0.0.1"),
            row("IPv4", vec![port("a", 8), port("b", 2)], "10.0.0.2"),
            row("IPv4", vec![port("b", 2)], "10.0.0.3"),
            row("IPv6", vec![port("a", 7), port("b", 2)], "fd00::1"),
            row("IPv6", vec![port("a", 8), port("b", 2)], "fd00::2"),
        ]
    );
}

#[test]
fn headless_services_have_a_label_and_may_have_no_ports() {
    let headless = service(json!({"clusterIP": "None", "ports": []}));
    let named = json!({"spec": {"hostname": "web-0", "subdomain": "s"}});
    let plan = look(&headless, &[pod_with("p", &["10.0.0.1"], true, named)], &[]);
    let slice = &plan.create[0];
    assert_eq!(slice.labels()["service.kubernetes.io/headless"], "");
    assert_eq!(slice.ports.as_deref(), Some(&[][..]));
    assert_eq!(slice.endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("web-0"));
}

#[test]
fn pods_on_unknown_nodes_wait() {
    let lost = pod_with("p", &["10.0.0.1"], true, json!({"spec": {"nodeName": "gone"}}));
    let plan = look(&service(json!({})), std::slice::from_ref(&lost), &[]);
    assert_eq!(plan.without_node, [("p".to_owned(), "gone".to_owned())]);
    assert_eq!(plan.create[0].endpoints.as_deref(), Some(&[][..]));
    let published = look(&service(json!({"publishNotReadyAddresses": true})), &[lost], &[]);
    assert_eq!(
        (
            published.without_node.len(),
            published.create[0].endpoints.as_ref().unwrap().len()
        ),
        (0, 1)
    );
}

#[test]
fn slices_of_another_service_of_that_name_go_and_are_not_reused() {
    let service = service(json!({}));
    let mut api = Api::default();
    settle(&mut api, &service, &[pod(1, true)]);
    let mut renewed = service.clone();
    renewed.metadata.uid = Some("second".to_owned());
    let plan = look(&renewed, &[pod(1, true)], &api.view());
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (1, 0, 1));
    renewed.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().into());
    assert!(look(&renewed, &[pod(1, true)], &[]).create.is_empty());
}

#[test]
fn labels_families_and_triggers_reach_the_slices() {
    let mut service = service(json!({}));
    let mut api = Api::default();
    settle(&mut api, &service, &[pod(1, true)]);
    service.labels_mut().insert("team".to_owned(), "u".to_owned());
    let time: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
    let mut observed = Observed {
        service: &service,
        pods: &[pod(1, true)],
        node: &node,
        zones: &|| Zones::of(&[]),
        slices: &api.view(),
        trigger: Some(time),
    };
    let changed = plan(&observed).update.remove(0);
    assert_eq!(
        (
            changed.labels()["team"].as_str(),
            changed.annotations()[TRIGGER_TIME].as_str()
        ),
        ("u", "2026-01-01T00:00:00.5Z")
    );
    let marked = [Arc::new(changed)];
    let moved = [pod(1, false)];
    observed = Observed {
        pods: &moved,
        slices: &marked,
        trigger: None,
        ..observed
    };
    assert!(!plan(&observed).update[0].annotations().contains_key(TRIGGER_TIME));
    service.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".to_owned()]);
    let plan = look(&service, &[pod(1, true)], &api.view());
    assert_eq!(
        (plan.create.len(), plan.delete.len()),
        (1, 1),
        "an address type cannot be changed"
    );
}

#[test]
fn hints_come_and_go_with_the_distribution() {
    let mut api = Api::default();
    settle(&mut api, &service(json!({})), &[pod(1, true)]);
    settle(
        &mut api,
        &service(json!({"trafficDistribution": "PreferSameNode"})),
        &[pod(1, true)],
    );
    let hints = |api: &Api| api.view()[0].endpoints.as_ref().unwrap()[0].hints.clone();
    assert!(hints(&api).unwrap().for_nodes.is_some());
    settle(&mut api, &service(json!({})), &[pod(1, true)]);
    assert_eq!(hints(&api), None);
}

#[test]
fn slices_are_filled_before_new_ones_are_made() {
    let (service, mut api) = (service(json!({})), Api::default());
    let pods: Vec<_> = (0..250).map(|number| pod(number, true)).collect();
    for count in [99, 100, 101, 130, 250] {
        settle(&mut api, &service, &pods[..count]);
        let mut lengths: Vec<usize> = api.targets().iter().map(Vec::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths.len(), count.div_ceil(ENDPOINTS_MAX), "{count}: {lengths:?}");
    }
    // One pod that changes is one write.
    let before = api.writes;
    let mut one_less = pods.clone();
    one_less[120] = pod(120, false);
    settle(&mut api, &service, &one_less);
    assert_eq!(api.writes, before + 1);
    // A rolling update, pod by pod, needs no further slices.
    let mut rolling = pods;
    for number in 0..250 {
        rolling[number] = pod(number + 300, true);
        settle(&mut api, &service, &rolling);
        assert!(api.slices.len() <= 4, "{}", api.slices.len());
    }
}

/// Pods come, go and change; views are old, calls fail and the controller restarts. In the end every pod that belongs
/// is in exactly one slice.
#[test]
fn random_runs_end_with_every_pod_in_one_slice() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let service = service(match random.random_range(0..3) {
            0 => json!({"trafficDistribution": "PreferClose"}),
            1 => json!({"ports": [{"name": "a", "port": 1, "targetPort": "named"}]}),
            _ => json!({}),
        });
        let (mut api, mut pods) = (Api::default(), BTreeMap::new());
        let mut views = vec![Vec::new()];
        let peak = if seed % 40 == 0 { 420 } else { 40 };
        for _ in 0..20 {
            for _ in 0..random.random_range(0..peak / 4) {
                let number = random.random_range(0..peak);
                let port = json!({"spec": {"containers": [{"name": "c", "ports": [
                    {"name": "named", "containerPort": 1000 + number % 3}]}]}});
                let ip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
                match random.random_range(0..3) {
                    0 => drop(pods.remove(&number)),
                    kind => drop(pods.insert(number, pod_with(&format!("p{number}"), &[&ip], kind == 1, port))),
                }
            }
            views.push(api.view());
            let mut listed: Vec<_> = pods.values().cloned().collect();
            listed.shuffle(&mut random);
            // A view of long ago, as a cache that lags has it.
            let view = if random.random_bool(0.2) {
                random.random_range(0..views.len())
            } else {
                views.len() - 1
            };
            let plan = look(&service, &listed, &views[view]);
            api.apply(plan, || random.random_bool(0.9));
        }
        let listed: Vec<_> = pods.values().cloned().collect();
        for round in 0.. {
            let plan = look(&service, &listed, &api.view());
            if plan.is_empty() {
                break;
            }
            assert!(round < 4 && api.apply(plan, || true), "seed {seed} does not settle");
        }
        let mut found: Vec<String> = api.targets().concat();
        found.sort();
        let mut expected: Vec<String> = listed.iter().map(|pod| pod.name_any()).collect();
        expected.sort();
        assert_eq!(found, expected, "seed {seed}");
        let lengths: Vec<usize> = api.targets().iter().map(Vec::len).collect();
        assert!(
            lengths.iter().all(|length| *length <= ENDPOINTS_MAX),
            "seed {seed}: {lengths:?}"
        );
        assert!(lengths.len() <= expected.len().max(1), "seed {seed}: {lengths:?}");
    }
}

#[test]
fn hints_by_processors_come_and_go_with_the_annotation() {
    let pods: Vec<Arc<Pod>> = (0..4).map(|number| pod(number, true)).collect();
    let plain = service(json!({}));
    let mut hinted = plain.clone();
    let annotations = hinted.annotations_mut();
    annotations.insert("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    let zones = |slices: &[Arc<EndpointSlice>]| {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let hints = endpoints.filter_map(|endpoint| endpoint.hints.clone()?.for_zones);
        let mut names: Vec<String> = hints.flatten().map(|zone| zone.name).collect();
        names.sort();
        names.concat()
    };
    let mut api = Api::default();
    api.apply(look(&plain, &pods, &[]), || true);
    assert_eq!(zones(&api.view()), "");
    let plan = look(&hinted, &pods, &api.view());
    assert_eq!(plan.topology, [("IPv4", Ok(()))]);
    api.apply(plan, || true);
    assert_eq!(
        zones(&api.view()),
        "yyzz",
        "all are in one zone, and half of them are for the other"
    );
    assert!(look(&hinted, &pods, &api.view()).is_empty());
    let few = look(&hinted, &pods[..1], &api.view());
    let why = "Insufficient number of endpoints (1 endpoints, 2 zones)".to_owned();
    assert_eq!(few.topology, [("IPv4", Err(why))]);
    api.apply(few, || true);
    assert_eq!(zones(&api.view()), "");
}
