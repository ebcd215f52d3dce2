//! Services: EndpointSlices, Endpoints, and slices that mirror Endpoints of somebody else.

use super::*;

const SLICES: Kind = ("discovery.k8s.io/v1", "endpointslices");
const ENDPOINTS: Kind = ("v1", "endpoints");

pub async fn begin(cluster: &Cluster) {
    let web = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    cluster.create(SERVICES, web).await;
    let outside = json!({"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}});
    cluster.create(SERVICES, outside).await;
    let outside = json!({"metadata": {"name": "outside"}, "subsets": subsets(&["192.0.2.1"])});
    cluster.create(ENDPOINTS, outside).await;
}

fn subsets(addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!([{"addresses": addresses, "ports": [{"port": 80}]}])
}

pub async fn change(cluster: &Cluster) {
    let more = json!({"subsets": subsets(&["192.0.2.2", "192.0.2.3"])});
    cluster.patch(ENDPOINTS, "outside", more).await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let slices = cluster.list(SLICES).await;
    let of = |service: &str| -> Vec<Value> {
        let slices = slices
            .iter()
            .filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
        slices
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
            .collect()
    };
    let pods = cluster.list(PODS).await;
    let web = of_app(&pods, "web");
    let mut served: Vec<Value> = of("web")
        .iter()
        .map(|endpoint| endpoint["targetRef"]["name"].clone())
        .collect();
    served.sort_by_key(Value::to_string);
    wrong.expect("pods in web's slices", json!(served), names(web.iter().copied()));
    let unready = of("web")
        .iter()
        .filter(|endpoint| endpoint["conditions"]["ready"] != true)
        .count();
    wrong.expect("endpoints of web that are not ready", unready, 0);

    let endpoints = cluster.get(ENDPOINTS, "web").await;
    let addresses = endpoints["subsets"][0]["addresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut served: Vec<Value> = addresses
        .iter()
        .map(|address| address["targetRef"]["name"].clone())
        .collect();
    served.sort_by_key(Value::to_string);
    wrong.expect("pods in web's Endpoints", json!(served), names(web));

    let mut mirrored: Vec<Value> = of("outside")
        .iter()
        .map(|endpoint| endpoint["addresses"].clone())
        .collect();
    mirrored.sort_by_key(Value::to_string);
    wrong.expect(
        "what is mirrored",
        json!(mirrored),
        json!([["192.0.2.2"], ["192.0.2.3"]]),
    );
}
