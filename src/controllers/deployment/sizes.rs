//! How many pods of which template a deployment may have (upstream: `pkg/controller/deployment/util`,
//! `pkg/controller/deployment/rolling.go` and `sync.go`).

use super::replica_sets::{DESIRED_REPLICAS, MAX_REPLICAS, Set, largest_first};
use crate::controllers::int_or_percent::{Round, scaled};
use k8s_openapi::api::apps::v1::{Deployment, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a deployment asks for, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub replicas: i32,
    /// How many pods there may be more than that during an update.
    pub surge: i32,
    /// How many may be missing meanwhile.
    pub unavailable: i32,
    pub rolling: bool,
}

impl Sizes {
    pub fn of(deployment: &Deployment) -> Self {
        let strategy = deployment.spec.strategy.as_ref();
        let replicas = deployment.spec.replicas.unwrap_or(1);
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let limits = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let (surge, unavailable) = if rolling { limits_of(limits, replicas) } else { (0, 0) };
        Self {
            replicas,
            surge,
            unavailable,
            rolling,
        }
    }

    pub fn max_total(self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    pub fn min_available(self) -> i32 {
        self.replicas - self.unavailable
    }

    /// How large the new set may become beside what is there, itself included.
    pub fn room_for(self, current: i32, total: i32) -> i32 {
        if !self.rolling {
            return self.replicas;
        }
        let room = (self.max_total() - total).max(0);
        current + room.min(self.replicas - current)
    }
}

/// Surge and unavailability; one of both is at least one, or nothing could ever move.
fn limits_of(limits: Option<&RollingUpdateDeployment>, replicas: i32) -> (i32, i32) {
    let quarter = IntOrString::String("25%".to_owned());
    // Validation lets through nothing that is no number.
    let of =
        |value: Option<&IntOrString>, round| scaled(value.unwrap_or(&quarter), replicas, round).unwrap_or(0).max(0);
    let surge = of(limits.and_then(|limits| limits.max_surge.as_ref()), Round::Up);
    let unavailable = of(limits.and_then(|limits| limits.max_unavailable.as_ref()), Round::Down);
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    (surge, unavailable.min(replicas))
}

/// Shrinks old sets as far as what serves allows. What does not serve anyway goes first.
pub fn shrink_old(old: &mut [Set<'_>], new: &Set<'_>, sizes: Sizes) -> bool {
    let total = old.iter().map(|set| set.replicas).sum::<i32>() + new.replicas;
    // New pods that do not serve yet must not be what makes old ones go.
    let most = total - sizes.min_available() - (new.replicas - new.available());
    let mut left = most;
    for set in old.iter_mut() {
        let unhealthy = (set.replicas - set.available()).min(left).max(0);
        set.replicas -= unhealthy;
        left -= unhealthy;
    }
    let available = old.iter().map(Set::available).sum::<i32>() + new.available();
    let mut spare = (available - sizes.min_available()).min(left);
    for set in old.iter_mut() {
        let less = set.replicas.min(spare).max(0);
        set.replicas -= less;
        spare -= less;
        left -= less;
    }
    left < most
}

/// Spreads a new total over several sets by their shares, so that a change of scale does not hasten an update.
pub fn spread(sets: &mut [Set<'_>], sizes: Sizes, counted: i32) {
    let total: i32 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if sizes.replicas > 0 { sizes.max_total() } else { 0 };
    let more = allowed - total;
    if more == 0 {
        return;
    }
    largest_first(sets, more > 0);
    let mut given = 0;
    for set in sets.iter_mut() {
        let share = share(set, sizes, counted, more, given);
        set.replicas += share;
        given += share;
    }
    if let Some(largest) = sets.first_mut() {
        largest.replicas = (largest.replicas + more - given).max(0);
    }
}

fn share(set: &Set<'_>, sizes: Sizes, counted: i32, more: i32, given: i32) -> i32 {
    let left = more - given;
    if set.replicas == 0 || left == 0 {
        return 0;
    }
    let fraction = fraction(set, sizes, counted);
    if more > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

/// By how much the set is to grow for its share of the whole to stay the same.
fn fraction(set: &Set<'_>, sizes: Sizes, counted: i32) -> i32 {
    if sizes.replicas == 0 {
        return -set.replicas;
    }
    // Without the note the size that was last counted has to do.
    let before = set.noted(MAX_REPLICAS).filter(|max| *max > 0).unwrap_or(counted);
    if before == 0 {
        return 0;
    }
    let size = f64::from(set.replicas) * f64::from(sizes.max_total()) / f64::from(before);
    // Sizes are small numbers; a cast saturates.
    #[allow(clippy::cast_possible_truncation)]
    let size = size.round() as i32;
    size.saturating_sub(set.replicas)
}

/// Whether the deployment's size is not the one that its sets' sizes were chosen for.
pub fn is_scaled<'a>(sets: impl IntoIterator<Item = &'a Set<'a>>, sizes: Sizes) -> bool {
    let mut active = sets.into_iter().filter(|set| set.is_active());
    active.any(|set| {
        set.noted(DESIRED_REPLICAS)
            .is_some_and(|desired| desired != sizes.replicas)
    })
}

/// Whether the new set has all the pods, and they serve.
pub fn is_saturated(new: &Set<'_>, sizes: Sizes) -> bool {
    new.replicas == sizes.replicas
        && new.noted(DESIRED_REPLICAS) == Some(sizes.replicas)
        && new.available() == sizes.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::{Value, json};

    fn sizes(replicas: i32, strategy: Value) -> Sizes {
        let spec = json!({"replicas": replicas, "strategy": strategy, "selector": {}, "template": {}});
        Sizes::of(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    #[test]
    fn limits() {
        let rolling = |surge: Value, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        for (replicas, strategy, surge, unavailable) in [
            (10, rolling(json!("25%"), json!("25%")), 3, 2),
            (1, rolling(json!("25%"), json!("25%")), 1, 0),
            (4, rolling(json!(0), json!("10%")), 0, 1),
            (5, rolling(json!(3), json!(9)), 3, 5),
            (5, rolling(json!("0%"), json!("100%")), 0, 5),
            (0, rolling(json!(1), json!(1)), 1, 0),
            (10, json!({"type": "Recreate"}), 0, 0),
        ] {
            let found = sizes(replicas, strategy.clone());
            assert_eq!(
                (found.surge, found.unavailable),
                (surge, unavailable),
                "{replicas} {strategy}"
            );
        }
    }

    fn set(name: &str, replicas: i32, available: i32, annotations: Value) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"replicas": replicas, "selector": {}},
            "status": {"replicas": replicas, "availableReplicas": available},
        }))
        .unwrap()
    }

    fn fixed(replicas: i32, surge: i32, unavailable: i32) -> Sizes {
        Sizes {
            replicas,
            surge,
            unavailable,
            rolling: true,
        }
    }

    #[test]
    fn fractions() {
        let max = |max: &str| json!({MAX_REPLICAS: max});
        for (name, replicas, surge, counted, own, annotations, expected) in [
            ("to nothing", 0, 0, 0, 10, json!({}), -10),
            ("nothing known", 10, 0, 0, 5, json!({}), 0),
            ("nothing sensible known", 10, 0, 0, 5, max("0"), 0),
            ("by what was counted", 120, 0, 100, 50, json!({}), 10),
            ("by what was counted, no sense", 120, 0, 100, 50, max("0"), 10),
            ("up by a fifth", 120, 0, 0, 50, max("100"), 10),
            ("up, with surge", 120, 10, 0, 50, max("110"), 9),
            ("down by a sixth", 10, 0, 0, 6, max("12"), -1),
            ("down, with surge", 100, 10, 0, 50, max("130"), -8),
        ] {
            let object = set("a", own, own, annotations);
            assert_eq!(
                fraction(&Set::new(&object), fixed(replicas, surge, 0), counted),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn shares() {
        for (name, sizes, sets, expected) in [
            // The example of the documentation: 10 pods with surge 3 are scaled to 15 in the middle of an update.
            ("up", fixed(15, 3, 2), vec![(8, 13), (5, 13)], vec![11, 7]),
            ("down", fixed(5, 3, 2), vec![(8, 13), (5, 13)], vec![5, 3]),
            ("all away", fixed(0, 0, 0), vec![(8, 13), (5, 13)], vec![0, 0]),
            (
                "what is left over goes to the largest",
                fixed(11, 0, 0),
                vec![(5, 10), (5, 10)],
                vec![5, 6],
            ),
            ("nothing to do", fixed(10, 3, 0), vec![(8, 13), (5, 13)], vec![8, 5]),
        ] {
            let objects: Vec<ReplicaSet> = sets
                .iter()
                .enumerate()
                .map(|(index, (replicas, max))| {
                    let annotations = json!({MAX_REPLICAS: max.to_string()});
                    set(&format!("set-{index}"), *replicas, *replicas, annotations)
                })
                .collect();
            let mut sets: Vec<Set> = objects.iter().map(Set::new).collect();
            spread(&mut sets, sizes, 0);
            sets.sort_by_key(|set| set.is.metadata.name.clone());
            let found: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
            assert_eq!(found, expected, "{name}");
            let total: i32 = found.iter().sum();
            assert_eq!(total, if sizes.replicas == 0 { 0 } else { sizes.max_total() }, "{name}");
        }
    }

    #[test]
    fn old_sets_shrink_as_far_as_new_pods_serve() {
        for (name, sizes, old, new, expected) in [
            ("the first step", fixed(10, 3, 2), vec![(10, 10)], (3, 0), vec![8]),
            ("wait for new pods", fixed(10, 3, 2), vec![(8, 8)], (5, 0), vec![8]),
            ("new pods serve", fixed(10, 3, 2), vec![(8, 8)], (5, 5), vec![3]),
            ("no spare", fixed(10, 3, 0), vec![(10, 10)], (3, 0), vec![10]),
            (
                "one that does not serve blocks nothing",
                fixed(10, 3, 2),
                vec![(10, 7)],
                (3, 0),
                vec![8],
            ),
            (
                "unhealthy ones first",
                fixed(4, 1, 1),
                vec![(3, 3), (2, 0)],
                (0, 0),
                vec![3, 0],
            ),
            (
                "the oldest first",
                fixed(10, 0, 4),
                vec![(3, 3), (7, 7)],
                (0, 0),
                vec![0, 6],
            ),
            ("the end", fixed(10, 3, 2), vec![(3, 3)], (10, 10), vec![0]),
        ] {
            let objects: Vec<ReplicaSet> = old
                .iter()
                .map(|(replicas, available)| set("old", *replicas, *available, json!({})))
                .collect();
            let mut sets: Vec<Set> = objects.iter().map(Set::new).collect();
            let new = set("new", new.0, new.1, json!({}));
            let before: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
            let shrunk = shrink_old(&mut sets, &Set::new(&new), sizes);
            let found: Vec<i32> = sets.iter().map(|set| set.replicas).collect();
            assert_eq!(found, expected, "{name}");
            assert_eq!(shrunk, before != found, "{name}");
        }
    }

    #[test]
    fn a_count_that_is_out_of_date_takes_nothing_twice() {
        // 8 were taken to 3, but their controller has not looked yet: 8 seem to serve.
        let old = set("old", 3, 8, json!({}));
        let new = set("new", 10, 7, json!({}));
        let mut sets = [Set::new(&old)];
        shrink_old(&mut sets, &Set::new(&new), fixed(10, 3, 2));
        assert_eq!(sets[0].replicas, 1, "7 + 1 serve, not less");
    }

    #[test]
    fn room() {
        assert_eq!(fixed(10, 3, 2).room_for(0, 10), 3);
        assert_eq!(fixed(10, 3, 2).room_for(3, 13), 3);
        assert_eq!(fixed(10, 3, 2).room_for(5, 8), 10);
        assert_eq!(fixed(10, 3, 2).room_for(5, 20), 5);
        let recreate = Sizes {
            rolling: false,
            ..fixed(10, 0, 0)
        };
        assert_eq!(recreate.room_for(0, 10), 10);
    }
}
