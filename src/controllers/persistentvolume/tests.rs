//! Situations of claims and volumes, and random runs of both against a small API.

use super::super::matching::request;
use super::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn claim(name: &str, more: Value) -> PersistentVolumeClaim {
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}"), "resourceVersion": "1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "c"},
        "status": {"phase": "Pending"},
    });
    put(&mut claim, more);
    serde_json::from_value(claim).unwrap()
}

fn volume(name: &str, more: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "storageClassName": "c",
            "persistentVolumeReclaimPolicy": "Retain"},
        "status": {"phase": "Available"},
    });
    put(&mut volume, more);
    serde_json::from_value(volume).unwrap()
}

fn put(object: &mut Value, more: Value) {
    for (pointer, value) in more.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value.clone();
    }
}

fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
    Arc::new(serde_json::from_value(class).unwrap())
}

fn look(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    classes: &[Arc<StorageClass>],
    pods: &[&str],
) -> Decision {
    let volumes: Vec<Arc<PersistentVolume>> = volumes.iter().cloned().map(Arc::new).collect();
    for_claim(
        claim,
        &World {
            volume: &|name| volumes.iter().find(|volume| volume.name_any() == name).cloned(),
            candidates: &volumes,
            class: &|name| classes.iter().find(|class| class.name_any() == name).cloned(),
            default_class: default_class(classes),
            waiting_pods: &|| pods.iter().map(|pod| (*pod).to_owned()).collect(),
            node_exists: &|name| name != "gone",
        },
    )
}

fn reason(decision: &Decision) -> (&'static str, &str) {
    match decision.notices.first() {
        Some(notice) => (notice.reason, &notice.message),
        None => ("", ""),
    }
}

#[test]
fn a_binding_takes_four_writes_and_then_none() {
    let (mut claim, mut volumes) = (claim("one", json!({})), vec![volume("v", json!({}))]);
    let mut kinds = Vec::new();
    loop {
        match look(&claim, &volumes, &[], &[]).step {
            Step::Volume(new) => {
                kinds.push("volume");
                volumes[0] = *new;
            }
            Step::VolumeStatus(new) => {
                kinds.push("volume status");
                volumes[0] = *new;
            }
            Step::Claim(new) => {
                kinds.push("claim");
                claim = *new;
            }
            Step::ClaimStatus(new) => {
                kinds.push("claim status");
                claim = *new;
            }
            step => {
                assert_eq!(step, Step::Done);
                break;
            }
        }
        assert!(kinds.len() < 9);
    }
    assert_eq!(kinds, ["volume", "volume status", "claim", "claim status"]);
    let shown = serde_json::to_value(&claim).unwrap();
    assert_eq!(
        (&shown["spec"]["volumeName"], &shown["status"]["phase"]),
        (&json!("v"), &json!("Bound"))
    );
    assert_eq!(shown["status"]["capacity"], json!({"storage": "2Gi"}));
    assert_eq!(
        shown["metadata"]["annotations"],
        json!({BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"})
    );
    assert_eq!(volumes[0].annotations()[BOUND_BY_CONTROLLER], "yes");
    assert_eq!(for_volume(&volumes[0], Some(&claim)).step, Step::Done);
    // Its author chose the volume: nothing says that a controller did.
    let chosen = self::claim("two", json!({"/spec/volumeName": "w"}));
    let reserved = json!({"/spec/claimRef": {"namespace": "a", "name": "two"}});
    let Step::Volume(bound) = look(&chosen, &[volume("w", reserved)], &[], &[]).step else {
        panic!()
    };
    assert!(!bound.annotations().contains_key(BOUND_BY_CONTROLLER));
}

#[test]
fn what_claims_wait_for() {
    let late = [class("c", LOCAL_PATH, "WaitForFirstConsumer")];
    let none = json!({"/spec/storageClassName": ""});
    let annotated = json!({"/metadata/annotations": {PROVISIONERS[0]: "x.io/p", PROVISIONERS[1]: "x.io/p"}});
    let table = [
        (
            claim("one", none),
            &[][..],
            &[][..],
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        ),
        (
            claim("one", json!({})),
            &[],
            &[],
            "ProvisioningFailed",
            "storageclass.storage.k8s.io \"c\" not found",
        ),
        (
            claim("one", json!({})),
            &late,
            &[],
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        (
            claim("one", json!({})),
            &late,
            &["p"],
            "WaitForPodScheduled",
            "waiting for pod p to be scheduled",
        ),
        (
            claim("one", json!({})),
            &late,
            &["p", "q"],
            "WaitForPodScheduled",
            "waiting for pods p,q to be scheduled",
        ),
    ];
    for (claim, classes, pods, expected, message) in table {
        let decision = look(&claim, &[], classes, pods);
        assert_eq!(
            (decision.step.clone(), reason(&decision)),
            (Step::Done, (expected, message))
        );
    }
    let manual = [class("c", "kubernetes.io/no-provisioner", "Immediate")];
    let decision = look(&claim("one", json!({})), &[], &manual, &[]);
    assert_eq!(
        reason(&decision).1,
        "no volume plugin matched name: kubernetes.io/no-provisioner"
    );
    let external = [class("c", "x.io/p", "Immediate")];
    let Step::Claim(told) = look(&claim("one", json!({})), &[], &external, &[]).step else {
        panic!()
    };
    assert_eq!(told.annotations()[PROVISIONERS[1]], "x.io/p");
    assert_eq!(
        reason(&look(&claim("one", annotated), &[], &external, &[])).0,
        "ExternalProvisioning"
    );
    let named = claim("one", json!({"/spec/volumeName": "v"}));
    assert_eq!(look(&named, &[], &[], &[]).step, Step::Done);
    let small = volume("v", json!({"/spec/capacity": {"storage": "1Mi"}}));
    assert_eq!(
        reason(&look(&named, &[small], &[], &[])).1,
        "Cannot bind to requested volume \"v\": requested PV is too small"
    );
    let taken = volume(
        "v",
        json!({"/spec/claimRef": {"namespace": "a", "name": "two", "uid": "x"}}),
    );
    assert_eq!(
        reason(&look(&named, &[taken], &[], &[])).1,
        "volume \"v\" already bound to a different claim."
    );
}

#[test]
fn the_built_in_class_makes_volumes_once_a_node_is_selected() {
    let class = class("c", LOCAL_PATH, "WaitForFirstConsumer");
    let annotations = |node: &str| json!({"/metadata/annotations": {SELECTED_NODE: node, PROVISIONERS[0]: LOCAL_PATH, PROVISIONERS[1]: LOCAL_PATH}});
    let classes = [class.clone()];
    let decision = look(&claim("one", annotations("n")), &[], &classes, &[]);
    assert_eq!(decision.step, Step::Provision(class));
    let Step::Claim(again) = look(&claim("one", annotations("gone")), &[], &classes, &[]).step else {
        panic!()
    };
    assert!(!again.annotations().contains_key(SELECTED_NODE));
    // What is free is left to the scheduler.
    assert_eq!(
        look(&claim("one", json!({})), &[volume("v", json!({}))], &classes, &[]).step,
        Step::Done
    );
}

#[test]
fn claims_without_a_word_get_the_default_class() {
    let default = |name: &str, created: &str| {
        let mut class = StorageClass::clone(&class(name, "x.io/p", "Immediate"));
        class.metadata.creation_timestamp = Some(created.parse::<jiff::Timestamp>().unwrap().into());
        class.annotations_mut().insert(
            "storageclass.kubernetes.io/is-default-class".to_owned(),
            "true".to_owned(),
        );
        Arc::new(class)
    };
    let classes = [
        class("none", "x.io/p", "Immediate"),
        default("old", "2026-01-01T00:00:00Z"),
        default("b", "2026-01-02T00:00:00Z"),
        default("a", "2026-01-02T00:00:00Z"),
    ];
    let silent = claim("one", json!({"/spec/storageClassName": null}));
    let Step::Claim(given) = look(&silent, &[], &classes, &[]).step else {
        panic!()
    };
    assert_eq!(given.spec.unwrap().storage_class_name.as_deref(), Some("a"));
    assert_eq!(reason(&look(&silent, &[], &[], &[])).0, "FailedBinding");
}

#[test]
fn bound_claims_that_lose_their_volume_are_lost() {
    let bound = |name: Value| {
        claim(
            "one",
            json!({"/metadata/annotations": {BIND_COMPLETED: "yes"}, "/spec/volumeName": name, "/status": {"phase": "Bound"}}),
        )
    };
    let other = volume(
        "v",
        json!({"/spec/claimRef": {"namespace": "a", "name": "two", "uid": "x"}}),
    );
    for (claim, volumes, expected) in [
        (bound(json!("v")), vec![], "ClaimLost"),
        (bound(Value::Null), vec![volume("v", json!({}))], "ClaimLost"),
        (bound(json!("v")), vec![other], "ClaimMisbound"),
    ] {
        let decision = look(&claim, &volumes, &[], &[]);
        assert_eq!(reason(&decision).0, expected);
        let Step::ClaimStatus(lost) = decision.step else {
            panic!()
        };
        assert_eq!(claim_phase(&lost), "Lost");
        assert_eq!(look(&lost, &volumes, &[], &[]), Step::Done.into());
    }
    // A volume that lost its reference gets it again.
    assert!(matches!(
        look(&bound(json!("v")), &[volume("v", json!({}))], &[], &[]).step,
        Step::Volume(_)
    ));
}

#[test]
fn volumes_follow_their_claims() {
    let to = |uid: &str| json!({"namespace": "a", "name": "one", "uid": uid});
    let phase = |decision: Decision| match decision.step {
        Step::VolumeStatus(volume) => volume_phase(&volume).to_owned(),
        step => format!("{step:?}").chars().take(7).collect(),
    };
    let pending = |more: Value| {
        let mut whole = json!({"/status": {"phase": "Pending"}});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        volume("v", whole)
    };
    let named = claim("one", json!({"/spec/volumeName": "v"}));
    let elsewhere = claim("one", json!({"/spec/volumeName": "w"}));
    let by_us = |more: Value| {
        let mut whole = json!({"/spec/claimRef": to("uid-one"), "/metadata/annotations": {BOUND_BY_CONTROLLER: "yes"}});
        whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pending(whole)
    };
    assert_eq!(phase(for_volume(&pending(json!({})), None)), "Available");
    assert_eq!(
        phase(for_volume(
            &pending(json!({"/spec/claimRef": {"namespace": "a", "name": "one"}})),
            Some(&named)
        )),
        "Available"
    );
    assert_eq!(phase(for_volume(&by_us(json!({})), Some(&named))), "Bound");
    assert_eq!(for_volume(&by_us(json!({})), None).step, Step::Release);
    assert_eq!(
        for_volume(&by_us(json!({"/spec/claimRef": to("before")})), Some(&named)).step,
        Step::Release
    );
    assert_eq!(
        for_volume(&by_us(json!({})), Some(&claim("one", json!({})))).step,
        Step::LookAt(ObjectKey::new("a", "one"))
    );
    assert_eq!(
        for_volume(
            &by_us(json!({})),
            Some(&claim("one", json!({"/spec/volumeMode": "Block"})))
        )
        .notices
        .len(),
        2
    );
    let Step::Volume(free) = for_volume(&by_us(json!({})), Some(&elsewhere)).step else {
        panic!()
    };
    assert_eq!(free.spec.unwrap().claim_ref, None);
    let reserved = pending(json!({"/spec/claimRef": to("uid-one")}));
    let Step::Volume(kept) = for_volume(&reserved, Some(&elsewhere)).step else {
        panic!()
    };
    let kept = kept.spec.unwrap().claim_ref.unwrap();
    assert_eq!((kept.name.as_deref(), kept.uid), (Some("one"), None));
    let made = by_us(
        json!({"/spec/persistentVolumeReclaimPolicy": "Delete", "/metadata/annotations": {PROVISIONED_BY: LOCAL_PATH}}),
    );
    assert_eq!(phase(for_volume(&made, Some(&elsewhere))), "Released");
}

#[test]
fn released_volumes_are_reclaimed_by_their_policy() {
    let of = |policy: &str, by: &str, phase: &str| {
        let annotations = if by.is_empty() {
            json!({})
        } else {
            json!({PROVISIONED_BY: by})
        };
        let more = json!({"/spec/persistentVolumeReclaimPolicy": policy, "/metadata/annotations": annotations, "/status": {"phase": phase}});
        released(&volume("v", more))
    };
    assert!(matches!(of("Delete", "", "Bound").step, Step::VolumeStatus(_)));
    for (policy, by, expected) in [
        ("Retain", "", Step::Done),
        ("Delete", "", Step::Delete),
        ("Delete", LOCAL_PATH, Step::Delete),
        ("Delete", "x.io/p", Step::Done),
    ] {
        assert_eq!(of(policy, by, "Released").step, expected, "{policy} {by}");
    }
    let recycled = of("Recycle", "", "Released");
    assert_eq!(
        reason(&recycled),
        ("VolumeFailedRecycle", "No recycler plugin found for the volume!")
    );
    assert_eq!(of("Recycle", "", "Failed"), Step::Done.into());
}

#[derive(Clone, Default)]
struct Api {
    volumes: BTreeMap<String, PersistentVolume>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    revision: u64,
}

impl Api {
    fn put_volume(&mut self, mut volume: PersistentVolume, checked: bool) -> bool {
        let name = volume.name_any();
        let held = self
            .volumes
            .get(&name)
            .and_then(|held| held.metadata.resource_version.clone());
        if checked && held != volume.metadata.resource_version {
            return false;
        }
        self.revision += 1;
        volume.metadata.resource_version = Some(self.revision.to_string());
        self.volumes.insert(name, volume);
        true
    }

    fn put_claim(&mut self, mut claim: PersistentVolumeClaim, checked: bool) -> bool {
        let name = claim.name_any();
        let held = self
            .claims
            .get(&name)
            .and_then(|held| held.metadata.resource_version.clone());
        if checked && held != claim.metadata.resource_version {
            return false;
        }
        self.revision += 1;
        claim.metadata.resource_version = Some(self.revision.to_string());
        self.claims.insert(name, claim);
        true
    }

    /// One look at everything in `view`, with the writes that it asks for; true if nothing was to do.
    fn round(&mut self, view: &Api, random: &mut StdRng, failures: f64) -> bool {
        let volumes: Vec<PersistentVolume> = view.volumes.values().cloned().collect();
        let mut quiet = true;
        let mut steps: Vec<Step> = Vec::new();
        for claim in view.claims.values() {
            steps.push(look(claim, &volumes, &[], &[]).step);
        }
        for volume in &volumes {
            let reference = volume.spec.as_ref().unwrap().claim_ref.as_ref();
            let claim = reference.and_then(|reference| view.claims.get(reference.name.as_ref().unwrap()));
            let step = match for_volume(volume, claim).step {
                // Asked for at the API itself.
                Step::Release => {
                    let live = self.claims.get(reference.unwrap().name.as_ref().unwrap());
                    let there = live.is_some_and(|live| live.metadata.uid == reference.unwrap().uid);
                    if there { Step::Done } else { released(volume).step }
                }
                step => step,
            };
            steps.push(step);
        }
        for step in steps {
            if random.random_bool(failures) {
                continue;
            }
            match step {
                Step::Volume(volume) | Step::VolumeStatus(volume) => {
                    quiet = false;
                    self.put_volume(*volume, true);
                }
                Step::Claim(claim) | Step::ClaimStatus(claim) => {
                    quiet = false;
                    self.put_claim(*claim, true);
                }
                _ => {}
            }
        }
        quiet
    }

    /// By volume, the claims that are bound to it.
    fn bound(&self) -> BTreeMap<String, Vec<String>> {
        let mut bound: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for claim in self.claims.values().filter(|claim| claim_phase(claim) == "Bound") {
            bound
                .entry(volume_name(claim).unwrap().to_owned())
                .or_default()
                .push(claim.name_any());
        }
        bound
    }
}

/// Claims and volumes come and go, some chosen by their authors; looks are old and writes fail. Never are two claims
/// bound to one volume, and in the end every claim that can have a volume has one.
#[test]
fn random_runs_never_bind_two_claims_to_one_volume() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut api = Api::default();
        let mut views = vec![api.clone()];
        let mut made = 0;
        for _ in 0..40 {
            made += 1;
            let size = format!("{}Gi", random.random_range(1..5));
            match random.random_range(0..6) {
                0 | 1 => {
                    let mut more = json!({"/spec/capacity": {"storage": size}, "/status": {"phase": "Pending"}});
                    if random.random_bool(0.2) {
                        more["/spec/claimRef"] =
                            json!({"namespace": "a", "name": format!("c{}", random.random_range(0..8))});
                    }
                    api.put_volume(volume(&format!("v{}", random.random_range(0..8)), more), true);
                }
                2 | 3 => {
                    let mut more = json!({"/spec/resources": {"requests": {"storage": size}}, "/metadata/uid": format!("uid{made}")});
                    if random.random_bool(0.2) {
                        more["/spec/volumeName"] = json!(format!("v{}", random.random_range(0..8)));
                    }
                    let mut new = claim(&format!("c{}", random.random_range(0..8)), more);
                    new.metadata.resource_version = None;
                    api.put_claim(new, true);
                }
                4 => {
                    let names: Vec<String> = api.claims.keys().cloned().collect();
                    names.choose(&mut random).map(|name| api.claims.remove(name));
                }
                _ => {
                    let names: Vec<String> = api.volumes.keys().cloned().collect();
                    names
                        .choose(&mut random)
                        .filter(|_| random.random_bool(0.3))
                        .map(|name| api.volumes.remove(name));
                }
            }
            views.push(api.clone());
            let newest = views.len() - 1;
            let view = if random.random_bool(0.3) {
                random.random_range(newest.saturating_sub(6)..=newest)
            } else {
                newest
            };
            let view = views[view].clone();
            api.round(&view, &mut random, 0.2);
            assert!(
                api.bound().values().all(|claims| claims.len() == 1),
                "seed {seed}: {:?}",
                api.bound()
            );
        }
        for round in 0.. {
            let view = api.clone();
            if api.round(&view, &mut random, 0.0) {
                break;
            }
            assert!(round < 60, "seed {seed} does not settle");
        }
        let bound = api.bound();
        for (volume, claims) in &bound {
            assert_eq!(claims.len(), 1, "seed {seed}");
            let volume = &api.volumes[volume];
            assert!(
                is_bound_to(volume, &api.claims[&claims[0]]) && volume_phase(volume) == "Bound",
                "seed {seed}"
            );
        }
        let free: Vec<Arc<PersistentVolume>> = api.volumes.values().cloned().map(Arc::new).collect();
        for claim in api
            .claims
            .values()
            .filter(|claim| claim_phase(claim) == "Pending" && volume_name(claim).is_none())
        {
            assert_eq!(
                best_match(claim, &free, false),
                None,
                "seed {seed}: {} of {:?} waits",
                claim.name_any(),
                request(claim)
            );
        }
    }
}
