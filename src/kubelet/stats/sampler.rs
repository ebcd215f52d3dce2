//! Reads counters when somebody asks, and makes rates of them (upstream: cAdvisor's housekeeping, and
//! `pkg/kubelet/stats/cri_stats_provider.go` `getContainerUsageNanoCores`).

use crate::runtime::usage::of_machine;
use crate::runtime::{ContainerState, ContainerStatus, PodIdentity, Runtime, RuntimeError, SandboxState, Usage};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Who asks again within this time is told the same.
const FRESH: Duration = Duration::from_secs(1);
/// A rate is best taken over at least so long, as upstream's housekeeping does.
const WINDOW: Duration = Duration::from_secs(10);
/// Older counters say nothing about now.
const HISTORY: Duration = Duration::from_secs(60);
/// What is shorter is noise.
const WINDOW_MIN: Duration = Duration::from_millis(900);
/// Between two readings, where there was none to compare with.
const SECOND_READING: Duration = Duration::from_secs(1);

/// Counters, and what was used a second lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub usage: Usage,
    /// None while there is nothing to compare with.
    pub rate: Option<Rate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Billionths of a core.
    pub nano_cores: u64,
    /// The time that it is the average of.
    pub window: Duration,
}

#[derive(Clone, Debug)]
pub struct ContainerFigures {
    pub id: String,
    pub name: String,
    pub image: String,
    pub started_at: SystemTime,
    pub figures: Figures,
}

#[derive(Clone, Debug)]
pub struct PodFigures {
    pub pod: PodIdentity,
    pub started_at: SystemTime,
    pub sandbox: Option<Figures>,
    /// Those that run, by name.
    pub containers: Vec<ContainerFigures>,
}

impl PodFigures {
    /// Of all containers and the sandbox; None if it is not known of one.
    pub fn rate(&self) -> Option<Rate> {
        let rates = self.containers.iter().map(|one| one.figures.rate);
        let sandbox = self.sandbox.as_ref().and_then(|figures| figures.rate);
        let (mut sum, mut window) = (sandbox.map_or(0, |rate| rate.nano_cores), Duration::ZERO);
        for rate in rates {
            let rate = rate?;
            sum += rate.nano_cores;
            window = window.max(rate.window);
        }
        (!window.is_zero()).then_some(Rate {
            nano_cores: sum,
            window,
        })
    }

    /// The sum of a counter of all containers and the sandbox.
    pub fn sum(&self, of: impl Fn(&Usage) -> u64) -> u64 {
        let containers = self.containers.iter().map(|one| &one.figures);
        containers.chain(&self.sandbox).map(|figures| of(&figures.usage)).sum()
    }
}

/// What runs and what it uses, at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: SystemTime,
    pub machine: Option<Figures>,
    pub pods: Vec<PodFigures>,
}

/// Counters of one time, by id; the machine's is `/`.
struct Sample {
    at: SystemTime,
    counters: HashMap<String, Usage>,
}

/// See the module's description.
pub struct Sampler {
    runtime: Arc<dyn Runtime>,
    history: Mutex<VecDeque<Arc<Sample>>>,
    /// One reads, and the others who ask meanwhile wait for what it finds.
    turn: tokio::sync::Mutex<Option<Arc<Snapshot>>>,
}

impl Sampler {
    pub fn new(runtime: Arc<dyn Runtime>) -> Sampler {
        Sampler {
            runtime,
            history: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// What is used now.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, RuntimeError> {
        let mut last = self.turn.lock().await;
        let now = SystemTime::now();
        if let Some(snapshot) = &*last
            && now.duration_since(snapshot.at).is_ok_and(|age| age < FRESH)
        {
            return Ok(snapshot.clone());
        }
        let mut snapshot = self.read().await?;
        if snapshot.lacks_old_ones() {
            tokio::time::sleep(SECOND_READING).await;
            snapshot = self.read().await?;
        }
        let snapshot = Arc::new(snapshot);
        *last = Some(snapshot.clone());
        Ok(snapshot)
    }

    async fn read(&self) -> Result<Snapshot, RuntimeError> {
        let (sandboxes, containers) =
            tokio::try_join!(self.runtime.list_pod_sandboxes(), self.runtime.list_containers())?;
        let sandboxes = sandboxes.into_iter().filter(|one| one.state == SandboxState::Ready);
        let sandboxes: Vec<_> = sandboxes.collect();
        let running = containers
            .into_iter()
            .filter(|one| one.state == ContainerState::Running);
        let containers: Vec<ContainerStatus> = running.collect();
        let ids = sandboxes
            .iter()
            .map(|one| &one.id)
            .chain(containers.iter().map(|one| &one.id));
        let ids: Vec<String> = ids.cloned().collect();
        let at = SystemTime::now();
        let read = self.runtime.usage(&ids).await?;
        let counters = read
            .into_iter()
            .chain(of_machine())
            .map(|usage| (usage.id.clone(), usage));
        let sample = Arc::new(Sample {
            at,
            counters: counters.collect(),
        });
        let history = self.remember(sample.clone());
        let figures = |id: &str, started_at: Option<SystemTime>| {
            let usage = sample.counters.get(id)?;
            let before = history.iter().filter_map(|old| old.counters.get(id));
            Some(Figures {
                usage: usage.clone(),
                rate: rate(usage, before, started_at),
            })
        };
        let mut pods = Vec::new();
        for sandbox in sandboxes {
            let own = containers.iter().filter(|one| one.sandbox_id == sandbox.id);
            let mut own: Vec<ContainerFigures> = own
                .filter_map(|container| {
                    let started_at = container.started_at.unwrap_or(container.created_at);
                    Some(ContainerFigures {
                        id: container.id.clone(),
                        name: container.name.clone(),
                        image: container.image.clone(),
                        started_at,
                        figures: figures(&container.id, Some(started_at))?,
                    })
                })
                .collect();
            own.sort_by(|a, b| a.name.cmp(&b.name));
            pods.push(PodFigures {
                sandbox: figures(&sandbox.id, Some(sandbox.created_at)),
                pod: sandbox.pod,
                started_at: sandbox.created_at,
                containers: own,
            });
        }
        pods.sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
        Ok(Snapshot {
            at,
            machine: figures("/", None),
            pods,
        })
    }

    /// Returns what there was before, oldest first.
    fn remember(&self, sample: Arc<Sample>) -> Vec<Arc<Sample>> {
        let mut history = self.history.lock();
        while let Some(oldest) = history.front()
            && !sample.at.duration_since(oldest.at).is_ok_and(|age| age <= HISTORY)
        {
            history.pop_front();
        }
        let before = history.iter().cloned().collect();
        history.push_back(sample);
        before
    }
}

impl Snapshot {
    /// Something runs for long enough to have a rate, and has none.
    fn lacks_old_ones(&self) -> bool {
        let lacks = |figures: &Figures, started_at: SystemTime| {
            let age = self.at.duration_since(started_at).unwrap_or_default();
            figures.rate.is_none() && age >= WINDOW_MIN
        };
        let containers = self.pods.iter().flat_map(|pod| &pod.containers);
        self.machine.as_ref().is_some_and(|machine| machine.rate.is_none())
            || containers.into_iter().any(|one| lacks(&one.figures, one.started_at))
    }
}

/// Compares with the newest reading that is long enough ago, else with the oldest of the later ones. What has just
/// started is compared with its start, when it had used nothing.
fn rate<'a>(now: &Usage, before: impl Iterator<Item = &'a Usage>, started_at: Option<SystemTime>) -> Option<Rate> {
    let age = |then: SystemTime| now.read_at.duration_since(then).unwrap_or_default();
    let start = started_at.filter(|start| (WINDOW_MIN..HISTORY).contains(&age(*start)));
    let mut chosen: Option<(u64, Duration)> = start.map(|start| (0, age(start)));
    for old in before.filter(|old| age(old.read_at) >= WINDOW_MIN && old.cpu_nanos <= now.cpu_nanos) {
        let (used, window) = (old.cpu_nanos, age(old.read_at));
        if chosen.is_none_or(|(_, found)| found > WINDOW && window >= WINDOW) {
            chosen = Some((used, window));
        }
    }
    let (used, window) = chosen?;
    let nano_cores = u128::from(now.cpu_nanos.saturating_sub(used)) * 1_000_000_000 / window.as_nanos();
    Some(Rate {
        nano_cores: u64::try_from(nano_cores).unwrap_or(u64::MAX),
        window,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake::{Behaviour, FakeRuntime, Script};
    use crate::runtime::{ContainerConfig, SandboxConfig};

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + Duration::from_millis(millis)
    }

    fn used(millis: u64, cpu_millis: u64) -> Usage {
        let mut usage = Usage::none("c", at(millis));
        usage.cpu_nanos = cpu_millis * 1_000_000;
        usage
    }

    #[test]
    fn rates_are_taken_over_the_best_window() {
        // now, readings before (time, cpu), start, expected milli cores and window in seconds
        type Case<'a> = (&'a str, &'a [(u64, u64)], Option<u64>, Option<(u64, u64)>);
        let now = used(100_000, 50_000);
        let cases: [Case<'_>; 7] = [
            ("nothing to compare with", &[], Some(0), None),
            ("just started", &[], Some(99_500), None),
            ("started lately", &[], Some(75_000), Some((2000, 25))),
            (
                "the newest of those that are old enough",
                &[(70_000, 0), (85_000, 35_000), (95_000, 40_000)],
                None,
                Some((1000, 15)),
            ),
            (
                "a young one is better than none",
                &[(95_000, 47_500)],
                None,
                Some((500, 5)),
            ),
            ("too close", &[(99_500, 49_000)], None, None),
            ("counters began anew", &[(85_000, 60_000)], None, None),
        ];
        for (name, before, start, expected) in cases {
            let before: Vec<Usage> = before.iter().map(|(time, cpu)| used(*time, *cpu)).collect();
            let found = rate(&now, before.iter(), start.map(at));
            let found = found.map(|rate| (rate.nano_cores / 1_000_000, rate.window.as_secs()));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_pod_has_figures_soon_after_its_start() {
        let runtime = FakeRuntime::new();
        runtime.add_image("busy");
        let busy = Behaviour {
            script: Some(Script::forever()),
            cpu_milli: 250,
            memory_bytes: 5 << 20,
            ..Behaviour::default()
        };
        runtime.set_behaviour("busy", busy);
        let sandbox = SandboxConfig::default();
        let sandbox_id = runtime.run_pod_sandbox(&sandbox).await.unwrap();
        let config = ContainerConfig {
            name: "c".to_owned(),
            image: "busy".to_owned(),
            ..ContainerConfig::default()
        };
        let id = runtime.create_container(&sandbox_id, &config, &sandbox).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let sampler = Sampler::new(runtime);
        // The machine's own rate takes two readings, and the container is a second old by then.
        let snapshot = sampler.snapshot().await.unwrap();
        let pod = &snapshot.pods[0];
        let milli = pod.rate().unwrap().nano_cores / 1_000_000;
        assert!((240..=260).contains(&milli), "{milli}");
        assert_eq!(pod.sum(|usage| usage.working_set_bytes), 5 << 20);
        assert!(snapshot.machine.as_ref().unwrap().rate.is_some());
        let again = sampler.snapshot().await.unwrap();
        assert!(Arc::ptr_eq(&snapshot, &again), "who asks at once is told the same");
    }
}
