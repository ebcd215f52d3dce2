//! The request path, in the order a request takes it (upstream: `kubernetes/apiserver`):
//!
//! 1. [`filters`]: what surrounds every request, in upstream's order; [`request`] and [`options`] say what is asked
//!    for, and by whom.
//! 2. [`routes`]: from the URL to a verb of a kind, to a subresource, or to a path like [`discovery`].
//! 3. [`handlers`]: one file per verb, and the [`handlers::engine`] that every write goes through.
//! 4. [`subresources`]: what lies below objects; [`reviews`]: kinds that are questions.
//! 5. [`authentication`]: tokens; [`authorization`]: who may do what; [`admission`]: one plug-in per file; [`allocation`]: cluster IPs and node
//!    ports.
//! 6. [`codec`]: bodies in, answers out.
//!    [`resource_metrics`]: what pods and nodes use, from their kubelets.
//! 7. [`custom_resources`]: which custom kinds there are; [`conversion`]: who else brings them from one version to another.
//!    [`webhook_client`]: calls to webhooks; [`service_endpoints`]: where services are.
//! 8. [`flow_control`]: who waits for whom. [`own_objects`]: what the server writes of its own accord.
//! 9. [`aggregation`]: groups that other servers serve.
//! 10. [`openapi`]: the documents that describe it all.
//! 11. [`error`]: every refusal; the only place where a Status is built.

pub mod admission;
pub mod aggregation;
pub mod allocation;
pub mod authentication;
pub mod authorization;
pub mod codec;
mod component_status;
pub mod context;
pub mod conversion;
mod custom_resources;
pub mod discovery;
pub mod error;
mod event_expiry;
pub mod filters;
pub mod flow_control;
mod following;
pub mod handlers;
pub mod health;
mod logs;
pub mod metrics_endpoint;
pub mod openapi;
pub mod options;
mod own_objects;
pub mod request;
mod resource_metrics;
pub mod reviews;
mod routes;
pub mod service_endpoints;
pub mod subresources;
pub mod version;
pub mod webhook_client;

use crate::registry::Registry;
use crate::registry::network::Cidr;
use crate::storage::Storage;
use crate::transport::dial::KubeletClient;
use crate::transport::trust::Identity;
use admission::policy::Policies;
use admission::webhook::Webhooks;
use aggregation::Aggregator;
use allocation::Allocators;
use authentication::jwt::SigningKey;
use authentication::service_accounts::{ISSUER, TokenAuthority};
use authentication::token_file::TokenFile;
use authorization::Authorizer;
use authorization::follower::Follower;
use codec::shared::Shared;
use custom_resources::CustomResources;
use discovery::Discovery;
use error::ApiError;
use filters::authentication::Authenticator;
use flow_control::FlowControl;
use handlers::list::SharedLists;
use openapi::OpenApiDocuments;
use poem::endpoint::{BoxEndpoint, EndpointExt, make};
use poem::{Request, Response};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Upstream's 400 that read and 200 that write.
pub const REQUESTS_MAX: usize = 600;

/// What an API server is made of.
pub struct ApiServerOptions {
    pub storage: Arc<Storage>,
    pub registry: Arc<Registry>,
    pub authenticator: Authenticator,
    /// Calls the kubelets; None where there are none (tests, `runtime = none`).
    pub kubelet_client: Option<KubeletClient>,
    /// What is shown to the servers of other API groups, so that they believe who asks; None: nothing.
    pub front_proxy: Option<Identity>,
    /// Requests served at once, beside the exempt ones: the seats that priority levels share. Streams do not count.
    pub requests_max: usize,
    /// Where Services have their addresses from: one range per family, the default family's first.
    pub service_ranges: Vec<Cidr>,
    /// Which ports of nodes Services may have.
    pub node_ports: RangeInclusive<u16>,
    /// Admission plug-ins that are off unless they are named here.
    pub admission_plugins: Vec<String>,
}

impl ApiServerOptions {
    /// Upstream's bounds.
    pub fn new(storage: Arc<Storage>, registry: Arc<Registry>) -> Self {
        Self {
            storage,
            registry,
            authenticator: ephemeral_authenticator(),
            kubelet_client: None,
            front_proxy: None,
            requests_max: REQUESTS_MAX,
            service_ranges: Cidr::parse(allocation::SERVICE_RANGE).into_iter().collect(),
            node_ports: allocation::NODE_PORTS,
            admission_plugins: Vec::new(),
        }
    }
}

/// Knows tokens of a key that lives as long as the process.
fn ephemeral_authenticator() -> Authenticator {
    // All that can fail is the machine's source of randomness, without which there is no TLS either.
    let key = SigningKey::generate().expect("an ECDSA key is made of random bytes");
    let keys_url = format!("{ISSUER}{}", authentication::discovery::KEYS_PATH);
    Authenticator::new(TokenAuthority::new(key, keys_url), TokenFile::default())
}

/// Serves the API of Kubernetes from a store and a table of kinds.
pub struct ApiServer {
    pub storage: Arc<Storage>,
    pub registry: Arc<Registry>,
    pub kubelet_client: Option<KubeletClient>,
    pub allocators: Arc<Allocators>,
    pub authorizer: Authorizer,
    pub authenticator: Authenticator,
    admission_plugins: Vec<String>,
    /// Admission policies, as of the last committed write.
    pub policies: Follower<Policies>,
    pub webhooks: Follower<Webhooks>,
    /// Other servers.
    pub aggregator: Aggregator,
    pub flow_control: FlowControl,
    discovery: Discovery,
    custom_resources: CustomResources,
    openapi: Arc<OpenApiDocuments>,
    /// Encoded once, read by many.
    pub shared: Shared,
    pub shared_lists: SharedLists,
    /// See [`ApiServer::begin_start`].
    starting: AtomicBool,
    shutdown: CancellationToken,
}

impl ApiServer {
    pub fn new(options: ApiServerOptions) -> Arc<Self> {
        let server = Arc::new(Self {
            openapi: OpenApiDocuments::new(options.registry.clone()),
            allocators: Allocators::new(
                options.storage.clone(),
                options.registry.clone(),
                options.service_ranges,
                options.node_ports,
            ),
            authorizer: Authorizer::new(&options.storage),
            flow_control: FlowControl::new(options.requests_max, &options.storage),
            policies: Follower::new(options.storage.clone()),
            webhooks: Follower::new(options.storage.clone()),
            aggregator: Aggregator::new(options.storage.clone(), options.front_proxy),
            storage: options.storage,
            registry: options.registry,
            kubelet_client: options.kubelet_client,
            authenticator: options.authenticator,
            admission_plugins: options.admission_plugins,
            discovery: Discovery::default(),
            shared: Shared::default(),
            shared_lists: SharedLists::default(),
            custom_resources: CustomResources::default(),
            starting: AtomicBool::new(false),
            shutdown: CancellationToken::new(),
        });
        server.custom_resources.refresh(&server);
        server
    }

    /// The one endpoint: for sockets and for the parts of this process alike.
    pub fn endpoint(self: &Arc<Self>) -> BoxEndpoint<'static, Response> {
        let server = self.clone();
        make(move |request: Request| {
            let server = server.clone();
            async move { filters::serve(server, request).await }
        })
        .boxed()
    }

    /// Until [`ApiServer::end_start`] the policies and webhooks of users are not asked: what the server makes of its own
    /// accord must not depend on pods that only run when it serves (upstream starts without, and tries again).
    pub fn begin_start(&self) {
        self.starting.store(true, Ordering::Release);
    }

    pub fn end_start(&self) {
        self.starting.store(false, Ordering::Release);
    }

    fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Acquire)
    }

    /// Makes sure of the roles and bindings, and the objects of flow control, that every cluster has.
    pub async fn bootstrap(self: &Arc<Self>) -> Result<(), ApiError> {
        // Side by side, so that they share commits.
        tokio::try_join!(
            authorization::bootstrap::reconcile(self),
            flow_control::upkeep::create(self)
        )?;
        Ok(())
    }

    /// Follows the objects of flow control, and looks after those that every cluster has, until `stop`.
    pub async fn control_flow(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(flow_control::upkeep::run(self)).await;
    }

    /// Follows the definitions of custom resources until `stop`, so that watches of kinds that are gone end also
    /// when nobody asks for anything.
    pub async fn follow_definitions(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(custom_resources::follow(self)).await;
    }

    /// Looks at the servers of other API groups, until `stop`.
    pub async fn aggregate(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(aggregation::run(self)).await;
    }

    /// Deletes events that nobody has written for this long, until `stop`.
    pub async fn expire_events(self: Arc<Self>, ttl: Duration, stop: CancellationToken) {
        stop.run_until_cancelled(event_expiry::run(self.storage.clone(), ttl))
            .await;
    }

    /// An admission plug-in that is off by default is on here.
    pub fn enables_admission(&self, plugin: &str) -> bool {
        self.admission_plugins.iter().any(|name| name == plugin)
    }

    /// Ends the watches, so that connections can be drained.
    pub fn begin_shutdown(&self) {
        self.shutdown.cancel();
    }
}
