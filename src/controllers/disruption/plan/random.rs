//! Random histories of a budget: evictions take from it while it is counted from caches that are behind.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const SEEDS: u64 = 200;
const STEPS: usize = 200;

#[derive(Clone, Debug, PartialEq)]
struct Served {
    ready: bool,
    going: bool,
    /// An eviction was let through; the deletion may be on its way.
    evicted: bool,
}

struct World {
    random: StdRng,
    wanted: i32,
    replicas: usize,
    pods: BTreeMap<u32, Served>,
    /// What the controller's caches show.
    seen: BTreeMap<u32, Served>,
    seen_budget: PodDisruptionBudget,
    budget: PodDisruptionBudget,
    names: u32,
    seconds: i64,
}

fn version(budget: &PodDisruptionBudget) -> u64 {
    let version = budget.metadata.resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let wanted = random.random_range(0..5);
        let metadata = json!({"name": "b", "namespace": "a", "generation": 1, "resourceVersion": "1"});
        let budget: PodDisruptionBudget =
            serde_json::from_value(json!({"metadata": metadata, "spec": {"minAvailable": wanted}})).unwrap();
        Self {
            replicas: random.random_range(1..7),
            random,
            wanted,
            pods: BTreeMap::new(),
            seen: BTreeMap::new(),
            seen_budget: budget.clone(),
            budget,
            names: 0,
            seconds: 1_000_000,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds).unwrap()
    }

    fn write(&mut self, status: PodDisruptionBudgetStatus) {
        self.budget.status = Some(status);
        self.budget.metadata.resource_version = Some((version(&self.budget) + 1).to_string());
    }

    fn any(&mut self) -> Option<u32> {
        let names: Vec<u32> = self.pods.keys().chain(self.seen.keys()).copied().collect();
        (!names.is_empty()).then(|| names[self.random.random_range(0..names.len())])
    }

    fn step(&mut self) {
        self.seconds += self.random.random_range(0..2);
        let name = self.any();
        match (self.random.random_range(0..12), name) {
            (0..2, _) if self.pods.len() < self.replicas => {
                self.names += 1;
                let pod = Served {
                    ready: false,
                    going: false,
                    evicted: false,
                };
                self.pods.insert(self.names, pod);
            }
            (2..4, Some(name)) => self.work_on(name),
            (4..7, Some(name)) => match self.pods.get(&name) {
                Some(pod) => drop(self.seen.insert(name, pod.clone())),
                None => drop(self.seen.remove(&name)),
            },
            (7, _) => self.seen_budget = self.budget.clone(),
            (8..10, Some(name)) => self.evict(name),
            _ => self.count(),
        }
    }

    fn work_on(&mut self, name: u32) {
        let Some(pod) = self.pods.get_mut(&name) else { return };
        match pod {
            Served { going: true, .. } => drop(self.pods.remove(&name)),
            Served { evicted: true, .. } => pod.going = true,
            pod => pod.ready = true,
        }
    }

    /// What the API server does about an eviction of a pod that is ready.
    fn evict(&mut self, name: u32) {
        let Some(pod) = self.pods.get_mut(&name).filter(|pod| pod.ready && !pod.going) else {
            return;
        };
        let mut status = self.budget.status.clone().unwrap_or_default();
        let allowed = status.disruptions_allowed.unwrap_or(0);
        if status.observed_generation != Some(1) || allowed == 0 {
            return;
        }
        pod.evicted = true;
        status.disruptions_allowed = Some(allowed - 1);
        let now = Time(self.now());
        let disrupted = status.disrupted_pods.get_or_insert_default();
        disrupted.insert(name.to_string(), now);
        self.write(status);
        let serving = self.pods.values().filter(|pod| pod.ready && !pod.going && !pod.evicted);
        let serving = serving.count() as i32;
        assert!(
            serving >= self.wanted,
            "{serving} of {} serve: {:?}",
            self.wanted,
            self.pods
        );
    }

    /// One turn of the controller; its write fails if the budget has changed meanwhile.
    fn count(&mut self) {
        let pod = |(name, served): (&u32, &Served)| {
            let ready = if served.ready { "True" } else { "False" };
            let mut pod = json!({"metadata": {"name": name.to_string()},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
            if served.going {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let selected: Vec<Arc<Pod>> = self.seen.iter().map(pod).collect();
        let expected = expected(&self.seen_budget, selected.len() as i32).unwrap();
        let plan = plan(&self.seen_budget, &selected, expected, self.now());
        if let Some(status) = plan.status
            && version(&self.seen_budget) == version(&self.budget)
        {
            self.write(status);
        }
    }

    /// All becomes quiet and is seen; then the numbers are true and nothing is written any more.
    fn settle(&mut self) {
        for _ in 0..6 {
            let names: Vec<u32> = self.pods.keys().copied().collect();
            names.into_iter().for_each(|name| self.work_on(name));
            self.seen = self.pods.clone();
            self.seen_budget = self.budget.clone();
            self.count();
        }
        self.seen_budget = self.budget.clone();
        let before = version(&self.budget);
        self.count();
        assert_eq!(version(&self.budget), before, "an idle budget is written");
        let status = self.budget.status.as_ref().unwrap();
        let healthy = self.pods.len() as i32;
        let spare = if healthy > 0 { (healthy - self.wanted).max(0) } else { 0 };
        assert_eq!(
            (status.current_healthy, status.disruptions_allowed),
            (Some(healthy), Some(spare))
        );
        assert_eq!(status.disrupted_pods, None);
    }
}

#[test]
fn evictions_never_take_more_than_the_budget_has() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            world.settle();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
