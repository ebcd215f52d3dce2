//! How fast and how far the number of replicas may change (upstream: `normalizeDesiredReplicas` and its `WithBehaviors`).
//! Pure, with a memory of what was recommended and done.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};

/// Of the upstream manager's `--horizontal-pod-autoscaler-downscale-stabilization`.
const DOWN_WINDOW: i32 = 300;
/// No window or period is longer.
const MEMORY: SignedDuration = SignedDuration::from_secs(3600);

/// What an autoscaler recommended and did; lost with the process, as upstream.
#[derive(Clone, Debug, Default)]
pub struct History {
    recommended: Vec<(Timestamp, i32)>,
    added: Vec<(Timestamp, i32)>,
    removed: Vec<(Timestamp, i32)>,
}

/// A condition's state, reason and message.
pub type State = (bool, &'static str, &'static str);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i32,
    pub able: State,
    pub limited: State,
}

const READY: State = (true, "ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: State = (
    true,
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const UP_STABILIZED: State = (
    true,
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: State = (
    false,
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FEW: State = (
    true,
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: State = (
    true,
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const UP_LIMIT: State = (
    true,
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: State = (
    true,
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

fn seconds(seconds: i32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}

impl History {
    /// The first recommendation is what there is when an autoscaler is first seen.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// The target was scaled.
    pub fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        for events in [&mut self.added, &mut self.removed] {
            events.retain(|(at, _)| now.duration_since(*at) <= MEMORY);
        }
        if to > from {
            self.added.push((now, to - from));
        } else {
            self.removed.push((now, from - to));
        }
    }

    fn recommend(&mut self, desired: i32, now: Timestamp) {
        self.recommended.retain(|(at, _)| now.duration_since(*at) <= MEMORY);
        self.recommended.push((now, desired));
    }

    fn changed(events: &[(Timestamp, i32)], period: i32, now: Timestamp) -> i32 {
        let recent = events
            .iter()
            .filter(|(at, _)| now.duration_since(*at) < seconds(period));
        recent.map(|(_, change)| change).sum()
    }

    /// Where the number was at the beginning of `period`.
    fn at_begin_of(&self, period: i32, current: i32, now: Timestamp) -> i32 {
        current - Self::changed(&self.added, period, now) + Self::changed(&self.removed, period, now)
    }
}

/// What of `desired` may be done now.
pub fn limit(
    spec: &HorizontalPodAutoscalerSpec,
    current: i32,
    desired: i32,
    history: &mut History,
    now: Timestamp,
) -> Limited {
    let min = spec.min_replicas.unwrap_or(1);
    let behavior = spec.behavior.as_ref();
    let rules = behavior.and_then(|behavior| Some((behavior.scale_up.as_ref()?, behavior.scale_down.as_ref()?)));
    let Some((up, down)) = rules else {
        return without_rules(current, desired, min, spec.max_replicas, history, now);
    };
    let stabilized = stabilize(current, desired, up, down, history, now);
    let able = match stabilized {
        _ if stabilized == desired => READY,
        _ if desired >= current => UP_STABILIZED,
        _ => DOWN_STABILIZED,
    };
    let (replicas, why) = if stabilized > current {
        let limit = bound(up, true, current, history, now).max(current);
        let (max, why) = if spec.max_replicas > limit {
            (limit, UP_LIMIT)
        } else {
            (spec.max_replicas, TOO_MANY)
        };
        (stabilized.min(max), why)
    } else if stabilized < current {
        let limit = bound(down, false, current, history, now).min(current);
        let (min, why) = if min < limit {
            (limit, DOWN_LIMIT)
        } else {
            (min, TOO_FEW)
        };
        (stabilized.max(min), why)
    } else {
        (stabilized, WITHIN)
    };
    let limited = if replicas == stabilized { WITHIN } else { why };
    Limited {
        replicas,
        able,
        limited,
    }
}

/// Twice as many at once at most, and down to the highest number of the last minutes.
fn without_rules(current: i32, desired: i32, min: i32, max: i32, history: &mut History, now: Timestamp) -> Limited {
    let recent = history.recommended.iter();
    let recent = recent.filter(|(at, _)| now.duration_since(*at) <= seconds(DOWN_WINDOW));
    let stabilized = recent.map(|(_, recommended)| *recommended).fold(desired, i32::max);
    history.recommend(desired, now);
    let able = if stabilized == desired { READY } else { DOWN_STABILIZED };
    let fastest = current.saturating_mul(2).max(4);
    let (max, why) = if max > fastest {
        (fastest, UP_LIMIT)
    } else {
        (max, TOO_MANY)
    };
    let (replicas, limited) = if stabilized < min {
        (min, TOO_FEW)
    } else if stabilized > max {
        (max, why)
    } else {
        (stabilized, WITHIN)
    };
    Limited {
        replicas,
        able,
        limited,
    }
}

fn stabilize(
    current: i32,
    desired: i32,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    history: &mut History,
    now: Timestamp,
) -> i32 {
    let up_window = seconds(up.stabilization_window_seconds.unwrap_or(0));
    let down_window = seconds(down.stabilization_window_seconds.unwrap_or(DOWN_WINDOW));
    let (mut lowest, mut highest) = (desired, desired);
    for (at, recommended) in &history.recommended {
        let age = now.duration_since(*at);
        if age < up_window {
            lowest = lowest.min(*recommended);
        }
        if age < down_window {
            highest = highest.max(*recommended);
        }
    }
    history.recommend(desired, now);
    current.max(lowest).min(highest)
}

/// The farthest that the policies let the number go.
fn bound(rules: &HPAScalingRules, is_up: bool, current: i32, history: &History, now: Timestamp) -> i32 {
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let begin = history.at_begin_of(policy.period_seconds, current, now);
        let share = f64::from(policy.value) / 100.0;
        match (policy.type_.as_str(), is_up) {
            ("Pods", true) => begin.saturating_add(policy.value),
            ("Pods", false) => begin.saturating_sub(policy.value),
            // Up is rounded up, or one replica would never become two.
            (_, true) => (f64::from(begin) * (1.0 + share)).ceil() as i32,
            (_, false) => (f64::from(begin) * (1.0 - share)) as i32,
        }
    });
    // The most change is the highest number on the way up and the lowest on the way down.
    let highest = (select == "Min") != is_up;
    let chosen = if highest { proposals.max() } else { proposals.min() };
    chosen.unwrap_or(current)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(behavior: Value) -> HorizontalPodAutoscalerSpec {
        let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
        serde_json::from_value(
            json!({"minReplicas": 2, "maxReplicas": 30, "scaleTargetRef": target, "behavior": behavior}),
        )
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    #[test]
    fn without_behavior() {
        let spec = spec(Value::Null);
        let mut history = History::default();
        history.begin(10, at(0));
        // Second, current, desired; replicas and reasons.
        for (second, current, desired, expected) in [
            (0, 10, 10, (10, "ReadyForNewScale", "DesiredWithinRange")),
            (15, 10, 25, (20, "ReadyForNewScale", "ScaleUpLimit")),
            (30, 20, 50, (30, "ReadyForNewScale", "TooManyReplicas")),
            (60, 30, 5, (30, "ScaleDownStabilized", "TooManyReplicas")),
            (329, 30, 5, (30, "ScaleDownStabilized", "TooManyReplicas")),
            (331, 30, 1, (5, "ScaleDownStabilized", "DesiredWithinRange")),
            (700, 5, 1, (2, "ReadyForNewScale", "TooFewReplicas")),
        ] {
            let limited = limit(&spec, current, desired, &mut history, at(second));
            assert_eq!(
                (limited.replicas, limited.able.1, limited.limited.1),
                expected,
                "at {second}"
            );
        }
    }

    #[test]
    fn with_behavior() {
        let rules = |select: &str, window: i32, policies: Value| json!({"selectPolicy": select, "stabilizationWindowSeconds": window, "policies": policies});
        let pods = |value: i32| json!({"type": "Pods", "value": value, "periodSeconds": 60});
        let percent = |value: i32| json!({"type": "Percent", "value": value, "periodSeconds": 60});
        let both = |value: i32, share: i32| json!([pods(value), percent(share)]);
        // Up and down, what was done before, current, desired; replicas and reasons.
        let cases = [
            (
                rules("Max", 0, both(4, 100)),
                rules("Max", 0, json!([percent(100)])),
                vec![],
                10,
                25,
                (20, "ReadyForNewScale", "ScaleUpLimit"),
            ),
            (
                rules("Min", 0, both(4, 100)),
                rules("Max", 0, json!([percent(100)])),
                vec![],
                10,
                25,
                (14, "ReadyForNewScale", "ScaleUpLimit"),
            ),
            (
                rules("Disabled", 0, both(4, 100)),
                rules("Max", 0, json!([percent(100)])),
                vec![],
                10,
                25,
                (10, "ReadyForNewScale", "ScaleUpLimit"),
            ),
            (
                rules("Max", 0, json!([pods(4)])),
                rules("Max", 0, json!([percent(100)])),
                vec![(8, 11)],
                11,
                25,
                (12, "ReadyForNewScale", "ScaleUpLimit"),
            ),
            (
                rules("Max", 0, json!([pods(4)])),
                rules("Max", 0, both(2, 50)),
                vec![],
                20,
                3,
                (10, "ReadyForNewScale", "ScaleDownLimit"),
            ),
            (
                rules("Max", 0, json!([pods(4)])),
                rules("Min", 0, both(2, 50)),
                vec![],
                20,
                3,
                (18, "ReadyForNewScale", "ScaleDownLimit"),
            ),
            (
                rules("Max", 0, json!([pods(4)])),
                rules("Max", 0, json!([percent(100)])),
                vec![],
                20,
                1,
                (2, "ReadyForNewScale", "TooFewReplicas"),
            ),
            (
                rules("Max", 0, json!([percent(900)])),
                rules("Max", 0, json!([percent(100)])),
                vec![],
                20,
                40,
                (30, "ReadyForNewScale", "TooManyReplicas"),
            ),
            (
                rules("Max", 100, json!([percent(900)])),
                rules("Max", 100, json!([percent(100)])),
                vec![],
                9,
                20,
                (10, "ScaleUpStabilized", "DesiredWithinRange"),
            ),
            (
                rules("Max", 100, json!([percent(900)])),
                rules("Max", 100, json!([percent(100)])),
                vec![],
                12,
                5,
                (10, "ScaleDownStabilized", "DesiredWithinRange"),
            ),
        ];
        for (up, down, done, current, desired, expected) in cases {
            let spec = spec(json!({"scaleUp": up, "scaleDown": down}));
            let mut history = History::default();
            history.begin(10, at(0));
            done.into_iter().for_each(|(from, to)| history.scaled(from, to, at(10)));
            let limited = limit(&spec, current, desired, &mut history, at(30));
            assert_eq!(
                (limited.replicas, limited.able.1, limited.limited.1),
                expected,
                "{spec:?}"
            );
        }
    }
}
