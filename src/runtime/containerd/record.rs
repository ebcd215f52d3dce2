//! What is kept with a container on the daemon, by which it is found again (upstream: the CRI plugin's `store`).
//!
//! Labels are for filters, and short. Everything else is an extension; each part that changes is one of its own, so
//! that parts can be set independently of one another.

use super::super::oci::user::ResolvedUser;
use super::{ContainerConfig, Engine, PodIdentity, PortMapping, Result, SandboxConfig, failed};
use containerd_client::services::v1::{Container, GetContainerRequest, ListContainersRequest, UpdateContainerRequest};
use prost_types::{Any, FieldMask};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::SystemTime;

/// Which krust an object belongs to. Everything that is listed or touched carries it.
pub const CLUSTER: &str = "krust.dev/cluster";
pub const TYPE: &str = "krust.dev/type";
/// The sandbox's address on the pod network, as long as it has it.
pub const ADDRESS: &str = "krust.dev/address";
/// The first of the ids that the users of a pod have on the host, if it has users of its own.
pub const USER_IDS: &str = "krust.dev/user-ids";
/// Set when the kernel killed a process of the container for memory.
pub const OOM: &str = "krust.dev/oom";
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";

pub const TYPE_SANDBOX: &str = "sandbox";
pub const TYPE_CONTAINER: &str = "container";

const RECORD: &str = "krust.dev/record";
const STARTED: &str = "krust.dev/started";
const END: &str = "krust.dev/end";

/// What is known of a sandbox from its creation on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Ports of the node that lead to it.
    #[serde(default)]
    pub host_ports: Vec<PortMapping>,
}

/// What is known of a container from its creation on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub name: String,
    pub attempt: u32,
    pub sandbox_id: String,
    pub pod_uid: String,
    pub image: String,
    pub image_ref: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub stop_signal: String,
    /// None for containers of an earlier krust.
    #[serde(default)]
    pub user: Option<ResolvedUser>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub exit_code: i32,
    pub finished_at: SystemTime,
    /// Empty: by the exit code.
    pub reason: String,
    pub message: String,
}

/// A change of one part.
pub enum Change {
    Started(SystemTime),
    End(End),
    OomKilled,
    /// The address was given back.
    NoAddress,
}

impl SandboxRecord {
    pub fn of(config: &SandboxConfig) -> SandboxRecord {
        SandboxRecord {
            name: config.pod.name.clone(),
            namespace: config.pod.namespace.clone(),
            uid: config.pod.uid.clone(),
            attempt: config.pod.attempt,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            host_ports: host_ports(config),
        }
    }

    pub fn pod(&self) -> PodIdentity {
        PodIdentity {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
            attempt: self.attempt,
        }
    }
}

fn host_ports(config: &SandboxConfig) -> Vec<PortMapping> {
    let mappings = config.port_mappings.iter();
    mappings
        .filter(|mapping| mapping.host_port != 0 && !config.host_network)
        .cloned()
        .collect()
}

impl ContainerRecord {
    pub fn of(config: &ContainerConfig, sandbox_id: &str, pod: &PodIdentity) -> ContainerRecord {
        ContainerRecord {
            name: config.name.clone(),
            attempt: config.attempt,
            sandbox_id: sandbox_id.to_string(),
            pod_uid: pod.uid.clone(),
            image: config.image.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            stop_signal: config.stop_signal.clone(),
            ..Default::default()
        }
    }
}

pub fn sandbox_labels(
    cluster_id: &str,
    pod: &PodIdentity,
    address: Option<Ipv4Addr>,
    user_ids: Option<u32>,
) -> HashMap<String, String> {
    let mut labels = labels(cluster_id, TYPE_SANDBOX, pod);
    if let Some(first) = user_ids {
        labels.insert(USER_IDS.to_string(), first.to_string());
    }
    if let Some(address) = address {
        labels.insert(ADDRESS.to_string(), address.to_string());
    }
    labels
}

pub fn container_labels(cluster_id: &str, pod: &PodIdentity, record: &ContainerRecord) -> HashMap<String, String> {
    let mut labels = labels(cluster_id, TYPE_CONTAINER, pod);
    labels.insert(SANDBOX_ID.to_string(), record.sandbox_id.clone());
    labels.insert(CONTAINER_NAME.to_string(), record.name.clone());
    labels
}

fn labels(cluster_id: &str, object_type: &str, pod: &PodIdentity) -> HashMap<String, String> {
    [
        (CLUSTER, cluster_id),
        (TYPE, object_type),
        (POD_NAME, &pod.name),
        (POD_NAMESPACE, &pod.namespace),
        (POD_UID, &pod.uid),
    ]
    .map(|(key, value)| (key.to_string(), value.to_string()))
    .into()
}

/// The extensions of a new object.
pub fn extensions(record: &impl Serialize) -> HashMap<String, Any> {
    HashMap::from([(RECORD.to_string(), any(RECORD, record))])
}

/// The part that a started container has.
#[cfg(test)]
pub fn started(time: SystemTime) -> HashMap<String, Any> {
    HashMap::from([(STARTED.to_string(), any(STARTED, &time))])
}

fn any(key: &str, value: &impl Serialize) -> Any {
    Any {
        type_url: key.to_string(),
        // Maps with text for keys always have a JSON form.
        value: serde_json::to_vec(value).unwrap_or_default(),
    }
}

/// The part that was written at the creation.
pub fn record<T: DeserializeOwned + Default>(container: &Container) -> T {
    part(container, RECORD).unwrap_or_default()
}

pub fn started_at(container: &Container) -> Option<SystemTime> {
    part(container, STARTED)
}

pub fn end(container: &Container) -> Option<End> {
    part(container, END)
}

pub fn label<'a>(container: &'a Container, key: &str) -> &'a str {
    container.labels.get(key).map(String::as_str).unwrap_or_default()
}

fn part<T: DeserializeOwned>(container: &Container, key: &str) -> Option<T> {
    let value = &container.extensions.get(key)?.value;
    serde_json::from_slice(value)
        .inspect_err(|error| tracing::warn!(id = container.id, key, %error, "unreadable record on containerd"))
        .ok()
}

impl Engine {
    /// A container of this krust's and of this type.
    pub async fn container(&self, id: &str, object_type: &'static str) -> Result<Container> {
        let not_found = || super::RuntimeError::NotFound {
            what: object_type,
            id: id.to_string(),
        };
        let request = self.request(GetContainerRequest { id: id.to_string() });
        let found = self.containers().get(request).await;
        let found = found.map_err(|status| self.error("look at", object_type, id, status))?;
        let container = found.into_inner().container.ok_or_else(not_found)?;
        let own = label(&container, CLUSTER) == self.options.cluster_id && label(&container, TYPE) == object_type;
        own.then_some(container).ok_or_else(not_found)
    }

    /// All containers of this krust's and of this type; with a further condition on a label, those that meet it.
    pub async fn list(&self, object_type: &str, label: Option<(&str, &str)>) -> Result<Vec<Container>> {
        let mut conditions = vec![(CLUSTER, self.options.cluster_id.as_str()), (TYPE, object_type)];
        conditions.extend(label);
        let conditions: Vec<String> = conditions
            .into_iter()
            .map(|(key, value)| format!("labels.{key:?}=={value:?}"))
            .collect();
        self.list_filtered(conditions.join(",")).await
    }

    /// The sandboxes that have an address, of whatever krust.
    pub async fn addressed(&self) -> Result<Vec<(Ipv4Addr, Container)>> {
        let containers = self.list_filtered(format!("labels.{ADDRESS:?}")).await?;
        let addressed = containers.into_iter().filter_map(|container| {
            let address = label(&container, ADDRESS).parse().ok()?;
            Some((address, container))
        });
        Ok(addressed.collect())
    }

    /// What all containers that have this label say in it, of whatever krust.
    pub async fn labelled(&self, key: &str) -> Result<Vec<String>> {
        let containers = self.list_filtered(format!("labels.{key:?}")).await?;
        Ok(containers
            .iter()
            .map(|container| label(container, key).to_string())
            .collect())
    }

    async fn list_filtered(&self, filter: String) -> Result<Vec<Container>> {
        let request = self.request(ListContainersRequest { filters: vec![filter] });
        let listed = self.containers().list(request).await;
        let listed = listed.map_err(|status| self.error("list", "containers", "containers", status))?;
        Ok(listed.into_inner().containers)
    }

    /// Writes one part; the others stay as they are.
    pub async fn change(&self, id: &str, change: Change) -> Result<()> {
        let mut container = Container {
            id: id.to_string(),
            ..Default::default()
        };
        let extension = |container: &mut Container, key: &str, value: Any| {
            container.extensions.insert(key.to_string(), value);
            format!("extensions.{key}")
        };
        let path = match change {
            Change::Started(time) => extension(&mut container, STARTED, any(STARTED, &time)),
            Change::End(end) => extension(&mut container, END, any(END, &end)),
            Change::OomKilled => {
                container.labels.insert(OOM.to_string(), "true".to_string());
                format!("labels.{OOM}")
            }
            // An empty label is none.
            Change::NoAddress => {
                container.labels.insert(ADDRESS.to_string(), String::new());
                format!("labels.{ADDRESS}")
            }
        };
        let request = self.request(UpdateContainerRequest {
            container: Some(container),
            update_mask: Some(FieldMask { paths: vec![path] }),
        });
        let updated = self.containers().update(request).await;
        updated.map(drop).map_err(|status| match status.code() {
            containerd_client::tonic::Code::NotFound => self.error("update", "container", id, status),
            _ => failed("update", id, status.message()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_again() {
        let config = ContainerConfig {
            name: "app".into(),
            attempt: 5,
            annotations: [("note".to_string(), "x".repeat(10_000))].into(),
            ..Default::default()
        };
        let pod = PodIdentity {
            uid: "u1".into(),
            ..Default::default()
        };
        let written = ContainerRecord::of(&config, "s1", &pod);
        let container = Container {
            labels: container_labels("mine", &pod, &written),
            extensions: extensions(&written),
            ..Default::default()
        };
        let read: ContainerRecord = record(&container);
        assert_eq!(
            (read.attempt, read.sandbox_id.as_str(), read.pod_uid.as_str()),
            (5, "s1", "u1")
        );
        assert_eq!(read.annotations, config.annotations);
        assert_eq!((label(&container, CLUSTER), label(&container, POD_UID)), ("mine", "u1"));
        assert!(
            container.labels.values().all(|value| value.len() < 1000),
            "labels are short"
        );
        assert_eq!((started_at(&container), end(&container)), (None, None));
    }
}
