//! Situations with claims for devices.

use super::world::{World, cpu, node, parsed, pod, told, with};
use crate::scheduler::devices::{Expressions, extended};
use crate::scheduler::engine::Action;
use k8s_openapi::api::resource::v1::{Device, ResourceClaim};
use serde_json::{Value, json};
use std::sync::Arc;

/// Understands `driver=NAME` only, for what an expression means is not the scheduler's business.
struct ByDriver;

impl Expressions for ByDriver {
    fn holds(&self, expression: &str, driver: &str, _: &Device) -> Result<bool, String> {
        let wanted = expression.strip_prefix("driver=").ok_or("no such expression")?;
        Ok(wanted == driver)
    }
}

fn slice(name: &str, on: &str, devices: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"driver": "gpu.example", "nodeName": on, "devices": devices,
        "pool": {"name": on, "generation": 1, "resourceSliceCount": 1}}})
}
fn device(name: &str, numa: i64) -> Value {
    json!({"name": name, "attributes": {"numa": {"int": numa}}})
}
fn world() -> World {
    let mut world = World::new([node("a", json!({})), node("b", json!({})), node("c", json!({}))]);
    world.objects().expressions = Some(Arc::new(ByDriver));
    for (class, expression) in [
        ("gpu", "driver=gpu.example"),
        ("nic", "driver=nic.example"),
        ("bad", "nonsense"),
    ] {
        let class_object =
            json!({"metadata": {"name": class}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
        world
            .objects()
            .device_classes
            .set("", class, Some(parsed(class_object)));
    }
    let slices = [
        slice("sa", "a", json!([device("g0", 0)])),
        slice("sb", "b", json!([device("g0", 0), device("g1", 1), device("g2", 1)])),
    ];
    for object in slices {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        world.objects().resource_slices.set("", &name, Some(parsed(object)));
    }
    world
}
fn claim(world: &mut World, name: &str, devices: Value) {
    let object = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"devices": devices}});
    world
        .objects()
        .resource_claims
        .set("default", name, Some(parsed(object)));
}
fn exactly(name: &str, extra: Value) -> Value {
    json!({"name": name, "exactly": with(json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}), extra)})
}
fn using(pod_name: &str, claim: &str) -> Value {
    with(
        pod(pod_name, cpu("100m")),
        json!({"spec": {"resourceClaims": [{"name": "d", "resourceClaimName": claim}]}}),
    )
}
/// Node and devices, or the message.
fn ask(world: &mut World, pod: Value) -> String {
    world.put(pod);
    next(world)
}

/// The same of the next pod that waits. What is decided is written at once.
fn next(world: &mut World) -> String {
    let actions = world.step();
    if let Some(Action::Bind { bindings, claims, .. }) = actions.first() {
        // What the API names is shown later; until then its devices are taken.
        for claim in claims.iter().filter(|claim| !extended::is_to_be_written(claim)) {
            let mut claim = (**claim).clone();
            claim.metadata.resource_version = Some("7".into());
            world.engine.objects.allocated(Arc::new(claim));
        }
        world.engine.bound(bindings);
    }
    match actions.first() {
        Some(Action::Bind { node, claims, .. }) => {
            let results = claims
                .iter()
                .filter_map(|claim| claim.status.as_ref()?.allocation.as_ref()?.devices.as_ref());
            let results = results.flat_map(|devices| devices.results.iter().flatten());
            let names: Vec<String> = results
                .map(|result| format!("{}={}", result.request, result.device))
                .collect();
            format!("{node}: {}", names.join(" "))
        }
        _ => told(&actions),
    }
}

#[test]
fn devices_are_found_and_nobody_else_gets_them() {
    let mut world = world();
    let same_numa = json!([{"requests": [], "matchAttribute": "gpu.example/numa"}]);
    claim(
        &mut world,
        "pair",
        json!({"requests": [exactly("r", json!({"count": 2}))], "constraints": same_numa}),
    );
    assert_eq!(ask(&mut world, using("p", "pair")), "b: r=g1 r=g2");
    claim(&mut world, "one", json!({"requests": [exactly("r", json!({}))]}));
    assert!(["a: r=g0", "b: r=g0"].contains(&ask(&mut world, using("q", "one")).as_str()));
    claim(
        &mut world,
        "two",
        json!({"requests": [exactly("r", json!({"count": 2}))]}),
    );
    let message = ask(&mut world, using("r", "two"));
    assert!(
        message.starts_with("0/3 nodes are available: 3 cannot allocate all claims."),
        "{message}"
    );
    // A pod that shares a claim goes where its devices are.
    assert_eq!(ask(&mut world, using("s", "pair")), "b: ");
}

#[test]
fn ways_to_ask() {
    for (devices, expected) in [
        (
            json!({"requests": [exactly("r", json!({"allocationMode": "All", "count": null}))]}),
            "a: r=g0 or b: r=g0 r=g1 r=g2",
        ),
        (
            json!({"requests": [exactly("r", json!({"count": 3}))]}),
            "b: r=g0 r=g1 r=g2",
        ),
        (
            json!({"requests": [exactly("r", json!({"count": 2}))], "constraints": [{"distinctAttribute": "gpu.example/numa"}]}),
            "b: r=g0 r=g1",
        ),
        (
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "nic", "deviceClassName": "nic"}, {"name": "gpus", "deviceClassName": "gpu", "count": 3}]}]}),
            "b: r/gpus=g0 r/gpus=g1 r/gpus=g2",
        ),
        (
            json!({"requests": [exactly("r", json!({"deviceClassName": "nic"}))]}),
            "0/3 nodes are available: 3 cannot allocate all claims.",
        ),
        (
            json!({"requests": [exactly("r", json!({"deviceClassName": "none"}))]}),
            "request r: device class none does not exist",
        ),
        (
            json!({"requests": [exactly("r", json!({"deviceClassName": "bad"}))]}),
            "class bad: selector #0: no such expression",
        ),
        (
            json!({"requests": [exactly("r", json!({"capacity": {"requests": {"memory": "1Gi"}}}))]}),
            "0/3 nodes are available: 3 cannot allocate all claims. still not schedulable, preemption: 0/3 nodes are \
             available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            json!({"requests": [exactly("r", json!({"derivedAttributes": [{"name": "x", "cel": {"expression": "1"}}]}))]}),
            "0/3 nodes are available: derived attributes of devices are not worked out.",
        ),
    ] {
        let mut world = world();
        claim(&mut world, "c", devices.clone());
        let told = ask(&mut world, using("p", "c"));
        assert!(
            expected.split(" or ").any(|expected| told.contains(expected)),
            "{devices}: {told}"
        );
    }
}

#[test]
fn claims_that_are_not_there_yet() {
    let mut world = world();
    let message = ask(&mut world, using("p", "missing"));
    assert!(
        message.contains("resourceclaim.resource.k8s.io \"missing\" not found"),
        "{message}"
    );
    let templated = json!({"spec": {"resourceClaims": [{"name": "d", "resourceClaimTemplateName": "t"}]}});
    let message = ask(&mut world, with(pod("q", cpu("100m")), templated.clone()));
    assert!(message.contains("ResourceClaim not created yet"), "{message}");
    claim(
        &mut world,
        "made",
        json!({"requests": [exactly("r", json!({"count": 3}))]}),
    );
    let other = "ResourceClaim default/made was not created for pod default/q (pod is not owner)";
    let status = json!({"status": {"resourceClaimStatuses": [{"name": "d", "resourceClaimName": "made"}]}});
    let told = ask(
        &mut world,
        with(with(pod("q", cpu("100m")), templated.clone()), status.clone()),
    );
    assert!(told.contains(other), "{told}");
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "r", "uid": "r", "controller": true}]);
    let mut made: ResourceClaim = (**world.objects().resource_claims.get("default", "made").unwrap()).clone();
    made.metadata.owner_references = serde_json::from_value(owner).unwrap();
    world
        .objects()
        .resource_claims
        .set("default", "made", Some(Arc::new(made)));
    let told = ask(&mut world, with(with(pod("r", cpu("100m")), templated), status));
    assert_eq!(told, "b: r=g0 r=g1 r=g2");
}

/// Two partitions of half the memory each, or the whole device.
fn partitions(world: &mut World) {
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": memory}}}]});
    let pool = json!({"name": "parts", "generation": 1, "resourceSliceCount": 2});
    let counters = json!({"metadata": {"name": "counters"}, "spec": {"driver": "nic.example", "nodeName": "c", "pool": pool,
        "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}]}});
    let devices = json!({"metadata": {"name": "parts"}, "spec": {"driver": "nic.example", "nodeName": "c", "pool": pool,
        "devices": [part("whole", "40Gi"), part("half-0", "20Gi"), part("half-1", "20Gi"), part("bit", "1Gi")]}});
    for object in [counters, devices] {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        world.objects().resource_slices.set("", &name, Some(parsed(object)));
    }
}

#[test]
fn partitions_share_counters() {
    let nic = |count: i64| json!({"requests": [exactly("r", json!({"deviceClassName": "nic", "count": count}))]});
    let mut world = world();
    partitions(&mut world);
    claim(&mut world, "two", nic(2));
    assert_eq!(ask(&mut world, using("p", "two")), "c: r=half-0 r=half-1");
    claim(&mut world, "more", nic(1));
    let message = ask(&mut world, using("q", "more"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");

    let mut world = self::world();
    partitions(&mut world);
    claim(&mut world, "three", nic(3));
    let message = ask(&mut world, using("p", "three"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    claim(&mut world, "one", nic(1));
    assert_eq!(ask(&mut world, using("q", "one")), "c: r=whole");
    claim(&mut world, "other", nic(1));
    let message = ask(&mut world, using("r", "other"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");

    // A pool that names counters that are not there is no pool.
    let mut world = self::world();
    partitions(&mut world);
    world.objects().resource_slices.set("", "counters", None);
    claim(&mut world, "lost", nic(1));
    let message = ask(&mut world, using("s", "lost"));
    assert!(
        message.contains("3 cannot allocate all claims."),
        "incomplete: {message}"
    );
    let empty = json!({"metadata": {"name": "counters"}, "spec": {"driver": "nic.example", "nodeName": "c",
        "pool": {"name": "parts", "generation": 1, "resourceSliceCount": 2},
        "sharedCounters": [{"name": "other", "counters": {"memory": {"value": "40Gi"}}}]}});
    world.objects().resource_slices.set("", "counters", Some(parsed(empty)));
    claim(&mut world, "wrong", nic(1));
    let message = ask(&mut world, using("t", "wrong"));
    assert!(
        message
            .starts_with("0/3 nodes are available: 1 invalid resource pools were encountered, 2 cannot allocate all"),
        "{message}"
    );
}

#[test]
fn a_device_is_shared_by_capacity() {
    let mut world = world();
    let device = json!({"name": "port", "allowMultipleAllocations": true, "capacity": {
        "bandwidth": {"value": "10Gi", "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}}}}});
    let slice = json!({"metadata": {"name": "ports"}, "spec": {"driver": "nic.example", "allNodes": true, "devices": [device],
        "pool": {"name": "ports", "generation": 1, "resourceSliceCount": 1}}});
    world.objects().resource_slices.set("", "ports", Some(parsed(slice)));
    let asking = |amount: Option<&str>, count: i64| {
        let mut request = json!({"deviceClassName": "nic", "count": count});
        if let Some(amount) = amount {
            request["capacity"] = json!({"requests": {"bandwidth": amount}});
        }
        json!({"requests": [exactly("r", request)]})
    };
    claim(&mut world, "six", asking(Some("5500Mi"), 1));
    world.put(using("p", "six"));
    let actions = world.step();
    let Some(Action::Bind { claims, .. }) = actions.first() else {
        panic!("{}", told(&actions));
    };
    let allocation = claims[0].status.as_ref().unwrap().allocation.as_ref().unwrap();
    let result = &allocation.devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(result.consumed_capacity.as_ref().unwrap()["bandwidth"].0, "6Gi");
    assert_eq!(result.share_id.as_ref().unwrap().len(), 36);
    assert_eq!(allocation.node_selector, None);
    let mut shared = (*claims[0]).clone();
    shared.metadata.resource_version = Some("7".into());
    // Until it is written, nobody else may decide about it.
    let message = ask(&mut world, using("waits", "six"));
    assert!(
        message.contains("resource claim default/six is in the process of being allocated"),
        "{message}"
    );
    world.engine.objects.allocated(Arc::new(shared));

    claim(&mut world, "five", asking(Some("5Gi"), 1));
    let message = ask(&mut world, using("q", "five"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    claim(&mut world, "four", asking(None, 4));
    assert!(ask(&mut world, using("r", "four")).ends_with(": r=port r=port r=port r=port"));
    claim(&mut world, "none", asking(None, 1));
    let message = ask(&mut world, using("s", "none"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
}

#[test]
fn taints_and_administrators() {
    let mut world = world();
    let tainted = json!({"name": "g0", "taints": [{"key": "sick", "effect": "NoSchedule"}]});
    let slice = slice("sa", "a", json!([tainted]));
    world.objects().resource_slices.set("", "sa", Some(parsed(slice)));
    for other in ["sb", "sc"] {
        world.objects().resource_slices.set("", other, None);
    }
    claim(&mut world, "one", json!({"requests": [exactly("r", json!({}))]}));
    let message = ask(&mut world, using("p", "one"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    let tolerant = json!({"tolerations": [{"key": "sick", "operator": "Exists"}]});
    claim(&mut world, "two", json!({"requests": [exactly("r", tolerant.clone())]}));
    assert_eq!(ask(&mut world, using("q", "two")), "a: r=g0");
    // It is in use: all devices are not to be had, but an administrator may look at them.
    let all = with(tolerant, json!({"allocationMode": "All", "count": null}));
    claim(&mut world, "all", json!({"requests": [exactly("r", all.clone())]}));
    let message = ask(&mut world, using("r", "all"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    let admin = with(all, json!({"adminAccess": true}));
    claim(&mut world, "admin", json!({"requests": [exactly("r", admin)]}));
    assert_eq!(ask(&mut world, using("s", "admin")), "a: r=g0");
}

#[test]
fn rules_taint_devices() {
    let mut world = world();
    let rule = json!({"metadata": {"name": "rule"}, "spec": {"deviceSelector": {"driver": "gpu.example", "pool": "b"},
        "taint": {"key": "sick", "effect": "NoExecute"}}});
    world.objects().device_taint_rules.set("", "rule", Some(parsed(rule)));
    claim(&mut world, "one", json!({"requests": [exactly("r", json!({}))]}));
    assert_eq!(ask(&mut world, using("p", "one")), "a: r=g0");
    claim(&mut world, "two", json!({"requests": [exactly("r", json!({}))]}));
    let message = ask(&mut world, using("q", "two"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    claim(
        &mut world,
        "three",
        json!({"requests": [exactly("r", json!({"tolerations": [{"operator": "Exists"}]}))]}),
    );
    assert_eq!(ask(&mut world, using("r", "three")), "b: r=g0");
}

/// Node c has what is wanted least, b what is wanted most.
#[test]
fn nodes_with_better_alternatives_are_preferred() {
    for seed in 0..5 {
        let mut world = world();
        world.now += std::time::Duration::from_secs(seed);
        let nic = json!({"metadata": {"name": "sn"}, "spec": {"driver": "nic.example", "nodeName": "b",
            "pool": {"name": "nics", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "n0"}]}});
        world.objects().resource_slices.set("", "sn", Some(parsed(nic)));
        let request = json!({"requests": [{"name": "r", "firstAvailable": [
            {"name": "nic", "deviceClassName": "nic"}, {"name": "gpu", "deviceClassName": "gpu"}]}]});
        claim(&mut world, "c", request);
        assert_eq!(ask(&mut world, using("p", "c")), "b: r/nic=n0");
    }
}

#[test]
fn devices_that_do_not_become_ready_are_given_back() {
    let mut world = world();
    for other in ["sb", "sc"] {
        world.objects().resource_slices.set("", other, None);
    }
    let device = json!({"name": "g0", "bindsToNode": true, "bindingConditions": ["Attached"],
        "bindingFailureConditions": ["Broken"]});
    let mut slice = slice("sa", "a", json!([device]));
    slice["spec"].as_object_mut().unwrap().remove("nodeName");
    slice["spec"]["allNodes"] = json!(true);
    world.objects().resource_slices.set("", "sa", Some(parsed(slice)));
    claim(&mut world, "one", json!({"requests": [exactly("r", json!({}))]}));
    world.put(using("p", "one"));
    let actions = world.step();
    let Some(Action::Bind { node, claims, .. }) = actions.first() else {
        panic!("{}", told(&actions));
    };
    let mut held = (*claims[0]).clone();
    let status = held.status.as_mut().unwrap();
    let allocation = status.allocation.as_mut().unwrap();
    let selector = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": [node]}]}]});
    assert_eq!(json!(allocation.node_selector), selector, "it binds to the node");
    let result = &allocation.devices.as_ref().unwrap().results.as_ref().unwrap()[0];
    assert_eq!(result.binding_conditions.as_ref().unwrap(), &["Attached"]);
    assert_eq!(result.binding_failure_conditions.as_ref().unwrap(), &["Broken"]);
    let node = node.clone();

    // The driver says that it is broken: whoever comes next gives it back.
    let broken = json!([{"driver": "gpu.example", "pool": "a", "device": "g0", "conditions": [{"type": "Broken",
        "status": "True", "reason": "Dead", "message": "m", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}]);
    let mut pending = held.clone();
    held.status.as_mut().unwrap().devices = serde_json::from_value(broken).unwrap();
    world.objects().assumed.allocations.clear();
    world
        .objects()
        .resource_claims
        .set("default", "one", Some(Arc::new(held)));
    world.put(using("q", "one"));
    let actions = world.step();
    let message = told(&actions);
    assert!(
        message.starts_with(
            "0/3 nodes are available: 3 resourceclaim not available on the node. deallocation of ResourceClaim completed, "
        ) && message.ends_with("[default/one gives its devices back]"),
        "{message}"
    );
    // One that is not ready yet is waited for on its node.
    pending
        .status
        .as_mut()
        .unwrap()
        .allocation
        .as_mut()
        .unwrap()
        .allocation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        k8s_openapi::jiff::Timestamp::now(),
    ));
    world
        .objects()
        .resource_claims
        .set("default", "one", Some(Arc::new(pending)));
    assert_eq!(ask(&mut world, using("r", "one")), format!("{node}: "));
}

#[test]
fn extended_resources_by_devices() {
    let mut world = world();
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu",
        "selectors": [{"cel": {"expression": "driver=gpu.example"}}]}});
    world.objects().device_classes.set("", "gpu", Some(parsed(class)));
    let asking = |name: &str, resource: &str, count: &str| {
        let mut spec = cpu("100m");
        spec["containers"][0]["resources"]["requests"][resource] = json!(count);
        pod(name, spec)
    };
    let given = ask(&mut world, asking("p", "example.com/gpu", "2"));
    assert_eq!(given, "b: container-0-request-1=g0 container-0-request-1=g1");
    let message = ask(&mut world, asking("q", "example.com/gpu", "2"));
    assert!(message.contains("3 cannot allocate all claims."), "{message}");
    let message = ask(&mut world, asking("r", "example.com/none", "1"));
    assert!(message.contains("3 Insufficient example.com/none."), "{message}");
    let given = ask(&mut world, asking("s", "deviceclass.resource.kubernetes.io/gpu", "1"));
    assert!(
        ["a: container-0-request-1=g0", "b: container-0-request-1=g2"].contains(&given.as_str()),
        "{given}"
    );

    // A claim that was left behind goes first.
    let mut left = json!({"metadata": {"name": "left", "namespace": "default", "uid": "left",
        "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}}, "spec": {"devices": {"requests": []}}});
    left["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "t", "uid": "t", "controller": true}]);
    world
        .objects()
        .resource_claims
        .set("default", "left", Some(parsed(left)));
    let message = ask(&mut world, asking("t", "example.com/gpu", "1"));
    assert!(
        message.contains("3 cannot schedule extended resource claim. deletion of ResourceClaim completed"),
        "{message}"
    );
}

/// A node that has the resource by itself needs no devices for it.
#[test]
fn extended_resources_of_nodes_come_first() {
    let mut world = World::new([node("a", json!({"status": {"allocatable": {"example.com/gpu": "1"}}}))]);
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    world.objects().device_classes.set("", "gpu", Some(parsed(class)));
    let asking = |name: &str| {
        let mut spec = cpu("100m");
        spec["containers"][0]["resources"]["requests"]["example.com/gpu"] = json!("1");
        pod(name, spec)
    };
    assert_eq!(ask(&mut world, asking("p")), "a: ");
    let message = ask(&mut world, asking("q"));
    assert!(message.contains("1 Insufficient example.com/gpu."), "{message}");
}
