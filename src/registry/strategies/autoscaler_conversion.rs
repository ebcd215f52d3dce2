//! HorizontalPodAutoscalers in autoscaling/v1: the objects of v2 in a form that knows one CPU target; the rest is
//! carried in annotations, so that nothing is lost on the way there and back
//! (upstream: `pkg/apis/autoscaling/{,v1/}conversion.go`).

use super::cluster::horizontal_pod_autoscaler;
use super::stored::Stored;
use crate::registry::field::FieldError;
use crate::registry::json::{at, child, child_or_new, default_to, integer, map, number, text};
use crate::registry::strategy::{Column, Object, Strategy, Target, default_prepare_for_update};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CPU_PERCENT: i64 = 80;

/// The strategy of the v1 row: that of v2, seen through the conversion.
pub struct AutoscalerInV1 {
    stored: Stored,
}

pub fn strategy() -> AutoscalerInV1 {
    AutoscalerInV1 {
        stored: horizontal_pod_autoscaler(),
    }
}

impl AutoscalerInV1 {
    fn converted(&self, object: &Object) -> Object {
        let mut object = object.clone();
        to_stored(&mut object);
        object
    }
}

impl Strategy for AutoscalerInV1 {
    fn has_generation(&self) -> bool {
        self.stored.has_generation()
    }

    fn default(&self, object: &mut Object) {
        default_to(child_or_new(object, "spec"), "minReplicas", 1);
    }

    fn prepare_for_create(&self, object: &mut Object) {
        object.insert("status".into(), json!({"currentReplicas": 0, "desiredReplicas": 0}));
    }

    fn prepare_for_update(&self, object: &mut Object, old: &Object, target: Target) {
        default_prepare_for_update(object, old, target);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        self.stored.validate(&self.converted(object))
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        self.stored.validate_create(&self.converted(object))
    }

    fn validate_update(&self, object: &Object, old: &Object, target: Target) -> Vec<FieldError> {
        self.stored
            .validate_update(&self.converted(object), &self.converted(old), target)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        let old = old.map(|old| self.converted(old));
        self.stored.warnings(&self.converted(object), old.as_ref())
    }

    fn columns(&self) -> Vec<Column> {
        self.stored.columns()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        self.stored.cells(&self.converted(object), now)
    }

    fn convert_to_storage(&self, object: &mut Object) {
        to_stored(object);
        // What v2 defaults beyond what v1 knows (behavior's windows) is in the stored form, too.
        self.stored.default(object);
    }

    fn convert_from_storage(&self, object: &mut Object) {
        from_stored(object);
    }
}

fn is_cpu(metric: &Object) -> bool {
    text(metric, &["type"]) == "Resource" && text(metric, &["resource", "name"]) == "cpu"
}

// From v2.

fn from_stored(object: &mut Object) {
    let mut notes: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = child(object, "spec") {
        let metrics = spec.remove("metrics").unwrap_or_default();
        let metrics: Vec<Object> = take_objects(metrics);
        let percent = |metric: &Object| integer(metric, &["resource", "target", "averageUtilization"]);
        if let Some(percent) = metrics.iter().find(|metric| is_cpu(metric)).and_then(percent) {
            spec.insert("targetCPUUtilizationPercentage".into(), json!(percent));
        }
        let others: Vec<Value> = metrics
            .iter()
            .filter(|metric| !(is_cpu(metric) && percent(metric).is_some()))
            .map(source_in_v1)
            .collect();
        if !others.is_empty() {
            notes.push((METRICS, Value::Array(others)));
        }
        if let Some(behavior) = spec.remove("behavior").filter(|behavior| !behavior.is_null()) {
            notes.push((BEHAVIOR, recase(&behavior, str::to_ascii_uppercase)));
        }
    }
    if let Some(status) = child(object, "status") {
        let metrics = status.remove("currentMetrics").unwrap_or_default();
        let metrics: Vec<Object> = take_objects(metrics);
        let percent = metrics
            .iter()
            .filter(|metric| is_cpu(metric))
            .find_map(|metric| integer(metric, &["resource", "current", "averageUtilization"]));
        if let Some(percent) = percent {
            status.insert("currentCPUUtilizationPercentage".into(), json!(percent));
        }
        if !metrics.is_empty() {
            notes.push((CURRENT_METRICS, metrics.iter().map(status_in_v1).collect()));
        }
        let conditions = status.remove("conditions").unwrap_or_default();
        if conditions.as_array().is_some_and(|conditions| !conditions.is_empty()) {
            notes.push((CONDITIONS, conditions));
        }
        default_to(status, "currentReplicas", 0);
        default_to(status, "desiredReplicas", 0);
    }
    if notes.is_empty() {
        return;
    }
    let annotations = child_or_new(child_or_new(object, "metadata"), "annotations");
    for (key, value) in notes {
        annotations.insert(key.to_owned(), value.to_string().into());
    }
}

fn take_objects(list: Value) -> Vec<Object> {
    match list {
        Value::Array(items) => items
            .into_iter()
            .filter_map(|item| match item {
                Value::Object(object) => Some(object),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Copies values under other names, leaving out what is not there.
fn renamed(from: &Object, names: &[(&[&str], &str)]) -> Object {
    let mut object = Object::new();
    for (path, name) in names {
        if let Some(value) = at(from, path).filter(|value| !value.is_null()) {
            object.insert((*name).to_owned(), value.clone());
        }
    }
    object
}

/// Names in v2 and in v1's annotations, by the kind of metric: what a metric is, and what it should be.
const SOURCES: Names = [
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            (&["name"], "name"),
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (&["target", "averageUtilization"], "targetAverageUtilization"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["target", "value"], "targetValue"),
            (&["target", "averageValue"], "targetAverageValue"),
        ],
    ),
];

/// The same for what a metric is now.
const STATUSES: Names = [
    (
        "object",
        &[
            (&["describedObject"], "target"),
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "selector"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "resource",
        &[
            (&["name"], "name"),
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "containerResource",
        &[
            (&["name"], "name"),
            (&["container"], "container"),
            (&["current", "averageUtilization"], "currentAverageUtilization"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
    (
        "external",
        &[
            (&["metric", "name"], "metricName"),
            (&["metric", "selector"], "metricSelector"),
            (&["current", "value"], "currentValue"),
            (&["current", "averageValue"], "currentAverageValue"),
        ],
    ),
];

/// A path in v2 and the name in v1's annotations.
type Renamed = (&'static [&'static str], &'static str);
type Names = [(&'static str, &'static [Renamed]); 5];

fn in_v1(metric: &Object, names: &Names) -> Value {
    let mut object = Object::new();
    object.insert("type".into(), json!(text(metric, &["type"])));
    for (field, names) in names {
        if let Some(source) = map(metric, &[field]) {
            object.insert((*field).to_owned(), Value::Object(renamed(source, names)));
        }
    }
    Value::Object(object)
}

fn source_in_v1(metric: &Object) -> Value {
    in_v1(metric, &SOURCES)
}

fn status_in_v1(metric: &Object) -> Value {
    in_v1(metric, &STATUSES)
}

// To v2.

fn to_stored(object: &mut Object) {
    let mut note = |key: &str| -> Option<Value> {
        let annotations = child(child(object, "metadata")?, "annotations")?;
        let text = annotations.remove(key)?;
        serde_json::from_str(text.as_str()?).ok()
    };
    let (metrics, current) = (note(METRICS), note(CURRENT_METRICS));
    let (conditions, behavior) = (note(CONDITIONS), note(BEHAVIOR));
    if let Some(metadata) = child(object, "metadata")
        && child(metadata, "annotations").is_some_and(|annotations| annotations.is_empty())
    {
        metadata.remove("annotations");
    }
    let spec = child_or_new(object, "spec");
    let mut all: Vec<Value> = Vec::new();
    if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|p| !p.is_null()) {
        all.push(cpu_target(percent));
    }
    all.extend(take_objects(metrics.unwrap_or_default()).iter().map(source_in_v2));
    if all.is_empty() {
        all.push(cpu_target(json!(CPU_PERCENT)));
    }
    spec.insert("metrics".into(), Value::Array(all));
    if let Some(behavior) = behavior {
        spec.insert("behavior".into(), recase(&behavior, str::to_ascii_lowercase));
    }
    let Some(status) = child(object, "status") else { return };
    let percent = status
        .remove("currentCPUUtilizationPercentage")
        .filter(|p| !p.is_null());
    let mut now: Vec<Value> = Vec::new();
    if let Some(percent) = percent {
        now.push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
    }
    // These say more than the one number does.
    if let Some(current) = current {
        now = take_objects(current).iter().map(status_in_v2).collect();
    }
    status.insert(
        "currentMetrics".into(),
        if now.is_empty() { Value::Null } else { now.into() },
    );
    if number(status, &["currentReplicas"]) == 0 {
        status.remove("currentReplicas");
    }
    if let Some(conditions) = conditions {
        status.insert("conditions".into(), conditions);
    }
}

fn cpu_target(percent: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn in_v2(metric: &Object, names: &Names) -> Object {
    let mut object = Object::new();
    object.insert("type".into(), json!(text(metric, &["type"])));
    for (field, names) in names {
        let Some(source) = map(metric, &[field]) else { continue };
        let mut target = Map::new();
        for (path, name) in *names {
            let Some(value) = source.get(*name).filter(|value| !value.is_null()) else {
                continue;
            };
            match path {
                [outer, inner] => {
                    child_or_new(&mut target, outer).insert((*inner).to_owned(), value.clone());
                }
                path => {
                    target.insert(path.concat(), value.clone());
                }
            }
        }
        object.insert((*field).to_owned(), Value::Object(target));
    }
    object
}

fn source_in_v2(metric: &Object) -> Value {
    let mut object = in_v2(metric, &SOURCES);
    for (field, _) in SOURCES {
        let Some(target) = child(&mut object, field).and_then(|source| child(source, "target")) else {
            continue;
        };
        let kind = if target.contains_key("averageUtilization") {
            "Utilization"
        } else if target.contains_key("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        target.insert("type".into(), kind.into());
    }
    Value::Object(object)
}

fn status_in_v2(metric: &Object) -> Value {
    Value::Object(in_v2(metric, &STATUSES))
}

/// The same value with the first letter of every name changed: upstream writes `behavior` with Go's own names.
fn recase(value: &Value, change: fn(&str) -> String) -> Value {
    match value {
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| {
                let end = name.chars().next().map_or(0, char::len_utf8);
                let (first, rest) = name.split_at(end);
                (format!("{}{rest}", change(first)), recase(value, change))
            });
            Value::Object(fields.collect())
        }
        Value::Array(list) => list.iter().map(|item| recase(item, change)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn one_cpu_target_is_a_metric() {
        let mut autoscaler = object(json!({"metadata": {"name": "h"}, "spec": {"targetCPUUtilizationPercentage": 60}}));
        to_stored(&mut autoscaler);
        let target = json!({"type": "Utilization", "averageUtilization": 60});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        assert_eq!(autoscaler["spec"], json!({"metrics": [metric]}));
        from_stored(&mut autoscaler);
        assert_eq!(
            Value::Object(autoscaler),
            json!({"metadata": {"name": "h"}, "spec": {"targetCPUUtilizationPercentage": 60}})
        );
        let mut bare = object(json!({"spec": {}}));
        to_stored(&mut bare);
        assert_eq!(
            bare["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
    }

    #[test]
    fn there_and_back_loses_nothing() {
        let metrics = json!([
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
            {"type": "Pods", "pods": {"metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "10"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "x"},
                "target": {"type": "Value", "value": "5"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "7"}}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 9}}},
        ]);
        let rules = json!({"stabilizationWindowSeconds": 1, "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]});
        let stored = json!({
            "metadata": {"name": "h", "annotations": {"mine": "1"}},
            "spec": {"minReplicas": 1, "maxReplicas": 3, "metrics": metrics, "behavior": {"scaleUp": rules}},
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 7, "averageValue": "3m"}}}],
            },
        });
        let mut autoscaler = object(stored.clone());
        from_stored(&mut autoscaler);
        assert_eq!(autoscaler["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(autoscaler["status"]["currentCPUUtilizationPercentage"], 7);
        let annotations = &autoscaler["metadata"]["annotations"];
        assert_eq!(annotations.as_object().map(|all| all.len()), Some(5));
        assert!(
            annotations[BEHAVIOR]
                .as_str()
                .is_some_and(|text| text.contains("\"ScaleUp\":{\"StabilizationWindowSeconds\":1"))
        );
        assert!(
            annotations[METRICS]
                .as_str()
                .is_some_and(|text| text.contains("\"targetAverageValue\":\"1Gi\""))
        );
        to_stored(&mut autoscaler);
        assert_eq!(Value::Object(autoscaler), stored);
    }

    #[test]
    fn unreadable_annotations_are_dropped() {
        let mut autoscaler = object(json!({"metadata": {"annotations": {METRICS: "{"}}, "spec": {}}));
        to_stored(&mut autoscaler);
        assert_eq!(autoscaler["spec"]["metrics"].as_array().map(Vec::len), Some(1));
    }
}
