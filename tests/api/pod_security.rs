//! Levels of pod security by the labels of namespaces, and the place of a node in the labels of its pods.

use crate::harness::{Answer, Server, pod};
use serde_json::{Value, json};

const NAMESPACES: &str = "/api/v1/namespaces";
const LABEL: &str = "pod-security.kubernetes.io";

async fn namespace(server: &Server, name: &str, labels: Value) -> String {
    let body = json!({"metadata": {"name": name, "labels": labels}});
    server.post(NAMESPACES, body).await.expect(201);
    // No controller runs that would make it.
    let account = json!({"metadata": {"name": "default"}});
    let accounts = format!("{NAMESPACES}/{name}/serviceaccounts");
    server.post(&accounts, account).await.expect(201);
    format!("{NAMESPACES}/{name}/pods")
}

/// All warnings, without the quoting of headers.
fn warned(answer: &Answer) -> String {
    answer.warnings().join("\n").replace("\\\"", "\"")
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

#[tokio::test]
async fn what_a_level_forbids_is_refused_and_what_another_would_is_warned_of() {
    let server = Server::start().await;
    let labels = json!({format!("{LABEL}/enforce"): "baseline", format!("{LABEL}/warn"): "restricted"});
    let pods = namespace(&server, "guarded", labels).await;
    let refused = server.post(&pods, privileged("strong")).await.failure(403, "Forbidden");
    let container = pod("x")["spec"]["containers"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!(
        refused["message"],
        format!(
            "pods \"strong\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"{container}\" \
             must not set securityContext.privileged=true)"
        )
    );
    let made = server.post(&pods, pod("plain")).await;
    made.expect(201);
    let begin = "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container ";
    assert!(warned(&made).contains(begin), "{}", warned(&made));
    // A change that does not matter is no occasion.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = server.patch(&format!("{pods}/plain"), "merge", label).await;
    changed.expect(200);
    assert!(changed.warnings().is_empty());
    // Whoever makes pods is warned, but not refused.
    let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": privileged("x")["spec"]}}});
    job["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    let made = server.post("/apis/batch/v1/namespaces/guarded/jobs", job).await;
    made.expect(201);
    assert!(
        made.warnings()
            .iter()
            .any(|text| text.contains("privileged (container "))
    );
}

#[tokio::test]
async fn a_namespace_tells_which_pods_break_its_new_level() {
    let server = Server::start().await;
    let pods = namespace(&server, "open", json!({})).await;
    for name in ["b", "a", "c"] {
        server.post(&pods, privileged(name)).await.expect(201);
    }
    let uri = format!("{NAMESPACES}/open");
    let wrong = json!({"metadata": {"labels": {format!("{LABEL}/enforce"): "strict"}}});
    let status = server.patch(&uri, "merge", wrong).await.failure(422, "Invalid");
    assert_eq!(
        status["message"],
        "Namespace \"open\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": \
         must be one of privileged, baseline, restricted"
    );
    let label = json!({"metadata": {"labels": {format!("{LABEL}/enforce"): "baseline"}}});
    let changed = server.patch(&uri, "merge", label).await;
    changed.expect(200);
    let warnings = changed.warnings().join("\n");
    assert!(
        warnings.contains("violate the new PodSecurity enforce level")
            && warnings.contains("a (and 2 other pods): privileged"),
        "{warnings}"
    );
}

#[tokio::test]
async fn a_pod_says_in_which_zone_its_node_is() {
    let server = Server::start().await;
    let zone = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    let node = json!({"metadata": {"name": "n", "labels": zone}});
    server.post("/api/v1/nodes", node).await.expect(201);
    let pods = namespace(&server, "placed", json!({})).await;
    let mut assigned = pod("assigned");
    assigned["spec"]["nodeName"] = json!("n");
    let made = server.post(&pods, assigned).await.expect(201);
    let place = json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"});
    assert_eq!(made["metadata"]["labels"], place);
    server.post(&pods, pod("bound")).await.expect(201);
    let binding = json!({"metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n"}});
    server.post(&format!("{pods}/bound/binding"), binding).await.expect(201);
    let bound = server.get(&format!("{pods}/bound")).await.expect(200);
    assert_eq!(bound["metadata"]["labels"], place);
}
