//! A table of situations for each rule: what is said about a pod on given nodes.

use super::world::{World, cpu, labelled, node, parsed, pod, with};
use serde_json::{Value, json};

/// What follows when nothing can be done by preemption.
fn hopeless(reasons: &str, nodes: usize) -> String {
    format!(
        "0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    )
}
/// What follows when nobody of lower priority is there.
fn no_victims(reasons: &str, nodes: usize) -> String {
    format!(
        "0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{nodes} nodes are available: {nodes} No preemption victims found for incoming pod."
    )
}

#[test]
fn nodes_taints_and_selectors() {
    let mut world = World::new([
        node(
            "a",
            json!({"metadata": {"labels": {"disk": "ssd", "n": "3"}}, "status": {"allocatable": {"cpu": "1"}}}),
        ),
        node(
            "b",
            json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}, "status": {"allocatable": {"cpu": "2"}}}),
        ),
        node("c", json!({"spec": {"unschedulable": true}})),
    ]);
    let tolerate = json!([{"key": "k", "operator": "Exists"}]);
    let affinity = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let expression = |key: &str, operator: &str, values: Value| json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
    for (spec, expected) in [
        (cpu("500m"), "a".to_owned()),
        (with(cpu("2"), json!({"tolerations": tolerate})), "b".into()),
        (
            cpu("8"),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.".into(),
        ),
        (json!({"nodeSelector": {"disk": "ssd"}}), "a".into()),
        (
            json!({"nodeSelector": {"disk": "hdd"}, "tolerations": [{"operator": "Exists"}]}),
            hopeless("3 node(s) didn't match Pod's node affinity/selector", 3),
        ),
        (with(affinity(expression("disk", "NotIn", json!(["ssd"]))), json!({"tolerations": tolerate})), "b".into()),
        (affinity(expression("n", "Gt", json!(["2"]))), "a".into()),
        (
            with(affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}])), json!({"tolerations": tolerate})),
            "b".into(),
        ),
        (
            affinity(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gone"]}]}])),
            hopeless("3 node(s) didn't satisfy plugin(s) [NodeAffinity]", 3),
        ),
        (
            affinity(json!([{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["a"]},
                {"key": "metadata.name", "operator": "In", "values": ["b"]},
            ]}])),
            hopeless("pod affinity terms conflict", 3),
        ),
        (json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "c"}}), "c".into()),
    ] {
        assert_eq!(world.try_one(pod("p", spec.clone())), expected, "{spec}");
    }
    assert_eq!(
        World::new([]).ask(pod("p", json!({}))),
        "no nodes available to schedule pods"
    );
}

#[test]
fn features_that_nodes_declare() {
    let declares = |features: Value| json!({"status": {"declaredFeatures": features}});
    let mut world = World::new([
        node("a", json!({})),
        node("b", declares(json!(["ExtendWebSocketsToKubelet"]))),
    ]);
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [1]}});
    let spec = json!({"containers": [{"name": "c", "image": "img", "restartPolicyRules": [rule]}]});
    let refused = hopeless("2 node(s) didn't match Pod's required features", 2);
    assert_eq!(world.try_one(pod("p", spec.clone())), refused);
    world.put_node(node("b", declares(json!(["RestartAllContainersOnContainerExits"]))));
    assert_eq!(world.try_one(pod("p", spec)), "b");
}

#[test]
fn resources_ports_and_the_number_of_pods() {
    let mut world = World::new([node(
        "a",
        json!({"status": {"allocatable": {"pods": "3", "example.com/x": "1", "ephemeral-storage": "1Gi"}}}),
    )]);
    let port = |address: &str, protocol: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": address, "protocol": protocol}]}]});
    let wants = |list: Value| json!({"containers": [{"name": "c", "resources": {"requests": list}}]});
    world.place(pod("0", with(port("127.0.0.1", "TCP"), json!({}))), "a");
    world.place(pod("1", wants(json!({"cpu": "3", "example.com/x": "1"}))), "a");
    for (spec, expected) in [
        (port("10.0.0.1", "TCP"), "a".to_owned()),
        (port("", "UDP"), "a".into()),
        (
            port("", "TCP"),
            no_victims("1 node(s) didn't have free ports for the requested pod ports", 1),
        ),
        (cpu("1"), "a".into()),
        (cpu("1001m"), no_victims("1 Insufficient cpu", 1)),
        (cpu("5"), hopeless("1 Insufficient cpu", 1)),
        (
            wants(json!({"example.com/x": "1"})),
            no_victims("1 Insufficient example.com/x", 1),
        ),
        (
            wants(json!({"example.com/y": "1"})),
            hopeless("1 Insufficient example.com/y", 1),
        ),
        (
            wants(json!({"cpu": "2", "memory": "9Gi", "ephemeral-storage": "2Gi"})),
            hopeless(
                "1 Insufficient cpu, 1 Insufficient ephemeral-storage, 1 Insufficient memory",
                1,
            ),
        ),
        (
            with(cpu("500m"), json!({"overhead": {"cpu": "600m"}})),
            no_victims("1 Insufficient cpu", 1),
        ),
    ] {
        assert_eq!(world.try_one(pod("p", spec.clone())), expected, "{spec}");
    }
    world.place(pod("2", json!({})), "a");
    assert_eq!(world.try_one(pod("p", json!({}))), no_victims("1 Too many pods", 1));
    assert_eq!(
        world.try_one(pod("p", cpu("2"))),
        no_victims("1 Insufficient cpu, 1 Too many pods", 1)
    );
    // A pod that has ended takes no room.
    world.put(with(
        pod("1", json!({"nodeName": "a"})),
        json!({"status": {"phase": "Succeeded"}}),
    ));
    assert_eq!(world.try_one(pod("p", cpu("2"))), "a");
}

fn zoned(name: &str, zone: &str) -> Value {
    node(name, json!({"metadata": {"labels": {"zone": zone}}}))
}

fn near(kind: &str, key: &str, extra: Value) -> Value {
    let term = with(
        json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "web"}}}),
        extra,
    );
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[test]
fn affinity_between_pods() {
    let mut world = World::new([
        zoned("a1", "a"),
        zoned("a2", "a"),
        zoned("b1", "b"),
        node("none", json!({})),
    ]);
    let web = |name: &str, spec: Value| labelled(pod(name, spec), json!({"app": "web"}));
    let host = "kubernetes.io/hostname";
    // Nobody is there: only who belongs to the group itself may begin it.
    let first = near("podAffinity", "zone", json!({}));
    assert_eq!(
        world.try_one(pod("p", first.clone())),
        hopeless("4 node(s) didn't match pod affinity rules", 4)
    );
    assert_ne!(world.try_one(web("p", first.clone())), "none");
    world.place(web("w", json!({})), "a1");
    assert!(["a1", "a2"].contains(&world.try_one(pod("p", first.clone())).as_str()));
    assert_eq!(world.try_one(pod("p", near("podAffinity", host, json!({})))), "a1");
    assert!(
        ["b1", "none"].contains(
            &world
                .try_one(pod("p", near("podAntiAffinity", "zone", json!({}))))
                .as_str()
        )
    );
    // By name or label of the namespace.
    let elsewhere = |name: &str| {
        with(
            pod(name, near("podAffinity", host, json!({}))),
            json!({"metadata": {"namespace": "other"}}),
        )
    };
    assert!(world.try_one(elsewhere("p")).contains("pod affinity rules"));
    for (scope, found) in [
        (json!({"namespaces": ["default"]}), true),
        (json!({"namespaceSelector": {}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}), false),
    ] {
        let asking = with(
            pod("p", near("podAffinity", host, scope.clone())),
            json!({"metadata": {"namespace": "other"}}),
        );
        assert_eq!(world.try_one(asking) == "a1", found, "{scope}");
    }
    let by_team = with(
        pod(
            "p",
            near(
                "podAffinity",
                host,
                json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}),
            ),
        ),
        json!({"metadata": {"namespace": "other"}}),
    );
    world
        .engine
        .cache
        .set_namespace("default", Some([("team".to_owned(), "x".to_owned())].into()));
    assert_eq!(world.try_one(by_team), "a1");
    // Others do not want it near them, although it does not mind.
    world.place(pod("shy", near("podAntiAffinity", "zone", json!({}))), "b1");
    let only_b = json!({"nodeSelector": {"zone": "b"}});
    assert_eq!(
        world.try_one(web("p", only_b.clone())),
        "0/4 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules, 3 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/4 nodes are available: 1 No preemption victims found for incoming pod, 3 Preemption is not helpful for scheduling."
    );
    assert_eq!(world.try_one(pod("p", only_b.clone())), "b1");
    world.remove("shy");
    assert_eq!(world.try_one(web("p", only_b)), "b1");
}

fn spread(constraint: Value) -> Value {
    let base = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}});
    json!({"topologySpreadConstraints": [with(base, constraint)]})
}

#[test]
fn hard_spreading() {
    let mut world = World::new([
        zoned("a", "a"),
        zoned("b", "b"),
        with(
            zoned("c", "c"),
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
        ),
        node("none", json!({"spec": {"unschedulable": true}})),
    ]);
    let web = |name: &str, spec: Value| labelled(pod(name, spec), json!({"app": "web", "v": "1"}));
    for (name, on) in [("1", "a"), ("2", "b")] {
        world.place(web(name, json!({})), on);
    }
    let refused = "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints.";
    for (constraint, expected) in [
        // The tainted zone is empty, and counts unless taints are honored.
        (json!({}), refused),
        (json!({"maxSkew": 2}), "a or b"),
        (json!({"nodeTaintsPolicy": "Honor"}), "a or b"),
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 3}), refused),
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 2}), "a or b"),
        (json!({"matchLabelKeys": ["v"]}), refused),
        (json!({"labelSelector": {"matchLabels": {"app": "other"}}}), "a or b"),
    ] {
        let told = world.try_one(web("p", spread(constraint.clone())));
        let as_expected = match expected {
            "a or b" => ["a", "b"].contains(&told.as_str()),
            message => told.starts_with(message),
        };
        assert!(as_expected, "{constraint}: {told}");
    }
    // Only nodes that the pod may go to count, unless that is ignored.
    let only = |policy: &str| {
        with(
            spread(json!({"nodeAffinityPolicy": policy})),
            json!({"nodeSelector": {"zone": "a"}}),
        )
    };
    assert_eq!(world.try_one(web("p", only("Honor"))), "a");
    assert!(
        world
            .try_one(web("p", only("Ignore")))
            .contains("1 node(s) didn't match pod topology spread constraints")
    );
    world.put_node(node("none", json!({})));
    let told = world.try_one(web("p", spread(json!({}))));
    assert!(
        told.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"),
        "{told}"
    );
}

#[test]
fn the_better_node() {
    let image = |size: i64| json!({"status": {"images": [{"names": ["img:latest"], "sizeBytes": size}]}});
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let prefer = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}});
    let near_web = |kind: &str| {
        let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}});
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 50, "podAffinityTerm": term}]}}})
    };
    let even = with(spread(json!({"whenUnsatisfiable": "ScheduleAnyway"})), json!({}));
    for (what, b, spec, on_a, expected) in [
        ("the emptier", json!({}), json!({}), Some(cpu("1")), "b"),
        ("without the soft taint", soft, json!({}), None, "a"),
        ("the preferred", json!({}), prefer, None, "b"),
        ("with the image", image(900 << 20), json!({}), None, "b"),
        (
            "near the web",
            json!({}),
            near_web("podAffinity"),
            Some(cpu("100m")),
            "a",
        ),
        (
            "far from the web",
            json!({}),
            near_web("podAntiAffinity"),
            Some(json!({})),
            "b",
        ),
        (
            "evenly",
            json!({"status": {"allocatable": {"cpu": "3"}}}),
            even,
            Some(json!({})),
            "b",
        ),
        (
            "balanced",
            json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi"}}}),
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "2Gi"}}}]}),
            Some(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m", "memory": "1Mi"}}}]})),
            "b",
        ),
    ] {
        let mut world = World::new([zoned("a", "a"), with(zoned("b", "b"), b)]);
        if let Some(spec) = on_a {
            world.place(labelled(pod("w", spec), json!({"app": "web"})), "a");
        }
        let asked = labelled(pod("p", spec), json!({"app": "web"}));
        for _ in 0..5 {
            assert_eq!(world.try_one(asked.clone()), expected, "{what}");
        }
    }
}

#[test]
fn pods_of_one_owner_spread_by_default() {
    let mut world = World::new([
        zoned("a", "a"),
        with(zoned("b", "b"), json!({"status": {"allocatable": {"cpu": "3"}}})),
    ]);
    let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
    world.objects().services.set("default", "s", Some(parsed(service)));
    let web = |name: &str| labelled(pod(name, cpu("100m")), json!({"app": "web"}));
    for name in ["1", "2", "3"] {
        world.place(web(name), "a");
    }
    world.place(pod("other", cpu("1")), "b");
    // By room alone it would go to a.
    assert_eq!(world.try_one(pod("p", cpu("100m"))), "a");
    assert_eq!(world.try_one(web("p")), "b");
}

#[test]
fn gated_pods_and_those_of_others_are_left_alone() {
    let mut world = World::new([node("a", json!({}))]);
    world.put(pod("gated", json!({"schedulingGates": [{"name": "g"}]})));
    world.put(pod("other", json!({"schedulerName": "other"})));
    assert!(world.engine.step(world.now).is_none());
    world.put(pod("gated", json!({})));
    assert_eq!(world.step().len(), 1);
    assert!(world.engine.step(world.now).is_none());
}
