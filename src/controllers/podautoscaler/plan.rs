//! What an autoscaler makes of its metrics: the number of replicas, its status and what people are told (upstream:
//! `reconcileAutoscaler`, `computeReplicasForMetrics`). Pure.

use super::limits::{History, Limited, limit};
use super::replicas::{PodMetrics, Problem, Situation, Tolerances};
use crate::quantity::Quantity as Amount;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use std::fmt::Write;

/// Of the upstream manager's `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// What was read of a metric.
#[derive(Clone, Debug)]
pub enum Reading {
    Pods(PodMetrics),
    /// Of one object, or of all series of an external metric together, in thousandths.
    Value(i64),
}

/// Something to warn of.
pub type Warning = (&'static str, String);

/// Pods, and the reading of each metric.
pub type Readings = (Vec<Pod>, Vec<Result<Reading, Problem>>);

pub struct Observed<'a> {
    pub autoscaler: &'a HorizontalPodAutoscaler,
    pub scale: &'a Scale,
    /// Those that the target selects, with the reading of each metric; Err if there is no use of the selector.
    pub metrics: Result<Readings, (Warning, String)>,
    pub now: Timestamp,
}

#[derive(Debug)]
pub struct Plan {
    pub status: HorizontalPodAutoscalerStatus,
    pub warnings: Vec<Warning>,
    pub current: i32,
    /// The new number and the reason for it; None if it stays.
    pub rescale: Option<(i32, String)>,
}

/// The status with a new state of one condition.
pub struct Conditions<'a> {
    pub status: &'a mut HorizontalPodAutoscalerStatus,
    pub generation: Option<i64>,
    pub now: Timestamp,
}

impl Conditions<'_> {
    pub fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let all = self.status.conditions.get_or_insert_default();
        let place = all
            .iter()
            .position(|condition| condition.type_ == type_)
            .unwrap_or_else(|| {
                all.push(HorizontalPodAutoscalerCondition {
                    type_: type_.to_owned(),
                    ..HorizontalPodAutoscalerCondition::default()
                });
                all.len() - 1
            });
        let condition = &mut all[place];
        let status = if holds { "True" } else { "False" };
        if condition.status != status {
            condition.last_transition_time = Some(Time(self.now));
        }
        condition.status = status.to_owned();
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
        condition.observed_generation = self.generation;
    }
}

/// The status after the target's scale could not be read.
pub fn without_scale(autoscaler: &HorizontalPodAutoscaler, why: &str, now: Timestamp) -> HorizontalPodAutoscalerStatus {
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let message = format!("the HPA controller was unable to get the target's current scale: {why}");
    let generation = autoscaler.metadata.generation;
    let mut conditions = Conditions {
        status: &mut status,
        generation,
        now,
    };
    conditions.set("AbleToScale", false, "FailedGetScale", message);
    status
}

/// Whether the metrics decide; else the limits alone do.
pub fn needs_metrics(autoscaler: &HorizontalPodAutoscaler, current: i32) -> bool {
    let spec = &autoscaler.spec;
    let min = spec.min_replicas.unwrap_or(1);
    (current != 0 || min == 0) && (min..=spec.max_replicas).contains(&current)
}

pub fn plan(observed: Observed<'_>, history: &mut History) -> Plan {
    let Observed {
        autoscaler,
        scale,
        metrics,
        now,
    } = observed;
    let spec = &autoscaler.spec;
    let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let min = spec.min_replicas.unwrap_or(1);
    let generation = autoscaler.metadata.generation;
    let mut status = autoscaler.status.clone().unwrap_or_default();
    let mut conditions = Conditions {
        status: &mut status,
        generation,
        now,
    };
    let got = "the HPA controller was able to get the target's current scale";
    conditions.set("AbleToScale", true, "SucceededGetScale", got);
    history.begin(current, now);
    let mut warnings = Vec::new();
    let mut statuses = Vec::new();
    let rescale = if current == 0 && min != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        conditions.set("ScalingActive", false, "ScalingDisabled", message);
        None
    } else if current > spec.max_replicas {
        Some((
            spec.max_replicas,
            "Current number of replicas above Spec.MaxReplicas".to_owned(),
        ))
    } else if current < min {
        Some((min, "Current number of replicas below Spec.MinReplicas".to_owned()))
    } else {
        let proposal = match metrics {
            Ok((pods, readings)) => {
                let situation = Situation {
                    pods: &pods,
                    spec_replicas: current,
                    status_replicas: scale.status.as_ref().map_or(0, |status| status.replicas),
                    tolerances: tolerances(autoscaler),
                    now,
                };
                let specs = spec.metrics.as_deref().unwrap_or_default();
                propose(
                    specs,
                    situation,
                    readings,
                    &mut statuses,
                    &mut conditions,
                    &mut warnings,
                )
            }
            Err(((reason, message), condition)) => {
                // A selector that is missing has a reason of its own in the event only.
                let state = if reason == "SelectorRequired" {
                    "InvalidSelector"
                } else {
                    reason
                };
                conditions.set("ScalingActive", false, state, condition);
                warnings.push((reason, message.clone()));
                Err(message)
            }
        };
        match proposal {
            Ok((desired, metric)) => {
                let reason = if desired > current {
                    format!("{metric} above target")
                } else {
                    "All metrics below target".to_owned()
                };
                let Limited {
                    replicas,
                    able,
                    limited,
                } = limit(spec, current, desired, history, now);
                conditions.set("AbleToScale", able.0, able.1, able.2);
                conditions.set("ScalingLimited", limited.0, limited.1, limited.2);
                (replicas != current).then_some((replicas, reason))
            }
            Err(why) => {
                warnings.push(("FailedComputeMetricsReplicas", why));
                let desired = status.desired_replicas;
                return finish(status, warnings, current, desired, statuses, None, generation);
            }
        }
    };
    let desired = rescale.as_ref().map_or(current, |(replicas, _)| *replicas);
    finish(status, warnings, current, desired, statuses, rescale, generation)
}

fn finish(
    mut status: HorizontalPodAutoscalerStatus,
    warnings: Vec<Warning>,
    current: i32,
    desired: i32,
    metrics: Vec<MetricStatus>,
    rescale: Option<(i32, String)>,
    generation: Option<i64>,
) -> Plan {
    status.current_replicas = (current != 0).then_some(current);
    status.desired_replicas = desired;
    status.current_metrics = (!metrics.is_empty()).then_some(metrics);
    status.observed_generation = generation;
    Plan {
        status,
        warnings,
        current,
        rescale,
    }
}

fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |rules: Option<&HPAScalingRules>| {
        let own = rules.and_then(|rules| rules.tolerance.as_ref());
        own.and_then(|own| own.0.parse::<Amount>().ok())
            .map_or(TOLERANCE, Amount::approximate)
    };
    Tolerances {
        down: of(behavior.and_then(|behavior| behavior.scale_down.as_ref())),
        up: of(behavior.and_then(|behavior| behavior.scale_up.as_ref())),
    }
}

/// The highest number that a metric asks for, and its name. If one could not be read, nothing is taken away.
fn propose(
    specs: &[MetricSpec],
    situation: Situation<'_>,
    readings: Vec<Result<Reading, Problem>>,
    statuses: &mut Vec<MetricStatus>,
    conditions: &mut Conditions<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<(i32, String), String> {
    let mut best: Option<(i32, String)> = None;
    let mut first: Option<(Warning, String)> = None;
    let mut invalid = 0;
    for (spec, reading) in specs.iter().zip(readings) {
        match evaluate(spec, situation, reading) {
            Ok(Proposal {
                replicas,
                metric,
                status,
            }) => {
                statuses.push(status);
                if best.as_ref().is_none_or(|(known, _)| *known == 0 || replicas > *known) {
                    best = Some((replicas, metric));
                }
            }
            Err((reason, inner, outer)) => {
                // As upstream: a place for it, with nothing in it.
                statuses.push(MetricStatus::default());
                warnings.push((reason, inner.clone()));
                invalid += 1;
                first.get_or_insert(((reason, inner), outer));
            }
        }
    }
    let failure = first.as_ref().map(|(_, outer)| {
        let all = specs.len();
        format!("invalid metrics ({invalid} invalid out of {all}), first error is: {outer}")
    });
    match (best, first) {
        (Some((replicas, metric)), first) if first.is_none() || replicas >= situation.spec_replicas => {
            let message = format!("the HPA was able to successfully calculate a replica count from {metric}");
            conditions.set("ScalingActive", true, "ValidMetricFound", message);
            Ok((replicas, metric))
        }
        (_, Some(((reason, inner), _))) => {
            let message = format!("the HPA was unable to compute the replica count: {inner}");
            conditions.set("ScalingActive", false, reason, message);
            Err(failure.unwrap_or_default())
        }
        _ => Err("invalid metrics (0 invalid out of 0), first error is: none".to_owned()),
    }
}

struct Proposal {
    replicas: i32,
    metric: String,
    status: MetricStatus,
}

fn milli(quantity: &Quantity) -> i64 {
    quantity.0.parse::<Amount>().map_or(0, Amount::milli_value)
}

fn quantity(milli: i64) -> Option<Quantity> {
    Some(Quantity(Amount::from_milli(milli).to_string()))
}

fn average_value(milli: i64) -> MetricValueStatus {
    MetricValueStatus {
        average_value: quantity(milli),
        ..MetricValueStatus::default()
    }
}

fn value(milli: i64) -> MetricValueStatus {
    MetricValueStatus {
        value: quantity(milli),
        ..MetricValueStatus::default()
    }
}

/// The proposal of one metric, or the reason of its failure with the inner and the outer text.
fn evaluate(
    spec: &MetricSpec,
    situation: Situation<'_>,
    reading: Result<Reading, Problem>,
) -> Result<Proposal, (&'static str, String, String)> {
    let type_ = spec.type_.clone();
    let status = MetricStatus {
        type_: type_.clone(),
        ..MetricStatus::default()
    };
    let done = |replicas: i32, metric: String, status: MetricStatus| {
        Ok(Proposal {
            replicas,
            metric,
            status,
        })
    };
    match type_.as_str() {
        "Resource" | "ContainerResource" => {
            let (name, container, target) = match (&spec.resource, &spec.container_resource) {
                (Some(source), _) => (&source.name, None, &source.target),
                (None, Some(source)) => (&source.name, Some(source.container.as_str()), &source.target),
                (None, None) => return unknown(&type_),
            };
            let outer = match container {
                None => format!("failed to get {name} resource metric value: "),
                Some(container) => format!("failed to get {container} container metric value: "),
            };
            let reason = match container {
                None => "FailedGetResourceMetric",
                Some(_) => "FailedGetContainerResourceMetric",
            };
            let (replicas, metric, current) = resource(name, container, target, situation, reading)
                .map_err(|inner| (reason, inner.clone(), format!("{outer}{inner}")))?;
            let status = match container {
                None => MetricStatus {
                    resource: Some(ResourceMetricStatus {
                        name: name.clone(),
                        current,
                    }),
                    ..status
                },
                Some(container) => MetricStatus {
                    container_resource: Some(ContainerResourceMetricStatus {
                        name: name.clone(),
                        container: container.to_owned(),
                        current,
                    }),
                    ..status
                },
            };
            done(replicas, metric, status)
        }
        "Pods" => {
            let Some(source) = &spec.pods else {
                return unknown(&type_);
            };
            let failed = |problem: Problem| {
                let inner = problem.to_string();
                let outer = format!("failed to get pods metric value: {inner}");
                ("FailedGetPodsMetric", inner, outer)
            };
            let name = &source.metric.name;
            let target = source.target.average_value.as_ref().map_or(0, milli);
            let readings = pods_of(reading)
                .map_err(|problem| failed(Problem(format!("unable to get metric {name}: {problem}"))))?;
            let (replicas, usage) = situation.for_average(readings, "", target).map_err(failed)?;
            let status = MetricStatus {
                pods: Some(PodsMetricStatus {
                    metric: source.metric.clone(),
                    current: average_value(usage),
                }),
                ..status
            };
            done(replicas, format!("pods metric {name}"), status)
        }
        "Object" => {
            let Some(source) = &spec.object else {
                return unknown(&type_);
            };
            let failed = |inner: String| {
                let outer = format!("failed to get object metric value: {inner}");
                ("FailedGetObjectMetric", inner, outer)
            };
            let (name, object) = (&source.metric.name, &source.described_object);
            let read = value_of(reading)
                .map_err(|problem| format!("unable to get metric {name}: {} on {problem}", object.kind));
            let current;
            let (replicas, metric, described_object) = match (&source.target.value, &source.target.average_value) {
                (Some(target), _) if source.target.type_ == "Value" => {
                    let usage = read.map_err(failed)?;
                    let replicas = situation.for_value(usage, milli(target));
                    let replicas = replicas.map_err(|problem| failed(problem.to_string()))?;
                    current = value(usage);
                    (replicas, format!("{} metric {name}", object.kind), object.clone())
                }
                (_, Some(target)) if source.target.type_ == "AverageValue" => {
                    let usage = read.map_err(|text| failed(format!("failed to get {name} object metric: {text}")))?;
                    let (replicas, share) = situation.for_share(usage, milli(target));
                    current = average_value(share);
                    (
                        replicas,
                        format!("external metric {}", identifier(&source.metric)),
                        object.clone(),
                    )
                }
                _ => {
                    let text =
                        "invalid object metric source: neither a value target nor an average value target was set";
                    return Err(failed(text.to_owned()));
                }
            };
            let status = MetricStatus {
                object: Some(ObjectMetricStatus {
                    metric: source.metric.clone(),
                    described_object,
                    current,
                }),
                ..status
            };
            done(replicas, metric, status)
        }
        "External" => {
            let Some(source) = &spec.external else {
                return unknown(&type_);
            };
            let name = &source.metric.name;
            let failed = |inner: String| {
                let outer = format!("failed to get {name} external metric value: {inner}");
                ("FailedGetExternalMetric", inner, outer)
            };
            let read = value_of(reading).map_err(|problem| problem.to_string());
            let current;
            let replicas = match (&source.target.average_value, &source.target.value) {
                (Some(target), _) => {
                    let usage = read.map_err(|text| failed(format!("failed to get {name} external metric: {text}")))?;
                    let (replicas, share) = situation.for_share(usage, milli(target));
                    current = average_value(share);
                    replicas
                }
                (None, Some(target)) => {
                    let with_name = |text: String| failed(format!("failed to get external metric {name}: {text}"));
                    let usage = read.map_err(with_name)?;
                    let replicas = situation.for_value(usage, milli(target));
                    current = value(usage);
                    replicas.map_err(|problem| with_name(problem.to_string()))?
                }
                (None, None) => {
                    let text =
                        "invalid external metric source: neither a value target nor an average value target was set";
                    return Err(failed(text.to_owned()));
                }
            };
            let status = MetricStatus {
                external: Some(ExternalMetricStatus {
                    metric: source.metric.clone(),
                    current,
                }),
                ..status
            };
            done(
                replicas,
                format!("external metric {}", identifier(&source.metric)),
                status,
            )
        }
        _ => unknown(&type_),
    }
}

fn unknown(type_: &str) -> Result<Proposal, (&'static str, String, String)> {
    let text = format!("unknown metric source type {type_:?}");
    Err(("InvalidMetricSourceType", text.clone(), text))
}

fn resource(
    name: &str,
    container: Option<&str>,
    target: &MetricTarget,
    situation: Situation<'_>,
    reading: Result<Reading, Problem>,
) -> Result<(i32, String, MetricValueStatus), String> {
    let read = |what: &str, reading| {
        let failed = |problem: Problem| {
            format!("failed to get {name} {what}: unable to get metrics for resource {name}: {problem}")
        };
        pods_of(reading).map_err(failed)
    };
    if let Some(average) = &target.average_value {
        let metrics = read("usage", reading)?;
        let result = situation.for_average(metrics, name, milli(average));
        let (replicas, usage) = result.map_err(|problem| format!("failed to get {name} usage: {problem}"))?;
        return Ok((replicas, format!("{name} resource"), average_value(usage)));
    }
    let Some(wanted) = target.average_utilization else {
        let text = "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set";
        return Err(text.to_owned());
    };
    let metrics = read("utilization", reading)?;
    let result = situation.for_utilization(metrics, name, container, wanted);
    let (replicas, share, average) =
        result.map_err(|problem| format!("failed to get {name} utilization: {problem}"))?;
    let kind = if container.is_some() {
        "container resource"
    } else {
        "resource"
    };
    let current = MetricValueStatus {
        average_utilization: Some(share),
        ..average_value(average)
    };
    Ok((
        replicas,
        format!("{name} {kind} utilization (percentage of request)"),
        current,
    ))
}

fn pods_of(reading: Result<Reading, Problem>) -> Result<PodMetrics, Problem> {
    match reading? {
        Reading::Pods(metrics) => Ok(metrics),
        Reading::Value(_) => Err(Problem("no metrics returned".to_owned())),
    }
}

fn value_of(reading: Result<Reading, Problem>) -> Result<i64, Problem> {
    match reading? {
        Reading::Value(value) => Ok(value),
        Reading::Pods(_) => Err(Problem("no metrics returned".to_owned())),
    }
}

/// `name(selector)`, with the selector as upstream's types print themselves.
fn identifier(metric: &MetricIdentifier) -> String {
    format!("{}({})", metric.name, selector_text(metric.selector.as_ref()))
}

pub fn selector_text(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return "nil".to_owned();
    };
    let mut labels = String::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        let _ = write!(labels, "{key}: {value},");
    }
    let mut expressions = String::new();
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.clone().unwrap_or_default().join(" ");
        let (key, operator) = (&one.key, &one.operator);
        let _ = write!(
            expressions,
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
        );
    }
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
