//! A pod that serves webhooks, behind a service: see [`crate::agnhost_webhook`]. The API server finds it by itself.

use crate::cluster::Cluster;
use crate::pods::{AGNHOST, PODS_PATIENCE, Pods, pod_of};
use crate::resource::{Resource, name};
use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

const POD_PORT: u16 = 8444;
const SERVICE_PORT: u16 = 8443;
const SERVICE: &str = "e2e-test-webhook";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";
/// Of everything that belongs to a test, as its value.
pub const LABEL: &str = "webhook-test";

/// The two kinds of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    pub fn plural(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        }
    }
}

pub fn configurations(cluster: &Cluster, kind: Kind) -> Resource {
    cluster.resource(ADMISSION, kind.plural(), None)
}

/// A configuration with the label of its test.
pub fn configuration(name: &str, label: &str, webhooks: &[Value]) -> Value {
    json!({"metadata": {"name": name, "labels": {LABEL: label}}, "webhooks": webhooks})
}

/// The server, and the namespace that it and what is asked about are in.
pub struct WebhookServer {
    pub cluster: Cluster,
    pub pods: Pods,
    /// Base64 of the authority's PEM.
    authority: String,
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A container that serves TLS as a Service: `caBundle` of its authority, the container and the pod's volumes.
pub async fn serving(pods: &Pods, service: &str, command: &str, port: u16) -> (String, Value, Value) {
    let (authority, certificate, key) = certificates(&format!("{service}.{}.svc", pods.namespace));
    let secret = json!({
        "metadata": {"name": "certificates"}, "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    pods.core("secrets").create(&secret).await.unwrap();
    let container = json!({
        "name": "main", "image": AGNHOST, "imagePullPolicy": "Never",
        "args": [command, port.to_string(), "/certificates/tls.crt", "/certificates/tls.key"],
        // Once it is ready it stays so, however busy the machine is.
        "readinessProbe": {
            "httpGet": {"scheme": "HTTPS", "path": "/readyz", "port": port},
            "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 30,
        },
        "volumeMounts": [{"name": "certificates", "mountPath": "/certificates", "readOnly": true}],
    });
    let volumes = json!([{"name": "certificates", "secret": {"secretName": "certificates"}}]);
    (encoded(&authority), container, volumes)
}

impl WebhookServer {
    /// Starts it and waits until its service leads to it.
    pub async fn start(cluster: &Cluster) -> Self {
        let pods = cluster.pods("webhook").await;
        let (authority, container, volumes) = serving(&pods, SERVICE, "webhook", POD_PORT).await;
        let mut pod = pod_of("webhooks", &[container]);
        pod["spec"]["volumes"] = volumes;
        let service = json!({
            "metadata": {"name": SERVICE},
            "spec": {"selector": {"name": "webhooks"}, "ports": [{"port": SERVICE_PORT, "targetPort": POD_PORT}]},
        });
        pods.core("services").create(&service).await.unwrap();
        pods.ready(&pod).await;
        let slices = cluster.resource("discovery.k8s.io/v1", "endpointslices", Some(&pods.namespace));
        let mut watch = slices.watch(&format!("kubernetes.io/service-name={SERVICE}"), "").await;
        watch = watch.with_patience(PODS_PATIENCE);
        loop {
            let (_, slice) = watch.next().await;
            let mut endpoints = slice["endpoints"].as_array().into_iter().flatten();
            if endpoints.any(|endpoint| endpoint["conditions"]["ready"] == true) {
                break;
            }
        }
        Self {
            cluster: cluster.clone(),
            pods,
            authority,
        }
    }

    pub fn namespace(&self) -> &str {
        &self.pods.namespace
    }

    pub fn client_config(&self, path: &str) -> Value {
        json!({
            "service": {"namespace": self.namespace(), "name": SERVICE, "path": path, "port": SERVICE_PORT},
            "caBundle": self.authority,
        })
    }

    /// A webhook that is for one resource of the test's namespace (or of none), with more or other members.
    pub fn hook(&self, name: &str, path: &str, rule: Value, more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.k8s.io"), "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "timeoutSeconds": 30,
            "clientConfig": self.client_config(path),
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace()}},
            "rules": [rule],
        });
        for (field, value) in more.as_object().unwrap() {
            hook[field] = value.clone();
        }
        hook
    }

    /// Registers webhooks under a name of the test's own, which is given back.
    pub async fn register(&self, kind: Kind, webhooks: &[Value]) -> String {
        let configuration = configuration(&self.cluster.unique("webhooks"), self.namespace(), webhooks);
        configurations(&self.cluster, kind)
            .create(&configuration)
            .await
            .unwrap();
        name(&configuration).to_owned()
    }

    /// Takes away all configurations of the test.
    pub async fn end(&self) {
        for kind in [Kind::Mutating, Kind::Validating] {
            let configurations = configurations(&self.cluster, kind);
            let selector = format!("{LABEL}={}", self.namespace());
            configurations.delete_collection(&selector).await.unwrap();
        }
    }
}

/// A rule for one resource.
pub fn rule(group: &str, version: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": operations})
}

/// An authority, and a certificate of it for a server with its key.
fn certificates(server: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![server.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    (authority_certificate.pem(), certificate.pem(), key.serialize_pem())
}
