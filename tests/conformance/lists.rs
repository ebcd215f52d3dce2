//! Lists in pages and as tables.

use crate::cluster::{Cluster, refused};
use crate::lifecycle::names;
use crate::resource::{items, revision};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::json;

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls",
            chunks,
        ),
        test(
            "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata",
            no_table_of_a_review,
        ),
    ]
}

const TOTAL: usize = 40;

async fn chunks(cluster: Cluster) {
    let namespace = cluster.namespace("chunks").await;
    let templates = cluster.core("podtemplates", Some(&namespace));
    for index in 0..TOTAL {
        let template = json!({
            "metadata": {"name": format!("template-{index:04}")},
            "template": {"spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]}},
        });
        templates.create(&template).await.unwrap();
    }
    // Three times: pages are of one revision, each continues the one before, and nothing is left out.
    for limit in [1, 7, 16] {
        let (mut seen, mut wrote) = (Vec::new(), false);
        let mut at = None;
        let mut parameters = ListParams::default().limit(limit);
        loop {
            let page = templates.list(&parameters).await.unwrap();
            assert!(items(&page).len() <= limit as usize);
            let revision = revision(&page);
            assert_eq!(at.get_or_insert_with(|| revision.clone()), &revision);
            seen.extend(names(&page));
            let token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
            let remaining = page["metadata"]["remainingItemCount"].as_u64();
            if token.is_empty() {
                assert_eq!(remaining, None);
                break;
            }
            assert_eq!(remaining, Some((TOTAL - seen.len()) as u64));
            // A write between two pages is not seen.
            if seen.len() >= 7 && !wrote {
                wrote = true;
                let late = json!({
                    "metadata": {"name": "template-9999"},
                    "template": {"spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]}},
                });
                templates.create(&late).await.unwrap();
            }
            parameters = ListParams::default().limit(limit).continue_token(&token);
        }
        let wanted: Vec<String> = (0..TOTAL).map(|index| format!("template-{index:04}")).collect();
        assert_eq!(seen, wanted, "pages of {limit}");
        assert!(wrote, "a write came between two pages");
        templates.delete("template-9999").await.unwrap();
    }
    let whole = templates.list(&ListParams::default()).await.unwrap();
    assert_eq!(items(&whole).len(), TOTAL);
    assert!(whole["metadata"].get("continue").is_none());
    let bad = ListParams::default().limit(2).continue_token("no-token");
    let status = refused(templates.list(&bad).await, 400, "BadRequest");
    assert!(status.message.contains("invalid continue token"), "{}", status.message);
}

async fn no_table_of_a_review(cluster: Cluster) {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}},
    });
    let headers = [
        ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        ("content-type", "application/json"),
    ];
    let uri = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let status = cluster
        .send("POST", uri, &headers, review.to_string())
        .await
        .expect(406);
    assert_eq!(status["reason"], "NotAcceptable");
    assert_eq!(status["kind"], "Status");
}
