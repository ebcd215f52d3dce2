//! Situations of resource claims, and random runs.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn pod(name: &str, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}")},
        "spec": {"containers": [], "nodeName": "n", "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
        "status": {"phase": "Running"},
    });
    for (pointer, value) in more.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn template() -> ResourceClaimTemplate {
    serde_json::from_value(
        json!({"metadata": {"name": "t"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {}}}}),
    )
    .unwrap()
}

fn claim(status: Value, finalizers: &[&str], going: bool) -> ResourceClaim {
    let deleted = if going {
        json!("2026-01-01T00:00:00Z")
    } else {
        Value::Null
    };
    let meta = json!({"name": "c", "namespace": "a", "finalizers": finalizers, "deletionTimestamp": deleted});
    serde_json::from_value(json!({"metadata": meta, "spec": {}, "status": status})).unwrap()
}

#[test]
fn claims_are_made_once_and_noted() {
    let waiting = pod("p", json!({}));
    let entry = &entries(&waiting)[0].clone();
    assert_eq!(make(&waiting, entry, |_| None, &[]), Make::FromTemplate("t".to_owned()));
    let mut made = from_template(&waiting, entry, &template());
    assert_eq!(
        (made.metadata.generate_name.as_deref(), made.labels()["a"].as_str()),
        (Some("p-gpu-"), "b")
    );
    assert_eq!(made.annotations()[POD_CLAIM_NAME], "gpu");
    assert!(is_made_for(&made, &waiting));
    assert_eq!(made.owner_references()[0].block_owner_deletion, None);
    made.metadata.name = Some("p-gpu-x".to_owned());
    let made = Arc::new(made);
    // Made before a crash, and not noted.
    assert_eq!(
        make(&waiting, entry, |_| None, std::slice::from_ref(&made)),
        Make::Note("p-gpu-x".to_owned())
    );
    let noted = pod(
        "p",
        json!({"/status/resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}]}),
    );
    assert_eq!(
        make(&noted, entry, |_| Some(made.clone()), std::slice::from_ref(&made)),
        Make::Nothing
    );
    assert_eq!(make(&noted, entry, |_| None, &[]), Make::FromTemplate("t".to_owned()));
    assert_eq!(claim_words(&noted), ["a/p-gpu-x"]);
    let unneeded = pod("p", json!({"/status/resourceClaimStatuses": [{"name": "gpu"}]}));
    assert_eq!(make(&unneeded, entry, |_| None, &[]), Make::Nothing);
    let given = pod(
        "p",
        json!({"/spec/resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}]}),
    );
    assert_eq!(make(&given, &entries(&given)[0].clone(), |_| None, &[]), Make::Nothing);
    assert_eq!(claim_words(&given), ["a/mine"]);
}

#[test]
fn long_names_are_cut_in_proportion() {
    let name = base_name(&"p".repeat(100), &"c".repeat(50));
    assert_eq!(name, format!("{}-{}", "p".repeat(37), "c".repeat(18)));
}

#[test]
fn allocated_claims_are_reserved_once() {
    let allocated = claim(json!({"allocation": {}}), &[FINALIZER], false);
    let one = reserved(&allocated, &pod("p", json!({}))).unwrap();
    assert_eq!(reserved(&one, &pod("p", json!({}))), None);
    let two = reserved(&one, &pod("q", json!({}))).unwrap();
    assert_eq!(two.status.unwrap().reserved_for.unwrap().len(), 2);
    assert_eq!(reserved(&claim(json!({}), &[], false), &pod("p", json!({}))), None);
}

#[test]
fn reservations_end_with_their_pods() {
    let users = |names: &[&str]| -> Vec<Value> {
        names
            .iter()
            .map(|name| json!({"resource": "pods", "name": name, "uid": format!("uid-{name}")}))
            .collect()
    };
    let alive = |one: &ResourceClaimConsumerReference| one.name != "gone";
    let allocated = |names: &[&str]| json!({"allocation": {}, "reservedFor": users(names)});
    let Step::Status(fewer) = next_step(&claim(allocated(&["p", "gone"]), &[FINALIZER], false), alive, false) else {
        panic!()
    };
    let status = fewer.status.unwrap();
    assert!(status.allocation.is_some() && status.reserved_for.unwrap().len() == 1);
    let Step::Status(free) = next_step(&claim(allocated(&["gone"]), &[FINALIZER], false), alive, false) else {
        panic!()
    };
    assert_eq!(
        (
            free.status.as_ref().unwrap().allocation.as_ref(),
            free.status.as_ref().unwrap().reserved_for.as_ref()
        ),
        (None, None)
    );
    assert!(unprotected(&free).unwrap().finalizers().is_empty());
    assert_eq!(unprotected(&claim(allocated(&["p"]), &[FINALIZER], true)), None);
    // A scheduler protects a claim before it allocates it.
    let begun = claim(json!({}), &[FINALIZER], false);
    assert_eq!(next_step(&begun, alive, false), Step::Nothing);
    assert_eq!(unprotected(&claim(json!({}), &["other"], true)), None);
    assert!(matches!(
        next_step(&claim(json!({}), &[FINALIZER], true), alive, false),
        Step::Unprotect(_)
    ));
    // Allocated in advance, and not used yet: it stays so until it goes.
    assert_eq!(
        next_step(&claim(json!({"allocation": {}}), &[FINALIZER], false), alive, false),
        Step::Nothing
    );
    assert!(matches!(
        next_step(&claim(json!({"allocation": {}}), &[FINALIZER], true), alive, false),
        Step::Status(_)
    ));
    assert_eq!(next_step(&claim(json!({}), &[], false), alive, true), Step::Delete);
    assert_eq!(
        next_step(&claim(allocated(&["p"]), &[FINALIZER], true), alive, true),
        Step::Nothing
    );
}

#[test]
fn claims_for_extended_resources_stand_in_the_status() {
    let status = json!({"resourceClaimName": "p-extended-resources-x", "requestMappings": []});
    let pod = pod(
        "p",
        json!({"/status/extendedResourceClaimStatus": status, "/spec/resourceClaims": []}),
    );
    assert_eq!(extended_claim(&pod), Some("p-extended-resources-x"));
    // It is not the controller's to make or to reserve.
    assert!(entries(&pod).is_empty() && claim_words(&pod).is_empty());
}

#[test]
fn pods_are_done_when_nothing_of_them_runs() {
    let deleted = json!("2026-01-01T00:00:00Z");
    for (more, expected) in [
        (json!({}), false),
        (json!({"/status/phase": "Succeeded"}), true),
        (json!({"/metadata/deletionTimestamp": deleted}), false),
        (
            json!({"/metadata/deletionTimestamp": deleted, "/spec/nodeName": ""}),
            true,
        ),
    ] {
        assert_eq!(is_done(&pod("p", more.clone())), expected, "{more}");
    }
}

/// Pods come and go while notes and creations fail: in the end each pod has one claim of its own, which its status names.
#[test]
fn random_runs_end_with_one_claim_for_each_pod() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut pods, mut claims): (BTreeMap<String, Pod>, BTreeMap<String, Arc<ResourceClaim>>) = Default::default();
        let mut made = 0;
        for step in 0..60 {
            let last = step >= 50;
            if !last {
                let name = format!("p{}", random.random_range(0..6));
                match random.random_range(0..3) {
                    0 => {
                        // Its claims go with it.
                        if let Some(pod) = pods.remove(&name) {
                            claims.retain(|_, claim| !is_made_for(claim, &pod));
                        }
                    }
                    1 => {
                        made += 1;
                        let uid = json!({"/metadata/uid": format!("uid{made}")});
                        pods.entry(name.clone()).or_insert_with(|| pod(&name, uid));
                    }
                    _ => {
                        // Somebody deletes a claim.
                        let names: Vec<String> = claims.keys().cloned().collect();
                        if !names.is_empty() {
                            claims.remove(&names[random.random_range(0..names.len())]);
                        }
                    }
                }
            }
            for pod in pods.values_mut() {
                let entry = entries(pod)[0].clone();
                let own: Vec<Arc<ResourceClaim>> = claims
                    .values()
                    .filter(|claim| is_made_for(claim, pod))
                    .cloned()
                    .collect();
                let name = match make(pod, &entry, |name| claims.get(name).cloned(), &own) {
                    Make::Nothing => continue,
                    Make::Note(name) => name,
                    Make::FromTemplate(_) => {
                        made += 1;
                        let mut claim = from_template(pod, &entry, &template());
                        let name = format!("{}{made}", claim.metadata.generate_name.take().unwrap());
                        claim.metadata.name = Some(name.clone());
                        if !last && random.random_bool(0.2) {
                            continue;
                        }
                        claims.insert(name.clone(), Arc::new(claim));
                        name
                    }
                };
                if last || random.random_bool(0.8) {
                    let status = json!([{"name": "gpu", "resourceClaimName": name}]);
                    pod.status.as_mut().unwrap().resource_claim_statuses = serde_json::from_value(status).unwrap();
                }
            }
        }
        let noted: BTreeSet<String> = pods.values().flat_map(claim_words).collect();
        let there: BTreeSet<String> = claims.keys().map(|name| format!("a/{name}")).collect();
        assert_eq!(noted, there, "seed {seed}");
        assert_eq!(there.len(), pods.len(), "seed {seed}");
    }
}
