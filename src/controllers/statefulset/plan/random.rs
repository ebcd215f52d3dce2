//! Random histories of a StatefulSet: a small cluster that fails, lags and is interfered with.

use super::*;
use k8s_openapi::api::apps::v1::StatefulSetSpec;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const SEEDS: u64 = 200;
const STEPS: usize = 120;

#[derive(Clone, Debug, PartialEq)]
struct Member {
    uid: u32,
    revision: String,
    phase: &'static str,
    ready: bool,
    going: bool,
}

impl Member {
    fn is_available(&self) -> bool {
        self.phase == "Running" && self.ready && !self.going
    }
}

struct World {
    random: StdRng,
    set: StatefulSet,
    update: String,
    pods: BTreeMap<i32, Member>,
    /// What the controller's cache shows; its own writes it always shows.
    seen: BTreeMap<i32, Member>,
    uids: u32,
    /// Pods fail and are deleted by others, too.
    rough: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let policy = if random.random_bool(0.5) {
            "OrderedReady"
        } else {
            "Parallel"
        };
        let rolling = json!({"partition": 0, "maxUnavailable": random.random_range(1..4)});
        let metadata = json!({"name": "web", "uid": "set", "generation": 1});
        let spec = json!({
            "replicas": random.random_range(0..6), "selector": {}, "template": {}, "podManagementPolicy": policy,
            "ordinals": {"start": random.random_range(0..3)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        });
        Self {
            rough: random.random_bool(0.5),
            random,
            set: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            update: "r0".to_owned(),
            pods: BTreeMap::new(),
            seen: BTreeMap::new(),
            uids: 0,
        }
    }

    fn spec(&mut self) -> &mut StatefulSetSpec {
        &mut self.set.spec
    }

    fn any_ordinal(&mut self) -> i32 {
        self.random.random_range(0..10)
    }

    fn step(&mut self) {
        let ordinal = self.any_ordinal();
        match self.random.random_range(0..20) {
            0 => self.spec().replicas = Some(self.random.random_range(0..6)),
            1 => self.update = format!("r{}", self.random.random_range(0..4)),
            2 => {
                let partition = self.random.random_range(0..4);
                let strategy = self.spec().update_strategy.as_mut().unwrap();
                strategy.rolling_update.as_mut().unwrap().partition = Some(partition);
            }
            3..7 => self.work_on(ordinal),
            7..11 => self.show(ordinal),
            11 if self.rough => self.harm(ordinal),
            _ => {
                self.sync();
            }
        }
    }

    /// What the node does about a pod.
    fn work_on(&mut self, ordinal: i32) {
        let Some(pod) = self.pods.get_mut(&ordinal) else { return };
        match (pod.going, pod.phase) {
            (true, _) => drop(self.pods.remove(&ordinal)),
            (_, "Pending") => pod.phase = "Running",
            (_, "Running") => pod.ready = true,
            _ => {}
        }
    }

    fn show(&mut self, ordinal: i32) {
        match self.pods.get(&ordinal) {
            Some(pod) => drop(self.seen.insert(ordinal, pod.clone())),
            None => drop(self.seen.remove(&ordinal)),
        }
    }

    fn harm(&mut self, ordinal: i32) {
        let kind = self.random.random_range(0..4);
        let Some(pod) = self.pods.get_mut(&ordinal) else { return };
        match kind {
            0 => pod.ready = false,
            1 => (pod.phase, pod.ready) = ("Failed", false),
            2 => (pod.phase, pod.ready) = ("Succeeded", false),
            _ => pod.going = true,
        }
    }

    fn cached(&self) -> Vec<Arc<Pod>> {
        let pod = |(ordinal, member): (&i32, &Member)| {
            let name = format!("web-{ordinal}");
            let mut pod = json!({
                "metadata": {"name": name, "uid": member.uid.to_string(), "labels": {
                    "controller-revision-hash": member.revision, "statefulset.kubernetes.io/pod-name": name}},
                "status": {"phase": member.phase,
                    "conditions": [{"type": "Ready", "status": if member.ready { "True" } else { "False" }}]},
            });
            if member.going {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        self.seen.iter().map(pod).collect()
    }

    /// One turn of the controller, which may break off anywhere. Whether there was anything to do.
    fn sync(&mut self) -> bool {
        let status = self.set.status.as_ref();
        let current = status.and_then(|status| status.current_revision.clone());
        let current = current.unwrap_or_else(|| self.update.clone());
        let pods = self.cached();
        let plan = plan(&View {
            set: &self.set,
            pods: &pods,
            current: &current,
            update: &self.update,
            collisions: 0,
            claim: &|_| None,
            now: tests::now(),
        });
        let mut acted = !plan.outdated.is_empty();
        for action in plan.phases.iter().flatten() {
            acted = true;
            let broke_off = self.random.random_bool(0.1) || !self.act(action, &current);
            if broke_off {
                return true;
            }
        }
        let mut deleted = 0;
        for pod in &plan.outdated {
            if self.random.random_bool(0.1) {
                break;
            }
            self.update_by_deleting(pod);
            deleted += 1;
        }
        let status = finish(&self.set, plan.status, deleted);
        if differs(&self.set, &status) {
            acted = true;
            // A conflict: the next turn writes it.
            if self.random.random_bool(0.8) {
                self.set.status = Some(status);
            }
        }
        acted
    }

    fn act(&mut self, action: &Action, current: &str) -> bool {
        match action {
            Action::Create { ordinal, at_current } => self.create(*ordinal, if *at_current { current } else { "" }),
            Action::Delete(pod) => {
                self.scale_down(pod);
                true
            }
            other => panic!("{other:?} without claims"),
        }
    }

    fn create(&mut self, ordinal: i32, revision: &str) -> bool {
        if self.pods.contains_key(&ordinal) {
            return false;
        }
        let wanted = identity::ordinals(&self.set);
        assert!(wanted.contains(&ordinal), "{ordinal} is not wanted");
        if !is_parallel(&self.set) && !self.rough {
            let below = (wanted.start..ordinal).all(|below| self.pods.get(&below).is_some_and(Member::is_available));
            assert!(below, "{ordinal} comes before one below it: {:?}", self.pods);
        }
        self.uids += 1;
        let revision = if revision.is_empty() { &self.update } else { revision };
        let pod = Member {
            uid: self.uids,
            revision: revision.to_owned(),
            phase: "Pending",
            ready: false,
            going: false,
        };
        self.pods.insert(ordinal, pod);
        self.show(ordinal);
        true
    }

    fn delete(&mut self, pod: &Pod) -> Option<Member> {
        let ordinal = identity::ordinal(pod).unwrap();
        let there = self.pods.get_mut(&ordinal)?;
        // The uid is a precondition.
        if Some(&there.uid.to_string()) != pod.metadata.uid.as_ref() {
            return None;
        }
        let before = there.clone();
        there.going = true;
        self.show(ordinal);
        Some(before)
    }

    fn scale_down(&mut self, pod: &Pod) {
        let ordinal = identity::ordinal(pod).unwrap();
        let is_wanted = identity::ordinals(&self.set).contains(&ordinal);
        assert!(!is_wanted || pods::is_finished(pod), "{ordinal} is wanted and runs");
        if !is_wanted && !is_parallel(&self.set) && !self.rough {
            let above = self
                .pods
                .range(ordinal + 1..)
                .find(|(above, _)| !identity::ordinals(&self.set).contains(above));
            assert!(above.is_none(), "{ordinal} goes before {above:?}");
        }
        self.delete(pod);
    }

    fn update_by_deleting(&mut self, pod: &Pod) {
        // What seems to be down goes for nothing.
        let seemed_available = pods::is_available(pod, 0, tests::now()) && !pods::is_terminating(pod);
        let Some(before) = self.delete(pod) else { return };
        assert_ne!(before.revision, self.update);
        if self.rough || !seemed_available {
            return;
        }
        let wanted = identity::ordinals(&self.set);
        let available = wanted
            .clone()
            .filter(|ordinal| self.pods.get(ordinal).is_some_and(Member::is_available));
        let unavailable = wanted.len() - available.count();
        let most = max_unavailable(&self.set);
        assert!(
            unavailable <= most,
            "{unavailable} of {most} are unavailable: {:?}",
            self.pods
        );
    }

    /// All become quiet: what is left to do is done, and then nothing is.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut acted = self.sync();
            let before = self.seen.clone();
            for ordinal in 0..10 {
                self.work_on(ordinal);
                self.show(ordinal);
            }
            acted |= before != self.seen;
            if !acted {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.pods);
    }

    fn check_the_end(&self) {
        let wanted = identity::ordinals(&self.set);
        let there: Vec<i32> = self.pods.keys().copied().collect();
        assert_eq!(there, wanted.clone().collect::<Vec<_>>());
        assert!(self.pods.values().all(Member::is_available), "{:?}", self.pods);
        let partition = rolling(&self.set).unwrap().partition.unwrap();
        for (ordinal, pod) in self.pods.range((wanted.start + partition)..) {
            assert_eq!(pod.revision, self.update, "{ordinal}");
        }
        let status = self.set.status.as_ref().unwrap();
        assert_eq!(status.available_replicas, Some(wanted.len() as i32));
        if partition == 0 {
            assert_eq!(status.current_revision.as_ref(), Some(&self.update));
        }
    }
}

#[test]
fn every_history_keeps_the_order_and_comes_to_rest() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            world.settle();
            world.check_the_end();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
