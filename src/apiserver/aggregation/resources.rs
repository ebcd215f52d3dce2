//! What another server serves, as it tells in its own discovery and OpenAPI documents
//! (upstream: `kube-aggregator/pkg/apiserver/handler_discovery.go`, `pkg/controllers/openapi/aggregator`).

use super::ask::{self, Answer};
use super::document;
use super::services::ApiService;
use crate::apiserver::openapi::Document;
use crate::transport::extension::{Destination, ExtensionClient};
use bytes::Bytes;
use poem::http::{StatusCode, header};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";

/// What is known of a group-version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// As in aggregated discovery. None: the server has not told yet, or does not any more.
    resources: Option<Arc<[Value]>>,
    is_stale: bool,
    /// Of the document that the resources stand in.
    etag: String,
    /// Where its document of OpenAPI version 3 is: `apis/example.com/v1` and a path with its hash.
    pub document_url: Option<(String, String)>,
    pub swagger: Option<Swagger>,
    /// The document of version 3 that is made from that of version 2, where the server has none.
    pub document: Option<(String, Document)>,
}

/// A document of OpenAPI version 2.
#[derive(Clone, Debug)]
pub struct Swagger {
    /// `example.com/v1`: only this part is the APIService's.
    pub group_version: String,
    pub json: Bytes,
    etag: String,
}

impl PartialEq for Swagger {
    fn eq(&self, other: &Self) -> bool {
        (&self.group_version, &self.json) == (&other.group_version, &other.json)
    }
}

impl Known {
    /// The same, when the server cannot be asked any more.
    pub fn stale(&self) -> Self {
        Self {
            is_stale: true,
            etag: String::new(),
            ..self.clone()
        }
    }
}

/// A version in aggregated discovery; `known` is None before its server was asked.
pub fn version(version: &str, known: Option<&Known>) -> Value {
    let resources = known.and_then(|known| known.resources.as_deref());
    let is_fresh = known.is_some_and(|known| !known.is_stale);
    let freshness = if is_fresh { "Current" } else { "Stale" };
    match resources {
        Some(resources) if !resources.is_empty() => {
            json!({ "version": version, "resources": resources, "freshness": freshness })
        }
        _ => json!({ "version": version, "freshness": freshness }),
    }
}

/// Asks a server. What it has no documents of stays out; Err: it cannot be asked what it serves.
pub async fn learn(
    client: &ExtensionClient,
    to: &Destination,
    service: &ApiService,
    before: Option<&Known>,
) -> Result<Known, String> {
    let (group, version) = (service.group.as_str(), service.version.as_str());
    let (served, index, swagger) = tokio::join!(
        serves(client, to, group, version, before),
        ask::get(client, to, "/openapi/v3", JSON, None),
        swagger(client, to, service, before),
    );
    let (resources, etag) = served?;
    let key = format!("apis/{group}/{version}");
    let index = index.ok();
    let has_none = index
        .as_ref()
        .is_some_and(|answer| answer.status == StatusCode::NOT_FOUND);
    let document = match &swagger {
        Some(swagger) if has_none => described(&key, swagger, before).await,
        _ => None,
    };
    let url = index.filter(|answer| answer.status.is_success()).and_then(|answer| {
        let index: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(index["paths"][&key]["serverRelativeURL"].as_str()?.to_owned())
    });
    Ok(Known {
        resources: Some(resources),
        is_stale: false,
        etag,
        document_url: url.map(|url| (key, url)),
        swagger,
        document,
    })
}

/// The document of version 3 that says what that of version 2 says; None if that cannot be read.
async fn described(key: &str, swagger: &Swagger, before: Option<&Known>) -> Option<(String, Document)> {
    let known = before.filter(|before| before.swagger.as_ref() == Some(swagger));
    if let Some(made) = known.and_then(|before| before.document.clone()) {
        return Some(made);
    }
    // Converting and compressing a large one takes long enough to hold up others.
    let json = swagger.json.clone();
    let made = tokio::task::spawn_blocking(move || {
        let swagger: Value = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        Document::json(&document::from_swagger(&swagger)).map_err(|error| error.to_string())
    });
    match made.await.map_err(|error| error.to_string()).flatten() {
        Ok(made) => Some((key.to_owned(), made)),
        Err(error) => {
            tracing::warn!(
                error,
                key,
                "another server's OpenAPI of version 2 cannot be said in version 3"
            );
            None
        }
    }
}

/// The resources of a group-version, and the tag of the document that says so.
async fn serves(
    client: &ExtensionClient,
    to: &Destination,
    group: &str,
    version: &str,
    before: Option<&Known>,
) -> Result<(Arc<[Value]>, String), String> {
    let known = before.and_then(|before| Some((before.resources.clone()?, before.etag.as_str())));
    let known = known.filter(|(_, etag)| !etag.is_empty());
    let tag = known.as_ref().map(|(_, etag)| *etag);
    let answer = ask::get(client, to, "/apis", AGGREGATED, tag).await?;
    if let Some((resources, etag)) = known
        && answer.status == StatusCode::NOT_MODIFIED
    {
        return Ok((resources, etag.to_owned()));
    }
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(unsuccessful(&answer));
    }
    // Who does not know the aggregated form answers with the old one, or not at all.
    let is_aggregated = answer.header(header::CONTENT_TYPE).contains("as=APIGroupDiscoveryList");
    if answer.status.is_success() && is_aggregated {
        let document = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let etag = answer.header(header::ETAG).to_owned();
        return Ok((of_version(&document, group, version).into(), etag));
    }
    let answer = ask::get(client, to, &format!("/apis/{group}/{version}"), JSON, None).await?;
    if !answer.status.is_success() {
        return Err(unsuccessful(&answer));
    }
    let document = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
    Ok((converted(&document, group, version).into(), String::new()))
}

fn unsuccessful(answer: &Answer) -> String {
    format!("the answer is {}", answer.status)
}

async fn swagger(
    client: &ExtensionClient,
    to: &Destination,
    service: &ApiService,
    before: Option<&Known>,
) -> Option<Swagger> {
    let before = before.and_then(|before| before.swagger.as_ref());
    let tag = before.map(|before| before.etag.as_str()).filter(|tag| !tag.is_empty());
    let answer = ask::get(client, to, "/openapi/v2", JSON, tag).await.ok()?;
    if answer.status == StatusCode::NOT_MODIFIED {
        return before.cloned();
    }
    answer.status.is_success().then(|| Swagger {
        group_version: format!("{}/{}", service.group, service.version),
        etag: answer.header(header::ETAG).to_owned(),
        json: answer.body,
    })
}

/// The resources of one version in an aggregated document.
fn of_version(document: &Value, group: &str, version: &str) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let groups = list(&document["items"]);
    let group = groups.iter().find(|found| found["metadata"]["name"] == group);
    let versions = group.map(|group| list(&group["versions"])).unwrap_or_default();
    let found = versions.iter().find(|found| found["version"] == version);
    found.map(|found| list(&found["resources"])).unwrap_or_default()
}

/// The resources of an APIResourceList in the aggregated form (upstream: `ConvertAPIResourcesToDiscovery`).
fn converted(document: &Value, group: &str, version: &str) -> Vec<Value> {
    let all = document["resources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |resource: &Value, field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    // Group and version stand there only where they are others.
    let response_kind = |resource: &Value| {
        let or = |field: &str, own: &str| match text(resource, field) {
            text if text.is_empty() => own.to_owned(),
            text => text,
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": text(resource, "kind")})
    };
    let mut resources: Vec<Map<String, Value>> = Vec::new();
    let scope = |resource: &Value| match resource["namespaced"] == true {
        true => "Namespaced",
        false => "Cluster",
    };
    for resource in all.iter().filter(|resource| !text(resource, "name").contains('/')) {
        let mut converted = Map::new();
        converted.insert("resource".into(), resource["name"].clone());
        converted.insert("responseKind".into(), response_kind(resource));
        converted.insert("scope".into(), scope(resource).into());
        converted.insert("singularResource".into(), text(resource, "singularName").into());
        for field in ["verbs", "shortNames", "categories"] {
            if resource[field].is_array() {
                converted.insert(field.into(), resource[field].clone());
            }
        }
        resources.push(converted);
    }
    for resource in all {
        let name = text(resource, "name");
        let Some((parent, subresource)) = name.split_once('/') else {
            continue;
        };
        let known = resources.iter().position(|resource| resource["resource"] == parent);
        // Some parents are nothing by themselves.
        let place = known.unwrap_or_else(|| {
            let parent = json!({"resource": parent, "scope": scope(resource), "singularResource": "", "verbs": []});
            resources.extend(parent.as_object().cloned());
            resources.len() - 1
        });
        let converted = json!({
            "subresource": subresource, "responseKind": response_kind(resource), "verbs": resource["verbs"],
        });
        if let Some(Value::Array(all)) = resources
            .get_mut(place)
            .map(|parent| parent.entry("subresources").or_insert_with(|| json!([])))
        {
            all.push(converted);
        }
    }
    resources.into_iter().map(Value::Object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_lists_become_new_ones() {
        let list = json!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1", "resources": [
            {"name": "fischers", "singularName": "fischer", "namespaced": false, "kind": "Fischer", "verbs": ["list"]},
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["get"], "shortNames": ["fl"], "categories": ["all"]},
            {"name": "flunders/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1",
                "kind": "Scale", "verbs": ["get"]},
            {"name": "reports/run", "namespaced": true, "kind": "Report", "verbs": ["create"]},
        ]});
        let own = |kind: &str| json!({"group": "wardle.example.com", "version": "v1", "kind": kind});
        assert_eq!(
            json!(converted(&list, "wardle.example.com", "v1")),
            json!([
                {"resource": "fischers", "responseKind": own("Fischer"), "scope": "Cluster",
                    "singularResource": "fischer", "verbs": ["list"]},
                {"resource": "flunders", "responseKind": own("Flunder"), "scope": "Namespaced",
                    "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"], "categories": ["all"],
                    "subresources": [{"subresource": "scale", "verbs": ["get"],
                        "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]},
                {"resource": "reports", "scope": "Namespaced", "singularResource": "", "verbs": [],
                    "subresources": [{"subresource": "run", "responseKind": own("Report"), "verbs": ["create"]}]},
            ])
        );
    }

    #[test]
    fn only_the_own_version_of_a_document_counts() {
        let document = json!({"items": [
            {"metadata": {"name": "a.example.com"}, "versions": [{"version": "v1", "resources": [{"resource": "as"}]}]},
            {"metadata": {"name": "b.example.com"}, "versions": [
                {"version": "v1", "resources": [{"resource": "bs"}]}, {"version": "v2", "resources": []},
            ]},
        ]});
        assert_eq!(
            of_version(&document, "b.example.com", "v1"),
            [json!({"resource": "bs"})]
        );
        assert_eq!(of_version(&document, "b.example.com", "v2"), [] as [Value; 0]);
        assert_eq!(of_version(&document, "c.example.com", "v1"), [] as [Value; 0]);
    }

    #[test]
    fn what_is_not_known_or_not_any_more_is_stale() {
        let known = Known {
            resources: Some([json!({"resource": "as"})].into()),
            ..Known::default()
        };
        let fresh = json!({"version": "v1", "resources": [{"resource": "as"}], "freshness": "Current"});
        assert_eq!(version("v1", Some(&known)), fresh);
        assert_eq!(version("v1", Some(&known.stale()))["freshness"], "Stale");
        assert_eq!(version("v1", Some(&known.stale()))["resources"], fresh["resources"]);
        assert_eq!(version("v1", None), json!({"version": "v1", "freshness": "Stale"}));
    }
}
