//! Lists in pages and as tables.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::names;
use crate::resource::{items, revision};
use crate::runner::{Test, test};
use kube::api::ListParams;
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls",
            chunks,
        ),
        test(
            "[sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent",
            chunks_of_a_forgotten_revision,
        ),
        test(
            "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata",
            no_table_of_a_review,
        ),
    ]
}

const TOTAL: usize = 40;

fn template(index: usize) -> Value {
    json!({
        "metadata": {"name": format!("template-{index:04}")},
        "template": {"spec": {"containers": [{"name": "main", "image": "registry.example/pause:1"}]}},
    })
}

async fn chunks(cluster: Cluster) {
    let namespace = cluster.namespace("chunks").await;
    let templates = cluster.core("podtemplates", Some(&namespace));
    for index in 0..TOTAL {
        templates.create(&template(index)).await.unwrap();
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
                let late = template(9999);
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

/// On a server of its own, whose history is short.
async fn chunks_of_a_forgotten_revision(_: Cluster) {
    let cluster = Cluster::start_with(&[("KRUST_STORAGE__HISTORY_EVENTS_MAX", "20")]).await;
    let templates = cluster.core("podtemplates", Some("default"));
    for index in 0..TOTAL {
        templates.create(&template(index)).await.unwrap();
    }
    let first = templates
        .list(&ListParams::default().limit(TOTAL as u32 / 4))
        .await
        .unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut late = TOTAL;
    let expired = eventually("the first page's revision is forgotten", async || {
        for _ in 0..10 {
            late += 1;
            templates.create(&template(late)).await.unwrap();
        }
        let next = ListParams::default().limit(10).continue_token(&token);
        templates.list(&next).await.err()
    })
    .await;
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    // The failure carries a token with which one can go on, in what there is now.
    let mut token = expired
        .metadata
        .and_then(|metadata| metadata.continue_)
        .expect("a token");
    let mut seen = names(&first);
    let mut at = None;
    while !token.is_empty() {
        let next = ListParams::default().limit(10).continue_token(&token);
        let page = templates.list(&next).await.unwrap();
        assert_ne!(revision(&page), revision(&first));
        assert_eq!(
            at.get_or_insert_with(|| revision(&page)),
            &revision(&page),
            "consistent from here on"
        );
        seen.extend(names(&page));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    let wanted: Vec<String> = (0..TOTAL)
        .chain(TOTAL + 1..=late)
        .map(|index| format!("template-{index:04}"))
        .collect();
    assert_eq!(seen, wanted);
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
