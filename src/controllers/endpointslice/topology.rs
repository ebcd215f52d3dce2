//! Hints by the processors that each zone has, for Services that ask for them by an annotation
//! (upstream: `staging/src/k8s.io/endpointslice/topologycache`). Pure.
//!
//! Each zone is to have about as many endpoints as it has processors, and no endpoint is to get a fifth more than its
//! share. Where that cannot be, there are no hints.

use super::desired::ZONE;
use super::hints::is_ready;
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The older one counts where there are both.
const MODES: [&str; 2] = [
    "service.kubernetes.io/topology-aware-hints",
    "service.kubernetes.io/topology-mode",
];
/// Nodes that do not count.
const CONTROL_PLANE: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
const OVERLOAD_MAX: f64 = 0.2;

pub const ENABLED: &str = "Topology Aware Hints has been enabled";
pub const DISABLED: &str = "Topology Aware Hints has been disabled";
const UNKNOWN_NODES: &str = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const TOO_FEW: &str = "Insufficient number of endpoints";
const OVERLOADED: &str =
    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const NO_HINTS: &str = "No hints allocated for zones";

/// Whether a Service asks for such hints.
pub fn is_wanted(service: &Service) -> bool {
    let annotations = service.annotations();
    let mode = MODES.iter().find_map(|mode| annotations.get(*mode));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.next().is_some_and(|condition| condition.status == "True")
}

/// What of a node matters here: None if it does not count, else its zone and its processors in thousandths.
pub fn weight(node: &Node) -> Option<(String, i64)> {
    let labels = node.labels();
    if CONTROL_PLANE.iter().any(|label| labels.contains_key(*label)) || !is_node_ready(node) {
        return None;
    }
    let status = node.status.as_ref();
    let room = status.and_then(|status| status.allocatable.as_ref());
    let cpu = room.and_then(|room| room.get("cpu"));
    let cpu = cpu.and_then(|cpu| cpu.0.parse::<Quantity>().ok());
    let zone = labels.get(ZONE).cloned().unwrap_or_default();
    Some((zone, cpu.map_or(0, Quantity::milli_value)))
}

/// The shares of the zones; None if there are not two zones, or a node does not say what it has.
pub struct Zones(Option<BTreeMap<String, f64>>);

impl Zones {
    pub fn of(nodes: &[Arc<Node>]) -> Self {
        let mut zones: BTreeMap<String, i64> = BTreeMap::new();
        for (zone, cpu) in nodes.iter().filter_map(|node| weight(node)) {
            if zone.is_empty() || cpu == 0 {
                return Self(None);
            }
            *zones.entry(zone).or_default() += cpu;
        }
        if zones.len() < 2 {
            return Self(None);
        }
        let all: i64 = zones.values().sum();
        let shares = zones.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / all as f64));
        Self(Some(shares.collect()))
    }

    fn allocations(&self, endpoints: usize) -> Result<BTreeMap<&str, Allocation>, String> {
        let Some(shares) = &self.0 else {
            return Err(UNKNOWN_NODES.to_owned());
        };
        let told = |what: &str| format!("{what} ({endpoints} endpoints, {} zones)", shares.len());
        if shares.len() > endpoints {
            return Err(told(TOO_FEW));
        }
        let least = |share: &f64| (share * endpoints as f64 / (1.0 + OVERLOAD_MAX)).ceil() as usize;
        let Some(spare) = endpoints.checked_sub(shares.values().map(least).sum()) else {
            return Err(told(OVERLOADED));
        };
        let allocation = |share: &f64| Allocation {
            desired: (share * endpoints as f64).max(least(share) as f64),
            max: least(share) + spare,
        };
        let shares = shares.iter();
        Ok(shares.map(|(zone, share)| (zone.as_str(), allocation(share))).collect())
    }
}

/// How many endpoints a zone is to have.
struct Allocation {
    desired: f64,
    max: usize,
}

/// How many hints there are for each zone.
type Counts = BTreeMap<String, usize>;

/// The slices of one address family: those that are written anyway, and those that may stay as they are.
pub struct Slices<'a> {
    pub create: &'a mut [EndpointSlice],
    pub update: &'a mut Vec<EndpointSlice>,
    pub unchanged: Vec<&'a Arc<EndpointSlice>>,
}

/// Gives hints; a slice whose hints do not fit any more is written, too. Err says why there can be none.
pub fn give(zones: &Zones, slices: Slices<'_>) -> Result<(), String> {
    let Slices {
        create,
        update,
        unchanged,
    } = slices;
    let kept = unchanged.iter().map(|slice| &***slice);
    let all = create.iter().chain(update.iter()).chain(kept);
    let ready = all.flat_map(endpoints).filter(|endpoint| is_ready(endpoint));
    let allocations = zones.allocations(ready.count())?;
    let mut counts = Counts::new();
    let mut revised = Vec::new();
    for slice in unchanged {
        match hints_of(slice, &counts, &allocations) {
            Some(more) => more.into_iter().for_each(|(zone, count)| {
                *counts.entry(zone).or_default() += count;
            }),
            None => revised.push(EndpointSlice::clone(slice)),
        }
    }
    // Each to its own zone, then from those that have too many to those that lack some.
    let mut given: Vec<(&str, &mut Endpoint)> = Vec::new();
    let written = create.iter_mut().chain(update.iter_mut()).chain(revised.iter_mut());
    for endpoint in written.flat_map(|slice| slice.endpoints.iter_mut().flatten()) {
        endpoint.hints = None;
        if !is_ready(endpoint) {
            continue;
        }
        let zone = endpoint.zone.clone().filter(|zone| !zone.is_empty());
        let zone = zone.ok_or_else(|| NO_ZONE.to_owned())?;
        *counts.entry(zone.clone()).or_default() += 1;
        hint(endpoint, &zone);
        if let Some((known, _)) = allocations.get_key_value(zone.as_str()) {
            given.push((known, endpoint));
        }
    }
    let (mut giving, mut receiving) = moves(&allocations, &counts);
    for (zone, endpoint) in given {
        let Some(left) = giving.get_mut(zone).filter(|left| **left > 0) else {
            continue;
        };
        let Some((other, lacking)) = receiving.iter_mut().find(|(_, lacking)| **lacking > 0) else {
            break;
        };
        hint(endpoint, other);
        *left -= 1;
        *lacking -= 1;
    }
    if counts.is_empty() {
        return Err(NO_HINTS.to_owned());
    }
    update.append(&mut revised);
    Ok(())
}

fn endpoints(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().flatten()
}

fn hint(endpoint: &mut Endpoint, zone: &str) {
    endpoint.hints = Some(EndpointHints {
        for_zones: Some(vec![ForZone { name: zone.to_owned() }]),
        for_nodes: None,
    });
}

/// The hints of a slice, if beside those that are counted already they leave each zone what it is to have.
fn hints_of(slice: &EndpointSlice, counted: &Counts, allocations: &BTreeMap<&str, Allocation>) -> Option<Counts> {
    let mut counts = Counts::new();
    for endpoint in endpoints(slice).filter(|endpoint| is_ready(endpoint)) {
        let hints = endpoint.hints.as_ref()?.for_zones.as_ref()?;
        if hints.is_empty() {
            return None;
        }
        for hint in hints {
            allocations.get(hint.name.as_str())?;
            *counts.entry(hint.name.clone()).or_default() += 1;
        }
    }
    let fits = |(zone, count): (&String, &usize)| {
        let before = counted.get(zone).copied().unwrap_or_default();
        allocations
            .get(zone.as_str())
            .is_some_and(|allocation| count + before <= allocation.max)
    };
    counts.iter().all(fits).then_some(counts)
}

/// How many endpoints each zone gives away, and how many each gets.
fn moves<'a>(
    allocations: &BTreeMap<&'a str, Allocation>,
    counts: &Counts,
) -> (BTreeMap<&'a str, usize>, BTreeMap<&'a str, usize>) {
    let surplus = |(zone, allocation): (&&'a str, &Allocation)| {
        let has = counts.get(*zone).copied().unwrap_or_default();
        (*zone, has as f64 - allocation.desired)
    };
    let mut surplus: Vec<(&str, f64)> = allocations.iter().map(surplus).collect();
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    loop {
        let by_surplus = |one: &usize, other: &usize| surplus[*one].1.total_cmp(&surplus[*other].1);
        let indexes = 0..surplus.len();
        let (Some(most), Some(least)) = (indexes.clone().max_by(by_surplus), indexes.clone().min_by(by_surplus)) else {
            break;
        };
        let (to_give, to_receive) = (surplus[most].1, -surplus[least].1);
        if (to_give < 1.0 && to_receive < 1.0) || to_give < 0.5 || to_receive < 0.5 {
            break;
        }
        *giving.entry(surplus[most].0).or_default() += 1;
        *receiving.entry(surplus[least].0).or_default() += 1;
        surplus[most].1 -= 1.0;
        surplus[least].1 += 1.0;
    }
    (giving, receiving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn nodes(zones: &[(&str, &str)]) -> Vec<Arc<Node>> {
        let node = |(index, (zone, cpu)): (usize, &(&str, &str))| {
            let value = json!({
                "metadata": {"name": format!("n{index}"), "labels": {ZONE: zone}},
                "status": {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]},
            });
            Arc::new(serde_json::from_value(value).unwrap())
        };
        zones.iter().enumerate().map(node).collect()
    }

    /// Endpoints by the zone of each; in capitals those that are not ready.
    fn slice(zones: &str) -> EndpointSlice {
        let endpoint = |zone: char| {
            json!({"addresses": ["10.0.0.1"], "zone": zone.to_lowercase().to_string(),
                "conditions": {"ready": zone.is_lowercase()}})
        };
        let endpoints: Vec<Value> = zones.chars().map(endpoint).collect();
        serde_json::from_value(json!({"addressType": "IPv4", "ports": [], "endpoints": endpoints})).unwrap()
    }

    fn hints(slice: &EndpointSlice) -> String {
        let hint = |endpoint: &Endpoint| match &endpoint.hints {
            Some(hints) => hints.for_zones.as_ref().unwrap()[0].name.clone(),
            None => "-".to_owned(),
        };
        endpoints(slice).map(hint).collect()
    }

    #[test]
    fn endpoints_are_spread_as_processors_are() {
        let even = [("a", "4"), ("b", "4")];
        let three = [("a", "2"), ("b", "2"), ("c", "2")];
        for (zones, endpoints, expected) in [
            (&even[..], "aabb", Ok("aabb")),
            (&even[..], "aaaa", Ok("bbaa")),
            (&even[..], "aaabA", Ok("baab-")),
            (&[("a", "6"), ("b", "1500m"), ("b", "500m")][..], "aabb", Ok("aaab")),
            (&three[..], "aaabbbccc", Ok("aaabbbccc")),
            (&three[..], "aaaaaabcc", Ok("bbcaaabcc")),
            (
                &even[..],
                "a",
                Err("Insufficient number of endpoints (1 endpoints, 2 zones)"),
            ),
            (
                &[("a", "9"), ("b", "1")][..],
                "aab",
                Err(
                    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold (3 endpoints, 2 zones)",
                ),
            ),
            (&[("a", "4"), ("a", "4")][..], "aaa", Err(UNKNOWN_NODES)),
            (&[("a", "4"), ("", "4")][..], "aaa", Err(UNKNOWN_NODES)),
            (&[("a", "4"), ("b", "0")][..], "aaa", Err(UNKNOWN_NODES)),
        ] {
            let zones = Zones::of(&nodes(zones));
            let mut create = [slice(endpoints)];
            let given = give(
                &zones,
                Slices {
                    create: &mut create,
                    update: &mut Vec::new(),
                    unchanged: Vec::new(),
                },
            );
            let found = given.map(|()| hints(&create[0]));
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{endpoints}");
        }
    }

    #[test]
    fn slices_whose_hints_fit_stay_as_they_are() {
        let zones = Zones::of(&nodes(&[("a", "4"), ("b", "4")]));
        let mut first = [slice("aabb")];
        let new = Slices {
            create: &mut first,
            update: &mut Vec::new(),
            unchanged: Vec::new(),
        };
        give(&zones, new).unwrap();
        let kept = Arc::new(first[0].clone());
        let mut update = Vec::new();
        let look = |update: &mut Vec<EndpointSlice>, create: &mut [EndpointSlice], slice: &Arc<EndpointSlice>| {
            give(
                &zones,
                Slices {
                    create,
                    update,
                    unchanged: vec![slice],
                },
            )
            .map(|()| update.len())
        };
        assert_eq!(look(&mut update, &mut [], &kept), Ok(0));
        // New ones in one zone alone are spread; what is there stays.
        let mut more = [slice("aa")];
        assert_eq!(look(&mut update, &mut more, &kept), Ok(0));
        assert_eq!(hints(&more[0]), "ba");
        // One without hints is written.
        assert_eq!(look(&mut update, &mut [], &Arc::new(slice("aaab"))), Ok(1));
        assert_eq!(hints(&update[0]), "baab");
        let mut unzoned = slice("ab");
        unzoned.endpoints.as_mut().unwrap()[0].zone = None;
        let mut unzoned = [unzoned];
        assert_eq!(look(&mut Vec::new(), &mut unzoned, &kept), Err(NO_ZONE.to_owned()));
    }

    #[test]
    fn services_ask_by_an_annotation_and_control_planes_do_not_count() {
        for (annotations, expected) in [
            (json!({"service.kubernetes.io/topology-mode": "Auto"}), true),
            (json!({"service.kubernetes.io/topology-aware-hints": "auto"}), true),
            (
                json!({"service.kubernetes.io/topology-aware-hints": "disabled", "service.kubernetes.io/topology-mode": "Auto"}),
                false,
            ),
            (json!({"service.kubernetes.io/topology-mode": "other"}), false),
            (json!({}), false),
        ] {
            let service = serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
            assert_eq!(is_wanted(&service), expected, "{annotations}");
        }
        let mut node = Node::clone(&nodes(&[("a", "4")])[0]);
        assert_eq!(weight(&node), Some(("a".to_owned(), 4000)));
        node.labels_mut().insert(CONTROL_PLANE[0].to_owned(), String::new());
        assert_eq!(weight(&node), None);
    }
}
