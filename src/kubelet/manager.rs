//! Brings together the watch of pods, the runtime's events and the pods' workers (upstream: `kubelet.go`
//! `syncLoop`, `pleg`, `HandlePodCleanups`).

use crate::client::ObjectKey;
use crate::client::events::Recorder;
use crate::client::informer::Informers;
use crate::kubelet::admission;
use crate::kubelet::container::security::Seccomp;
use crate::kubelet::context::{Context, ENGINE_STARTS_MAX};
use crate::kubelet::eviction::{Evictions, Pressures};
use crate::kubelet::images::Images;
use crate::kubelet::images::garbage::Garbage;
use crate::kubelet::node::{self, NodeAgent, status::figures};
use crate::kubelet::node_shutdown::NodeShutdown;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pods::Pods;
use crate::kubelet::record::Record;
use crate::kubelet::state::PodRuntime;
use crate::kubelet::static_pods::{self, StaticPods};
use crate::kubelet::stats::Stats;
use crate::kubelet::volumes::Volumes;
use crate::kubelet::worker::Worker;
use crate::kubelet::{KubeletError, KubeletOptions, pod};
use crate::runtime::{ContainerState, Runtime, RuntimeError, RuntimeEventKind, SandboxState};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The safety net under the runtime's events, and how often volumes take in changed objects.
const RELIST: Duration = Duration::from_secs(60);
/// What runs for a pod that nobody knows gets this long to end, as upstream.
const ORPHAN_GRACE_SECONDS: u32 = 1;
const LIST_RETRY: Duration = Duration::from_millis(500);

struct Manager {
    context: Arc<Context>,
    pressures: Arc<Pressures>,
    /// What the runtime had at the start, until the watch tells whose it is.
    adopted: BTreeMap<String, PodRuntime>,
    listed: bool,
    statics: Arc<StaticPods>,
    /// Uids of static pods whose workers run, with what tells of the worker's end.
    static_workers: BTreeMap<String, JoinHandle<()>>,
    /// Workers and clean-ups of orphans.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

pub async fn run(
    options: KubeletOptions,
    pods: Arc<Pods>,
    stats: Arc<Stats>,
    node_shutdown: Arc<NodeShutdown>,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    let tasks = TaskTracker::new();
    let (recorder, record_events) = Recorder::new(
        options.client.clone(),
        "kubelet",
        Some(options.node_name.clone()),
        shutdown.clone(),
    );
    tasks.spawn(record_events.instrument(tracing::info_span!("events")));
    let informers = Informers::new(options.client.clone(), shutdown.clone());
    let pressures = Pressures::new(options.eviction.clone());
    let node = NodeAgent::new(&options, recorder.clone(), node_shutdown.clone(), pressures.clone()).await?;
    if let Some(directory) = node.image_directory() {
        // Nobody else sets it.
        let _ = stats.image_directory.set(directory.clone());
    }
    let features = node.facts().features.clone();
    let context = Arc::new(Context {
        client: options.client.clone(),
        runtime: options.runtime.clone(),
        images: Images::new(
            options.runtime.clone(),
            options.client.clone(),
            recorder.clone(),
            &options.policy.images,
            &options.data_dir,
        ),
        volumes: Volumes::new(
            &options.data_dir,
            options.files.clone(),
            options.client.clone(),
            options.runtime.clone(),
            features.recursive_readonly_mounts,
        ),
        recorder,
        pods,
        services: informers.of(),
        node_name: options.node_name.clone(),
        host_ips: vec![node.address().to_string()],
        runtime_name: node.runtime_name().to_owned(),
        node_memory_bytes: node.facts().machine.memory_bytes,
        figures: figures(node.facts()),
        pods_max: options.pods_max,
        node_shutdown,
        engine_starts: Semaphore::new(ENGINE_STARTS_MAX),
        seccomp: Seccomp {
            directory: options.data_dir.join("seccomp"),
            by_default: options.policy.seccomp_default,
        },
        policy: options.policy.clone(),
        cluster_dns: options.cluster_dns.clone(),
        features,
    });
    tasks.spawn(node.run(shutdown.clone()).instrument(tracing::info_span!("node")));
    let garbage = Arc::new(Garbage {
        runtime: context.runtime.clone(),
        pods: context.pods.clone(),
        recorder: context.recorder.clone(),
        node_name: options.node_name.clone(),
        policy: options.policy.images.garbage,
        data_dir: options.data_dir.clone(),
        records: Default::default(),
    });
    let collected = garbage.clone().run(shutdown.clone());
    tasks.spawn(collected.instrument(tracing::info_span!("image garbage")));
    let evictions = Evictions {
        images: garbage,
        pressures: pressures.clone(),
        pods: context.pods.clone(),
        stats,
        recorder: context.recorder.clone(),
        node_name: options.node_name.clone(),
    };
    tasks.spawn(
        evictions
            .run(shutdown.clone())
            .instrument(tracing::info_span!("evictions")),
    );
    let mut manager = Manager {
        context,
        pressures,
        adopted: BTreeMap::new(),
        listed: false,
        statics: StaticPods::new(options.client.clone(), &options.node_name),
        static_workers: BTreeMap::new(),
        tasks,
        shutdown: shutdown.clone(),
    };
    let static_changes = match options.static_pods {
        None => None,
        Some(static_pods) => {
            let directory = static_pods.directory.display().to_string();
            let read = manager.statics.read(static_pods, shutdown.clone());
            let (changes, follow) = read.map_err(|source| KubeletError::Io {
                operation: "watch",
                path: directory,
                source,
            })?;
            manager
                .tasks
                .spawn(follow.instrument(tracing::info_span!("static pods")));
            Some(changes)
        }
    };
    manager.run(static_changes).await;
    manager.tasks.close();
    manager.tasks.wait().await;
    informers.stopped().await;
    Ok(())
}

impl Manager {
    async fn run(&mut self, mut static_changes: Option<mpsc::Receiver<()>>) {
        // Subscribed before the list: what changes in between is seen twice rather than never.
        let mut events = self.context.runtime.events();
        loop {
            match list(&*self.context.runtime).await {
                Ok(found) => {
                    self.adopted = found;
                    break;
                }
                Err(error) => tracing::warn!(%error, "The runtime's containers could not be listed; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(LIST_RETRY) => {}
                () = self.shutdown.cancelled() => return,
            }
        }
        self.take_statics();
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let own = watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.node_name));
        let mut watch = std::pin::pin!(watcher(api, own).default_backoff());
        let mut relists = interval(RELIST);
        relists.set_missed_tick_behavior(MissedTickBehavior::Delay);
        relists.reset();
        let mut initial = BTreeSet::new();
        loop {
            tokio::select! {
                news = watch.try_next() => match news {
                    Ok(Some(news)) => self.take_news(news, &mut initial),
                    Ok(None) => return,
                    Err(error) => {
                        let error = node::chain(&error);
                        tracing::warn!(error, "The watch of this node's pods broke off; going on");
                    }
                },
                Some(event) = events.next() => match event.kind {
                    RuntimeEventKind::Resync => self.relist().await,
                    // Workers know what they started.
                    RuntimeEventKind::SandboxStarted | RuntimeEventKind::ContainerStarted => {}
                    _ => {
                        if let Some(record) = self.context.pods.get(&event.pod_uid) {
                            record.post_dirty(event.container_id);
                        }
                    }
                },
                Some(()) = changed(&mut static_changes) => self.take_statics(),
                _ = relists.tick() => {
                    self.relist().await;
                    for record in self.context.pods.all() {
                        record.post_look_over();
                    }
                }
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    fn take_news(&mut self, news: watcher::Event<Pod>, initial: &mut BTreeSet<String>) {
        match news {
            watcher::Event::Init => initial.clear(),
            watcher::Event::InitApply(pod) => {
                initial.insert(pod::uid(&pod).to_owned());
                self.upsert(pod);
            }
            watcher::Event::InitDone => {
                for record in self.context.pods.all() {
                    if !initial.contains(&record.uid) && !record.is_static() {
                        record.post_gone(None);
                    }
                }
                for mirror in self.statics.unlisted(initial) {
                    self.forget_mirror(&mirror);
                }
                if !std::mem::replace(&mut self.listed, true) {
                    let mirrors = self.statics.clone().keep_mirrors(self.shutdown.clone());
                    self.tasks.spawn(mirrors.instrument(tracing::info_span!("mirrors")));
                }
                self.remove_orphans();
            }
            watcher::Event::Apply(pod) => self.upsert(pod),
            watcher::Event::Delete(pod) if static_pods::is_mirror(&pod) => self.forget_mirror(&pod),
            watcher::Event::Delete(pod) => {
                if let Some(record) = self.context.pods.get(pod::uid(&pod)) {
                    record.post_gone(Some(Arc::new(pod)));
                }
            }
        }
    }

    /// Starts and ends workers as the files of static pods are now.
    fn take_statics(&mut self) {
        let pods = self.statics.pods();
        let wanted: BTreeSet<&str> = pods.iter().map(|pod| pod::uid(pod)).collect();
        let mut ending = HashMap::new();
        for record in self.context.pods.all() {
            if record.is_static() && !wanted.contains(record.uid.as_str()) {
                record.post_gone(None);
                if let Some(worker) = self.static_workers.remove(&record.uid) {
                    ending.insert(ObjectKey::of(&*record.pod()), worker);
                }
            }
        }
        for pod in pods {
            let uid = pod::uid(&pod).to_owned();
            if self.static_workers.contains_key(&uid) {
                continue;
            }
            let before = ending.remove(&ObjectKey::of(&*pod));
            let record = Arc::new(Record::of_static(uid.clone(), pod.clone()));
            let worker = self.worker(record, &pod);
            let handle = self.tasks.spawn(async move {
                // The pod that had the name may still be ending.
                if let Some(before) = before
                    && let Err(error) = before.await
                {
                    tracing::error!(%error, "The worker of a static pod broke off");
                }
                worker.await;
            });
            self.static_workers.insert(uid, handle);
        }
    }

    fn take_mirror(&self, mirror: Pod) {
        if let Some((pod, mirror_uid)) = self.statics.mirrored(Arc::new(mirror))
            && let Some(record) = self.context.pods.get(pod::uid(&pod))
        {
            record.set_mirror(Some(mirror_uid));
            record.post_pod(Arc::new(pod));
        }
    }

    fn forget_mirror(&self, mirror: &Pod) {
        if let Some(uid) = self.statics.unmirrored(mirror)
            && let Some(record) = self.context.pods.get(&uid)
            && record.api_uid().as_deref() == Some(pod::uid(mirror))
        {
            record.set_mirror(None);
        }
    }

    /// Tells the pod's worker, or starts one.
    fn upsert(&mut self, pod: Pod) {
        if static_pods::is_mirror(&pod) {
            self.take_mirror(pod);
            return;
        }
        let pod = Arc::new(pod);
        let uid = pod::uid(&pod).to_owned();
        if let Some(record) = self.context.pods.get(&uid) {
            record.post_pod(pod);
            return;
        }
        let record = Arc::new(Record::new(uid, pod.clone()));
        let worker = self.worker(record, &pod);
        self.tasks.spawn(worker);
    }

    /// The worker of a new pod, with what the runtime had of it when krust started.
    fn worker(&mut self, record: Arc<Record>, pod: &Arc<Pod>) -> impl Future<Output = ()> + Send + 'static + use<> {
        let runtime = self.adopted.remove(&record.uid).unwrap_or_default();
        let rejection = runtime.is_empty().then(|| self.rejection(pod)).flatten();
        let uid = record.uid.clone();
        self.context.pods.insert(record.clone());
        let mut worker = Worker::new(self.context.clone(), record, runtime);
        if let Some(failure) = rejection {
            worker.reject(failure);
        }
        let span = tracing::info_span!("pod", pod = pod::name(pod), namespace = pod::namespace(pod), uid);
        worker.run(self.shutdown.clone()).instrument(span)
    }

    /// Why the node does not take the pod: it was bound past the scheduler.
    fn rejection(&self, pod: &Pod) -> Option<PodFailure> {
        if pod::is_finished(pod) || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        if let Some(failure) = self.context.node_shutdown.rejection() {
            return Some(failure);
        }
        if let Some(failure) = self.pressures.refusal(pod) {
            return Some(failure);
        }
        let unsafe_sysctls = &self.context.policy.allowed_unsafe_sysctls;
        if let Some(failure) =
            admission::refusal(pod, &self.context.features, unsafe_sysctls, admission::AppArmor::host)
        {
            return Some(failure);
        }
        let (records, max) = (self.context.pods.all(), self.context.pods_max);
        let used = records.iter().filter(|record| !pod::is_finished(&record.pod())).count();
        let full = used >= usize::try_from(max).unwrap_or(usize::MAX);
        full.then(|| PodFailure {
            reason: "OutOfpods",
            message: format!(
                "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {max}"
            ),
            ..PodFailure::default()
        })
    }

    /// What ran when krust started, for pods that were deleted while it was down.
    fn remove_orphans(&mut self) {
        for (uid, runtime) in std::mem::take(&mut self.adopted) {
            self.remove_orphan(uid, runtime);
        }
        for uid in self.context.volumes.known_uids() {
            if self.context.pods.get(&uid).is_none() {
                self.remove_orphan(uid, PodRuntime::default());
            }
        }
    }

    fn remove_orphan(&self, uid: String, runtime: PodRuntime) {
        if self.context.pods.get(&uid).is_some() {
            return;
        }
        let context = self.context.clone();
        let span = tracing::info_span!("orphan", uid);
        let task = async move {
            tracing::info!(uid, "Removing what is left of a pod that no longer exists");
            if let Err(error) = remove_orphan(&context, &uid, &runtime).await {
                tracing::warn!(
                    uid,
                    error,
                    "The remains of a pod could not be removed; the next list tries again"
                );
            }
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Compares the runtime's list with what the workers know; they look at each difference themselves.
    async fn relist(&mut self) {
        let found = match list(&*self.context.runtime).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "The runtime's containers could not be listed");
                return;
            }
        };
        for record in self.context.pods.all() {
            let none = PodRuntime::default();
            for id in differences(&record, found.get(&record.uid).unwrap_or(&none)) {
                record.post_dirty(id);
            }
        }
        if self.listed {
            for (uid, runtime) in found {
                self.remove_orphan(uid, runtime);
            }
        }
    }
}

/// The next change of static pods; none ever comes where there are none.
async fn changed(changes: &mut Option<mpsc::Receiver<()>>) -> Option<()> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

/// Ids of sandboxes and containers that the worker sees otherwise.
fn differences(record: &Record, found: &PodRuntime) -> BTreeSet<String> {
    let view = record.view();
    let known: HashMap<&str, ContainerState> = view.containers.iter().map(|c| (c.id.as_str(), c.state)).collect();
    let mut ids = BTreeSet::new();
    for container in &found.containers {
        if known.get(container.id.as_str()) != Some(&container.state) {
            ids.insert(container.id.clone());
        }
    }
    let listed: BTreeSet<&str> = found.containers.iter().map(|c| c.id.as_str()).collect();
    ids.extend(
        known
            .keys()
            .filter(|id| !listed.contains(*id))
            .map(|id| (*id).to_owned()),
    );
    let ready = found.sandboxes.iter().filter(|s| s.state == SandboxState::Ready);
    let ready: BTreeSet<&str> = ready.map(|s| s.id.as_str()).collect();
    // The newest sandbox should be ready; older ones never are again.
    ids.extend(
        view.sandboxes
            .first()
            .filter(|id| !ready.contains(id.as_str()))
            .cloned(),
    );
    ids
}

/// Everything the runtime has, by pod uid.
async fn list(runtime: &dyn Runtime) -> Result<BTreeMap<String, PodRuntime>, RuntimeError> {
    let (sandboxes, containers) = tokio::try_join!(runtime.list_pod_sandboxes(), runtime.list_containers())?;
    let mut found: BTreeMap<String, PodRuntime> = BTreeMap::new();
    for sandbox in sandboxes {
        found
            .entry(sandbox.pod.uid.clone())
            .or_default()
            .sandboxes
            .push(sandbox);
    }
    for container in containers {
        found
            .entry(container.pod_uid.clone())
            .or_default()
            .containers
            .push(container);
    }
    Ok(found)
}

async fn remove_orphan(context: &Context, uid: &str, runtime: &PodRuntime) -> Result<(), String> {
    let text = |error: RuntimeError| error.to_string();
    let stops = runtime
        .running()
        .map(|c| context.runtime.stop_container(&c.id, ORPHAN_GRACE_SECONDS));
    for stopped in futures_util::future::join_all(stops).await {
        stopped.map_err(text)?;
    }
    for sandbox in &runtime.sandboxes {
        context.runtime.stop_pod_sandbox(&sandbox.id).await.map_err(text)?;
        context.runtime.remove_pod_sandbox(&sandbox.id).await.map_err(text)?;
    }
    let alone = runtime
        .containers
        .iter()
        .filter(|c| runtime.sandboxes.iter().all(|s| s.id != c.sandbox_id));
    for container in alone {
        context.runtime.remove_container(&container.id).await.map_err(text)?;
    }
    context.volumes.remove(uid).await.map_err(|error| error.to_string())
}
