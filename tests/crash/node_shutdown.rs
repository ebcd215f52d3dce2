//! The machine goes down: pods end and say why, on real engines. Who only restarts krust takes nothing from them.

use crate::client;
use crate::pods::{Engine, Shape, World};
use kube::Client;
use kube::api::ListParams;
use nix::sys::signal::{SIGPWR, SIGTERM, Signal};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Of all pods, and of critical ones.
const PERIODS: [(&str, &str); 2] = [
    ("KRUST_NODE__SHUTDOWN_GRACE_PERIOD_SECONDS", "20"),
    ("KRUST_NODE__SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS_SECONDS", "5"),
];

async fn statuses(client: &Client) -> Vec<(String, Value)> {
    let list = World::api(client).list(&ListParams::default()).await.expect("a list");
    let pods = list.items.into_iter();
    pods.map(|pod| (pod.metadata.name.unwrap(), serde_json::to_value(pod.status).unwrap()))
        .collect()
}

/// A directory with a `systemctl` that answers as systemd does while it stops everything.
fn systemd_that_stops() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("systemctl");
    std::fs::write(&program, "#!/bin/sh\necho stopping\nexit 1\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

async fn the_machine_shuts_down(engine: Engine) {
    let (mut world, before) = World::new(engine).await;
    for (name, value) in PERIODS {
        world.krust.set_environment(name, value);
    }
    world.krust.stop();
    world.krust.start_again();
    let first = client(&world.krust).await;
    for shape in [Shape::Runs, Shape::Sidecar, Shape::Mounts, Shape::Ends] {
        world.create(&first, shape).await;
    }
    world.settle(&first).await;

    // Krust alone is restarted: what ran runs on.
    assert_eq!(world.krust.stop(), Some(0));
    world.krust.start_again();
    let second = client(&world.krust).await;
    world.settle(&second).await;

    shut_down(&mut world, SIGPWR).await;
    let third = client(&world.krust).await;
    world.create(&third, Shape::Runs).await;
    world.create(&third, Shape::Prepares).await;
    world.settle(&third).await;

    let systemd = systemd_that_stops();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", systemd.path().display());
    // Only what starts from now on sees it.
    assert_eq!(world.krust.stop(), Some(0));
    world.krust.set_environment("PATH", &path);
    world.krust.start_again();
    world.settle(&client(&world.krust).await).await;
    shut_down(&mut world, SIGTERM).await;
    world.end(&before).await;
}

/// All that runs has ended when krust has, and is taken away.
async fn shut_down(world: &mut World, signal: Signal) {
    let begun = Instant::now();
    assert_eq!(world.krust.stop_by(signal), Some(0));
    println!("shut down in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(25), "longer than the pods' time");
    world.krust.start_again();
    let client = client(&world.krust).await;
    for (name, status) in statuses(&client).await {
        if name.starts_with("ends-") {
            assert_eq!(status["phase"], "Succeeded", "{status:#}");
            continue;
        }
        assert_eq!(status["phase"], "Failed", "{name}: {status:#}");
        assert_eq!(status["reason"], "Terminated", "{name}: {status:#}");
        let text = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status["message"], text, "{name}: {status:#}");
        let conditions = status["conditions"].as_array().expect("conditions");
        let disruption = conditions.iter().find(|one| one["type"] == "DisruptionTarget");
        assert_eq!(disruption.expect("DisruptionTarget")["reason"], "TerminationByKubelet");
        for container in status["containerStatuses"].as_array().expect("containers") {
            assert!(container["state"]["terminated"].is_object(), "{name}: {container:#}");
        }
    }
    world.take_away(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn pods_on_docker_end_with_the_machine() {
    the_machine_shuts_down(Engine::Docker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn pods_on_containerd_end_with_the_machine() {
    the_machine_shuts_down(Engine::Containerd).await;
}
