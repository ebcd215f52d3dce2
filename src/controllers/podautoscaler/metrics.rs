//! Reads metrics from the APIs for them (upstream: `pkg/controller/podautoscaler/metrics/client.go`).

use super::plan::{Reading, selector_text};
use super::replicas::{PodMetric, PodMetrics, Problem};
use crate::controllers::pods::message_of;
use crate::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, MetricSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use kube::core::Selector;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";
/// What is served of them decides; the newer is preferred.
const CUSTOM: [&str; 2] = [
    "/apis/custom.metrics.k8s.io/v1beta2",
    "/apis/custom.metrics.k8s.io/v1beta1",
];
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

/// A `PodMetrics` of metrics.k8s.io.
#[derive(Deserialize)]
pub(super) struct OfPod {
    metadata: Meta,
    timestamp: Option<Timestamp>,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<OfContainer>,
}

#[derive(Deserialize)]
struct OfContainer {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

/// A `MetricValue` of custom.metrics.k8s.io.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfObject {
    described_object: Meta,
    timestamp: Option<Timestamp>,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

/// An `ExternalMetricValue`.
#[derive(Deserialize)]
struct Series {
    value: String,
}

fn milli(quantity: &str) -> i64 {
    quantity.parse::<Quantity>().map_or(0, Quantity::milli_value)
}

/// The value of a resource of each pod, or of one container of each.
pub(super) fn of_pods(pods: &[OfPod], resource: &str, container: Option<&str>) -> Result<PodMetrics, Problem> {
    let mut all = PodMetrics::new();
    for pod in pods {
        let value = match container {
            Some(name) => {
                let found = pod.containers.iter().find(|one| one.name == name);
                let Some(found) = found else {
                    let (namespace, pod) = (&pod.metadata.namespace, &pod.metadata.name);
                    let text = format!(
                        "failed to get container metrics: container {name} not present in metrics for pod {namespace}/{pod}"
                    );
                    return Err(Problem(text));
                };
                found.usage.get(resource).map(|usage| milli(usage))
            }
            None if pod.containers.is_empty() => None,
            None => {
                let usages = pod.containers.iter().map(|one| Some(milli(one.usage.get(resource)?)));
                usages.sum::<Option<i64>>()
            }
        };
        if let Some(value) = value {
            let metric = PodMetric {
                at: pod.timestamp.unwrap_or_default(),
                window: pod.window.parse().unwrap_or(WINDOW),
                value,
            };
            all.insert(pod.metadata.name.clone(), metric);
        }
    }
    Ok(all)
}

/// Reads what `spec` names; `selector` is that of the target's pods.
pub async fn read(client: &Client, namespace: &str, selector: &str, spec: &MetricSpec) -> Result<Reading, Problem> {
    if let Some(source) = &spec.resource {
        return resource(client, namespace, selector, &source.name, None).await;
    }
    if let Some(source) = &spec.container_resource {
        return resource(client, namespace, selector, &source.name, Some(&source.container)).await;
    }
    if let Some(source) = &spec.pods {
        return custom(
            client,
            namespace,
            selector,
            &source.metric.name,
            source.metric.selector.as_ref(),
        )
        .await;
    }
    if let Some(source) = &spec.object {
        let object = &source.described_object;
        let read = object_metric(
            client,
            namespace,
            object,
            &source.metric.name,
            source.metric.selector.as_ref(),
        )
        .await;
        return read.map_err(|why| Problem(format!("{namespace} {}/{why}", object.name)));
    }
    if let Some(source) = &spec.external {
        let (name, selector) = (&source.metric.name, source.metric.selector.as_ref());
        let read = external(client, namespace, name, selector).await;
        return read.map_err(|why| {
            let shown = selector_text(selector);
            Problem(format!(
                "unable to get external metric {namespace}/{name}/{shown}: {why}"
            ))
        });
    }
    Err(Problem("no metric source".to_owned()))
}

async fn resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Reading, Problem> {
    let api = "resource metrics API";
    let path = format!("{RESOURCE}/namespaces/{namespace}/pods");
    let list: List<OfPod> = get(
        client,
        api,
        "pods.metrics.k8s.io",
        &path,
        &[("labelSelector", selector)],
    )
    .await?;
    if list.items.is_empty() {
        return Err(Problem(format!("no metrics returned from {api}")));
    }
    of_pods(&list.items, resource, container).map(Reading::Pods)
}

async fn custom(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &str,
    of_metric: Option<&LabelSelector>,
) -> Result<Reading, Problem> {
    let api = "custom metrics API";
    let path = format!("namespaces/{namespace}/pods/*/{metric}");
    let metric_selector = label_text(of_metric)?;
    let query = [("labelSelector", selector), ("metricLabelSelector", &metric_selector)];
    let list: List<OfObject> = get_custom(client, api, "pods.custom.metrics.k8s.io", &path, &query).await?;
    if list.items.is_empty() {
        return Err(Problem(format!("no metrics returned from {api}")));
    }
    let metric = |one: OfObject| {
        let metric = PodMetric {
            at: one.timestamp.unwrap_or_default(),
            window: one.window_seconds.map_or(WINDOW, SignedDuration::from_secs),
            value: milli(&one.value),
        };
        (one.described_object.name, metric)
    };
    Ok(Reading::Pods(list.items.into_iter().map(metric).collect()))
}

async fn object_metric(
    client: &Client,
    namespace: &str,
    object: &CrossVersionObjectReference,
    metric: &str,
    of_metric: Option<&LabelSelector>,
) -> Result<Reading, Problem> {
    let api = "custom metrics API";
    let unreadable = |why: String| Problem(format!("unable to fetch metrics from {api}: {why}"));
    let metric_selector = label_text(of_metric)?;
    let group_version = object.api_version.as_deref().unwrap_or_default();
    let group = group_version.split_once('/').map_or("", |(group, _)| group);
    let (path, shown) = if object.kind == "Namespace" && group.is_empty() {
        (
            format!("namespaces/{namespace}/metrics/{metric}"),
            "namespaces".to_owned(),
        )
    } else {
        let resource = super::target::resource(client, group_version, &object.kind).await;
        let resource = resource.map_err(|error| unreadable(error.0))?;
        let qualified = match group {
            "" => resource.plural,
            group => format!("{}.{group}", resource.plural),
        };
        let path = format!("namespaces/{namespace}/{qualified}/{}/{metric}", object.name);
        (path, qualified)
    };
    let shown = format!("{shown}.custom.metrics.k8s.io {metric}");
    let query = [("metricLabelSelector", metric_selector.as_str())];
    let list: List<OfObject> = get_custom(client, api, &shown, &path, &query).await?;
    match list.items.as_slice() {
        [one] => Ok(Reading::Value(milli(&one.value))),
        [] => Err(unreadable("no metrics returned".to_owned())),
        _ => Err(unreadable(
            "the custom metrics API server returned more than one value".to_owned(),
        )),
    }
}

async fn external(
    client: &Client,
    namespace: &str,
    metric: &str,
    of_metric: Option<&LabelSelector>,
) -> Result<Reading, Problem> {
    let api = "external metrics API";
    let path = format!("{EXTERNAL}/namespaces/{namespace}/{metric}");
    let selector = label_text(of_metric)?;
    let shown = format!("{metric}.external.metrics.k8s.io");
    let list: List<Series> = get(client, api, &shown, &path, &[("labelSelector", &selector)]).await?;
    if list.items.is_empty() {
        return Err(Problem(format!("no metrics returned from {api}")));
    }
    let values = list.items.iter().map(|series| milli(&series.value));
    Ok(Reading::Value(values.fold(0, i64::saturating_add)))
}

fn label_text(selector: Option<&LabelSelector>) -> Result<String, Problem> {
    let Some(selector) = selector else {
        return Ok(String::new());
    };
    let selector: Selector = selector
        .clone()
        .try_into()
        .map_err(|error| Problem(format!("{error}")))?;
    Ok(selector.to_string())
}

/// From the newest version of the custom metrics API that is served.
async fn get_custom<T: DeserializeOwned>(
    client: &Client,
    api: &str,
    resource: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<T, Problem> {
    let mut missing = None;
    for version in CUSTOM {
        match ask(client, api, resource, &format!("{version}/{path}"), query).await {
            Err(Unread::Unserved(problem)) => missing = Some(problem),
            Err(Unread::Failed(problem)) => return Err(problem),
            Ok(found) => return Ok(found),
        }
    }
    Err(missing.unwrap_or_else(|| unserved(api, resource)))
}

async fn get<T: DeserializeOwned>(
    client: &Client,
    api: &str,
    resource: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<T, Problem> {
    ask(client, api, resource, path, query)
        .await
        .map_err(|unread| match unread {
            Unread::Unserved(problem) | Unread::Failed(problem) => problem,
        })
}

enum Unread {
    /// Nobody serves this version.
    Unserved(Problem),
    Failed(Problem),
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    api: &str,
    resource: &str,
    path: &str,
    query: &[(&str, &str)],
) -> Result<T, Unread> {
    let given = query.iter().filter(|(_, value)| !value.is_empty());
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given)
        .finish();
    let unreadable = |why: String| Unread::Failed(Problem(format!("unable to fetch metrics from {api}: {why}")));
    let request = http::Request::get(format!("{path}?{query}")).body(Vec::new());
    let request = request.map_err(|error| unreadable(error.to_string()))?;
    let result = client.request(request).await;
    result.map_err(|error| match &error {
        // A metric that is not there has a reason or details.
        kube::Error::Api(status) if status.code == 404 && (status.reason != "NotFound" || status.details.is_none()) => {
            Unread::Unserved(unserved(api, resource))
        }
        _ => unreadable(message_of(&error)),
    })
}

fn unserved(api: &str, resource: &str) -> Problem {
    let why = format!("the server could not find the requested resource (get {resource})");
    Problem(format!("unable to fetch metrics from {api}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The window is called otherwise in the older version.
    #[test]
    fn both_versions_of_custom_metrics() {
        for window in ["window", "windowSeconds"] {
            let mut value = json!({"describedObject": {"kind": "Pod", "name": "a", "namespace": "n"}, "value": "1500m",
                "timestamp": "2024-01-01T00:00:00Z"});
            value[window] = json!(30);
            let value: OfObject = serde_json::from_value(value).unwrap();
            assert_eq!((milli(&value.value), value.window_seconds), (1500, Some(30)));
        }
    }

    #[test]
    fn values_of_pods() {
        let pods: Vec<OfPod> = serde_json::from_value(json!([
            {"metadata": {"name": "a", "namespace": "n"}, "timestamp": "2024-01-01T00:00:00Z", "window": "15.5s", "containers": [
                {"name": "x", "usage": {"cpu": "250m", "memory": "1Mi"}}, {"name": "y", "usage": {"cpu": "1"}}]},
            {"metadata": {"name": "b", "namespace": "n"}, "timestamp": "2024-01-01T00:00:00Z", "window": "15s", "containers": []},
        ]))
        .unwrap();
        let cpu = of_pods(&pods, "cpu", None).unwrap();
        assert_eq!(cpu.len(), 1);
        assert_eq!((cpu["a"].value, cpu["a"].window.as_millis()), (1250, 15_500));
        assert_eq!(of_pods(&pods, "memory", None).unwrap().len(), 0);
        let one = of_pods(&pods[..1], "cpu", Some("y")).unwrap();
        assert_eq!(one["a"].value, 1000);
        let text = "failed to get container metrics: container y not present in metrics for pod n/b";
        assert_eq!(of_pods(&pods, "cpu", Some("y")), Err(Problem(text.to_owned())));
    }
}
