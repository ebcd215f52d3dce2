//! Situations with claims for devices.

use super::world::{World, cpu, node, parsed, pod, told, with};
use crate::scheduler::devices::Expressions;
use crate::scheduler::engine::Action;
use k8s_openapi::api::resource::v1::Device;
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
    let actions = world.step();
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
            "could not retrieve device class none",
        ),
        (
            json!({"requests": [exactly("r", json!({"deviceClassName": "bad"}))]}),
            "no such expression",
        ),
        (
            json!({"requests": [exactly("r", json!({"capacity": {"requests": {"memory": "1Gi"}}}))]}),
            "0/3 nodes are available: shares of devices' capacity and derived attributes are not allocated.",
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
    let status = json!({"status": {"resourceClaimStatuses": [{"name": "d", "resourceClaimName": "made"}]}});
    let told = ask(&mut world, with(with(pod("q", cpu("100m")), templated), status));
    assert_eq!(told, "b: r=g0 r=g1 r=g2");
}
