//! Devices that a rule taints: the pod that does not bear that leaves them, and the rule says so. A pod that asks for an
//! extended resource gets devices, too.

use super::*;
use std::time::{Duration, Instant};

const CLASSES: Kind = ("resource.k8s.io/v1", "deviceclasses");
const SLICES: Kind = ("resource.k8s.io/v1", "resourceslices");
const RULES: Kind = ("resource.k8s.io/v1", "devicetaintrules");
pub const RESOURCE_CLAIMS: Kind = ("resource.k8s.io/v1", "resourceclaims");
const DRIVER: &str = "devices.example.com";
const TAINT: &str = "test/broken";
/// The pods, each with a claim of its name; the second one bears the taint, the third asks for an extended resource.
const USERS: [&str; 3] = ["fragile", "sturdy", "extended"];
const WAITS_MAX: Duration = Duration::from_secs(120);

pub async fn begin(cluster: &Cluster) {
    let class = json!({"metadata": {"name": "plain"}, "spec": {"extendedResourceName": "example.com/plain"}});
    cluster.create(CLASSES, class).await;
    let node = "hollow-0000";
    let devices = [json!({"name": "x0"}), json!({"name": "x1"}), json!({"name": "x2"})];
    let slice = json!({"metadata": {"name": "plain"}, "spec": {"driver": DRIVER, "nodeName": node, "devices": devices,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}});
    cluster.create(SLICES, slice).await;
    let bears = json!([{"key": TAINT, "operator": "Exists", "effect": "NoExecute"}]);
    for (name, tolerations) in USERS.into_iter().zip([json!([]), bears]) {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "plain", "tolerations": tolerations}});
        let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}});
        cluster.create(RESOURCE_CLAIMS, claim).await;
        let mut user = named(name, pod("bare-with-device"));
        user["spec"]["resourceClaims"] = json!([{"name": "d", "resourceClaimName": name}]);
        cluster.create(PODS, user).await;
    }
    let mut user = named(USERS[2], pod("bare-with-device"));
    let one = json!({"example.com/plain": "1"});
    user["spec"]["containers"][0]["resources"] = json!({"requests": one, "limits": one});
    cluster.create(PODS, user).await;
}

pub async fn change(cluster: &Cluster) {
    // Nobody would get a device that is tainted before.
    let began = Instant::now();
    for name in USERS {
        while cluster.get(PODS, name).await["status"]["phase"] != "Running" {
            assert!(began.elapsed() < WAITS_MAX, "{name} does not run with its device");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let taint = json!({"key": TAINT, "effect": "NoExecute"});
    let rule = json!({"metadata": {"name": "broken"}, "spec": {"deviceSelector": {"driver": DRIVER}, "taint": taint}});
    cluster.create(RULES, rule).await;
}

pub async fn wrong(cluster: &Cluster, wrong: &mut Wrong) {
    let pods = cluster.list(PODS).await;
    wrong.expect(
        "pods with devices",
        names(of_app(&pods, "bare-with-device")),
        json!(["sturdy"]),
    );
    for (name, users) in [("fragile", 0), ("sturdy", 1)] {
        let status = &cluster.get(RESOURCE_CLAIMS, name).await["status"];
        let count = status["reservedFor"].as_array().map_or(0, Vec::len);
        wrong.expect(&format!("users of the claim {name}"), count, users);
        let has_devices = !status["allocation"].is_null();
        wrong.expect(&format!("that the claim {name} has devices"), has_devices, users > 0);
    }
    let claims = cluster.list(RESOURCE_CLAIMS).await;
    wrong.expect("claims", names(&claims), json!(["fragile", "sturdy"]));
    let rule = cluster.get(RULES, "broken").await;
    wrong.expect(
        "EvictionInProgress",
        condition(&rule, "EvictionInProgress").clone(),
        "False",
    );
}

pub async fn end(cluster: &Cluster) {
    cluster.delete(PODS, USERS[1]).await;
    for name in [USERS[0], USERS[1]] {
        cluster.delete(RESOURCE_CLAIMS, name).await;
    }
}
