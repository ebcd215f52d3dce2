//! What belongs to which node: pods, and what they refer to (upstream: `plugin/pkg/auth/authorizer/node/graph.go`).

use crate::apiserver::authorization::follower::Mirror;
use crate::registry::json::{at, objects, text};
use crate::registry::strategy::Object;
use crate::storage::Entry;
use std::collections::{BTreeSet, HashMap};

const PODS: &str = "pods";
const VOLUMES: &str = "persistentvolumes";
const ATTACHMENTS: &str = "volumeattachments.storage.k8s.io";
const SLICES: &str = "resourceslices.resource.k8s.io";
const CERTIFICATES: &str = "podcertificaterequests.certificates.k8s.io";

/// Pods that stand for files of the node refer to nothing.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a pod can refer to in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    ServiceAccount,
}

type Name = (String, String);
type Thing = (Target, Name);

/// Who may see what, followed from pods, volumes, attachments, slices and certificate requests.
#[derive(Default)]
pub struct Graph {
    /// By thing and node, how many pods of the node refer to it.
    references: HashMap<Thing, HashMap<String, usize>>,
    pods: HashMap<Name, PodEdges>,
    /// The claim that a volume is bound to.
    claims: HashMap<String, Name>,
    /// Volumes that name a secret, by the secret.
    secrets: HashMap<Name, BTreeSet<String>>,
    volumes: HashMap<String, BTreeSet<Name>>,
    /// Nodes of attachments and slices, by name; of certificate requests, by namespace and name.
    attachments: HashMap<String, String>,
    slices: HashMap<String, String>,
    certificates: HashMap<Name, String>,
}

struct PodEdges {
    node: String,
    things: BTreeSet<Thing>,
}

impl Graph {
    /// Whether a pod of the node refers to the thing, directly or through a volume.
    pub fn reaches(&self, node: &str, target: Target, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let by_volume = target == Target::Secret
            && (self.secrets.get(&key).into_iter().flatten()).any(|volume| self.reaches_volume(node, volume));
        by_volume || self.refers(node, (target, key))
    }

    /// Whether a pod of the node uses the claim that the volume is bound to.
    pub fn reaches_volume(&self, node: &str, volume: &str) -> bool {
        let claim = self.claims.get(volume).cloned();
        claim.is_some_and(|claim| self.refers(node, (Target::Claim, claim)))
    }

    pub fn owns_attachment(&self, node: &str, name: &str) -> bool {
        self.attachments.get(name).is_some_and(|owner| owner == node)
    }

    pub fn owns_slice(&self, node: &str, name: &str) -> bool {
        self.slices.get(name).is_some_and(|owner| owner == node)
    }

    pub fn owns_certificate(&self, node: &str, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        self.certificates.get(&key).is_some_and(|owner| owner == node)
    }

    fn refers(&self, node: &str, thing: Thing) -> bool {
        let nodes = self.references.get(&thing);
        nodes.is_some_and(|nodes| nodes.contains_key(node))
    }

    fn put_pod(&mut self, entry: &Entry, previous: Option<&Entry>) {
        let key = name_of(entry);
        let node = node_of(entry);
        if node.is_empty() {
            self.remove_pod(&key);
            return;
        }
        // What a bound pod refers to does not change, but for ephemeral containers and claims made for it.
        let unchanged = previous.is_some_and(|previous| {
            previous.index.uid == entry.index.uid
                && node_of(previous) == node
                && !may_gain(entry)
                && !may_gain(previous)
        });
        if unchanged && self.pods.contains_key(&key) {
            return;
        }
        self.remove_pod(&key);
        let Some(pod) = read(entry) else { return };
        let things = references_of(&pod, &key);
        for thing in &things {
            let nodes = self.references.entry(thing.clone()).or_default();
            *nodes.entry(node.to_owned()).or_default() += 1;
        }
        let node = node.to_owned();
        self.pods.insert(key, PodEdges { node, things });
    }

    fn remove_pod(&mut self, key: &Name) {
        let Some(edges) = self.pods.remove(key) else { return };
        for thing in edges.things {
            let Some(nodes) = self.references.get_mut(&thing) else {
                continue;
            };
            if let Some(count) = nodes.get_mut(&edges.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&edges.node);
                }
            }
            if nodes.is_empty() {
                self.references.remove(&thing);
            }
        }
    }

    fn put_volume(&mut self, entry: &Entry) {
        let volume = entry.key.name.to_string();
        self.remove_volume(&volume);
        let Some(object) = read(entry) else { return };
        let claim = (
            text(&object, &["spec", "claimRef", "namespace"]).to_owned(),
            text(&object, &["spec", "claimRef", "name"]).to_owned(),
        );
        if claim.1.is_empty() {
            return;
        }
        let secrets = volume_secrets(&object, &claim.0);
        for secret in &secrets {
            self.secrets.entry(secret.clone()).or_default().insert(volume.clone());
        }
        if !secrets.is_empty() {
            self.volumes.insert(volume.clone(), secrets);
        }
        self.claims.insert(volume, claim);
    }

    fn remove_volume(&mut self, volume: &str) {
        self.claims.remove(volume);
        for secret in self.volumes.remove(volume).unwrap_or_default() {
            if let Some(volumes) = self.secrets.get_mut(&secret) {
                volumes.remove(volume);
                if volumes.is_empty() {
                    self.secrets.remove(&secret);
                }
            }
        }
    }
}

impl Mirror for Graph {
    const RESOURCES: &'static [&'static str] = &[PODS, VOLUMES, ATTACHMENTS, SLICES, CERTIFICATES];

    fn clear(&mut self, resource: &str) {
        match resource {
            PODS => {
                self.pods.clear();
                self.references.clear();
            }
            VOLUMES => {
                self.claims.clear();
                self.secrets.clear();
                self.volumes.clear();
            }
            ATTACHMENTS => self.attachments.clear(),
            SLICES => self.slices.clear(),
            _ => self.certificates.clear(),
        }
    }

    fn put(&mut self, entry: &Entry, previous: Option<&Entry>) {
        match &*entry.key.resource {
            PODS => self.put_pod(entry, previous),
            VOLUMES => self.put_volume(entry),
            resource => {
                let object = read(entry).unwrap_or_default();
                let node = text(&object, &["spec", "nodeName"]).to_owned();
                let name = entry.key.name.to_string();
                match resource {
                    ATTACHMENTS => self.attachments.insert(name, node),
                    SLICES => self.slices.insert(name, node),
                    _ => self.certificates.insert(name_of(entry), node),
                };
            }
        }
    }

    fn remove(&mut self, entry: &Entry) {
        match &*entry.key.resource {
            PODS => self.remove_pod(&name_of(entry)),
            VOLUMES => self.remove_volume(&entry.key.name),
            ATTACHMENTS => drop(self.attachments.remove(&*entry.key.name)),
            SLICES => drop(self.slices.remove(&*entry.key.name)),
            _ => drop(self.certificates.remove(&name_of(entry))),
        }
    }
}

fn name_of(entry: &Entry) -> Name {
    (entry.key.namespace.to_string(), entry.key.name.to_string())
}

/// The node of a pod, from its index.
fn node_of(entry: &Entry) -> &str {
    let field = entry.index.fields.iter().find(|(path, _)| *path == "spec.nodeName");
    field.map_or("", |(_, value)| value)
}

/// Whether the pod has what may come to refer to more: told by the keys, without reading the object.
fn may_gain(entry: &Entry) -> bool {
    ["\"ephemeralContainers\"", "\"resourceClaimStatuses\""]
        .iter()
        .any(|key| contains(&entry.bytes, key.as_bytes()))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn read(entry: &Entry) -> Option<Object> {
    serde_json::from_slice(&entry.bytes)
        .inspect_err(|error| tracing::error!(object = %entry.key, %error, "a stored object can not be read"))
        .ok()
}

fn references_of(pod: &Object, (namespace, name): &Name) -> BTreeSet<Thing> {
    let mut things = BTreeSet::new();
    let mut add = |target: Target, name: &str| {
        if !name.is_empty() {
            things.insert((target, (namespace.clone(), name.to_owned())));
        }
    };
    add(Target::Pod, name);
    let annotations = at(pod, &["metadata", "annotations"]);
    if annotations.and_then(|annotations| annotations.get(MIRROR)).is_some() {
        return things;
    }
    add(Target::ServiceAccount, text(pod, &["spec", "serviceAccountName"]));
    for (_, secret) in objects(pod, &["spec", "imagePullSecrets"]) {
        add(Target::Secret, text(secret, &["name"]));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (_, container) in objects(pod, &["spec", list]) {
            for (_, source) in objects(container, &["envFrom"]) {
                add(Target::ConfigMap, text(source, &["configMapRef", "name"]));
                add(Target::Secret, text(source, &["secretRef", "name"]));
            }
            for (_, variable) in objects(container, &["env"]) {
                add(
                    Target::ConfigMap,
                    text(variable, &["valueFrom", "configMapKeyRef", "name"]),
                );
                add(Target::Secret, text(variable, &["valueFrom", "secretKeyRef", "name"]));
            }
        }
    }
    for (_, volume) in objects(pod, &["spec", "volumes"]) {
        add(Target::Secret, text(volume, &["secret", "secretName"]));
        add(Target::Secret, text(volume, &["azureFile", "secretName"]));
        for source in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
            add(Target::Secret, text(volume, &[source, "secretRef", "name"]));
        }
        add(Target::Secret, text(volume, &["csi", "nodePublishSecretRef", "name"]));
        add(Target::ConfigMap, text(volume, &["configMap", "name"]));
        add(Target::Claim, text(volume, &["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some_and(|ephemeral| !ephemeral.is_null()) {
            add(Target::Claim, &format!("{name}-{}", text(volume, &["name"])));
        }
        for (_, source) in objects(volume, &["projected", "sources"]) {
            add(Target::Secret, text(source, &["secret", "name"]));
            add(Target::ConfigMap, text(source, &["configMap", "name"]));
        }
    }
    for (_, claim) in objects(pod, &["spec", "resourceClaims"]) {
        add(Target::ResourceClaim, text(claim, &["resourceClaimName"]));
    }
    for (_, made) in objects(pod, &["status", "resourceClaimStatuses"]) {
        add(Target::ResourceClaim, text(made, &["resourceClaimName"]));
    }
    let extended = text(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]);
    add(Target::ResourceClaim, extended);
    things
}

/// Secrets that whoever mounts the volume needs; without a namespace they are the claim's.
fn volume_secrets(volume: &Object, claim_namespace: &str) -> BTreeSet<Name> {
    let sources: [(&[&str], &str); 11] = [
        (&["azureFile"], "secretName"),
        (&["cephfs", "secretRef"], "name"),
        (&["flexVolume", "secretRef"], "name"),
        (&["iscsi", "secretRef"], "name"),
        (&["rbd", "secretRef"], "name"),
        (&["scaleIO", "secretRef"], "name"),
        (&["storageos", "secretRef"], "name"),
        (&["csi", "controllerExpandSecretRef"], "name"),
        (&["csi", "nodeExpandSecretRef"], "name"),
        (&["csi", "nodePublishSecretRef"], "name"),
        (&["csi", "nodeStageSecretRef"], "name"),
    ];
    let mut secrets = BTreeSet::new();
    for (path, field) in sources {
        let path: Vec<&str> = std::iter::once("spec").chain(path.iter().copied()).collect();
        let Some(source) = at(volume, &path).and_then(serde_json::Value::as_object) else {
            continue;
        };
        let namespace = match (text(source, &["secretNamespace"]), text(source, &["namespace"])) {
            ("", "") => claim_namespace,
            ("", namespace) | (namespace, _) => namespace,
        };
        let name = text(source, &[field]);
        if !name.is_empty() {
            secrets.insert((namespace.to_owned(), name.to_owned()));
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Registry, index_of};
    use crate::storage::Key;
    use serde_json::{Value, json};

    fn entry(resource: &str, namespace: &str, name: &str, object: Value) -> Entry {
        let registry = Registry::builtin();
        let kind = registry.lookup_storage(resource);
        let map = object.as_object().unwrap();
        Entry {
            key: Key::new(resource, namespace, name),
            revision: 1,
            bytes: object.to_string().into(),
            index: match kind {
                Some(kind) => index_of(&kind, map),
                None => crate::registry::metadata_index(map),
            },
        }
    }

    fn pod(node: &str, rest: Value) -> Entry {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"nodeName": node, "serviceAccountName": "robot"},
        });
        for (key, value) in rest.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        entry(PODS, "a", "p", pod)
    }

    #[test]
    fn pods_lead_to_what_they_refer_to() {
        let full = json!({
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{
                "envFrom": [{"secretRef": {"name": "from-secret"}}, {"configMapRef": {"name": "from-map"}}],
                "env": [
                    {"valueFrom": {"secretKeyRef": {"name": "key-secret"}}},
                    {"valueFrom": {"configMapKeyRef": {"name": "key-map"}}}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "init-secret"}}]}],
            "volumes": [
                {"secret": {"secretName": "volume-secret"}}, {"configMap": {"name": "volume-map"}},
                {"projected": {"sources": [{"secret": {"name": "projected-secret"}}, {"configMap": {"name": "projected-map"}}]}},
                {"csi": {"nodePublishSecretRef": {"name": "csi-secret"}}},
                {"persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "scratch", "ephemeral": {}}],
            "resourceClaims": [{"resourceClaimName": "device"}],
        });
        let mut graph = Graph::default();
        graph.put(&pod("n1", full), None);
        let expected = [
            (
                Target::Secret,
                "pull from-secret key-secret init-secret volume-secret projected-secret csi-secret",
            ),
            (Target::ConfigMap, "from-map key-map volume-map projected-map"),
            (Target::Claim, "claim p-scratch"),
            (Target::ResourceClaim, "device"),
            (Target::ServiceAccount, "robot"),
            (Target::Pod, "p"),
        ];
        for (target, names) in expected {
            for name in names.split(' ') {
                assert!(graph.reaches("n1", target, "a", name), "{target:?} {name}");
                assert!(!graph.reaches("n2", target, "a", name));
                assert!(!graph.reaches("n1", target, "b", name));
            }
        }
        assert!(!graph.reaches("n1", Target::Secret, "a", "other"));
    }

    #[test]
    fn pods_come_move_in_and_go() {
        let secret = json!({"imagePullSecrets": [{"name": "s"}]});
        let mut graph = Graph::default();
        let unbound = pod("", secret.clone());
        graph.put(&unbound, None);
        assert!(!graph.reaches("", Target::Secret, "a", "s"));
        let bound = pod("n1", secret);
        graph.put(&bound, Some(&unbound));
        assert!(graph.reaches("n1", Target::Secret, "a", "s"));
        graph.put(&bound, Some(&bound));
        assert!(graph.reaches("n1", Target::Secret, "a", "s"));
        let debugged = pod(
            "n1",
            json!({"ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "new"}}]}]}),
        );
        graph.put(&debugged, Some(&bound));
        assert!(graph.reaches("n1", Target::Secret, "a", "new"));
        graph.remove(&debugged);
        assert!(!graph.reaches("n1", Target::Secret, "a", "s"));
        assert!(graph.references.is_empty() && graph.pods.is_empty());
    }

    #[test]
    fn volumes_lead_through_their_claim() {
        let mut graph = Graph::default();
        graph.put(
            &pod(
                "n1",
                json!({"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}),
            ),
            None,
        );
        let volume = entry(
            VOLUMES,
            "",
            "pv",
            json!({"spec": {"claimRef": {"namespace": "a", "name": "c"},
                "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}}}}),
        );
        assert!(!graph.reaches_volume("n1", "pv"));
        graph.put(&volume, None);
        assert!(graph.reaches_volume("n1", "pv") && !graph.reaches_volume("n2", "pv"));
        assert!(graph.reaches("n1", Target::Secret, "sys", "stage"));
        graph.remove(&volume);
        assert!(!graph.reaches("n1", Target::Secret, "sys", "stage"));
    }

    #[test]
    fn mirror_pods_refer_to_nothing() {
        let mut graph = Graph::default();
        let pod = json!({
            "metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "n1", "imagePullSecrets": [{"name": "s"}]}});
        graph.put(&entry(PODS, "a", "p", pod), None);
        assert!(graph.reaches("n1", Target::Pod, "a", "p"));
        assert!(!graph.reaches("n1", Target::Secret, "a", "s"));
    }
}
