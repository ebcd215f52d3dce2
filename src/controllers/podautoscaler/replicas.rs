//! How many replicas a metric asks for (upstream: `pkg/controller/podautoscaler/replica_calculator.go`). Pure.

use crate::controllers::pods::{condition, is_ready, is_terminating, phase};
use crate::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use std::collections::{BTreeMap, BTreeSet};

const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// A value of one pod, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodMetric {
    pub at: Timestamp,
    pub window: SignedDuration,
    pub value: i64,
}

/// By the pod's name.
pub type PodMetrics = BTreeMap<String, PodMetric>;

/// By how much a ratio may differ from 1 without consequences.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn covers(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// Why nothing could be reckoned, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Problem(pub String);

fn problem<T>(text: &str) -> Result<T, Problem> {
    Err(Problem(text.to_owned()))
}

/// What all metrics are reckoned from.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Those that the target selects.
    pub pods: &'a [Pod],
    pub spec_replicas: i32,
    pub status_replicas: i32,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

fn ceil(replicas: f64) -> i32 {
    // Saturates.
    replicas.ceil() as i32
}

struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

impl Situation<'_> {
    /// Sorts the pods and takes the metrics of those that do not count from `metrics`.
    fn group(&self, metrics: &mut PodMetrics, resource: &str) -> Groups {
        let mut groups = Groups {
            ready: 0,
            unready: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        for pod in self.pods {
            let name = name(pod);
            if is_terminating(pod) || phase(pod) == "Failed" {
                metrics.remove(name);
            } else if phase(pod) == "Pending" {
                groups.unready.insert(name.to_owned());
            } else if let Some(metric) = metrics.get(name) {
                if resource == "cpu" && self.is_warming_up(pod, metric) {
                    groups.unready.insert(name.to_owned());
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name.to_owned());
            }
        }
        metrics.retain(|pod, _| !groups.unready.contains(pod));
        groups
    }

    /// A pod that starts needs more than it will later.
    fn is_warming_up(&self, pod: &Pod, metric: &PodMetric) -> bool {
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (condition(pod, "Ready"), started) else {
            return true;
        };
        let not_ready = ready.status == "False";
        let changed = ready
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
            .unwrap_or_default();
        if started.0 + CPU_INITIALIZATION > self.now {
            not_ready || metric.at < changed + metric.window
        } else {
            not_ready && started.0 + INITIAL_READINESS > changed
        }
    }

    /// For a share of what is requested. Replicas, the share now, and the average value.
    pub fn for_utilization(
        &self,
        mut metrics: PodMetrics,
        resource: &str,
        container: Option<&str>,
        target: i32,
    ) -> Result<(i32, i32, i64), Problem> {
        let groups = self.known(&mut metrics, resource)?;
        let requests = requests(self.pods, container, resource)?;
        let (ratio, utilization, average) = utilization(&metrics, &requests, target)?;
        let assumed = |pod: &str| {
            let request = requests.get(pod).copied().unwrap_or(0);
            request.saturating_mul(i64::from(target.max(100))) / 100
        };
        let again = |metrics: &PodMetrics| utilization_ratio(metrics, &requests, target);
        let replicas = self.settle(groups, metrics, ratio, assumed, again)?;
        Ok((replicas, utilization, average))
    }

    /// For an average value. Replicas and the average now.
    pub fn for_average(&self, mut metrics: PodMetrics, resource: &str, target: i64) -> Result<(i32, i64), Problem> {
        let groups = self.known(&mut metrics, resource)?;
        let average = |metrics: &PodMetrics| {
            let total: i128 = metrics.values().map(|metric| i128::from(metric.value)).sum();
            i64::try_from(total / metrics.len() as i128).unwrap_or(i64::MAX)
        };
        let usage = average(&metrics);
        let ratio = |usage: i64| usage as f64 / target as f64;
        let again = |metrics: &PodMetrics| Ok(ratio(average(metrics)));
        let replicas = self.settle(groups, metrics, ratio(usage), |_| target, again)?;
        Ok((replicas, usage))
    }

    fn known(&self, metrics: &mut PodMetrics, resource: &str) -> Result<Groups, Problem> {
        if self.pods.is_empty() {
            return problem("no pods returned by selector while calculating replica count");
        }
        let groups = self.group(metrics, resource);
        if metrics.is_empty() {
            return problem("did not receive metrics for targeted pods (pods might be unready)");
        }
        Ok(groups)
    }

    /// Pods of which nothing is known count so that the change becomes smaller, and never turns round.
    fn settle(
        &self,
        groups: Groups,
        mut metrics: PodMetrics,
        ratio: f64,
        assumed: impl Fn(&str) -> i64,
        again: impl Fn(&PodMetrics) -> Result<f64, Problem>,
    ) -> Result<i32, Problem> {
        let current = self.spec_replicas;
        let with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !with_unready && groups.missing.is_empty() {
            let enough = self.tolerances.covers(ratio);
            return Ok(if enough {
                current
            } else {
                ceil(ratio * groups.ready as f64)
            });
        }
        let mut count = |pod: String, value: i64| {
            metrics.insert(
                pod,
                PodMetric {
                    at: self.now,
                    window: SignedDuration::ZERO,
                    value,
                },
            );
        };
        if ratio < 1.0 {
            groups.missing.iter().for_each(|pod| count(pod.clone(), assumed(pod)));
        } else if ratio > 1.0 {
            groups.missing.iter().for_each(|pod| count(pod.clone(), 0));
        }
        if with_unready {
            groups.unready.iter().for_each(|pod| count(pod.clone(), 0));
        }
        let new = again(&metrics)?;
        if self.tolerances.covers(new) || (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0) {
            return Ok(current);
        }
        let replicas = ceil(new * metrics.len() as f64);
        let turns = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
        Ok(if turns { current } else { replicas })
    }

    /// For one value that all replicas share.
    pub fn for_value(&self, usage: i64, target: i64) -> Result<i32, Problem> {
        let ratio = usage as f64 / target as f64;
        if self.spec_replicas == 0 {
            return Ok(ceil(ratio));
        }
        if self.tolerances.covers(ratio) {
            return Ok(self.spec_replicas);
        }
        if self.pods.is_empty() {
            return problem(
                "unable to calculate ready pods: no pods returned by selector while calculating replica count",
            );
        }
        let ready = self
            .pods
            .iter()
            .filter(|pod| phase(pod) == "Running" && is_ready(pod))
            .count();
        Ok(ceil(ratio * ready as f64))
    }

    /// For a value per replica. Replicas and the share of each now.
    pub fn for_share(&self, usage: i64, target: i64) -> (i32, i64) {
        let now = self.status_replicas;
        let ratio = usage as f64 / (target as f64 * f64::from(now));
        let enough = self.tolerances.covers(ratio);
        let replicas = if enough {
            now
        } else {
            ceil(usage as f64 / target as f64)
        };
        // Saturates where there are no replicas.
        (replicas, (usage as f64 / f64::from(now)).ceil() as i64)
    }
}

fn utilization_ratio(metrics: &PodMetrics, requests: &BTreeMap<String, i64>, target: i32) -> Result<f64, Problem> {
    utilization(metrics, requests, target).map(|(ratio, ..)| ratio)
}

fn utilization(
    metrics: &PodMetrics,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), Problem> {
    let (mut used, mut requested, mut pods) = (0_i128, 0_i128, 0_i128);
    for (pod, metric) in metrics {
        if let Some(request) = requests.get(pod) {
            used += i128::from(metric.value);
            requested += i128::from(*request);
            pods += 1;
        }
    }
    if requested == 0 {
        return problem("no metrics returned matched known pods");
    }
    let share = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
    let average = i64::try_from(used / pods).unwrap_or(i64::MAX);
    Ok((f64::from(share) / f64::from(target), share, average))
}

fn milli(resources: Option<&ResourceRequirements>, resource: &str) -> Option<i64> {
    let quantity = resources?.requests.as_ref()?.get(resource)?;
    quantity.0.parse::<Quantity>().ok().map(Quantity::milli_value)
}

/// What each pod requests: of one container, else of the whole pod, else of all containers that run all the time.
fn requests(pods: &[Pod], container: Option<&str>, resource: &str) -> Result<BTreeMap<String, i64>, Problem> {
    pods.iter()
        .map(|pod| request(pod, container, resource).map(|request| (name(pod).to_owned(), request)))
        .collect()
}

fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, Problem> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let whole = milli(spec.resources.as_ref(), resource);
    if let Some(whole) = whole.filter(|_| container.is_none()) {
        return Ok(whole);
    }
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let mut total = 0_i64;
    let mut found = false;
    for one in spec.containers.iter().chain(sidecars) {
        if container.is_some_and(|container| container != one.name) {
            continue;
        }
        let Some(request) = milli(one.resources.as_ref(), resource) else {
            let text = format!(
                "missing request for {resource} in container {} of Pod {}",
                one.name,
                name(pod)
            );
            return Err(Problem(text));
        };
        found = true;
        total = total.saturating_add(request);
    }
    match container {
        Some(container) if !found => Err(Problem(format!("container {container} not found in Pod {}", name(pod)))),
        _ => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2024-01-01T01:00:00Z";

    /// `a ready`, `b pending`, `c unready` (never was ready), `d going`, `e starting` (ready, but within its start).
    fn pod(text: &str) -> Pod {
        let (name, state) = text.split_once(' ').unwrap();
        let ready =
            |status: &str, since: &str| json!([{"type": "Ready", "status": status, "lastTransitionTime": since}]);
        let mut pod = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "startTime": "2024-01-01T00:00:00Z", "conditions": ready("True", "2024-01-01T00:00:10Z")},
        });
        match state {
            "pending" => pod["status"]["phase"] = json!("Pending"),
            "unready" => pod["status"]["conditions"] = ready("False", "2024-01-01T00:00:00Z"),
            "going" => pod["metadata"]["deletionTimestamp"] = json!(NOW),
            "starting" => {
                pod["status"]["startTime"] = json!("2024-01-01T00:59:00Z");
                pod["status"]["conditions"] = ready("True", "2024-01-01T00:59:50Z");
            }
            _ => {}
        }
        serde_json::from_value(pod).unwrap()
    }

    fn metrics(values: &[(&str, i64)]) -> PodMetrics {
        let metric = |value: i64| PodMetric {
            at: NOW.parse().unwrap(),
            window: SignedDuration::from_mins(1),
            value,
        };
        values
            .iter()
            .map(|(pod, value)| ((*pod).to_owned(), metric(*value)))
            .collect()
    }

    #[test]
    fn shares_of_requests() {
        #[allow(clippy::type_complexity)] // a table
        let cases: [(&[&str], &[(&str, i64)], i32, i32, Result<(i32, i32, i64), &str>); 11] = [
            (
                &["a ready", "b ready"],
                &[("a", 500), ("b", 500)],
                50,
                2,
                Ok((2, 50, 500)),
            ),
            (
                &["a ready", "b ready"],
                &[("a", 540), ("b", 540)],
                50,
                2,
                Ok((2, 54, 540)),
            ),
            (
                &["a ready", "b ready"],
                &[("a", 900), ("b", 900)],
                50,
                2,
                Ok((4, 90, 900)),
            ),
            (
                &["a ready", "b ready", "c ready"],
                &[("a", 100), ("b", 100), ("c", 100)],
                50,
                3,
                Ok((1, 10, 100)),
            ),
            // One that waits is assumed to need nothing: less is added.
            (
                &["a ready", "b ready", "c pending"],
                &[("a", 900), ("b", 900)],
                50,
                3,
                Ok((4, 90, 900)),
            ),
            // One without a metric needs all it asks for: less is taken away.
            (
                &["a ready", "b ready", "c ready"],
                &[("a", 100), ("b", 100)],
                50,
                3,
                Ok((3, 10, 100)),
            ),
            (
                &["a ready", "b ready", "c unready"],
                &[("a", 900), ("b", 900), ("c", 5000)],
                50,
                3,
                Ok((4, 90, 900)),
            ),
            (
                &["a ready", "b going"],
                &[("a", 900), ("b", 900)],
                50,
                2,
                Ok((2, 90, 900)),
            ),
            (
                &["a starting"],
                &[("a", 900)],
                50,
                1,
                Err("did not receive metrics for targeted pods (pods might be unready)"),
            ),
            (
                &[],
                &[("a", 1)],
                50,
                1,
                Err("no pods returned by selector while calculating replica count"),
            ),
            (
                &["a ready"],
                &[("x", 1)],
                50,
                1,
                Err("no metrics returned matched known pods"),
            ),
        ];
        for (pods, values, target, current, expected) in cases {
            let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
            let situation = Situation {
                pods: &pods,
                spec_replicas: current,
                status_replicas: current,
                tolerances: Tolerances { down: 0.1, up: 0.1 },
                now: NOW.parse().unwrap(),
            };
            let result = situation.for_utilization(metrics(values), "cpu", None, target);
            assert_eq!(result, expected.map_err(|text| Problem(text.to_owned())), "{values:?}");
        }
    }

    #[test]
    fn values() {
        let pods: Vec<Pod> = ["a ready", "b ready", "c pending"]
            .iter()
            .map(|text| pod(text))
            .collect();
        let situation = Situation {
            pods: &pods,
            spec_replicas: 3,
            status_replicas: 3,
            tolerances: Tolerances { down: 0.1, up: 0.5 },
            now: NOW.parse().unwrap(),
        };
        assert_eq!(
            situation.for_average(metrics(&[("a", 8000), ("b", 8000)]), "", 2000),
            Ok((8, 8000))
        );
        assert_eq!(situation.for_value(10_000, 2000), Ok(10));
        assert_eq!(situation.for_value(2900, 2000), Ok(3));
        assert_eq!(situation.for_value(1000, 2000), Ok(1));
        let none = Situation {
            pods: &[],
            spec_replicas: 0,
            ..situation
        };
        assert_eq!(none.for_value(7000, 2000), Ok(4));
        assert_eq!(situation.for_share(9000, 1000), (9, 3000));
        assert_eq!(situation.for_share(3200, 1000), (3, 1067));
        let text = "container x not found in Pod a";
        let missing = situation.for_utilization(metrics(&[("a", 1)]), "cpu", Some("x"), 50);
        assert_eq!(missing, Err(Problem(text.to_owned())));
        let text = "missing request for memory in container c of Pod a";
        assert_eq!(
            situation.for_utilization(metrics(&[("a", 1)]), "memory", None, 50),
            Err(Problem(text.to_owned()))
        );
    }
}
