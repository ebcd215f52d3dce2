//! Situations of autoscalers and what is done about them.

use super::limits::History;
use super::plan::{Observed, Reading, plan, selector_text, without_scale};
use super::replicas::{PodMetric, Problem};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const NOW: &str = "2024-01-01T01:00:00Z";

fn autoscaler(metrics: Value) -> HorizontalPodAutoscaler {
    serde_json::from_value(json!({"metadata": {"name": "h", "namespace": "n"}, "spec": {
        "minReplicas": 2, "maxReplicas": 10, "metrics": metrics,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}))
    .unwrap()
}

fn cpu() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}})
}

fn queue(target: Value) -> Value {
    let metric = json!({"name": "queue", "selector": {"matchLabels": {"q": "a"}}});
    json!({"type": "External", "external": {"metric": metric, "target": target}})
}

fn pods(count: usize) -> Vec<Pod> {
    let pod = |number: usize| {
        json!({"metadata": {"name": format!("p{number}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "startTime": "2024-01-01T00:00:00Z",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:10Z"}]}})
    };
    (0..count)
        .map(|number| serde_json::from_value(pod(number)).unwrap())
        .collect()
}

fn usage(count: usize, value: i64) -> Result<Reading, Problem> {
    let metric = PodMetric {
        at: NOW.parse().unwrap(),
        window: SignedDuration::from_mins(1),
        value,
    };
    Ok(Reading::Pods(
        (0..count).map(|number| (format!("p{number}"), metric)).collect(),
    ))
}

/// As text: the new size and its reason, the conditions, and the reasons of events.
fn outcome(metrics: Value, current: i32, readings: Vec<Result<Reading, Problem>>) -> (String, Value) {
    let scale: Scale = serde_json::from_value(json!({"metadata": {}, "spec": {"replicas": current},
        "status": {"replicas": current, "selector": "a=b"}}))
    .unwrap();
    let pods = pods(usize::try_from(current).unwrap());
    let observed = Observed {
        autoscaler: &autoscaler(metrics),
        scale: &scale,
        metrics: Ok((pods, readings)),
        now: NOW.parse().unwrap(),
    };
    let plan = plan(observed, &mut History::default());
    let mut text = Vec::new();
    if let Some((replicas, reason)) = &plan.rescale {
        text.push(format!("{replicas}: {reason}"));
    }
    for condition in plan.status.conditions.iter().flatten() {
        let sign = if condition.status == "True" { "" } else { "!" };
        text.push(format!(
            "{sign}{}/{}",
            condition.type_,
            condition.reason.clone().unwrap()
        ));
    }
    text.extend(plan.warnings.iter().map(|(reason, _)| (*reason).to_owned()));
    (text.join("; "), serde_json::to_value(&plan.status).unwrap())
}

#[test]
fn situations() {
    let able = "AbleToScale/ReadyForNewScale; ScalingActive/ValidMetricFound; !ScalingLimited/DesiredWithinRange";
    let gone = || Err(Problem("gone".to_owned()));
    let up = "cpu resource utilization (percentage of request) above target";
    #[allow(clippy::type_complexity)] // a table
    let cases: Vec<(&str, Value, i32, Vec<Result<Reading, Problem>>, String)> = vec![
        ("enough", json!([cpu()]), 3, vec![usage(3, 500)], able.to_owned()),
        ("more", json!([cpu()]), 3, vec![usage(3, 900)], format!("6: {up}; {able}")),
        ("less, but not so soon", json!([cpu()]), 3, vec![usage(3, 100)],
            "AbleToScale/ScaleDownStabilized; ScalingActive/ValidMetricFound; !ScalingLimited/DesiredWithinRange".to_owned()),
        ("too many for a start", json!([cpu()]), 3, vec![usage(3, 5000)],
            format!("6: {up}; AbleToScale/ReadyForNewScale; ScalingActive/ValidMetricFound; ScalingLimited/ScaleUpLimit")),
        ("above the maximum", json!([cpu()]), 12, vec![], "10: Current number of replicas above Spec.MaxReplicas; AbleToScale/SucceededGetScale".to_owned()),
        ("below the minimum", json!([cpu()]), 1, vec![], "2: Current number of replicas below Spec.MinReplicas; AbleToScale/SucceededGetScale".to_owned()),
        ("switched off", json!([cpu()]), 0, vec![], "AbleToScale/SucceededGetScale; !ScalingActive/ScalingDisabled".to_owned()),
        ("no metrics", json!([cpu()]), 3, vec![gone()],
            "AbleToScale/SucceededGetScale; !ScalingActive/FailedGetResourceMetric; FailedGetResourceMetric; FailedComputeMetricsReplicas".to_owned()),
        ("one of two asks for more", json!([cpu(), queue(json!({"type": "AverageValue", "averageValue": "2"}))]), 3,
            vec![gone(), Ok(Reading::Value(10_000))],
            format!("5: external metric queue(&LabelSelector{{MatchLabels:map[string]string{{q: a,}},MatchExpressions:[]LabelSelectorRequirement{{}},}}) above target; {able}; FailedGetResourceMetric")),
        ("one of two asks for less: not believed", json!([cpu(), queue(json!({"type": "Value", "value": "20"}))]), 3,
            vec![gone(), Ok(Reading::Value(5000))],
            "AbleToScale/SucceededGetScale; !ScalingActive/FailedGetResourceMetric; FailedGetResourceMetric; FailedComputeMetricsReplicas".to_owned()),
    ];
    for (name, metrics, current, readings, expected) in cases {
        assert_eq!(outcome(metrics, current, readings).0, expected, "{name}");
    }
}

#[test]
fn the_status() {
    let metrics = json!([cpu(), queue(json!({"type": "AverageValue", "averageValue": "4"}))]);
    let (_, mut status) = outcome(metrics, 3, vec![usage(3, 500), Ok(Reading::Value(10_500))]);
    let conditions = status.as_object_mut().unwrap().remove("conditions").unwrap();
    let metric = json!({"name": "queue", "selector": {"matchLabels": {"q": "a"}}});
    let expected = json!({"currentReplicas": 3, "desiredReplicas": 3, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "500m"}}},
        {"type": "External", "external": {"metric": metric, "current": {"averageValue": "3500m"}}},
    ]});
    assert_eq!(status, expected);
    let message = "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)";
    let active = json!({"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound", "message": message, "lastTransitionTime": NOW});
    assert_eq!(conditions[1], active);

    let (_, failed) = outcome(
        json!([cpu()]),
        3,
        vec![Err(Problem("no metrics returned from resource metrics API".to_owned()))],
    );
    let message = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for \
        resource cpu: no metrics returned from resource metrics API";
    assert_eq!(failed["conditions"][1]["message"], message);
    let now: Timestamp = NOW.parse().unwrap();
    let status = without_scale(&autoscaler(json!([])), "no matches", now);
    let condition = &status.conditions.unwrap()[0];
    let message = "the HPA controller was unable to get the target's current scale: no matches";
    assert_eq!(
        (condition.reason.as_deref(), condition.message.as_deref()),
        (Some("FailedGetScale"), Some(message))
    );
    assert_eq!(selector_text(None), "nil");
}
