//! What makes a refused pod worth another try, and what does not.

use super::world::{World, cpu, labelled, node, parsed, pod, with};
use crate::scheduler::framework::Event;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};
use std::time::Duration;

/// Two nodes with three of four processors in use.
fn world() -> World {
    let mut world = World::new([
        node("a", json!({"metadata": {"labels": {"zone": "a"}}})),
        node("b", json!({})),
    ]);
    world.place(labelled(pod("on-a", cpu("3")), json!({"app": "web"})), "a");
    world.place(pod("on-b", cpu("3")), "b");
    world
}
fn near(kind: &str) -> Value {
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}]}}})
}
fn port() -> Value {
    json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]})
}

#[test]
fn table() {
    type Change = fn(&mut World);
    let only_a = json!({"nodeSelector": {"zone": "a"}});
    let all_tainted: Change = |world| {
        for name in ["a", "b"] {
            world.put_node(node(
                name,
                json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            ));
        }
    };
    let nothing: Change = |_| {};
    let restarts_all =
        json!({"containers": [{"name": "c", "restartPolicyRules": [{"action": "RestartAllContainers"}]}]});
    let rows: Vec<(&str, Change, Value, Change, bool)> = vec![
        ("a pod goes", nothing, cpu("2"), |w| w.remove("on-a"), true),
        (
            "a pod ends",
            nothing,
            cpu("2"),
            |w| {
                w.put(with(
                    pod("on-a", json!({"nodeName": "a"})),
                    json!({"status": {"phase": "Failed"}}),
                ))
            },
            true,
        ),
        (
            "a pod comes",
            nothing,
            cpu("2"),
            |w| w.place(pod("more", cpu("100m")), "a"),
            false,
        ),
        (
            "a pod shrinks",
            nothing,
            cpu("2"),
            |w| w.place(labelled(pod("on-a", cpu("1")), json!({"app": "web"})), "a"),
            true,
        ),
        (
            "a pod is labelled",
            nothing,
            cpu("2"),
            |w| w.place(labelled(pod("on-a", cpu("3")), json!({"app": "x"})), "a"),
            false,
        ),
        (
            "a heartbeat",
            nothing,
            cpu("2"),
            |w| {
                w.put_node(node(
                    "b",
                    json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
                ))
            },
            false,
        ),
        (
            "a node grows",
            nothing,
            cpu("2"),
            |w| w.put_node(node("b", json!({"status": {"allocatable": {"cpu": "8"}}}))),
            true,
        ),
        (
            "a node gets what is not wanted",
            nothing,
            cpu("2"),
            |w| w.put_node(node("b", json!({"status": {"allocatable": {"x.com/y": "8"}}}))),
            false,
        ),
        (
            "a node comes",
            nothing,
            cpu("2"),
            |w| w.put_node(node("c", json!({}))),
            true,
        ),
        (
            "a node comes that is too small",
            nothing,
            cpu("2"),
            |w| w.put_node(node("c", json!({"status": {"allocatable": {"cpu": "1"}}}))),
            false,
        ),
        (
            "a tainted node comes",
            all_tainted,
            json!({}),
            |w| {
                w.put_node(node(
                    "c",
                    json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
                ))
            },
            false,
        ),
        (
            "a taint goes",
            all_tainted,
            json!({}),
            |w| w.put_node(node("a", json!({}))),
            true,
        ),
        (
            "a node declares",
            nothing,
            restarts_all.clone(),
            |w| w.put_node(node("b", json!({"status": {"declaredFeatures": ["X"]}}))),
            true,
        ),
        (
            "a node declares nothing",
            nothing,
            restarts_all,
            |w| w.put_node(node("b", json!({"metadata": {"labels": {"x": "y"}}}))),
            false,
        ),
        (
            "another label",
            nothing,
            json!({"nodeSelector": {"disk": "ssd"}}),
            |w| w.put_node(node("b", json!({"metadata": {"labels": {"x": "y"}}}))),
            false,
        ),
        (
            "the label",
            nothing,
            json!({"nodeSelector": {"disk": "ssd"}}),
            |w| w.put_node(node("b", json!({"metadata": {"labels": {"disk": "ssd"}}}))),
            true,
        ),
        (
            "a port is free",
            |w| {
                w.place(pod("p1", port()), "a");
                w.place(pod("p2", port()), "b");
            },
            port(),
            |w| w.remove("p1"),
            true,
        ),
        (
            "no port is free",
            |w| {
                w.place(pod("p1", port()), "a");
                w.place(pod("p2", port()), "b");
            },
            port(),
            |w| w.remove("on-a"),
            false,
        ),
        (
            "whom it wants to be near",
            nothing,
            near("podAffinity"),
            |w| w.place(labelled(pod("db", cpu("100m")), json!({"app": "db"})), "a"),
            true,
        ),
        (
            "somebody else",
            nothing,
            near("podAffinity"),
            |w| w.place(labelled(pod("db", cpu("100m")), json!({"app": "other"})), "a"),
            false,
        ),
        (
            "whom it shuns goes",
            |w| {
                w.place(labelled(pod("db", cpu("100m")), json!({"app": "db"})), "a");
            },
            with(near("podAntiAffinity"), only_a.clone()),
            |w| w.remove("db"),
            true,
        ),
        (
            "whom it shuns stays",
            |w| {
                w.place(labelled(pod("db", cpu("100m")), json!({"app": "db"})), "a");
            },
            with(near("podAntiAffinity"), only_a),
            |w| w.remove("on-b"),
            false,
        ),
    ];
    for (what, before, spec, change, expected) in rows {
        let mut world = world();
        before(&mut world);
        let told = world.ask(pod("p", spec));
        assert!(told.starts_with("0/"), "{what}: {told}");
        change(&mut world);
        let later = world.now + Duration::from_secs(20);
        assert_eq!(world.engine.step(later).is_some(), expected, "{what}");
    }
}

#[test]
fn claims_concern_those_who_use_them() {
    for (name, expected) in [("mine", true), ("other", false)] {
        let mut world = world();
        let uses = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "mine"}}]}});
        assert!(world.ask(with(pod("p", json!({})), uses)).contains("not found"));
        let claim = json!({"metadata": {"name": name, "namespace": "default"}});
        let claim = parsed::<PersistentVolumeClaim>(claim);
        world
            .engine
            .happened(&Event::Claim { old: None, new: &claim }, world.now);
        let later = world.now + Duration::from_secs(20);
        assert_eq!(world.engine.step(later).is_some(), expected, "{name}");
    }
}
