//! Pods that wait for a node (upstream: `pkg/scheduler/backend/queue`): active ones in order of priority and
//! age, unschedulable ones until something changes and their back-off (1 s doubling to 10 s) is over.

use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Higher priority first, then older, then by arrival.
type Order = (std::cmp::Reverse<i32>, i64, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    /// Waits for a change; `ready` is when the back-off ends, `woken` that a change has come.
    Unschedulable {
        ready: Instant,
        woken: bool,
    },
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<Pod>,
    place: Place,
}

#[derive(Debug, Default)]
pub struct Queue {
    waiting: HashMap<String, Waiting>,
    active: BTreeMap<Order, String>,
    /// Unschedulable pods by whether a change has come: woken ones by the end of their back-off. No look at the queue
    /// costs more for the many that sleep.
    woken: BTreeSet<(Instant, String)>,
    asleep: HashSet<String>,
    /// Failed attempts by uid, until the pod leaves for good.
    attempts: HashMap<String, u32>,
    arrivals: u64,
}

impl Queue {
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.active.clear();
        self.woken.clear();
        self.asleep.clear();
    }

    /// A pod was created or changed. One that waits as unschedulable goes back only if its spec or labels changed:
    /// our own report of its condition must not wake it.
    pub fn put(&mut self, pod: Arc<Pod>) {
        let uid = uid(&pod);
        if let Some(waiting) = self.waiting.get_mut(&uid) {
            let same = waiting.pod.spec == pod.spec && waiting.pod.metadata.labels == pod.metadata.labels;
            if same || matches!(waiting.place, Place::Active(_)) {
                waiting.pod = pod;
                return;
            }
        }
        self.take(&uid);
        self.activate(uid, pod);
    }

    /// Waits for a change, and at least for the back-off.
    pub fn put_unschedulable(&mut self, pod: Arc<Pod>, now: Instant) {
        self.wait(pod, now, false);
    }

    /// Tries again after the back-off, without waiting for a change.
    pub fn retry(&mut self, pod: Arc<Pod>, now: Instant) {
        self.wait(pod, now, true);
    }

    fn wait(&mut self, pod: Arc<Pod>, now: Instant, woken: bool) {
        let uid = uid(&pod);
        let ready = now + self.next_backoff(&uid);
        let place = Place::Unschedulable { ready, woken };
        self.take(&uid);
        if woken {
            self.woken.insert((ready, uid.clone()));
        } else {
            self.asleep.insert(uid.clone());
        }
        self.waiting.insert(uid, Waiting { pod, place });
    }

    pub fn remove(&mut self, pod: &Pod) {
        let uid = uid(pod);
        self.take(&uid);
        self.attempts.remove(&uid);
    }

    /// Nodes or placed pods changed: whoever did not fit may fit now.
    pub fn something_changed(&mut self) {
        for uid in self.asleep.drain() {
            if let Some(waiting) = self.waiting.get_mut(&uid)
                && let Place::Unschedulable { ready, woken } = &mut waiting.place
            {
                *woken = true;
                self.woken.insert((*ready, uid));
            }
        }
    }

    /// When the next back-off of a woken pod ends.
    pub fn next_wake(&self) -> Option<Instant> {
        self.woken.first().map(|(ready, _)| *ready)
    }

    /// The next pod to place.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        while self.woken.first().is_some_and(|(ready, _)| *ready <= now)
            && let Some((_, uid)) = self.woken.pop_first()
        {
            if let Some(waiting) = self.waiting.remove(&uid) {
                self.activate(uid, waiting.pod);
            }
        }
        let (_, uid) = self.active.pop_first()?;
        self.waiting.remove(&uid).map(|waiting| waiting.pod)
    }

    fn activate(&mut self, uid: String, pod: Arc<Pod>) {
        self.arrivals += 1;
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
        let created = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second());
        let order = (std::cmp::Reverse(priority), created, self.arrivals);
        self.active.insert(order, uid.clone());
        self.waiting.insert(
            uid,
            Waiting {
                pod,
                place: Place::Active(order),
            },
        );
    }

    fn take(&mut self, uid: &str) {
        match self.waiting.remove(uid).map(|waiting| waiting.place) {
            Some(Place::Active(order)) => {
                self.active.remove(&order);
            }
            Some(Place::Unschedulable { ready, woken: true }) => {
                self.woken.remove(&(ready, uid.to_owned()));
            }
            Some(Place::Unschedulable { .. }) => {
                self.asleep.remove(uid);
            }
            None => {}
        }
    }

    fn next_backoff(&mut self, uid: &str) -> Duration {
        let attempts = self.attempts.entry(uid.to_owned()).or_default();
        let backoff = BACKOFF_MIN.saturating_mul(1 << (*attempts).min(8)).min(BACKOFF_MAX);
        *attempts += 1;
        backoff
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, priority: i32) -> Arc<Pod> {
        let pod = json!({"metadata": {"uid": uid, "name": uid}, "spec": {"containers": [], "priority": priority}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }
    fn name(pod: Option<Arc<Pod>>) -> Option<String> {
        pod.and_then(|pod| pod.metadata.uid.clone())
    }

    #[test]
    fn priority_then_arrival() {
        let mut queue = Queue::default();
        let now = Instant::now();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            queue.put(pod(uid, priority));
        }
        queue.put(pod("a", 0));
        let order: Vec<_> = std::iter::from_fn(|| name(queue.pop(now))).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn unschedulable_waits_for_a_change_and_its_backoff() {
        let mut queue = Queue::default();
        let start = Instant::now();
        queue.put_unschedulable(pod("a", 0), start);
        assert_eq!(name(queue.pop(start + BACKOFF_MAX)), None, "nothing has changed");
        assert_eq!(queue.next_wake(), None);
        queue.something_changed();
        assert_eq!(queue.next_wake(), Some(start + BACKOFF_MIN));
        assert_eq!(name(queue.pop(start)), None, "the back-off is not over");
        assert_eq!(name(queue.pop(start + BACKOFF_MIN)), Some("a".into()));
        queue.put_unschedulable(pod("a", 0), start);
        queue.something_changed();
        assert_eq!(queue.next_wake(), Some(start + BACKOFF_MIN * 2), "the back-off doubles");
        queue.remove(&pod("a", 0));
        assert_eq!(queue.next_wake(), None);
    }

    #[test]
    fn many_that_wait_cost_nothing() {
        let mut queue = Queue::default();
        let start = Instant::now();
        for n in 0..50_000 {
            queue.put_unschedulable(pod(&n.to_string(), 0), start);
        }
        let before = Instant::now();
        for n in 0..50_000 {
            queue.put(pod("other", n));
            assert!(queue.pop(start).is_some() && queue.next_wake().is_none());
        }
        // A look at each of them every time would take minutes.
        assert!(before.elapsed().as_secs() < 20, "{:?}", before.elapsed());
        queue.something_changed();
        let woken = std::iter::from_fn(|| queue.pop(start + BACKOFF_MIN)).count();
        assert_eq!((woken, queue.waiting.len(), queue.woken.len()), (50_000, 0, 0));
    }

    #[test]
    fn own_report_does_not_wake() {
        let mut queue = Queue::default();
        let start = Instant::now();
        queue.put_unschedulable(pod("a", 0), start);
        queue.put(pod("a", 0));
        assert_eq!(name(queue.pop(start + BACKOFF_MAX)), None);
        queue.put(pod("a", 1));
        assert_eq!(
            name(queue.pop(start)),
            Some("a".into()),
            "a changed spec is tried at once"
        );
    }
}
