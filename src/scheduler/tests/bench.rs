//! How fast decisions are, without the API: figures are printed, not judged.

use super::world::{World, cpu, labelled, node, parsed, pod, with};
use crate::scheduler::engine::Action;
use serde_json::{Value, json};
use std::time::Instant;

const NODES: usize = 1000;

fn cluster() -> World {
    let nodes = (0..NODES).map(|n| {
        let figures = json!({"cpu": "32", "memory": "128Gi", "pods": "110"});
        let labels = json!({"topology.kubernetes.io/zone": format!("z{}", n % 3)});
        node(
            &format!("node-{n}"),
            json!({"metadata": {"labels": labels}, "status": {"allocatable": figures}}),
        )
    });
    let mut world = World::new(nodes);
    let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
    world.objects().services.set("default", "s", Some(parsed(service)));
    world
}

fn place(world: &mut World, count: usize, first: usize, spec: &Value) -> f64 {
    let pods: Vec<Value> = (first..first + count)
        .map(|n| labelled(pod(&format!("p{n}"), spec.clone()), json!({"app": "web"})))
        .collect();
    for pod in &pods {
        world.put(pod.clone());
    }
    let begin = Instant::now();
    let mut bound = Vec::new();
    while let Some(actions) = world.engine.step(world.now) {
        for action in actions {
            match action {
                Action::Bind {
                    pod, node, bindings, ..
                } => {
                    world.engine.bound(&bindings);
                    bound.push((pod.pod.clone(), node));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // The watch tells of the bindings.
    for (pod, node) in bound {
        let mut now = (*pod).clone();
        now.spec.get_or_insert_default().node_name = Some(node);
        world.engine.on_pod(Some(&pod), Some(now.into()), world.now);
    }
    count as f64 / begin.elapsed().as_secs_f64()
}

#[test]
fn pods_a_second() {
    let count = if cfg!(debug_assertions) { 300 } else { 3000 };
    let anti = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}}]}}});
    let hard = json!({"topologySpreadConstraints": [{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    for (what, spec) in [
        ("of a service", cpu("100m")),
        ("with preferred anti-affinity", with(cpu("100m"), anti)),
        ("with a spread constraint", with(cpu("100m"), hard)),
    ] {
        let mut world = cluster();
        let empty = place(&mut world, count, 0, &spec);
        for n in 0..10_000 {
            let placed = labelled(pod(&format!("there{n}"), spec.clone()), json!({"app": "web"}));
            world.place(placed, &format!("node-{}", n % NODES));
        }
        let full = place(&mut world, count, count, &spec);
        println!("{NODES} nodes, pods {what}: {empty:.0} a second while empty, {full:.0} with 10,000 pods");
    }
}
