//! The controllers: loops that make objects act, each a pure `plan` and a thin I/O shell on `kube::Client`
//! (upstream: `pkg/controller`). Adding one is a folder and a line in [`run`].
//!
//! What they share:
//! - [`Context`]: the caches of all kinds, and clients under the name of each controller.
//! - [`ownership`]: who belongs to whom, and adoption.
//! - [`pods`]: what state a pod is in; making and deleting pods.
//! - [`status`]: statuses that must be written.
//! - [`expectations`]: what was written and the cache does not show yet.
//! - [`leaving`]: pods that have to leave because of taints.
//! - [`slow_start`]: many writes at once, carefully.
//! - [`int_or_percent`]: numbers that may be shares.
//! - [`history`]: revisions of the templates of sets.

mod api_services;
mod attachdetach;
mod certificates;
mod claims;
mod clusterroleaggregation;
mod cronjob;
mod custom_resources;
mod daemonset;
mod deployment;
mod devicetainteviction;
#[cfg(test)]
mod dice;
mod disruption;
mod endpoint;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeral_volume;
mod expectations;
mod garbage_collector;
mod history;
mod int_or_percent;
mod job;
mod leaving;
mod namespace;
mod nodelifecycle;
mod ownership;
mod persistentvolume;
mod pod_template;
mod podautoscaler;
mod podgc;
mod pods;
mod replicaset;
mod replication;
mod resourceclaim;
mod resourcequota;
mod revisions;
mod rootcacertpublisher;
mod selection;
mod service_endpoints;
mod serviceaccount;
mod serviceaccounttoken;
mod slow_start;
mod statefulset;
mod status;
mod storage_protection;
mod storage_version_migrator;
mod tainteviction;
mod ttlafterfinished;
mod validatingadmissionpolicystatus;
mod volume_expand;

use crate::client::discovery::Discovery;
use crate::client::events::Recorder;
use crate::client::informer::Informers;
use crate::telemetry::Tasks;
use crate::transport::pki::Pki;
pub use claims::LOCAL_PATH;
use kube::Client;
use kube::runtime::reflector::{Lookup, Store};
pub use selection::{Selection, UnknownController};
pub use serviceaccounttoken::Tokens;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
pub use validatingadmissionpolicystatus::TypeCheck;

/// What has been begun at the end gets this long to be finished.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Under whose names the controllers come.
pub struct Clients {
    /// The controller manager itself, which may read everything.
    pub shared: Client,
    /// The service account of the controller that is named, with the role of that controller.
    pub own: Box<dyn Fn(&str) -> Client + Send + Sync>,
    /// Where the volumes of the built-in class are made.
    pub volumes_directory: PathBuf,
    /// What schemas have against the expressions of a policy.
    pub type_check: TypeCheck,
}

/// What every controller works with.
pub struct Context {
    /// One cache per kind for all of them.
    pub informers: Informers,
    /// What the API server serves, custom resources included.
    pub discovery: Discovery,
    pub shutdown: CancellationToken,
    /// The cluster's certificate authority.
    pub pki: Arc<Pki>,
    /// Where the volumes of the built-in class are made.
    pub volumes_directory: PathBuf,
    type_check: TypeCheck,
    clients: Clients,
    /// The tasks that write events.
    recorders: TaskTracker,
}

impl Context {
    pub fn new(mut clients: Clients, pki: Arc<Pki>, shutdown: CancellationToken) -> Self {
        Self {
            informers: Informers::new(clients.shared.clone(), shutdown.clone()),
            discovery: Discovery::start(clients.shared.clone(), shutdown.clone()),
            shutdown,
            pki,
            volumes_directory: clients.volumes_directory.clone(),
            type_check: std::mem::replace(&mut clients.type_check, Box::new(|_| Vec::new())),
            clients,
            recorders: TaskTracker::new(),
        }
    }

    /// A client under the service account of `controller`, as in `replicaset-controller`.
    pub fn client(&self, controller: &str) -> Client {
        (self.clients.own)(controller)
    }

    /// Waits for caches to be `synced`; false if the shutdown came before.
    async fn caught_up<T>(&self, synced: impl Future<Output = T>) -> bool {
        self.shutdown.run_until_cancelled(synced).await.is_some()
    }

    /// The manager's own client, which may read everything. Writes go under the controller's name.
    pub fn shared_client(&self) -> &Client {
        &self.clients.shared
    }

    /// What tells people of the doings of `controller`.
    pub fn recorder(&self, controller: &str) -> Recorder {
        self.recorder_as(controller, controller)
    }

    /// The same for one whose events come from a `component` of another name.
    pub fn recorder_as(&self, controller: &str, component: &str) -> Recorder {
        let (recorder, writing) = Recorder::new(self.client(controller), component, None, self.shutdown.clone());
        self.recorders.spawn(writing);
        recorder
    }
}

/// The controllers that need nothing but the context, and the names that upstream has for them.
macro_rules! controllers {
    ($($controller:ident: $names:expr),* $(,)?) => {
        /// What each of the controllers is called, as [`Selection`] takes it.
        pub const NAMES: &[&[&str]] = &[
            &["serviceaccount-controller"],
            &["serviceaccount-token-controller"],
            &["clusterrole-aggregation-controller"],
            $(&$names),*
        ];

        fn spawn(tasks: &mut Tasks, context: &Arc<Context>, selection: &Selection) {
            $(if selection.runs(&$names) {
                let context = Arc::clone(context);
                tasks.spawn(stringify!($controller), async move { $controller::run(&context).await });
            })*
        }
    };
}

// One line each, in the alphabet's order.
controllers! {
    attachdetach: ["persistentvolume-attach-detach-controller"],
    certificates: ["certificatesigningrequest-approving-controller", "certificatesigningrequest-cleaner-controller", "certificatesigningrequest-signing-controller"],
    cronjob: ["cronjob-controller"],
    daemonset: ["daemonset-controller"],
    deployment: ["deployment-controller"],
    devicetainteviction: ["device-taint-eviction-controller"],
    disruption: ["disruption-controller"],
    endpoint: ["endpoints-controller"],
    endpointslice: ["endpointslice-controller"],
    endpointslicemirroring: ["endpointslice-mirroring-controller"],
    ephemeral_volume: ["ephemeral-volume-controller"],
    garbage_collector: ["garbage-collector-controller"],
    job: ["job-controller"],
    namespace: ["namespace-controller"],
    nodelifecycle: ["node-lifecycle-controller"],
    persistentvolume: ["persistentvolume-binder-controller"],
    podautoscaler: ["horizontal-pod-autoscaler-controller"],
    podgc: ["pod-garbage-collector-controller"],
    replicaset: ["replicaset-controller"],
    replication: ["replicationcontroller-controller"],
    resourceclaim: ["resourceclaim-controller"],
    resourcequota: ["resourcequota-controller"],
    rootcacertpublisher: ["root-ca-certificate-publisher-controller"],
    statefulset: ["statefulset-controller"],
    storage_protection: ["persistentvolume-protection-controller", "persistentvolumeclaim-protection-controller", "volumeattributesclass-protection-controller"],
    storage_version_migrator: ["storage-version-migrator-controller"],
    tainteviction: ["taint-eviction-controller"],
    ttlafterfinished: ["ttl-after-finished-controller"],
    validatingadmissionpolicystatus: ["validatingadmissionpolicy-status-controller"],
    volume_expand: ["persistentvolume-expander-controller"],
}

/// Runs the selected controllers until `shutdown`.
pub async fn run(clients: Clients, tokens: Tokens, pki: Arc<Pki>, selection: Selection, shutdown: CancellationToken) {
    let context = Arc::new(Context::new(clients, pki, shutdown.clone()));
    let (own, shared) = (|name: &str| context.client(name), context.shared_client().clone());
    let accounts = serviceaccount::Clients {
        reader: shared.clone(),
        writer: own("service-account-controller"),
    };
    let mut tasks = Tasks::default();
    let stop = || shutdown.clone();
    if selection.runs(&["serviceaccount-controller"]) {
        tasks.spawn("serviceaccount", serviceaccount::run(accounts, stop()));
    }
    if selection.runs(&["serviceaccount-token-controller"]) {
        // Upstream's runs as the manager itself, too: it holds the signing key.
        tasks.spawn("serviceaccounttoken", serviceaccounttoken::run(shared, tokens, stop()));
    }
    if selection.runs(&["clusterrole-aggregation-controller"]) {
        let client = own("clusterrole-aggregation-controller");
        tasks.spawn("clusterroleaggregation", clusterroleaggregation::run(client, stop()));
    }
    spawn(&mut tasks, &context, &selection);
    while let Some(end) = tasks.next_end().await {
        if let Some(error) = end.failure {
            tracing::error!(controller = end.name, %error, "a controller failed; the others go on");
        }
        if shutdown.is_cancelled() {
            break;
        }
    }
    shutdown.cancelled().await;
    tasks.drain(DRAIN_MAX).await;
    context.recorders.close();
    context.recorders.wait().await;
    context.informers.stopped().await;
}

/// Runs those that upstream has within its API server, which extend the API, until `shutdown`.
pub async fn run_extensions(client: Client, shutdown: CancellationToken) {
    tokio::join!(
        custom_resources::run(client.clone(), shutdown.clone()),
        api_services::run(client.clone(), shutdown.clone()),
    );
}

/// Runs one of kube's controllers, which ends by itself at `shutdown`, but only after its `store` was filled once: one
/// that is stopped before that has begun nothing, and is dropped.
async fn until_stopped<K>(work: impl Future<Output = ()>, store: Store<K>, shutdown: CancellationToken)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let stopped_early = async {
        tokio::select! {
            biased;
            _ = store.wait_until_ready() => std::future::pending().await,
            () = shutdown.cancelled() => {}
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped_early => {}
    }
}
