//! Situations of mirrored Endpoints, and random runs.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

fn endpoints(subsets: Value) -> Endpoints {
    let metadata = json!({
        "name": "s", "namespace": "a", "uid": "e", "labels": {"team": "t"},
        "annotations": {"kept": "yes", TRIGGER_TIME: "2026-01-01T00:00:00Z", LAST_APPLIED: "{}"},
    });
    serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).unwrap()
}

fn stored(slices: Vec<EndpointSlice>) -> Vec<Arc<EndpointSlice>> {
    let store = |(index, mut slice): (usize, EndpointSlice)| {
        slice.metadata.name.get_or_insert_with(|| format!("s-{index}"));
        Arc::new(slice)
    };
    slices.into_iter().enumerate().map(store).collect()
}

fn addresses(slice: &EndpointSlice) -> Vec<(String, bool)> {
    let endpoints = slice.endpoints.iter().flatten();
    let row = |endpoint: &Endpoint| {
        let conditions = endpoint.conditions.as_ref().unwrap();
        (endpoint.addresses.join(","), conditions.ready.unwrap())
    };
    endpoints.map(row).collect()
}

#[test]
fn each_subset_and_family_has_a_slice() {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let first = endpoints(json!([
        {"addresses": [{"ip": "10.0.0.1", "hostname": "h", "nodeName": "n"}, {"ip": "fd00::01"}],
            "notReadyAddresses": [{"ip": "010.000.0.2"}], "ports": ports},
        {"addresses": [{"ip": "10.0.0.3"}]},
    ]));
    let made = plan(&first, &[]);
    assert_eq!(
        (made.create.len(), made.update.len(), made.delete.len(), made.skipped),
        (3, 0, 0, 0)
    );
    let find = |family: &str, ports: usize| {
        let of = |slice: &&EndpointSlice| slice.address_type == family && slice.ports.as_ref().unwrap().len() == ports;
        made.create.iter().find(of).unwrap()
    };
    let slice = find("IPv4", 1);
    assert_eq!(
        addresses(slice),
        [("10.0.0.1".to_owned(), true), ("10.0.0.2".to_owned(), false)]
    );
    assert_eq!(addresses(find("IPv6", 1)), [("fd00::1".to_owned(), true)]);
    assert_eq!(addresses(find("IPv4", 0)), [("10.0.0.3".to_owned(), true)]);
    assert_eq!(
        serde_json::to_value(&slice.metadata.labels).unwrap(),
        json!({"team": "t", SERVICE_NAME: "s", MANAGED_BY: MANAGER})
    );
    assert_eq!(
        serde_json::to_value(&slice.metadata.annotations).unwrap(),
        json!({"kept": "yes"})
    );
    assert_eq!(slice.owner_references()[0].kind, "Endpoints");
    let held = stored(made.create);
    let again = plan(&first, &held);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    // A change of the ports reuses the slice of its family.
    let moved = endpoints(json!([{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 81}]}]));
    let changed = plan(&moved, &held);
    assert_eq!(
        (changed.create.len(), changed.update.len(), changed.delete.len()),
        (0, 1, 2)
    );
    assert!(
        held.iter()
            .any(|slice| slice.name_any() == changed.update[0].name_any())
    );
    assert_eq!(plan(&endpoints(Value::Null), &held).delete.len(), 3);
}

#[test]
fn labels_and_annotations_are_followed() {
    let mut object = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}]}]));
    let held = stored(plan(&object, &[]).create);
    object.annotations_mut().insert("new".to_owned(), "1".to_owned());
    assert_eq!(plan(&object, &held).update[0].annotations()["new"], "1");
    object.annotations_mut().remove("new");
    object.labels_mut().clear();
    assert_eq!(plan(&object, &held).update.len(), 1);
    object.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().into());
    assert!(plan(&object, &[]).create.is_empty());
}

#[test]
fn what_is_no_address_or_too_much_is_skipped_and_counted() {
    let many: Vec<Value> = (0..1003)
        .map(|number| json!({"ip": format!("10.0.{}.{}", number / 250, number % 250)}))
        .collect();
    let plan = plan(
        &endpoints(json!([{"addresses": [{"ip": "nonsense"}], "notReadyAddresses": many}])),
        &[],
    );
    assert_eq!((plan.invalid, plan.skipped), (1, 4));
    assert_eq!(plan.create[0].endpoints.as_ref().unwrap().len(), ADDRESSES_MAX);
}

#[test]
fn only_endpoints_kept_by_hand_are_mirrored() {
    let service = |spec: Value| -> Service { serde_json::from_value(json!({"spec": spec})).unwrap() };
    let object = endpoints(Value::Null);
    assert!(is_mirrored(&object, Some(&service(json!({})))));
    assert!(!is_mirrored(&object, Some(&service(json!({"selector": {"a": "b"}})))));
    assert!(!is_mirrored(&object, None));
    let mut skipped = object.clone();
    skipped.labels_mut().insert(SKIP.to_owned(), "true".to_owned());
    assert!(!may_be_mirrored(&skipped));
    let mut lock = object;
    lock.annotations_mut().insert(LEADER.to_owned(), "{}".to_owned());
    assert!(!may_be_mirrored(&lock));
}

/// Whatever came before, slices say in the end what the Endpoints says.
#[test]
fn random_runs_end_with_every_address_in_one_slice() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut held, mut object, mut made): (Vec<Arc<EndpointSlice>>, _, usize) =
            (Vec::new(), endpoints(Value::Null), 0);
        for step in 0..20 {
            if step < 18 {
                let subset = |random: &mut StdRng, first: usize| {
                    let list = |random: &mut StdRng, first: usize| -> Vec<Value> {
                        let numbers = (first..first + 8).filter(|_| random.random_bool(0.5));
                        let numbers: Vec<usize> = numbers.collect();
                        numbers
                            .into_iter()
                            .map(|number| match number % 3 {
                                0 => json!({"ip": format!("fd00::{number}")}),
                                _ => json!({"ip": format!("10.0.0.{number}")}),
                            })
                            .collect()
                    };
                    json!({"addresses": list(random, first), "notReadyAddresses": list(random, first + 8), "ports": [{"port": first + 1}]})
                };
                let subsets: Vec<Value> = (0..random.random_range(0..4))
                    .map(|index| subset(&mut random, index * 20 + 1))
                    .collect();
                object = endpoints(json!(subsets));
            }
            let plan = plan(&object, &held);
            for slice in plan.create {
                if step >= 18 || random.random_bool(0.8) {
                    made += 1;
                    let mut slice = slice;
                    slice.metadata.name = Some(format!("s-{made}"));
                    held.push(Arc::new(slice));
                }
            }
            for slice in plan.update {
                if step >= 18 || random.random_bool(0.8) {
                    held.retain(|old| old.name_any() != slice.name_any());
                    held.push(Arc::new(slice));
                }
            }
            for slice in plan.delete {
                if step >= 18 || random.random_bool(0.8) {
                    held.retain(|old| old.name_any() != slice.name_any());
                }
            }
        }
        let mut found: Vec<_> = held.iter().flat_map(|slice| addresses(slice)).collect();
        found.sort();
        let mut expected: Vec<(String, bool)> = Vec::new();
        for subset in object.subsets.iter().flatten() {
            expected.extend(
                subset
                    .addresses
                    .iter()
                    .flatten()
                    .map(|address| (address.ip.clone(), true)),
            );
            expected.extend(
                subset
                    .not_ready_addresses
                    .iter()
                    .flatten()
                    .map(|address| (address.ip.clone(), false)),
            );
        }
        expected.sort();
        assert_eq!(found, expected, "seed {seed}");
        assert!(
            held.len() <= 2 * object.subsets.map_or(0, |subsets| subsets.len()),
            "seed {seed}"
        );
    }
}
