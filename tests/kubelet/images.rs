//! Credentials for pulls, pulls side by side, and images that nobody uses.

use crate::cluster::{Cluster, POLITE, app, eventually, state};
use base64::Engine;
use k8s_openapi::api::core::v1::{Pod, Secret};
use krust::kubelet::PodPolicy;
use krust::kubelet::images::{ImagePolicy, garbage_plan};
use krust::runtime::Runtime;
use krust::runtime::fake::Behaviour;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

fn with_images(images: ImagePolicy) -> PodPolicy {
    PodPolicy {
        images,
        ..PodPolicy::default()
    }
}

fn guarded(password: &str) -> Behaviour {
    Behaviour {
        password: Some(password.to_owned()),
        ..Behaviour::default()
    }
}

fn of(image: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": image, "command": POLITE}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    spec
}

#[tokio::test]
async fn pull_secrets_come_before_the_nodes_own_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let auth = base64::engine::general_purpose::STANDARD.encode("node:of-the-node");
    let file = json!({
        "auths": {"ghcr.io": {"auth": auth}},
    });
    let path = directory.path().join("config.json");
    std::fs::write(&path, file.to_string()).unwrap();
    let policy = ImagePolicy {
        credentials: vec![directory.path().join("absent"), path],
        ..ImagePolicy::default()
    };
    let cluster = Cluster::start_with(with_images(policy)).await;
    cluster
        .runtime
        .set_behaviour("ghcr.io/of/node:1", guarded("of-the-node"));
    cluster
        .runtime
        .set_behaviour("ghcr.io/of/secret:1", guarded("of-the-secret"));
    cluster.runtime.set_behaviour("quay.io/a:1", guarded("nobody's"));
    let config = json!({"auths": {"ghcr.io/of": {"username": "u", "password": "of-the-secret"}}});
    let secret = json!({"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()}});
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "default");
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    let named = json!({"imagePullSecrets": [{"name": "pull"}]});
    cluster.create("node", of("ghcr.io/of/node:1", json!({}))).await;
    cluster.create("both", of("ghcr.io/of/secret:1", named.clone())).await;
    for pod in ["node", "both"] {
        cluster.wait_phase(pod, "Running").await;
    }
    assert_eq!(
        cluster.runtime.pulls("ghcr.io/of/secret:1"),
        1,
        "the secret is tried first"
    );
    cluster.create("none", of("quay.io/a:1", named)).await;
    let refused = |pod: &Pod| {
        pod.status.as_ref().unwrap().container_statuses.is_some() && state(pod).1["waiting"]["reason"] == "ErrImagePull"
    };
    let pod = cluster.wait("none", "ErrImagePull", refused).await;
    assert_eq!(
        state(&pod).1["waiting"]["message"],
        "pull access denied",
        "nothing of ours in front"
    );
    cluster
        .wait_event("Failed", "Failed to pull image \"quay.io/a:1\": pull access denied")
        .await;
}

#[tokio::test]
async fn images_that_nobody_uses_go_when_the_disk_is_full() {
    let garbage = garbage_plan::Policy {
        // Every disk is.
        high_percent: 1,
        low_percent: 0,
        age_min: Duration::ZERO,
        every: Duration::from_millis(100),
        ..garbage_plan::Policy::default()
    };
    let policy = ImagePolicy {
        garbage,
        ..ImagePolicy::default()
    };
    let mut cluster = Cluster::start().await;
    cluster.create("web", app(&POLITE)).await;
    cluster.create("waits", of("other:2", json!({}))).await;
    cluster.wait_phase("web", "Running").await;
    cluster.wait_phase("waits", "Running").await;
    cluster.stop_kubelet().await;
    for image in ["unused:1", "unused:2"] {
        cluster.runtime.add_image(image);
    }
    cluster.runtime.pin_image("pinned:1");
    cluster.runtime.set_image_directory(cluster.data.path());
    cluster.policy = with_images(policy);
    cluster.start_kubelet();
    let present = async |image: &str| cluster.runtime.image_status(image).await.unwrap().is_some();
    eventually("what is unused is gone", async || {
        !present("unused:1").await && !present("unused:2").await
    })
    .await;
    // It is tried again and again, and more is not to be had.
    let event = cluster
        .wait_event(
            "FreeDiskSpaceFailed",
            "Insufficient free disk space on the node's image filesystem (",
        )
        .await;
    assert_eq!(event.involved_object.kind.as_deref(), Some("Node"));
    cluster
        .wait_event(
            "ImageGCFailed",
            "Failed to free sufficient space by deleting unused images (freed 0 bytes)",
        )
        .await;
    for image in ["app:1", "other:2", "pinned:1"] {
        assert!(present(image).await, "{image}");
    }
}

#[tokio::test]
async fn an_image_pulled_with_a_secret_is_for_those_who_have_it() {
    let cluster = Cluster::start().await;
    cluster.runtime.set_behaviour("ghcr.io/private:1", guarded("key"));
    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "default");
    let config = json!({"auths": {"ghcr.io": {"username": "u", "password": "key"}}});
    let secret = json!({"metadata": {"name": "pull"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config.to_string()}});
    secrets
        .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
        .await
        .unwrap();
    let with = |policy: &str, named: bool| {
        let mut spec = of("ghcr.io/private:1", json!({}));
        spec["containers"][0]["imagePullPolicy"] = json!(policy);
        if named {
            spec["imagePullSecrets"] = json!([{"name": "pull"}]);
        }
        spec
    };
    cluster.create("owner", with("IfNotPresent", true)).await;
    cluster.wait_phase("owner", "Running").await;
    cluster.create("again", with("IfNotPresent", true)).await;
    cluster.wait_phase("again", "Running").await;
    assert_eq!(cluster.runtime.pulls("ghcr.io/private:1"), 1, "it is there for them");
    let waits = |reason: &'static str| {
        move |pod: &Pod| {
            pod.status.as_ref().unwrap().container_statuses.is_some() && state(pod).1["waiting"]["reason"] == reason
        }
    };
    cluster.create("stranger", with("IfNotPresent", false)).await;
    cluster.wait("stranger", "ErrImagePull", waits("ErrImagePull")).await;
    cluster.create("never", with("Never", false)).await;
    cluster
        .wait("never", "ErrImageNeverPull", waits("ErrImageNeverPull"))
        .await;
}
