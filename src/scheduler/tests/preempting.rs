//! Situations in which pods make room for others.

use super::world::{World, cpu, labelled, node, parsed, pod, told, with};
use crate::scheduler::engine::Action;
use serde_json::{Value, json};

fn of(priority: i32, spec: Value) -> Value {
    with(spec, json!({"priority": priority}))
}
fn full(nodes: usize) -> World {
    let mut world = World::new((0..nodes).map(|n| node(&format!("n{n}"), json!({}))));
    for n in 0..nodes {
        let victim = labelled(
            pod(&format!("v{n}"), of(n as i32, cpu("3"))),
            json!({"app": format!("v{n}")}),
        );
        world.place(victim, &format!("n{n}"));
    }
    world
}
fn with_budget(world: &mut World, app: &str, allowed: i32, disrupted: Value) {
    let budget = json!({"metadata": {"name": app, "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "disruptedPods": disrupted}});
    world.objects().budgets.set("default", app, Some(parsed(budget)));
}

#[test]
fn the_least_important_goes() {
    let mut world = full(3);
    let told = world.ask(pod("p", of(100, cpu("2"))));
    assert_eq!(
        told,
        "0/3 nodes are available: 3 Insufficient cpu. [v0 make room on n0]"
    );
}

#[test]
fn budgets_are_kept_if_possible() {
    let mut world = full(3);
    with_budget(&mut world, "v0", 0, json!({}));
    with_budget(&mut world, "v1", 0, json!({"v1": "2026-01-01T00:00:00Z"}));
    assert!(world.ask(pod("p", of(100, cpu("2")))).ends_with("[v1 make room on n1]"));
    let mut world = full(1);
    with_budget(&mut world, "v0", 0, json!({}));
    assert!(
        world.ask(pod("p", of(100, cpu("2")))).ends_with("[v0 make room on n0]"),
        "no other way"
    );
}

#[test]
fn no_more_go_than_must() {
    let mut world = World::new([node("a", json!({}))]);
    let started = |at: &str| json!({"status": {"startTime": format!("2026-01-01T00:00:{at}Z")}});
    for (name, priority, size, at) in [("big", 5, "2", "01"), ("old", 1, "1", "02"), ("young", 1, "1", "03")] {
        let base = with(pod(name, of(priority, cpu(size))), started(at));
        world.place(base, "a");
    }
    assert!(world.ask(pod("p", of(9, cpu("1")))).ends_with("[young make room on a]"));
    world.remove("p");
    assert!(
        world
            .try_one(pod("q", of(9, cpu("2"))))
            .ends_with("[old young make room on a]")
    );
    assert!(
        world
            .try_one(pod("r", of(9, cpu("4"))))
            .ends_with("[big old young make room on a]")
    );
    // Its own priority is no lower priority.
    let told = world.try_one(pod("s", of(1, cpu("2"))));
    assert!(
        told.ends_with("preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."),
        "{told}"
    );
}

#[test]
fn who_may_not() {
    let mut world = full(1);
    let never = with(
        pod("p", of(100, cpu("2"))),
        json!({"spec": {"preemptionPolicy": "Never"}}),
    );
    assert_eq!(
        world.try_one(never),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
    );
    let elsewhere = with(
        pod("q", of(100, cpu("2"))),
        json!({"spec": {"nodeSelector": {"x": "y"}}}),
    );
    assert!(
        world
            .try_one(elsewhere)
            .ends_with("preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.")
    );
}

#[test]
fn a_nominated_pod_waits_for_its_victims_and_keeps_its_room() {
    let mut world = full(1);
    let actions = {
        world.put(pod("p", of(100, cpu("2"))));
        world.step()
    };
    let Some(Action::Preempt { victims, displaced, .. }) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!((victims.len(), displaced.len()), (1, 0));
    let Some(Action::Report(report)) = actions.first() else {
        panic!("{actions:?}")
    };
    assert_eq!(report.nominate, Some(Some("n0".into())));
    // While the victim is being deleted, and while it goes, nothing more is done.
    world.place(pod("other", cpu("100m")), "n0");
    world.remove("other");
    assert!(world.engine.step(world.now).is_none(), "held");
    world.engine.room_was_made("p", &[], &[], world.now);
    let told_of = told(&world.step());
    assert!(
        told_of.ends_with("preemption: not eligible due to a terminating pod on the nominated node."),
        "{told_of}"
    );
    // A pod of lower priority does not get the room.
    world.remove("v0");
    world.put(pod("low", of(1, cpu("3"))));
    let mut told_of = vec![told(&world.step()), told(&world.step())];
    told_of.sort();
    assert!(
        told_of[0].starts_with("0/1 nodes are available: 1 Insufficient cpu."),
        "{told_of:?}"
    );
    assert_eq!(told_of[1], "n0");
    assert!(world.engine.cache.is_assumed("p"));
}

#[test]
fn a_failed_deletion_is_tried_again() {
    let mut world = full(1);
    world.ask(pod("p", of(100, cpu("2"))));
    world.engine.room_was_made("p", &["v0".into()], &[], world.now);
    assert!(told(&world.step()).ends_with("[v0 make room on n0]"));
}

#[test]
fn lower_nominations_are_displaced() {
    let mut world = full(1);
    let nominated = with(
        pod("low", of(50, cpu("2"))),
        json!({"status": {"nominatedNodeName": "n0"}}),
    );
    world.put(nominated);
    world.put(pod("high", of(100, cpu("3"))));
    let actions = world.step();
    let Some(Action::Preempt { pod, displaced, .. }) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(pod.name, "high");
    assert_eq!(
        displaced.iter().map(|other| other.name.as_str()).collect::<Vec<_>>(),
        ["low"]
    );
}

#[test]
fn anti_affinity_to_those_who_go_is_no_obstacle() {
    let mut world = World::new([node("a", json!({}))]);
    world.place(labelled(pod("v", of(0, cpu("1"))), json!({"app": "web"})), "a");
    let shy = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}});
    let told = world.ask(pod("p", of(9, shy)));
    assert_eq!(
        told,
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. [v make room on a]"
    );
}
