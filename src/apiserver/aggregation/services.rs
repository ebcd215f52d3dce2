//! The stored APIServices, and which of them name another server.

use crate::apiserver::authorization::follower::Mirror;
use crate::registry::json::{boolean, integer, map, number, objects, text};
use crate::registry::strategy::Object;
use crate::storage::Entry;
use crate::transport::extension::ExtensionClient;
use base64::Engine as _;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio_rustls::TlsConnector;

pub const RESOURCE: &str = "apiservices.apiregistration.k8s.io";
const PORT: u16 = 443;

/// What an APIService says.
#[derive(Debug)]
pub struct ApiService {
    pub name: Arc<str>,
    pub group: String,
    pub version: String,
    pub group_priority: i64,
    pub version_priority: i64,
    /// None: this server.
    pub remote: Option<Arc<Remote>>,
    /// It has the condition `Available`.
    pub available: bool,
}

/// Who serves the group-version instead of this server.
pub struct Remote {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    trust: Trust,
    /// Made when it is first needed: reading authorities takes longer than a request may.
    tls: OnceLock<Result<TlsConnector, String>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Trust {
    /// In PEM; empty for those whom the machine believes.
    Authorities(Vec<u8>),
    Anybody,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

impl PartialEq for Remote {
    fn eq(&self, other: &Self) -> bool {
        (&self.namespace, &self.name, self.port, &self.trust)
            == (&other.namespace, &other.name, other.port, &other.trust)
    }
}

impl Remote {
    /// The name that its certificate must have.
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    pub fn tls(&self, client: &ExtensionClient) -> Result<TlsConnector, String> {
        let make = || match &self.trust {
            Trust::Anybody => Ok(client.unverified()),
            Trust::Authorities(authorities) => client.trusting(authorities).map_err(|error| error.to_string()),
        };
        self.tls.get_or_init(make).clone()
    }
}

impl ApiService {
    pub fn read(name: &Arc<str>, object: &Object) -> Self {
        let remote = map(object, &["spec", "service"]).map(|service| {
            let bundle = text(object, &["spec", "caBundle"]);
            let bundle = base64::engine::general_purpose::STANDARD.decode(bundle);
            let trust = match boolean(object, &["spec", "insecureSkipTLSVerify"]) {
                true => Trust::Anybody,
                false => Trust::Authorities(bundle.unwrap_or_default()),
            };
            Arc::new(Remote {
                namespace: text(service, &["namespace"]).to_owned(),
                name: text(service, &["name"]).to_owned(),
                port: integer(service, &["port"])
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(PORT),
                trust,
                tls: OnceLock::new(),
            })
        });
        let available = objects(object, &["status", "conditions"])
            .any(|(_, condition)| text(condition, &["type"]) == "Available" && text(condition, &["status"]) == "True");
        Self {
            name: name.clone(),
            group: text(object, &["spec", "group"]).to_owned(),
            version: text(object, &["spec", "version"]).to_owned(),
            group_priority: number(object, &["spec", "groupPriorityMinimum"]),
            version_priority: number(object, &["spec", "versionPriority"]),
            remote,
            available,
        }
    }

    /// Both ask for the same place in discovery, of the same server.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let of = |service: &Self| (service.group_priority, service.version_priority);
        of(self) == of(other) && self.remote == other.remote
    }
}

/// All of them, by name.
#[derive(Default)]
pub struct ApiServices {
    by_name: BTreeMap<Arc<str>, Arc<ApiService>>,
    remotes: usize,
    generation: u64,
}

impl ApiServices {
    pub fn get(&self, name: &str) -> Option<Arc<ApiService>> {
        self.by_name.get(name).cloned()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.by_name.values()
    }

    pub fn remotes(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        let any = self.remotes > 0;
        let all = any.then(|| self.by_name.values());
        all.into_iter().flatten().filter(|service| service.remote.is_some())
    }

    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        // The usual cluster has none.
        if self.remotes == 0 || group.is_empty() {
            return None;
        }
        self.get(&format!("{version}.{group}"))
            .filter(|service| service.remote.is_some())
    }

    /// Grows with every change of what discovery shows of them.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn replace(&mut self, name: &Arc<str>, service: Option<Arc<ApiService>>) {
        let is_remote =
            |service: &Option<Arc<ApiService>>| service.as_ref().is_some_and(|service| service.remote.is_some());
        let added = usize::from(is_remote(&service));
        let before = match service {
            Some(service) => self.by_name.insert(name.clone(), service),
            None => self.by_name.remove(name),
        };
        self.remotes = self.remotes + added - usize::from(is_remote(&before));
    }
}

impl Mirror for ApiServices {
    const RESOURCES: &'static [&'static str] = &[RESOURCE];

    fn clear(&mut self, _resource: &str) {
        self.by_name.clear();
        self.remotes = 0;
        self.generation += 1;
    }

    fn put(&mut self, entry: &Entry, _previous: Option<&Entry>) {
        let name = &entry.key.name;
        let object: Object = match serde_json::from_slice(&entry.bytes) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(%error, key = %entry.key, "a stored APIService is unreadable");
                return;
            }
        };
        let mut service = ApiService::read(name, &object);
        match self.by_name.get(name) {
            // Its connector stays with it.
            Some(before) if before.asks_the_same(&service) => service.remote.clone_from(&before.remote),
            _ => self.generation += 1,
        }
        self.replace(name, Some(Arc::new(service)));
    }

    fn remove(&mut self, entry: &Entry) {
        self.generation += 1;
        self.replace(&entry.key.name, None);
    }
}
