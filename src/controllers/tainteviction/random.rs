//! Seeded runs: nodes get and lose taints, pods come and go, events are late, doubled, dropped and out of order,
//! and the controller is restarted.

use super::plan::{Since, decide};
use crate::client::ObjectKey;
use crate::controllers::dice::Dice;
use crate::controllers::leaving::{Leaving, Step};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Taint, Toleration};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone)]
struct Pod {
    uid: String,
    node: u64,
    tolerations: Vec<Toleration>,
}

struct World {
    now: Timestamp,
    taints: BTreeMap<u64, BTreeSet<u64>>,
    /// Since when each look at a pod has found a taint: what nobody has seen in between cannot be known.
    seen: BTreeMap<(String, u64), Timestamp>,
    pods: BTreeMap<u64, Pod>,
    evictions: Leaving<Since>,
    /// Looks that are due, by time.
    timers: BTreeMap<u64, Timestamp>,
}

fn key(pod: u64) -> ObjectKey {
    ObjectKey::new("ns", format!("p{pod}"))
}

fn taint(taint: u64) -> Taint {
    Taint {
        key: format!("t{taint}"),
        effect: "NoExecute".to_owned(),
        ..Taint::default()
    }
}

fn toleration(taint: u64, seconds: Option<i64>) -> Toleration {
    Toleration {
        key: Some(format!("t{taint}")),
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: seconds,
        ..Toleration::default()
    }
}

impl World {
    fn borne(&self, pod: &Pod) -> Vec<(u64, Option<Option<i64>>)> {
        let taints = self.taints.get(&pod.node).into_iter().flatten();
        let borne = |one: &u64| {
            let wanted = format!("t{one}");
            let found = pod.tolerations.iter().find(|t| t.key.as_deref() == Some(&wanted));
            (*one, found.map(|toleration| toleration.toleration_seconds))
        };
        taints.map(borne).collect()
    }

    /// What the controller does when it hears of a pod.
    fn look(&mut self, number: u64) {
        self.timers.remove(&number);
        let Some(pod) = self.pods.get(&number).cloned() else {
            self.evictions.forget(&key(number));
            return;
        };
        let taints: Vec<Taint> = self
            .taints
            .get(&pod.node)
            .into_iter()
            .flatten()
            .copied()
            .map(taint)
            .collect();
        let borne = self.borne(&pod);
        self.seen
            .retain(|(uid, one), _| *uid != pod.uid || borne.iter().any(|(there, _)| there == one));
        for (one, _) in &borne {
            self.seen.entry((pod.uid.clone(), *one)).or_insert(self.now);
        }
        let planned = self.evictions.why(&key(number), &pod.uid);
        let leaves = decide(&taints, &pod.tolerations, planned, self.now);
        match self.evictions.plan(&key(number), &pod.uid, leaves, self.now) {
            Step::Nothing | Step::Cancelled => {}
            Step::Wait(at) => {
                self.timers.insert(number, at);
            }
            Step::Evict => {
                // Never without a taint that asks for it, and never before the time that the pod bears one.
                let asked = borne.iter().any(|(one, bears)| match bears {
                    None => true,
                    Some(None) => false,
                    Some(Some(seconds)) => {
                        let since = self.seen[&(pod.uid.clone(), *one)];
                        self.now >= since + SignedDuration::from_secs(*seconds)
                    }
                });
                assert!(asked, "evicted too early: {borne:?}");
                self.evictions.forget(&key(number));
                self.pods.remove(&number);
            }
        }
    }

    fn fire(&mut self) {
        let due: Vec<u64> = self
            .timers
            .iter()
            .filter(|(_, at)| **at <= self.now)
            .map(|(pod, _)| *pod)
            .collect();
        due.into_iter().for_each(|pod| self.look(pod));
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World {
        now: Timestamp::from_second(1_000_000).unwrap(),
        taints: BTreeMap::new(),
        seen: BTreeMap::new(),
        pods: BTreeMap::new(),
        evictions: Leaving::default(),
        timers: BTreeMap::new(),
    };
    let mut events: Vec<u64> = Vec::new();
    let mut uids = 0;
    for _ in 0..200 {
        let (node, one, number) = (dice.below(3), dice.below(3), dice.below(8));
        match dice.below(8) {
            change @ (0 | 1) => {
                let taints = world.taints.entry(node).or_default();
                if change == 0 {
                    taints.insert(one);
                } else {
                    taints.remove(&one);
                }
                events.extend(
                    world
                        .pods
                        .iter()
                        .filter(|(_, pod)| pod.node == node)
                        .map(|(number, _)| *number),
                );
            }
            2 => {
                uids += 1;
                let seconds = |dice: &mut Dice| (dice.below(3) > 0).then(|| dice.below(20) as i64);
                let tolerations = (0..3).filter(|_| dice.below(3) > 0).collect::<Vec<_>>();
                let tolerations = tolerations
                    .into_iter()
                    .map(|one| toleration(one, seconds(&mut dice)))
                    .collect();
                let uid = format!("u{uids}");
                world.pods.insert(number, Pod { uid, node, tolerations });
                events.push(number);
            }
            3 => {
                world.pods.remove(&number);
                events.push(number);
            }
            4 => world.now += SignedDuration::from_secs(dice.below(5) as i64),
            5 if dice.below(5) == 0 => {
                // A restart: everything is listed anew, and nothing of before is known.
                world.evictions = Leaving::default();
                world.timers.clear();
                world.seen.clear();
                events = world.pods.keys().copied().collect();
            }
            _ => {}
        }
        // Events come late, in any order, some twice.
        while !events.is_empty() && dice.below(3) > 0 {
            let at = usize::try_from(dice.below(events.len() as u64)).unwrap();
            let number = events.swap_remove(at);
            world.look(number);
            if dice.below(6) == 0 {
                world.look(number);
            }
        }
        world.fire();
    }
    for number in 0..8 {
        world.look(number);
    }
    world.now += SignedDuration::from_secs(60);
    world.fire();
    // Who is left bears all taints of its node for ever.
    for (number, pod) in &world.pods {
        let stays = world.borne(pod).iter().all(|(_, bears)| *bears == Some(None));
        assert!(stays, "pod {number} should have left: {:?}", world.borne(pod));
    }
    assert!(world.evictions.is_empty(), "something is planned for nobody");
}

#[test]
fn pods_leave_when_they_must_and_not_before() {
    for seed in 0..500 {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
