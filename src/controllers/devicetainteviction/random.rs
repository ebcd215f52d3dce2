//! Seeded runs: devices and rules get and lose taints, pools get newer slices, pods come, go and take each other's name,
//! caches are behind, looks are late, doubled and out of order, evictions fail, and the controller is restarted.

use super::plan::{Observed, Rules, leaves};
use crate::client::ObjectKey;
use crate::controllers::dice::Dice;
use crate::controllers::leaving::{Leaving, Step};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{DeviceTaintRule, ResourceClaim, ResourceSlice};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const PODS: u64 = 6;
const DEVICES: u64 = 3;

fn parsed<T: DeserializeOwned>(object: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(object).unwrap())
}

/// A taint: its key and since when it is there. Only those of NoExecute drive.
#[derive(Clone, Copy)]
struct Taint {
    key: u64,
    since: Timestamp,
    drives: bool,
}

impl Taint {
    fn random(dice: &mut Dice, now: Timestamp) -> Self {
        Self {
            key: dice.below(3),
            since: now,
            drives: !dice.one_in(3),
        }
    }

    fn json(self) -> Value {
        let effect = if self.drives { "NoExecute" } else { "NoSchedule" };
        json!({"key": format!("t{}", self.key), "effect": effect, "timeAdded": self.since.to_string()})
    }
}

/// A pod, its device, and how long it bears which taints.
#[derive(Clone)]
struct User {
    uid: String,
    device: u64,
    bears: BTreeMap<u64, Option<i64>>,
    reserved: bool,
}

impl User {
    fn pod(&self) -> Arc<Pod> {
        parsed(
            json!({"metadata": {"uid": self.uid}, "spec": {"containers": [], "nodeName": "n",
            "resourceClaims": [{"name": "d", "resourceClaimName": format!("claim-{}", self.uid)}]}}),
        )
    }

    fn claim(&self) -> Arc<ResourceClaim> {
        let bears = self.bears.iter().map(|(key, seconds)| {
            json!({"key": format!("t{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds})
        });
        let device = json!({"request": "r", "driver": "d", "pool": "p", "device": format!("x{}", self.device),
            "tolerations": bears.collect::<Vec<_>>()});
        let user = json!({"resource": "pods", "name": "n", "uid": if self.reserved { &self.uid } else { "another" }});
        parsed(json!({"spec": {}, "status": {"reservedFor": [user], "allocation": {"devices": {"results": [device]}}}}))
    }
}

struct World {
    now: Timestamp,
    generation: i64,
    /// What the newest slices say.
    tainted: BTreeMap<u64, Taint>,
    /// What they said before.
    outdated: BTreeMap<u64, Taint>,
    /// By number: the device that it is for, or all of them.
    rules: BTreeMap<u64, (Option<u64>, Taint)>,
    users: BTreeMap<u64, User>,
    cached: BTreeMap<u64, User>,
    leaving: Leaving<Rules>,
    /// Looks that are due, by time.
    timers: BTreeMap<u64, Timestamp>,
}

fn key(number: u64) -> ObjectKey {
    ObjectKey::new("ns", format!("p{number}"))
}

impl World {
    fn slices(&self) -> Vec<Arc<ResourceSlice>> {
        let slice = |tainted: &BTreeMap<u64, Taint>, generation: i64| {
            let devices = (0..DEVICES).map(|device| {
                let taints = tainted.get(&device).map(|taint| taint.json());
                json!({"name": format!("x{device}"), "taints": taints.into_iter().collect::<Vec<_>>()})
            });
            parsed(
                json!({"spec": {"driver": "d", "nodeName": "n", "devices": devices.collect::<Vec<_>>(),
                "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1}}}),
            )
        };
        vec![
            slice(&self.outdated, self.generation - 1),
            slice(&self.tainted, self.generation),
        ]
    }

    fn objects_of_rules(&self) -> Vec<Arc<DeviceTaintRule>> {
        let rules = self.rules.iter().map(|(number, (device, taint))| {
            let selector = json!({"driver": "d", "device": device.map(|device| format!("x{device}"))});
            parsed(
                json!({"metadata": {"name": format!("r{number}"), "uid": format!("r{number}")},
                "spec": {"deviceSelector": selector, "taint": taint.json()}}),
            )
        });
        rules.collect()
    }

    /// When a pod has to leave, told from the world itself.
    fn ends(&self, user: &User) -> Option<Timestamp> {
        let of_rules = self
            .rules
            .values()
            .filter(|(device, _)| device.is_none_or(|device| device == user.device));
        let taints = self
            .tainted
            .get(&user.device)
            .into_iter()
            .chain(of_rules.map(|(_, taint)| taint));
        let ends = taints
            .filter(|taint| taint.drives)
            .filter_map(|taint| match user.bears.get(&taint.key) {
                None => Some(taint.since),
                Some(None) => None,
                Some(Some(seconds)) => Some(taint.since + SignedDuration::from_secs(*seconds)),
            });
        ends.min().filter(|_| user.reserved)
    }

    /// What the controller does when it hears of a pod; false if it has to try again.
    fn look(&mut self, number: u64, dice: &mut Dice) -> bool {
        self.timers.remove(&number);
        let Some(user) = self.cached.get(&number).cloned() else {
            self.leaving.forget(&key(number));
            return true;
        };
        let (slices, rules, claim) = (self.slices(), self.objects_of_rules(), user.claim());
        let wanted = format!("claim-{}", user.uid);
        let observed = Observed {
            claim: &|name| (name == wanted).then(|| claim.clone()),
            slices: &|_, _| slices.clone(),
            rules: &rules,
        };
        let leaves = leaves(&user.pod(), &observed);
        assert_eq!(
            leaves.as_ref().map(|(at, _)| *at),
            self.ends(&user),
            "of the pod {number}"
        );
        match self.leaving.plan(&key(number), &user.uid, leaves, self.now) {
            Step::Nothing | Step::Cancelled => {}
            Step::Wait(at) => {
                assert!(at > self.now);
                self.timers.insert(number, at);
            }
            Step::Evict if dice.one_in(5) => return false,
            Step::Evict => {
                assert!(self.ends(&user).is_some_and(|end| end <= self.now), "evicted too early");
                self.leaving.forget(&key(number));
                // Who has the name by now is somebody else.
                self.users.retain(|_, one| one.uid != user.uid);
            }
        }
        true
    }

    fn fire(&mut self, dice: &mut Dice) -> Vec<u64> {
        let due = self.timers.iter().filter(|(_, at)| **at <= self.now);
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        due.into_iter().filter(|number| !self.look(*number, dice)).collect()
    }

    /// The cache hears of a pod.
    fn hear(&mut self, number: u64) {
        match self.users.get(&number) {
            Some(user) => self.cached.insert(number, user.clone()),
            None => self.cached.remove(&number),
        };
    }

    /// Something happens; says which pods the controller will look at for it.
    fn happens(&mut self, uids: &mut u64, dice: &mut Dice) -> Vec<u64> {
        let (device, rule, number) = (dice.below(DEVICES), dice.below(2), dice.below(PODS));
        let concerned = |world: &Self, device: Option<u64>| {
            let users = world.users.iter().chain(&world.cached);
            let users = users.filter(|(_, user)| device.is_none_or(|device| user.device == device));
            users.map(|(number, _)| *number).collect::<Vec<_>>()
        };
        match dice.below(9) {
            0 => {
                let taint = Taint::random(dice, self.now);
                self.tainted.insert(device, taint);
                concerned(self, Some(device))
            }
            1 => {
                self.generation += 1;
                self.outdated = std::mem::take(&mut self.tainted);
                concerned(self, None)
            }
            2 => {
                let device = (!dice.one_in(3)).then_some(device);
                let before = self.rules.insert(rule, (device, Taint::random(dice, self.now)));
                let mut looked_at = concerned(self, device);
                looked_at.extend(before.into_iter().flat_map(|(device, _)| concerned(self, device)));
                looked_at
            }
            3 => {
                let before = self.rules.remove(&rule);
                before
                    .into_iter()
                    .flat_map(|(device, _)| concerned(self, device))
                    .collect()
            }
            4 | 5 => {
                *uids += 1;
                let keys: Vec<u64> = (0..3).filter(|_| !dice.one_in(3)).collect();
                let bears = keys.into_iter().map(|key| {
                    let seconds = (!dice.one_in(3)).then(|| i64::try_from(dice.below(20)).unwrap());
                    (key, seconds)
                });
                let user = User {
                    uid: format!("u{uids}"),
                    device,
                    bears: bears.collect(),
                    reserved: true,
                };
                let reserved = !dice.one_in(6);
                self.users.insert(number, User { reserved, ..user });
                vec![number]
            }
            6 => {
                self.users.remove(&number);
                vec![number]
            }
            7 => {
                self.now += SignedDuration::from_secs(i64::try_from(dice.below(6)).unwrap());
                Vec::new()
            }
            _ if dice.one_in(4) => {
                // A restart: everything is listed anew, and nothing of before is known.
                (self.leaving, self.timers) = (Leaving::default(), BTreeMap::new());
                self.cached = self.users.clone();
                (0..PODS).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World {
        now: Timestamp::from_second(1_000_000).unwrap(),
        generation: 1,
        tainted: BTreeMap::new(),
        outdated: BTreeMap::new(),
        rules: BTreeMap::new(),
        users: BTreeMap::new(),
        cached: BTreeMap::new(),
        leaving: Leaving::default(),
        timers: BTreeMap::new(),
    };
    let (mut events, mut uids) = (Vec::new(), 0);
    for _ in 0..150 {
        events.extend(world.happens(&mut uids, &mut dice));
        while !events.is_empty() && !dice.one_in(3) {
            let at = usize::try_from(dice.below(events.len() as u64)).unwrap();
            let number = events.swap_remove(at);
            world.hear(number);
            for _ in 0..=u64::from(dice.one_in(6)) {
                if !world.look(number, &mut dice) {
                    events.push(number);
                }
            }
        }
        events.extend(world.fire(&mut dice));
    }
    // All is heard of, and the time of all that is borne for a time is over.
    for step in 0..200 {
        if step == 100 {
            world.now += SignedDuration::from_secs(60);
        }
        let mut looks: Vec<u64> = std::mem::take(&mut events);
        looks.extend(if step == 0 { 0..PODS } else { 0..0 });
        for number in looks {
            world.hear(number);
            if !world.look(number, &mut dice) {
                events.push(number);
            }
        }
        events.extend(world.fire(&mut dice));
    }
    assert!(events.is_empty(), "something is still tried");
    for (number, user) in &world.users {
        assert_eq!(world.ends(user), None, "the pod {number} should have left");
    }
    for number in 0..PODS {
        world.hear(number);
        world.look(number, &mut dice);
    }
    assert!(
        world.leaving.is_empty() && world.timers.is_empty(),
        "something is planned for nobody"
    );
}

#[test]
fn pods_leave_their_devices_when_they_must_and_not_before() {
    for seed in 0..80 {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
