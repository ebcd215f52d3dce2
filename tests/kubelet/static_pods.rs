//! Static pods: from a file to a mirror in the API, and back when the file goes.

use crate::cluster::{Cluster, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

const NAME: &str = "web-node-1";

fn manifest(script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: web}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n  automountServiceAccountToken: false\n  containers:\n  \
         - {{name: c, image: \"app:1\", command: [sh, -c, \"{script}\"]}}\n"
    )
}

fn annotation(pod: &Pod, key: &str) -> String {
    let annotations = pod.metadata.annotations.as_ref();
    let value = annotations.and_then(|all| all.get(&format!("kubernetes.io/config.{key}")));
    value.cloned().unwrap_or_default()
}

/// The mirror once it shows a running pod and is another one than that with this uid.
async fn running(cluster: &Cluster, not: &str) -> Pod {
    eventually("the mirror runs", async || {
        let pod = cluster.pods().get_opt(NAME).await.unwrap();
        pod.is_some_and(|pod| {
            let phase = pod.status.and_then(|status| status.phase);
            pod.metadata.uid.as_deref() != Some(not) && phase.as_deref() == Some("Running")
        })
    })
    .await;
    cluster.pods().get(NAME).await.unwrap()
}

#[tokio::test]
async fn a_file_is_a_pod_as_long_as_it_is_there() {
    let mut cluster = Cluster::start().await;
    let file = cluster.manifests().join("web.yaml");
    eventually("the directory is watched", async || cluster.manifests().is_dir()).await;
    let write = |script: &str| {
        // All at once, as people should.
        let draft = cluster.data.path().join("draft");
        std::fs::write(&draft, manifest(script)).unwrap();
        std::fs::rename(draft, &file).unwrap();
    };
    write("trap 'exit 0' TERM; sleep 3600");
    let mirror = running(&cluster, "").await;
    let uid = mirror.metadata.uid.clone().unwrap();
    assert_eq!(annotation(&mirror, "source"), "file");
    assert_eq!(annotation(&mirror, "hash"), annotation(&mirror, "mirror"));
    assert_eq!(annotation(&mirror, "hash").len(), 32);
    let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "node-1"));
    let containers = cluster.container_ids().await;
    assert_eq!(containers.len(), 1);

    // Whoever deletes the mirror takes nothing from the pod.
    cluster.pods().delete(NAME, &DeleteParams::default()).await.unwrap();
    let again = running(&cluster, &uid).await;
    assert_eq!(annotation(&again, "hash"), annotation(&mirror, "hash"));
    assert_eq!(cluster.container_ids().await, containers);

    // Nor does a restart of the kubelet.
    cluster.stop_kubelet().await;
    cluster.start_kubelet();
    eventually("the pod is taken over", async || {
        let lookup = &cluster.kubelet.as_ref().unwrap().lookup;
        lookup.container("default", NAME, "c", false).is_ok()
    })
    .await;
    assert_eq!(cluster.container_ids().await, containers);
    let kept = running(&cluster, &uid).await;
    assert_eq!(kept.metadata.uid, again.metadata.uid);

    // Another file is another pod.
    let write = |script: &str| {
        let draft = cluster.data.path().join("draft");
        std::fs::write(&draft, manifest(script)).unwrap();
        std::fs::rename(draft, &file).unwrap();
    };
    write("trap 'exit 0' TERM; sleep 4000");
    let changed = running(&cluster, kept.metadata.uid.as_deref().unwrap()).await;
    assert_ne!(annotation(&changed, "hash"), annotation(&mirror, "hash"));
    eventually("the old containers are gone", async || {
        let now = cluster.container_ids().await;
        now.len() == 1 && now != containers
    })
    .await;

    std::fs::remove_file(&file).unwrap();
    cluster.wait_gone(NAME).await;
    eventually("nothing is left", async || cluster.container_ids().await.is_empty()).await;
}
