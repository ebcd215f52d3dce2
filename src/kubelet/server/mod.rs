//! The kubelet's HTTPS API: logs, exec, attach, port-forward, pods, metrics (upstream: `pkg/kubelet/server`).
//!
//! A request passes [`auth`], is told apart by [`route`], finds its container through [`PodLookup`], and is
//! answered at once ([`info`], [`run`]), with a body that streams ([`logs`]), or by changing protocols
//! ([`upgrade`]) to a session ([`remote_command`], [`port_forward`]) over [`spdy`] or [`websocket`].

pub mod auth;
mod error;
mod info;
mod logs;
mod mux;
mod port_forward;
mod query;
mod remote_command;
mod route;
mod run;
mod spdy;
mod stats;
mod upgrade;
mod websocket;

use crate::kubelet::stats::Stats;
use crate::kubelet::{ContainerRef, PodLookup};
use crate::runtime::{ContainerState, Runtime};
use auth::{Access, Caller};
use error::ServerError;
use http::{Method, StatusCode};
use logs::ContainerLogOptions;
use poem::endpoint::BoxEndpoint;
use poem::{Endpoint, EndpointExt, Request, Response};
use query::Query;
use remote_command::Action;
use route::{Route, Target};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the server can be told.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// A session without traffic for so long ends (upstream: `streamingConnectionIdleTimeout`).
    pub idle_max: Duration,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            idle_max: Duration::from_secs(4 * 60 * 60),
        }
    }
}

/// What the server speaks for.
pub struct ServerParts {
    pub node_name: String,
    pub lookup: Arc<dyn PodLookup>,
    pub runtime: Arc<dyn Runtime>,
    pub access: Arc<dyn Access>,
    pub stats: Arc<Stats>,
    /// The node's KubeletConfiguration, as far as it says what is so.
    pub configuration: Value,
}

/// What the handlers share.
struct Server {
    node_name: String,
    lookup: Arc<dyn PodLookup>,
    runtime: Arc<dyn Runtime>,
    access: Arc<dyn Access>,
    stats: Arc<Stats>,
    configuration: Value,
    options: ServerOptions,
    /// Sessions end with it.
    shutdown: CancellationToken,
    /// The tasks of sessions, which outlive the requests that began them.
    tasks: TaskTracker,
}

/// Builds the API as an endpoint, for `transport::serve`, which must ask for client certificates and put the
/// peer into the requests' extensions. Sessions run on `tasks` and end with `shutdown`.
pub fn endpoint(
    parts: ServerParts,
    options: ServerOptions,
    shutdown: CancellationToken,
    tasks: TaskTracker,
) -> BoxEndpoint<'static, Response> {
    let server = Arc::new(Server {
        node_name: parts.node_name,
        lookup: parts.lookup,
        runtime: parts.runtime,
        access: parts.access,
        stats: parts.stats,
        configuration: parts.configuration,
        options,
        shutdown,
        tasks,
    });
    KubeletEndpoint(server).boxed()
}

struct KubeletEndpoint(Arc<Server>);

impl Endpoint for KubeletEndpoint {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        Ok(self.0.answer(request).await.unwrap_or_else(ServerError::into_response))
    }
}

impl Server {
    async fn answer(self: &Arc<Self>, request: Request) -> Result<Response, ServerError> {
        Caller::of(&request).authorize(&*self.access, &self.node_name).await?;
        let route = Route::parse(request.uri().path()).ok_or_else(|| ServerError::not_found("404 page not found"))?;
        let methods: &[Method] = match route {
            Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => &[Method::GET, Method::POST],
            Route::Run(_) => &[Method::POST],
            Route::Summary => &[Method::GET, Method::POST],
            _ => &[Method::GET],
        };
        if !methods.contains(request.method()) {
            let error = ServerError::new(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
            let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
            return Err(error.with_header("allow", allowed.join(", ")));
        }
        let query = Query::parse(request.uri().query().unwrap_or_default());
        match route {
            Route::Exec(target) => self.remote_command(Action::Exec, &target, &query, &request),
            Route::Attach(target) => self.remote_command(Action::Attach, &target, &query, &request),
            Route::PortForward(target) => self.port_forward(target, &query, &request),
            Route::Run(target) => run::respond(self.runtime.as_ref(), &self.running_container(&target)?, &query).await,
            Route::ContainerLogs(target) => {
                let options = ContainerLogOptions::parse(&query, SystemTime::now())?;
                let container = self.container(&target, options.previous)?;
                logs::respond(self.runtime.as_ref(), &container, options, self.shutdown.clone()).await
            }
            Route::Pods => info::pods(self),
            Route::RunningPods => info::running_pods(self).await,
            Route::Metrics => info::metrics(),
            Route::ResourceMetrics => stats::resource(self).await,
            Route::CadvisorMetrics => stats::cadvisor(self).await,
            Route::Summary => stats::summary(self, &query).await,
            Route::Configuration => info::configuration(self),
            Route::Ping => Ok(info::ok()),
            Route::Healthz => info::healthz(self).await,
        }
    }

    fn remote_command(
        self: &Arc<Self>,
        action: Action,
        target: &Target,
        query: &Query,
        request: &Request,
    ) -> Result<Response, ServerError> {
        let exec = remote_command::parse_request(action, query)?;
        let container = self.running_container(target)?;
        remote_command::handle(self, action, container, exec, request)
    }

    fn port_forward(
        self: &Arc<Self>,
        target: Target,
        query: &Query,
        request: &Request,
    ) -> Result<Response, ServerError> {
        self.require_pod(&target)?;
        let sandbox_id = self
            .lookup
            .sandbox(&target.namespace, &target.pod)
            .ok_or_else(|| ServerError::bad_request(format!("pod {:?} is not running", target.pod)))?;
        let pod = port_forward::Pod {
            runtime: self.runtime.clone(),
            namespace: target.namespace,
            name: target.pod,
            sandbox_id,
        };
        port_forward::handle(self, pod, query, request)
    }

    fn require_pod(&self, target: &Target) -> Result<(), ServerError> {
        match self.lookup.pod(&target.namespace, &target.pod, target.uid.as_deref()) {
            Some(_) => Ok(()),
            None => Err(ServerError::not_found(format!("pod {:?} does not exist", target.pod))),
        }
    }

    fn container(&self, target: &Target, previous: bool) -> Result<ContainerRef, ServerError> {
        self.require_pod(target)?;
        Ok(self
            .lookup
            .container(&target.namespace, &target.pod, &target.container, previous)?)
    }

    fn running_container(&self, target: &Target) -> Result<ContainerRef, ServerError> {
        let container = self.container(target, false)?;
        if container.state != ContainerState::Running {
            return Err(ServerError::not_found(format!(
                "container not found ({:?})",
                target.container
            )));
        }
        Ok(container)
    }
}
