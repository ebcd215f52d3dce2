//! Pods whose images come from a registry: with passwords, broken connections, content that is not what it should be, and a
//! disk that is full. They end in the right state, and failed pulls leave nothing behind.

use crate::client;
use crate::support::images::{BUSYBOX, Image, busybox_archive, digest};
use crate::support::krust::Krust;
use crate::support::mounts::free_bytes;
use crate::support::registry::Registry;
use crate::support::{containerd, dockerd};
use k8s_openapi::api::core::v1::{Event, Pod, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";

/// A server, its engine, and a client.
struct World {
    krust: Krust,
    client: Client,
}

impl World {
    async fn on_docker(engine: &dockerd::Dockerd, more: &[(&str, &str)]) -> World {
        let settings = [&[("KRUST_RUNTIME__DOCKER_HOST", engine.endpoint.as_str())], more].concat();
        Self::with(&["--runtime", "docker"], &settings).await
    }

    async fn on_containerd(engine: &containerd::Containerd, more: &[(&str, &str)]) -> World {
        let own = [
            ("KRUST_RUNTIME__CONTAINERD_ADDRESS", engine.address.as_str()),
            ("KRUST_RUNTIME__POD_RANGE", &engine.pod_range),
            ("KRUST_RUNTIME__POD_BRIDGE", &engine.pod_bridge),
        ];
        Self::with(&["--runtime", "containerd"], &[&own, more].concat()).await
    }

    async fn with(arguments: &[&str], settings: &[(&str, &str)]) -> World {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let krust = Krust::start_with(arguments, settings);
        let client = client(&krust).await;
        let world = World { krust, client };
        let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "default");
        world
            .until("the service account is there", async || {
                accounts.get_opt("default").await.unwrap().map(drop)
            })
            .await;
        world
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn until<T>(&self, what: &str, so: impl AsyncFn() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = so().await {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "not so: {what}\n{}", self.krust.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn create(&self, name: &str, image: &str, more: Value) {
        let container =
            json!({"name": "main", "image": image, "imagePullPolicy": "Always", "command": ["sh", "-c", SLEEP]});
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}});
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        let pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    /// Waits until the pod's container waits for this reason; the message.
    async fn waits(&self, name: &str, reason: &str) -> String {
        let what = format!("{name} waits for {reason}");
        self.until(&what, async || {
            let pod = serde_json::to_value(self.pods().get(name).await.unwrap()).unwrap();
            let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
            (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    async fn runs(&self, name: &str) -> Value {
        self.until(&format!("{name} runs"), async || {
            let pod = serde_json::to_value(self.pods().get(name).await.unwrap()).unwrap();
            (pod["status"]["phase"] == "Running").then_some(pod)
        })
        .await
    }

    async fn deleted(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
        self.until(&format!("{name} is gone"), async || {
            self.pods().get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// Waits for an event of the pod that begins so.
    async fn event(&self, name: &str, reason: &str, begins: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let params = ListParams::default().fields(&format!("involvedObject.name={name},reason={reason}"));
        self.until(&format!("event {reason} {begins:?} of {name}"), async || {
            let list = events.list(&params).await.unwrap();
            let mut messages = list.into_iter().filter_map(|event| event.message);
            messages.find(|message| message.starts_with(begins))
        })
        .await
    }

    async fn secret(&self, name: &str, registry: &str, password: &str) {
        let config = json!({"auths": {registry: {"username": "user", "password": password}}});
        let secret = json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": config.to_string()}});
        let api: Api<Secret> = Api::namespaced(self.client.clone(), "default");
        let secret = serde_json::from_value(secret).unwrap();
        api.create(&PostParams::default(), &secret).await.unwrap();
    }
}

/// A small image whose command is a shell.
fn layer() -> Vec<u8> {
    busybox_archive(&[])
}

/// What cannot be compressed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(bytes).collect()
}

/// A registry whose password only a helper of the node knows, and the settings for krust to find it.
fn helped(directory: &Path) -> (Registry, Vec<(&'static str, String)>) {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::start();
    registry.set_password(Some("of-the-helper"));
    let config = json!({"credHelpers": {registry.address.clone(): "of-the-test"}});
    std::fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let helper = directory.join("docker-credential-of-the-test");
    let answer = json!({"ServerURL": registry.address, "Username": "user", "Secret": "of-the-helper"});
    let script = format!(
        "#!/bin/sh\n[ \"$1 $(cat)\" = \"get {}\" ] && echo '{answer}'\n",
        registry.address
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = directory.display().to_string();
    let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
    (registry, vec![("DOCKER_CONFIG", directory), ("PATH", path)])
}

async fn with_a_helper(world: &World, registry: &Registry) {
    let layer = layer();
    registry.push("team/helped", "1", &Image::new("helped:1", &layer));
    world
        .create("helped", &format!("{}/team/helped:1", registry.address), json!({}))
        .await;
    world.runs("helped").await;
    world.deleted("helped").await;
}

async fn pulls(world: &World, registry: &Registry) {
    let layer = layer();
    let image = Image::new("app:1", &layer);
    let by_digest = registry.push("team/app", "1", &image);
    let address = registry.address.clone();
    let name = format!("{address}/team/app:1");
    registry.set_password(Some("secret"));

    // Without credentials, and with those of a secret that is not there.
    let absent = json!({"imagePullSecrets": [{"name": "absent"}]});
    world.create("nobody", &name, absent).await;
    let message = world.waits("nobody", "ErrImagePull").await;
    assert!(!message.starts_with("pull "), "{message}");
    world
        .event("nobody", "Pulling", &format!("Pulling image {name:?}"))
        .await;
    let failed = world.event("nobody", "Failed", "Failed to pull image").await;
    assert_eq!(failed, format!("Failed to pull image {name:?}: {message}"));
    world.event("nobody", "Failed", "Error: ErrImagePull").await;
    let back_off = world.waits("nobody", "ImagePullBackOff").await;
    assert_eq!(
        back_off,
        format!("Back-off pulling image {name:?}: ErrImagePull: {message}")
    );
    world
        .event("nobody", "BackOff", &format!("Back-off pulling image {name:?}"))
        .await;
    world.event("nobody", "Failed", "Error: ImagePullBackOff").await;
    let unable = "Unable to retrieve some image pull secrets (absent); attempting to pull the image may not succeed.";
    world.event("nobody", "FailedToRetrieveImagePullSecret", unable).await;

    world.secret("wrong", &address, "guess").await;
    let wrong = json!({"imagePullSecrets": [{"name": "wrong"}]});
    world.create("guesses", &name, wrong).await;
    world.waits("guesses", "ErrImagePull").await;

    // The wrong one first: every one that fits is tried.
    world.secret("right", &format!("http://{address}/v2/"), "secret").await;
    let both = json!({"imagePullSecrets": [{"name": "wrong"}, {"name": "right"}]});
    world.create("knows", &name, both).await;
    let pod = world.runs("knows").await;
    let id = pod["status"]["containerStatuses"][0]["imageID"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(id.ends_with(&format!("{address}/team/app@{by_digest}")), "{id}");
    let pulled = world
        .event("knows", "Pulled", &format!("Successfully pulled image {name:?} in "))
        .await;
    assert!(
        pulled.contains(" including waiting). Image size: ") && pulled.ends_with(" bytes."),
        "{pulled}"
    );

    // The secret of the service account, and a name by digest.
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "default");
    let patch = json!({"imagePullSecrets": [{"name": "right"}]});
    let patch = Patch::Merge(patch);
    accounts
        .patch("default", &PatchParams::default(), &patch)
        .await
        .unwrap();
    world
        .create("by-digest", &format!("{address}/team/app@{by_digest}"), json!({}))
        .await;
    world.runs("by-digest").await;
    let patch = Patch::Merge(json!({"imagePullSecrets": null}));
    accounts
        .patch("default", &PatchParams::default(), &patch)
        .await
        .unwrap();

    // Connections that break: it goes on, and gets nothing twice.
    registry.set_password(None);
    let noise = noise(3 << 20);
    let big = busybox_archive(&[("noise", &noise)]);
    let big = Image::new("big:1", &big);
    registry.push("team/big", "1", &big);
    registry.cut_after(Some(1 << 20));
    registry.requests();
    world
        .create("broken", &format!("{address}/team/big:1"), json!({}))
        .await;
    world.runs("broken").await;
    registry.cut_after(None);
    let requests = registry.requests();
    let resumed = requests
        .iter()
        .filter(|request| request.contains(&digest(big.layer)) && request.contains("bytes="));
    assert!(resumed.count() >= 2, "{requests:?}");

    // Content that is not what its digest says.
    let other = busybox_archive(&[("other", b"other")]);
    let other = Image::new("bad:1", &other);
    registry.push("team/bad", "1", &other);
    registry.corrupt("team/bad", &other);
    world
        .create("corrupted", &format!("{address}/team/bad:1"), json!({}))
        .await;
    let message = world.waits("corrupted", "ErrImagePull").await;
    assert!(
        message.contains("unexpected commit digest") || message.contains("filesystem layer verification failed"),
        "{message}"
    );

    for name in ["nobody", "guesses", "knows", "by-digest", "broken", "corrupted"] {
        world.deleted(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn pulls_of_pods_on_docker() {
    let registry = Registry::start();
    let mirror = format!("--registry-mirror=http://{}", registry.address);
    let engine = tokio::task::spawn_blocking(move || dockerd::Dockerd::start_with("pulls", None, &[&mirror]));
    let engine = engine.await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let (of_helper, settings) = helped(home.path());
    let more: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let world = World::on_docker(&engine, &more).await;
    with_a_helper(&world, &of_helper).await;
    pulls(&world, &registry).await;
    from_a_mirror(&world, &registry).await;
    drop(world);
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn pulls_of_pods_on_containerd() {
    let registry = Registry::start();
    let settings = tempfile::tempdir().unwrap();
    let of_hub = settings.path().join("docker.io");
    std::fs::create_dir_all(&of_hub).unwrap();
    let hosts = format!(
        "[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        registry.address
    );
    std::fs::write(of_hub.join("hosts.toml"), hosts).unwrap();
    let home = tempfile::tempdir().unwrap();
    let (of_helper, of_home) = helped(home.path());
    let mut more: Vec<(&str, &str)> = of_home.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.push(("KRUST_RUNTIME__REGISTRIES_DIR", settings.path().to_str().unwrap()));
    let engine = tokio::task::spawn_blocking(containerd::shared).await.unwrap();
    let world = World::on_containerd(engine, &more).await;
    with_a_helper(&world, &of_helper).await;
    pulls(&world, &registry).await;
    from_a_mirror(&world, &registry).await;
    let leases = engine.ctr(&["leases", "list", "--quiet"]);
    // Those of pulls that broke off would be there still.
    assert_eq!(leases.trim(), "", "leases are left");
}

/// Docker Hub's image from a mirror on loopback.
async fn from_a_mirror(world: &World, registry: &Registry) {
    let layer = layer();
    let image = Image::new("mirrored:1", &layer);
    registry.push("library/krust-mirrored", "1", &image);
    registry.requests();
    world.create("mirrored", "krust-mirrored:1", json!({})).await;
    let pod = world.runs("mirrored").await;
    let id = &pod["status"]["containerStatuses"][0]["imageID"];
    assert!(id.as_str().unwrap().contains("krust-mirrored@sha256:"), "{id}");
    let requests = registry.requests();
    assert!(
        requests
            .iter()
            .any(|request| request.contains("library/krust-mirrored")),
        "{requests:?}"
    );
    world.deleted("mirrored").await;
}

/// Takes the room of a disk, but for so many bytes.
fn ballast(disk: &Path, leave_bytes: u64) -> PathBuf {
    let path = disk.join("ballast");
    let file = std::fs::File::create(&path).unwrap();
    let bytes = free_bytes(disk).saturating_sub(leave_bytes);
    nix::fcntl::posix_fallocate(&file, 0, i64::try_from(bytes).unwrap()).unwrap();
    path
}

/// An image of 20 MB is pulled while there is room for less than its blob, and then for its blob alone.
async fn disk_full(world: &World, disk: &Path, left_over: impl Fn() -> BTreeSet<String>, remove: impl Fn(&str)) {
    let registry = Registry::start();
    let noise = noise(20 << 20);
    let layer = busybox_archive(&[("noise", &noise)]);
    let image = Image::new("large:1", &layer);
    registry.push("team/large", "1", &image);
    let name = format!("{}/team/large:1", registry.address);
    // What only the first pod leaves.
    world
        .create(
            "first",
            BUSYBOX,
            json!({"containers": [{"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never",
        "command": ["sh", "-c", SLEEP]}]}),
        )
        .await;
    world.runs("first").await;
    world.deleted("first").await;
    for leave in [10 << 20, 28 << 20] {
        let taken = ballast(disk, leave);
        let (before, free) = (left_over(), free_bytes(disk));
        let pod = format!("full-{}", leave >> 20);
        world.create(&pod, &name, json!({})).await;
        let message = world.waits(&pod, "ErrImagePull").await;
        assert!(message.contains("no space left on device"), "{message}");
        let failed = world.event(&pod, "Failed", "Failed to pull image").await;
        assert!(failed.contains("no space left on device"), "{failed}");
        // The API does not suffer.
        let begun = Instant::now();
        world.pods().list(&ListParams::default()).await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "a list takes {:?}",
            begun.elapsed()
        );
        // It tries again, and in between nothing is held.
        world.waits(&pod, "ImagePullBackOff").await;
        world
            .until("the failed pull has left nothing", async || {
                let left: Vec<String> = left_over().difference(&before).cloned().collect();
                let missing = free.saturating_sub(free_bytes(disk));
                if !left.is_empty() || missing > 4 << 20 {
                    println!("left: {left:?}, {missing} bytes");
                    return None;
                }
                Some(())
            })
            .await;
        std::fs::remove_file(taken).unwrap();
        world.runs(&pod).await;
        world.deleted(&pod).await;
        remove(&name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and Docker"]
async fn a_full_disk_of_docker() {
    let start = || dockerd::Dockerd::start_with("full", Some(72 << 20), &[]);
    let engine = tokio::task::spawn_blocking(start).await.unwrap();
    let world = World::on_docker(&engine, &[]).await;
    let disk = engine.directory().join("data");
    let left_over = || {
        let listed = engine.docker(&["images", "--all", "--no-trunc", "--quiet"]);
        let images = listed.lines().map(str::to_owned);
        let temporary = std::fs::read_dir(disk.join("tmp")).into_iter().flatten().flatten();
        images
            .chain(temporary.map(|entry| entry.path().display().to_string()))
            .collect()
    };
    let remove = |name: &str| {
        engine.wait_until_empty(&world.krust);
        engine.docker(&["rmi", name]);
    };
    disk_full(&world, &disk, left_over, remove).await;
    drop(world);
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root and containerd"]
async fn a_full_disk_of_containerd() {
    let start = || containerd::Containerd::start_on_small_disk(72 << 20);
    let engine = tokio::task::spawn_blocking(start).await.unwrap();
    let world = World::on_containerd(&engine, &[]).await;
    let disk = engine.directory().join("root");
    let lines = |kind: &str, arguments: &[&str]| -> Vec<String> {
        let listed = engine.ctr(arguments);
        let first = listed.lines().filter_map(|line| line.split_whitespace().next());
        first.map(|word| format!("{kind} {word}")).collect()
    };
    let left_over = || {
        let all = [
            lines("lease", &["leases", "list", "--quiet"]),
            lines("part", &["content", "active"]),
            lines("blob", &["content", "list", "--quiet"]),
            lines("snapshot", &["snapshots", "list"]),
            lines("image", &["images", "list", "--quiet"]),
        ];
        all.concat().into_iter().collect()
    };
    let remove = |_: &str| {
        let begun = Instant::now();
        while !engine.containers_of(&world.krust.cluster_id()).is_empty() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
        }
        let names = engine.ctr(&["images", "list", "--quiet"]);
        for name in names.lines().filter(|name| name.contains("team/large")) {
            engine.ctr(&["images", "remove", "--sync", name]);
        }
    };
    disk_full(&world, &disk, left_over, remove).await;
    drop(world);
    tokio::task::spawn_blocking(move || drop(engine)).await.unwrap();
}
