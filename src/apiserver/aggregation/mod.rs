//! API groups that other servers serve: APIServices that name a Service (upstream: `kube-aggregator`).
//!
//! - [`services`]: the stored APIServices, as of the last committed write; [`groups`]: the order that they ask for.
//! - [`proxy`]: a request on its way to such a server, under its user's name.
//! - [`ask`]: what this server asks them by itself; [`resources`]: what they serve, as discovery tells it; [`document`]: as
//!   OpenAPI tells it.
//! - [`availability`]: whether one can be reached; [`watch`]: when that is looked at, and where it is written down.

mod ask;
mod availability;
mod document;
mod groups;
pub mod proxy;
mod resources;
mod services;
mod watch;

pub use resources::Swagger;
pub use services::ApiService;

use super::authorization::follower::Follower;
use super::openapi::{Extensions, OpenApiDocuments};
use super::service_endpoints;
use crate::registry::Group;
use crate::storage::Storage;
use crate::transport::extension::{Destination, ExtensionClient};
use crate::transport::trust::Identity;
use parking_lot::Mutex;
use resources::Known;
use serde_json::Value;
use services::{ApiServices, Remote};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use watch::run;

/// The other servers, and what is known of them.
pub struct Aggregator {
    storage: Arc<Storage>,
    services: Follower<ApiServices>,
    client: ExtensionClient,
    /// By the name of the APIService.
    known: Mutex<HashMap<Arc<str>, Arc<Known>>>,
    /// Grows whenever `known` says something else.
    learned: AtomicU64,
}

impl Aggregator {
    /// `identity` is what is shown to the other servers.
    pub fn new(storage: Arc<Storage>, identity: Option<Identity>) -> Self {
        Self {
            services: Follower::new(storage.clone()),
            storage,
            client: ExtensionClient::new(identity),
            known: Mutex::default(),
            learned: AtomicU64::new(0),
        }
    }

    /// Who serves a group-version, if that is another server.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        self.services.read().remote(group, version)
    }

    /// Whether its document of OpenAPI version 3 is made here.
    pub fn is_described_here(&self, service: &ApiService) -> bool {
        let known = self.known.lock();
        known.get(&service.name).is_some_and(|known| known.document.is_some())
    }

    /// All groups, in the order of discovery; `local` are those that this server serves itself.
    pub fn groups(&self, local: Vec<Group>) -> Vec<Group> {
        groups::merge(&self.services.read(), local)
    }

    /// Tells states apart of what discovery says of other servers.
    pub fn generation(&self) -> (u64, u64) {
        (self.services.read().generation(), self.learned.load(Ordering::Acquire))
    }

    /// What discovery says of a group-version of another server; None if this server serves it itself.
    pub fn discovery(&self, group: &str, version: &str) -> Option<Value> {
        let service = self.remote(group, version)?;
        let known = self.known.lock().get(&service.name).cloned();
        Some(resources::version(version, known.as_deref()))
    }

    /// Ends all connections.
    pub async fn close(&self) {
        self.client.close().await;
    }

    /// The way to one of the endpoints of a server. Err says that there is none.
    fn destination(&self, remote: &Remote) -> Result<Destination, String> {
        let address = service_endpoints::resolve(&self.storage, &remote.namespace, &remote.name, remote.port)?;
        Ok(Destination {
            address,
            name: remote.server_name(),
            tls: remote.tls(&self.client)?,
        })
    }

    /// Asks a server what it serves.
    async fn learn(&self, service: &ApiService, remote: &Remote) {
        let before = self.known.lock().get(&service.name).cloned();
        let learned = match self.destination(remote) {
            Ok(to) => resources::learn(&self.client, &to, service, before.as_deref()).await,
            Err(why) => Err(why),
        };
        match learned {
            Ok(known) => self.note(service, before.as_deref(), known),
            Err(why) => {
                tracing::debug!(why, name = %service.name, "what another server serves is not known");
                self.lost(service);
            }
        }
    }

    /// A server does not answer: what is known of it may be out of date.
    fn lost(&self, service: &ApiService) {
        let before = self.known.lock().get(&service.name).cloned();
        let stale = before.as_deref().unwrap_or(&Known::default()).stale();
        self.note(service, before.as_deref(), stale);
    }

    fn note(&self, service: &ApiService, before: Option<&Known>, known: Known) {
        if before == Some(&known) {
            return;
        }
        self.known.lock().insert(service.name.clone(), Arc::new(known));
        self.learned.fetch_add(1, Ordering::AcqRel);
    }

    fn forget(&self, name: &str) {
        if self.known.lock().remove(name).is_some() {
            self.learned.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Hands on what the other servers say of their groups.
    fn publish(&self, documents: &OpenApiDocuments) {
        let known = self.known.lock();
        let mut extensions = Extensions {
            generation: self.learned.load(Ordering::Acquire),
            ..Extensions::default()
        };
        let mut names: Vec<&Arc<str>> = known.keys().collect();
        names.sort_unstable();
        for known in names.into_iter().filter_map(|name| known.get(name)) {
            extensions.v3.extend(known.document_url.clone());
            extensions.v2.extend(known.swagger.clone());
            extensions.made.extend(known.document.clone());
        }
        documents.extend(extensions);
    }
}
