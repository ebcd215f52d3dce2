//! Which pods end when, and how long each group has (upstream: `pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`). Pure.

use crate::kubelet::pod;
use crate::kubelet::pod::CRITICAL_PRIORITY;
use k8s_openapi::api::core::v1::Pod;

/// Pods from this priority up to the next one's have so long to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub priority: i32,
    pub seconds: u32,
}

/// What the settings say: either one time for all, of which critical pods have the last part, or a time for each range of
/// priorities in the form `PRIORITY=SECONDS,…`. In the order in which pods end; empty: they do not.
pub fn periods(seconds: u32, critical_seconds: u32, by_priority: &str) -> Result<Vec<Period>, String> {
    if critical_seconds > seconds {
        return Err(format!(
            "critical pods cannot have {critical_seconds} of {seconds} seconds"
        ));
    }
    if by_priority.trim().is_empty() {
        let all = [(0, seconds - critical_seconds), (CRITICAL_PRIORITY, critical_seconds)];
        let all = all.map(|(priority, seconds)| Period { priority, seconds });
        return Ok(if seconds == 0 { Vec::new() } else { all.to_vec() });
    }
    if seconds > 0 {
        return Err("there is one time for all pods, too; it must be the one or the other".to_owned());
    }
    let mut periods = Vec::new();
    for part in by_priority.split(',') {
        let wrong = || format!("{part:?} is not allowed: it must be PRIORITY=SECONDS");
        let (priority, seconds) = part.split_once('=').ok_or_else(wrong)?;
        periods.push(Period {
            priority: priority.trim().parse().map_err(|_| wrong())?,
            seconds: seconds.trim().parse().map_err(|_| wrong())?,
        });
    }
    periods.sort_by_key(|period| period.priority);
    match periods.windows(2).find(|pair| pair[0].priority == pair[1].priority) {
        Some(pair) => Err(format!("the priority {} is there twice", pair[0].priority)),
        None => Ok(periods),
    }
}

/// Which of the periods is the pod's: the last one that its priority reaches, or the first of all.
pub fn group(periods: &[Period], pod: &Pod) -> usize {
    let priority = pod::spec(pod).priority.unwrap_or(0);
    periods
        .partition_point(|period| period.priority <= priority)
        .saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pairs(periods: Result<Vec<Period>, String>) -> Vec<(i32, u32)> {
        let periods = periods.unwrap();
        periods.iter().map(|p| (p.priority, p.seconds)).collect()
    }

    #[test]
    fn what_the_settings_say() {
        for (seconds, critical, by_priority, expected) in [
            (0, 0, "", vec![]),
            (30, 0, "", vec![(0, 30), (2_000_000_000, 0)]),
            (30, 10, "", vec![(0, 20), (2_000_000_000, 10)]),
            (30, 30, "", vec![(0, 0), (2_000_000_000, 30)]),
            (0, 0, "1000=60, 0=20,-5=3", vec![(-5, 3), (0, 20), (1000, 60)]),
        ] {
            assert_eq!(
                pairs(periods(seconds, critical, by_priority)),
                expected,
                "{by_priority}"
            );
        }
        for (seconds, critical, by_priority, part) in [
            (5, 6, "", "6 of 5"),
            (0, 1, "", "1 of 0"),
            (5, 0, "0=5", "one or the other"),
            (0, 0, "0", "\"0\" is not allowed"),
            (0, 0, "0=5,x=3", "\"x=3\" is not allowed"),
            (0, 0, "0=-5", "\"0=-5\" is not allowed"),
            (0, 0, "7=5,7=4", "7 is there twice"),
        ] {
            let error = periods(seconds, critical, by_priority).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn who_ends_in_which_group() {
        let pod = |priority: Option<i32>| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"priority": priority, "containers": []}}))
                .unwrap()
        };
        let of = |text: &str| periods(0, 0, text).unwrap();
        let simple = periods(30, 10, "").unwrap();
        let ranges = of("0=1,1000=1,2000=1");
        for (periods, priority, expected) in [
            (&simple, None, 0),
            (&simple, Some(-10), 0),
            (&simple, Some(0), 0),
            (&simple, Some(1_999_999_999), 0),
            (&simple, Some(2_000_000_000), 1),
            (&simple, Some(2_000_001_000), 1),
            (&ranges, Some(-1), 0),
            (&ranges, Some(999), 0),
            (&ranges, Some(1000), 1),
            (&ranges, Some(1001), 1),
            (&ranges, Some(1_000_000), 2),
            (&of("1000=1"), Some(5), 0),
        ] {
            assert_eq!(group(periods, &pod(priority)), expected, "{priority:?} in {periods:?}");
        }
    }
}
