//! What Endpoints and EndpointSlices share: which pods belong behind a Service, at which ports, and since when
//! (upstream: `staging/src/k8s.io/endpointslice/util`).

use super::pods::{condition, is_finished, is_ready, is_terminating};
use crate::client::ObjectKey;
use crate::client::informer::{Index, Informer};
use crate::client::work_queue::WorkQueue;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// When the change happened that led to what is written.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// On what belongs to a Service without an address.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

type Labels = BTreeMap<String, String>;

/// The selector, if these controllers keep the Service's endpoints.
pub fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|_| !external)
}

pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub fn is_headless(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(ip, None | Some("" | "None"))
}

/// Whether its ports may be missing: then its endpoints have none.
pub fn may_have_no_ports(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty) && spec.cluster_ip.as_deref() == Some("None"))
}

pub fn ports(service: &Service) -> &[ServicePort] {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

pub fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// Its addresses, in the order of its status.
pub fn pod_ips(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let ips = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    ips.iter().map(|ip| ip.ip.as_str())
}

/// Not when it has ended, nor before it has an address; those that terminate only if asked for.
pub fn belongs(pod: &Pod, with_terminating: bool) -> bool {
    let Some(status) = &pod.status else { return false };
    let addressed = status.pod_ip.as_deref().is_some_and(|ip| !ip.is_empty()) || pod_ips(pod).next().is_some();
    !is_finished(pod) && addressed && (with_terminating || !is_terminating(pod))
}

/// The name within the Service's domain under which a pod asks to be found.
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    let ours = spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace;
    ours.then(|| hostname.clone())
}

/// The container port that a Service's port leads to: by number, or by the name that a pod gives it.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => return Some(*number),
        Some(IntOrString::String(name)) => name,
        _ => return Some(port.port),
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let all = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    all.filter(|candidate| candidate.protocol.as_deref().unwrap_or("TCP") == protocol)
        .find(|candidate| candidate.name.as_ref() == Some(name))
        .map(|candidate| candidate.container_port)
}

/// The labels of the Services that a change of a pod concerns are those of these pods.
pub fn concerned<'a>(old: Option<&'a Pod>, new: Option<&'a Pod>) -> Vec<&'a Labels> {
    match (old, new) {
        (Some(old), Some(new)) => {
            let moved = old.labels() != new.labels();
            if !moved && !changed(old, new) {
                return Vec::new();
            }
            let mut labels = vec![new.labels()];
            labels.extend(moved.then(|| old.labels()));
            labels
        }
        (old, new) => old.or(new).into_iter().map(Pod::labels).collect(),
    }
}

/// Whether what endpoints show of a pod has changed.
fn changed(old: &Pod, new: &Pod) -> bool {
    let named = |pod: &Pod| {
        let spec = pod.spec.as_ref();
        spec.map(|spec| (spec.hostname.clone(), spec.subdomain.clone(), spec.node_name.clone()))
    };
    old.metadata.uid != new.metadata.uid
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || is_ready(old) != is_ready(new)
        || is_finished(old) != is_finished(new)
        || named(old) != named(new)
        || !pod_ips(old).eq(pod_ips(new))
}

/// One word of a selector, under which a Service is found by the labels of a pod; no word is in every selector.
fn selector_word(service: &Service) -> Option<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    Some(match selector(service)?.first_key_value() {
        Some((key, value)) => label_word(namespace, key, value),
        None => namespace.to_owned(),
    })
}

fn label_word(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace}/{key}={value}")
}

fn label_words(namespace: &str, labels: &Labels) -> Vec<String> {
    let words = labels.iter().map(|(key, value)| label_word(namespace, key, value));
    words.chain([namespace.to_owned()]).collect()
}

/// Which pods are behind which Services.
#[derive(Clone)]
pub struct Members {
    pods: Informer<Pod>,
    services: Index<Service>,
    by_label: Index<Pod>,
    /// How many pods a Service had when somebody last asked.
    counts: Arc<Mutex<HashMap<ObjectKey, usize>>>,
}

impl Members {
    pub fn new(services: &Informer<Service>, pods: &Informer<Pod>) -> Self {
        Self {
            pods: pods.clone(),
            services: services.index(|service| selector_word(service).into_iter().collect()),
            by_label: pods
                .index(|pod| label_words(pod.metadata.namespace.as_deref().unwrap_or_default(), pod.labels())),
            counts: Arc::default(),
        }
    }

    /// The pods that the Service's selector selects, by name.
    pub fn pods_of(&self, service: &Service) -> Vec<Arc<Pod>> {
        let (Some(selector), Some(word)) = (selector(service), selector_word(service)) else {
            return Vec::new();
        };
        let mut pods = self.by_label.get(&word);
        pods.retain(|pod| selects(selector, pod.labels()));
        self.counts.lock().insert(ObjectKey::of(service), pods.len());
        pods
    }

    /// The Service is gone.
    pub fn forget(&self, service: &ObjectKey) {
        self.counts.lock().remove(service);
    }

    /// The Services that select a pod with these labels.
    pub fn services_of(&self, namespace: &str, labels: &Labels) -> BTreeSet<ObjectKey> {
        let words = label_words(namespace, labels);
        let candidates = words.iter().flat_map(|word| self.services.get(word));
        candidates
            .filter(|service| selector(service).is_some_and(|wanted| selects(wanted, labels)))
            .map(|service| ObjectKey::of(&*service))
            .collect()
    }

    /// Adds every Service whose endpoints a change of a pod may change. All pods of a Service are looked at each time,
    /// so the changes of many are taken together.
    pub fn feed(&self, queue: &WorkQueue<ObjectKey>) {
        let (counts, queue) = (Arc::clone(&self.counts), queue.clone());
        self.on_change(move |service| {
            let count = counts.lock().get(&service).copied().unwrap_or_default();
            queue.add_of_many(service, count);
        });
    }

    fn on_change(&self, tell: impl Fn(ObjectKey) + Send + Sync + 'static) {
        let members = self.clone();
        self.pods.on_change(move |change| {
            let namespace = change.object().and_then(|pod| pod.metadata.namespace.clone());
            let labels = concerned(change.old.as_deref(), change.new.as_deref());
            for labels in labels {
                for service in members.services_of(namespace.as_deref().unwrap_or_default(), labels) {
                    tell(service);
                }
            }
        });
    }
}

/// When a Service's pods last changed, by what was seen at the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    service: Option<Timestamp>,
    pods: BTreeMap<String, Timestamp>,
}

impl Seen {
    /// Looks at a Service, and says which change is the oldest that is new; that of the Service itself at first sight.
    pub fn look(&mut self, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let known = std::mem::take(self);
        let times = pods.iter().filter_map(|pod| {
            let time = condition(pod, "Ready")?.last_transition_time.as_ref()?.0;
            Some((pod.name_any(), time))
        });
        self.pods = times.collect();
        self.service = created;
        if known.service.is_none() {
            return created;
        }
        let newer = self
            .pods
            .iter()
            .filter(|(name, time)| known.pods.get(*name) < Some(time));
        let service = created.filter(|time| known.service < Some(*time));
        newer.map(|(_, time)| *time).chain(service).min()
    }
}

/// As upstream writes it: RFC 3339, with as many digits as there are.
pub fn trigger_text(time: Timestamp) -> String {
    time.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    fn service(spec: Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "a"}, "spec": spec})).unwrap()
    }

    #[test]
    fn pods_that_have_ended_or_have_no_address_do_not_belong() {
        let table = [
            (
                json!({"phase": "Running", "podIP": "10.0.0.1"}),
                Value::Null,
                [true, true],
            ),
            (
                json!({"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}]}),
                Value::Null,
                [true, true],
            ),
            (
                json!({"phase": "Succeeded", "podIP": "10.0.0.1"}),
                Value::Null,
                [false, false],
            ),
            (
                json!({"phase": "Failed", "podIP": "10.0.0.1"}),
                Value::Null,
                [false, false],
            ),
            (json!({"phase": "Running"}), Value::Null, [false, false]),
            (
                json!({"phase": "Running", "podIP": "10.0.0.1"}),
                json!("2026-01-01T00:00:00Z"),
                [false, true],
            ),
        ];
        for (status, deleted, expected) in table {
            let pod = pod(json!({"metadata": {"deletionTimestamp": deleted}, "status": status}));
            assert_eq!([belongs(&pod, false), belongs(&pod, true)], expected, "{pod:?}");
        }
    }

    #[test]
    fn ports_are_found_by_number_or_by_name_and_protocol() {
        let pod = pod(json!({"spec": {
            "initContainers": [
                {"name": "once", "ports": [{"name": "once", "containerPort": 7}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 8}]},
            ],
            "containers": [{"name": "c", "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "containerPort": 54},
            ]}],
        }}));
        let table = [
            (json!({"port": 80}), Some(80)),
            (json!({"port": 80, "targetPort": 8080}), Some(8080)),
            (json!({"port": 80, "targetPort": "dns", "protocol": "UDP"}), Some(53)),
            (json!({"port": 80, "targetPort": "dns", "protocol": "TCP"}), None),
            (json!({"port": 80, "targetPort": "dns-tcp"}), Some(54)),
            (json!({"port": 80, "targetPort": "side"}), Some(8)),
            (json!({"port": 80, "targetPort": "once"}), None),
        ];
        for (port, expected) in table {
            let port: ServicePort = serde_json::from_value(port).unwrap();
            assert_eq!(target_port(&pod, &port), expected, "{port:?}");
        }
    }

    #[test]
    fn only_what_endpoints_show_concerns_a_service() {
        let base = json!({
            "metadata": {"name": "p", "uid": "1", "labels": {"a": "1"}},
            "spec": {"containers": [], "hostname": "h"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        let change = |path: &str, value: Value| {
            let mut changed = base.clone();
            *changed.pointer_mut(path).unwrap() = value;
            pod(changed)
        };
        let old = pod(base.clone());
        let count = |new: &Pod| concerned(Some(&old), Some(new)).len();
        assert_eq!(count(&old), 0);
        assert_eq!(
            count(&change(
                "/metadata",
                json!({"uid": "1", "labels": {"a": "1"}, "annotations": {"x": "y"}})
            )),
            0
        );
        assert_eq!(count(&change("/metadata/labels", json!({"a": "2"}))), 2);
        assert_eq!(count(&change("/spec/hostname", json!("i"))), 1);
        assert_eq!(count(&change("/status/podIPs/0/ip", json!("10.0.0.2"))), 1);
        assert_eq!(count(&change("/status/phase", json!("Failed"))), 1);
        assert_eq!(
            (concerned(None, Some(&old)).len(), concerned(Some(&old), None).len()),
            (1, 1)
        );
    }

    #[test]
    fn services_and_pods_find_each_other_by_labels() {
        let (services, pods) = (Informer::<Service>::unfed(), Informer::<Pod>::unfed());
        let members = Members::new(&services, &pods);
        let named = |name: &str, spec: Value| {
            let mut service = service(spec);
            service.metadata.name = Some(name.to_owned());
            services.apply(service);
        };
        named("one", json!({"selector": {"a": "1"}}));
        named("both", json!({"selector": {"a": "1", "b": "1"}}));
        named("all", json!({"selector": {}}));
        named("external", json!({"selector": {"a": "1"}, "type": "ExternalName"}));
        named("by-hand", json!({}));
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let told = seen.clone();
        members.on_change(move |key| told.lock().push(key.name));
        let told = |labels: Value| {
            pods.apply(pod(
                json!({"metadata": {"name": "p", "namespace": "a", "uid": labels.to_string(), "labels": labels}}),
            ));
            let mut told = std::mem::take(&mut *seen.lock());
            told.sort();
            told.dedup();
            told
        };
        assert_eq!(told(json!({"a": "1"})), ["all", "one"]);
        let behind = |name: &str| members.pods_of(&services.get("a", name).unwrap()).len();
        assert_eq!(
            [behind("one"), behind("both"), behind("all"), behind("by-hand")],
            [1, 0, 1, 0]
        );
        assert_eq!(told(json!({"a": "1", "b": "1"})), ["all", "both", "one"]);
        assert_eq!(told(json!({"a": "2", "b": "1"})), ["all", "both", "one"]);
        assert_eq!(told(json!({"a": "2"})), ["all"]);
        assert_eq!([behind("one"), behind("both"), behind("all")], [0, 0, 1]);
    }

    #[test]
    fn the_oldest_new_change_is_told_once() {
        let at = |time: &str| Some(time.parse::<Timestamp>().unwrap());
        let mut service = service(json!({}));
        service.metadata.creation_timestamp = at("2026-01-01T00:00:00Z").map(Into::into);
        let pod = |name: &str, time: &str| {
            Arc::new(pod(json!({"metadata": {"name": name}, "status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": time}]}})))
        };
        let mut seen = Seen::default();
        let first = [pod("a", "2026-01-01T00:00:05Z")];
        assert_eq!(seen.look(&service, &first), at("2026-01-01T00:00:00Z"));
        assert_eq!(seen.look(&service, &first), None);
        let later = [
            first[0].clone(),
            pod("b", "2026-01-01T00:00:09Z"),
            pod("c", "2026-01-01T00:00:07Z"),
        ];
        assert_eq!(seen.look(&service, &later), at("2026-01-01T00:00:07Z"));
        assert_eq!(seen.look(&service, &later), None);
        assert_eq!(
            trigger_text(at("2026-01-01T00:00:07Z").unwrap()),
            "2026-01-01T00:00:07Z"
        );
    }
}
