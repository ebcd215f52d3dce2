//! Situations with volumes: which node can reach them, and what has to be bound or made first.

use super::world::{World, cpu, node, parsed, pod, told, with};
use crate::scheduler::engine::Action;
use serde_json::{Value, json};

fn claim(name: &str, extra: Value) -> Value {
    let base = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}}});
    with(base, extra)
}
fn bound(name: &str, volume: &str, extra: Value) -> Value {
    let base = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}});
    claim(name, with(base, extra))
}
fn volume(name: &str, on: &str, extra: Value) -> Value {
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}]}});
    let base = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce"],
        "storageClassName": "late", "nodeAffinity": affinity}, "status": {"phase": "Available"}});
    with(base, extra)
}
fn with_claim(name: &str) -> Value {
    with(
        pod("p", cpu("100m")),
        json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}}),
    )
}
fn world(provisioner: &str) -> World {
    let mut world = World::new([
        node(
            "a",
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "x"}}}),
        ),
        node(
            "b",
            json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "y"}}}),
        ),
    ]);
    for (name, mode) in [("late", "WaitForFirstConsumer"), ("now", "Immediate")] {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        world.objects().storage_classes.set("", name, Some(parsed(class)));
    }
    world
}
fn put_claim(world: &mut World, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    world.objects().claims.set("default", &name, Some(parsed(object)));
}
fn put_volume(world: &mut World, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    world.objects().volumes.set("", &name, Some(parsed(object)));
}

#[test]
fn claims_that_cannot_be_used() {
    for (object, expected) in [
        (None, "0/2 nodes are available: persistentvolumeclaim \"c\" not found."),
        (
            Some(claim(
                "c",
                json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "gone"}}),
            )),
            "0/2 nodes are available: persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"gone\".",
        ),
        (
            Some(claim(
                "c",
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            )),
            "0/2 nodes are available: persistentvolumeclaim \"c\" is being deleted.",
        ),
        (
            Some(claim("c", json!({"spec": {"storageClassName": "now"}}))),
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        ),
        (
            Some(bound("c", "gone", json!({}))),
            "0/2 nodes are available: persistentvolume \"gone\" not found.",
        ),
        (
            Some(claim("c", json!({}))),
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
        ),
    ] {
        let mut world = world("kubernetes.io/no-provisioner");
        if let Some(object) = object {
            put_claim(&mut world, object);
        }
        let told = world.try_one(with_claim("c"));
        assert!(told.starts_with(expected), "{told}");
    }
    let mut world = world("x");
    let own = with(
        pod("p", json!({})),
        json!({"spec": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}}),
    );
    let told = world.try_one(own);
    assert!(
        told.contains("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\""),
        "{told}"
    );
}

#[test]
fn bound_volumes_say_where() {
    let mut world = world("x");
    put_claim(&mut world, bound("c", "pv", json!({})));
    put_volume(&mut world, volume("pv", "b", json!({"status": {"phase": "Bound"}})));
    assert_eq!(world.try_one(with_claim("c")), "b");
    put_volume(&mut world, volume("pv", "z", json!({})));
    let told = world.try_one(with_claim("c"));
    assert!(
        told.contains("2 node(s) didn't match PersistentVolume's node affinity."),
        "{told}"
    );
    // By the zone in the volume's labels.
    let zoned =
        json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "x__z"}}, "spec": {"nodeAffinity": null}});
    put_volume(&mut world, volume("pv", "z", zoned));
    assert_eq!(world.try_one(with_claim("c")), "a");
}

#[test]
fn the_smallest_volume_is_bound_or_one_is_made() {
    let mut world = world("kubernetes.io/no-provisioner");
    put_claim(&mut world, claim("c", json!({})));
    put_volume(&mut world, volume("large", "b", json!({})));
    put_volume(
        &mut world,
        volume("small", "b", json!({"spec": {"capacity": {"storage": "2Gi"}}})),
    );
    put_volume(
        &mut world,
        volume("tiny", "b", json!({"spec": {"capacity": {"storage": "1Mi"}}})),
    );
    put_volume(
        &mut world,
        volume(
            "taken",
            "a",
            json!({"spec": {"claimRef": {"namespace": "default", "name": "other"}}}),
        ),
    );
    world.put(with_claim("c"));
    let actions = world.step();
    let Some(Action::Bind { node, bindings, .. }) = actions.first() else {
        panic!("{}", told(&actions))
    };
    assert_eq!(
        (node.as_str(), bindings.volumes[0].1.metadata.name.as_deref()),
        ("b", Some("small"))
    );
    // Another claim does not get the same volume meanwhile.
    put_claim(&mut world, claim("d", json!({})));
    let other = with(with_claim("d"), json!({"metadata": {"uid": "q", "name": "q"}}));
    world.put(other);
    let actions = world.step();
    let Some(Action::Bind { bindings, .. }) = actions.first() else {
        panic!("{}", told(&actions))
    };
    assert_eq!(bindings.volumes[0].1.metadata.name.as_deref(), Some("large"));
}

#[test]
fn provisioning_goes_where_it_can() {
    let mut world = world("example.com/driver");
    put_claim(&mut world, claim("c", json!({})));
    let class = json!({"metadata": {"name": "late"}, "provisioner": "example.com/driver", "volumeBindingMode": "WaitForFirstConsumer",
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["y"]}]}]});
    world.objects().storage_classes.set("", "late", Some(parsed(class)));
    world.put(with_claim("c"));
    let actions = world.step();
    let Some(Action::Bind { node, bindings, .. }) = actions.first() else {
        panic!("{}", told(&actions))
    };
    assert_eq!((node.as_str(), bindings.provisions.len()), ("b", 1));
    // It was decided for a node before.
    let mut world = self::world("example.com/driver");
    put_claim(
        &mut world,
        claim(
            "c",
            json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "b"}}}),
        ),
    );
    assert_eq!(world.try_one(with_claim("c")), "b");
    // The driver tells where it has room.
    let driver = json!({"metadata": {"name": "example.com/driver"}, "spec": {"storageCapacity": true}});
    world
        .objects()
        .csi_drivers
        .set("", "example.com/driver", Some(parsed(driver)));
    put_claim(&mut world, claim("c", json!({})));
    let told = world.try_one(with_claim("c"));
    assert!(told.contains("2 node(s) did not have enough free storage."), "{told}");
    let room = json!({"metadata": {"name": "r", "namespace": "kube-system"}, "storageClassName": "late", "capacity": "10Gi",
        "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": "y"}}});
    world.objects().capacities.set("kube-system", "r", Some(parsed(room)));
    assert_eq!(world.try_one(with_claim("c")), "b");
}

#[test]
fn one_pod_at_a_time_and_so_many_per_node() {
    let mut world = world("x");
    put_claim(
        &mut world,
        bound("c", "pv", json!({"spec": {"accessModes": ["ReadWriteOncePod"]}})),
    );
    let csi = json!({"spec": {"nodeAffinity": null, "csi": {"driver": "d", "volumeHandle": "h"}}});
    put_volume(&mut world, volume("pv", "a", csi));
    let user = with(with_claim("c"), json!({"metadata": {"uid": "user", "name": "user"}}));
    world.place(user.clone(), "a");
    let told = world.try_one(with_claim("c"));
    assert!(
        told.contains(
            "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
        ),
        "{told}"
    );
    let high = with(with_claim("c"), json!({"spec": {"priority": 9}}));
    assert!(world.try_one(high).ends_with("[user make room on a]"));
    world.remove("user");
    assert!(["a", "b"].contains(&world.try_one(with_claim("c")).as_str()));
    // Both nodes take one volume each; a has another one.
    for name in ["a", "b"] {
        let limit = json!({"metadata": {"name": name}, "spec": {"drivers": [{"name": "d", "nodeID": "n", "allocatable": {"count": 1}}]}});
        world.objects().csi_nodes.set("", name, Some(parsed(limit)));
    }
    put_claim(&mut world, bound("d", "pv2", json!({})));
    put_volume(
        &mut world,
        volume(
            "pv2",
            "a",
            json!({"spec": {"nodeAffinity": null, "csi": {"driver": "d", "volumeHandle": "h2"}}}),
        ),
    );
    world.place(
        with(with_claim("d"), json!({"metadata": {"uid": "x", "name": "x"}})),
        "a",
    );
    assert_eq!(world.try_one(with_claim("c")), "b");
    let attached = json!({"metadata": {"name": "va"}, "spec": {"attacher": "d", "nodeName": "b", "source": {"persistentVolumeName": "pv2"}}});
    world.objects().attachments.set("", "va", Some(parsed(attached)));
    let told = world.try_one(with_claim("c"));
    assert!(told.contains("2 node(s) exceed max volume count."), "{told}");
}
