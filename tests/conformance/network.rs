//! Services and what goes with them, as objects.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::{cluster_wide, names, namespaced};
use crate::resource::{items, merge_into};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server",
            endpoints_of_the_server,
        ),
        test(
            "[sig-network] API Server should provide secure master service",
            service_of_the_server,
        ),
        test(
            "[sig-network] EndpointSlice should support creating EndpointSlice API operations",
            endpoint_slices,
        ),
        test(
            "[sig-network] Endpoints should test the lifecycle of an Endpoint",
            endpoints,
        ),
        test(
            "[sig-network] Ingress API should support creating Ingress API operations",
            ingresses,
        ),
        test(
            "[sig-network] IngressClass API should support creating IngressClass API operations",
            ingress_classes,
        ),
        test(
            "[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations",
            ip_addresses,
        ),
        test(
            "[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations",
            service_cidrs,
        ),
        test(
            "[sig-network] Services should complete a service status lifecycle",
            service_status,
        ),
        test(
            "[sig-network] Services should delete a collection of services",
            service_collection,
        ),
        test(
            "[sig-network] Services should find a service from listing all namespaces",
            service_everywhere,
        ),
    ]
}

async fn service_of_the_server(cluster: Cluster) {
    let service = cluster
        .core("services", Some("default"))
        .get("kubernetes")
        .await
        .unwrap();
    let https = &service["spec"]["ports"][0];
    assert_eq!(
        (&https["name"], &https["port"], &https["protocol"]),
        (&json!("https"), &json!(443), &json!("TCP"))
    );
    assert!(
        service["spec"]["clusterIP"]
            .as_str()
            .is_some_and(|ip| !ip.is_empty() && ip != "None")
    );
    assert_eq!(service["metadata"]["labels"]["component"], "apiserver");
    assert_eq!(service["metadata"]["labels"]["provider"], "kubernetes");
}

async fn endpoints_of_the_server(cluster: Cluster) {
    let endpoints = cluster
        .core("endpoints", Some("default"))
        .get("kubernetes")
        .await
        .unwrap();
    let subset = &endpoints["subsets"][0];
    assert!(subset["addresses"][0]["ip"].is_string(), "{endpoints}");
    let slices = cluster.resource("discovery.k8s.io/v1", "endpointslices", Some("default"));
    let slices = slices.labelled("kubernetes.io/service-name=kubernetes").await;
    assert!(!slices.is_empty(), "no slice of the service kubernetes");
    for slice in &slices {
        assert!(!slice["endpoints"].as_array().unwrap().is_empty(), "{slice}");
        assert_eq!(slice["ports"][0]["port"], subset["ports"][0]["port"]);
        assert_eq!(slice["ports"][0]["name"], "https");
    }
}

async fn service_everywhere(cluster: Cluster) {
    let list = cluster
        .core("services", None)
        .list(&ListParams::default())
        .await
        .unwrap();
    let found = items(&list)
        .iter()
        .any(|s| s["metadata"]["name"] == "kubernetes" && s["metadata"]["namespace"] == "default");
    assert!(found, "{:?}", names(&list));
}

async fn endpoint_slices(cluster: Cluster) {
    let slice = json!({
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3", "10.1.2.4"], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    namespaced("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", slice)
        .change(json!({"endpoints": [{"addresses": ["10.1.2.5"]}]}))
        .run(&cluster)
        .await;
    let namespace = cluster.namespace("slices").await;
    let slices = cluster.resource("discovery.k8s.io/v1", "endpointslices", Some(&namespace));
    let made = json!({"metadata": {"name": "one"}, "addressType": "IPv4", "endpoints": []});
    slices.create(&made).await.unwrap();
    let other = json!({"addressType": "IPv6"});
    let status = refused(slices.merge("one", other).await, 422, "Invalid");
    assert!(
        status.message.contains("addressType") && status.message.contains("field is immutable"),
        "{}",
        status.message
    );
}

async fn endpoints(cluster: Cluster) {
    let subsets =
        |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]);
    namespaced("v1", "endpoints", "Endpoints", json!({"subsets": subsets("10.0.0.24")}))
        .change(json!({"subsets": subsets("10.0.0.25")}))
        .run(&cluster)
        .await;
}

async fn ingresses(cluster: Cluster) {
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let spec = json!({
        "defaultBackend": backend("default"),
        "rules": [{"host": "foo.bar.com", "http": {"paths": [
            {"path": "/", "pathType": "ImplementationSpecific", "backend": backend("test")},
        ]}}],
    });
    namespaced("networking.k8s.io/v1", "ingresses", "Ingress", json!({"spec": spec}))
        .change(json!({"spec": {"defaultBackend": backend("other")}}))
        .status(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}))
        .run(&cluster)
        .await;
}

async fn ingress_classes(cluster: Cluster) {
    let spec = json!({"controller": "example.com/controller"});
    cluster_wide(
        "networking.k8s.io/v1",
        "ingressclasses",
        "IngressClass",
        json!({"spec": spec}),
    )
    .run(&cluster)
    .await;
    let classes = cluster.resource("networking.k8s.io/v1", "ingressclasses", None);
    let name = cluster.unique("class");
    classes
        .create(&json!({"metadata": {"name": name}, "spec": {"controller": "example.com/a"}}))
        .await
        .unwrap();
    let status = refused(
        classes
            .merge(&name, json!({"spec": {"controller": "example.com/b"}}))
            .await,
        422,
        "Invalid",
    );
    assert!(status.message.contains("spec.controller"), "{}", status.message);
    classes.delete(&name).await.unwrap();
}

async fn ip_addresses(cluster: Cluster) {
    let parent = json!({"group": "", "resource": "services", "namespace": "foo", "name": "bar"});
    cluster_wide(
        "networking.k8s.io/v1",
        "ipaddresses",
        "IPAddress",
        json!({"spec": {"parentRef": parent}}),
    )
    .names(["192.168.7.21", "192.168.7.22", "192.168.7.23"])
    .run(&cluster)
    .await;
    let addresses = cluster.resource("networking.k8s.io/v1", "ipaddresses", None);
    let wrong = json!({"metadata": {"name": "192.168.007.1"}, "spec": {"parentRef": parent}});
    refused(addresses.create(&wrong).await, 422, "Invalid");
}

async fn service_cidrs(cluster: Cluster) {
    let condition = json!({
        "type": "Tested", "status": "True", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    cluster_wide(
        "networking.k8s.io/v1",
        "servicecidrs",
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.196.196.0/24"]}}),
    )
    .status(json!({"conditions": [condition]}))
    .with_finalizers()
    .run(&cluster)
    .await;
}

fn service(name: &str, label: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"set": label}},
        "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

async fn service_status(cluster: Cluster) {
    let namespace = cluster.namespace("service").await;
    let label = cluster.unique("service");
    let selector = format!("set={label}");
    let services = cluster.core("services", Some(&namespace));
    let mut watch = cluster.core("services", None).watch(&selector, "").await;
    let mut object = service("one", &label);
    object["spec"]["type"] = json!("LoadBalancer");
    services.create(&object).await.unwrap();
    watch.expect("ADDED").await;
    let read = services.get_sub("one", "status").await.unwrap();
    assert_eq!(read["status"], json!({"loadBalancer": {}}));
    let patch = json!({
        "metadata": {"annotations": {"mark": "patched"}},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
    });
    let patched = services.merge_sub("one", "status", patch).await.unwrap();
    assert_eq!(patched["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");
    watch
        .until("MODIFIED", |o| o["metadata"]["annotations"]["mark"] == "patched")
        .await;
    let mut replacement = patched.clone();
    replacement["status"]["conditions"] = json!([{
        "type": "StatusUpdate", "status": "True", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }]);
    services.replace_sub("status", &replacement).await.unwrap();
    watch
        .until("MODIFIED", |o| o["status"]["conditions"][0]["type"] == "StatusUpdate")
        .await;
    let mark = json!({"metadata": {"labels": {"mark": "main"}}, "status": {"conditions": null}});
    let main = services.patch("one", &kube::api::Patch::Strategic(mark)).await.unwrap();
    assert_eq!(
        main["status"]["conditions"][0]["type"], "StatusUpdate",
        "the main resource writes no status"
    );
    watch
        .until("MODIFIED", |o| o["metadata"]["labels"]["mark"] == "main")
        .await;
    services.delete("one").await.unwrap();
    watch.until("DELETED", |o| o["metadata"]["name"] == "one").await;
}

async fn service_collection(cluster: Cluster) {
    let namespace = cluster.namespace("services").await;
    let label = cluster.unique("services");
    let services = cluster.core("services", Some(&namespace));
    for name in ["a", "b"] {
        services.create(&service(name, &label)).await.unwrap();
    }
    let mut kept = service("kept", "no");
    merge_into(&mut kept, json!({"spec": {"clusterIP": "None"}}));
    services.create(&kept).await.unwrap();
    services.delete_collection(&format!("set={label}")).await.unwrap();
    eventually("only one is left", async || {
        let list = services.list(&ListParams::default()).await.unwrap();
        (names(&list) == ["kept"]).then_some(())
    })
    .await;
}
