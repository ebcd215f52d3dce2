//! Pods that wait for a node (upstream: `pkg/scheduler/backend/queue`): active ones in order of priority and arrival,
//! refused ones until an event that may help, and then until their back-off is over.
//!
//! Refused pods are kept by the plug-ins that refused them, so that an event costs nothing for those it does not concern.

use super::pod_info::PodInfo;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Refused pods are tried again after this time although nothing seems to have changed.
const REFUSED_MAX: Duration = Duration::from_secs(5 * 60);

/// When nobody else waits, pods are tried before their back-off ends, as upstream does. With more than so many of them
/// they wait, or a full cluster would keep a core busy with pods that fit nowhere.
const EAGER_MAX: usize = 64;

/// Higher priority first, then by arrival.
type Order = (Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    /// `eager`: may be tried earlier if nobody else waits.
    Backoff {
        ready: Instant,
        eager: bool,
    },
    /// Waits for an event.
    Refused {
        since: Instant,
    },
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    refused_by: BTreeSet<&'static str>,
    /// When the back-off of the last attempt ends.
    ready: Instant,
}

#[derive(Debug)]
pub struct Queue {
    backoff_first: Duration,
    backoff_last: Duration,
    waiting: HashMap<String, Waiting>,
    active: BTreeMap<Order, String>,
    backoff: BTreeSet<(Instant, String)>,
    /// Those of `backoff` that may be tried earlier, by order.
    eager: BTreeSet<(Instant, String)>,
    refused: BTreeSet<(Instant, String)>,
    by_plugin: HashMap<&'static str, HashSet<String>>,
    /// Refused by nothing in particular: any event may help.
    by_nothing: HashSet<String>,
    /// Failed attempts by uid, until the pod leaves for good.
    attempts: HashMap<String, u32>,
    /// Pods for which others are being deleted just now; true once an event would have woken them.
    held: HashMap<String, bool>,
    arrivals: u64,
}

/// A pod to be placed.
#[derive(Debug)]
pub struct Popped {
    pub pod: Arc<PodInfo>,
    /// Nothing has changed since it was refused; only time has passed.
    pub by_time: bool,
}

impl Queue {
    pub fn new(backoff_first: Duration, backoff_last: Duration) -> Self {
        Self {
            backoff_first,
            backoff_last,
            waiting: HashMap::new(),
            active: BTreeMap::new(),
            backoff: BTreeSet::new(),
            eager: BTreeSet::new(),
            refused: BTreeSet::new(),
            by_plugin: HashMap::new(),
            by_nothing: HashSet::new(),
            attempts: HashMap::new(),
            held: HashMap::new(),
            arrivals: 0,
        }
    }

    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.waiting.get(uid).map(|waiting| &waiting.pod)
    }

    /// A pod was created or changed. `again`: the change is worth a try.
    pub fn put(&mut self, pod: Arc<PodInfo>, again: bool) {
        if let Some(waiting) = self.waiting.get_mut(&pod.uid) {
            let same_order = waiting.pod.priority == pod.priority;
            let active = matches!(waiting.place, Place::Active(_));
            if (active && same_order) || !(active || again) {
                waiting.pod = pod;
                return;
            }
        }
        self.take(&pod.uid);
        if let Some(woken) = self.held.get_mut(&pod.uid) {
            *woken = true;
            self.refuse(pod, BTreeSet::new(), Instant::now());
            return;
        }
        self.activate(pod);
    }

    /// No node took the pod: it waits for an event that may help, and at least for its back-off.
    pub fn refuse(&mut self, pod: Arc<PodInfo>, by: BTreeSet<&'static str>, now: Instant) {
        let ready = now + self.next_backoff(&pod.uid);
        self.take(&pod.uid);
        self.keep_refused(pod, by, ready, now);
    }

    fn keep_refused(&mut self, pod: Arc<PodInfo>, by: BTreeSet<&'static str>, ready: Instant, now: Instant) {
        let uid = pod.uid.clone();
        self.refused.insert((now, uid.clone()));
        if by.is_empty() {
            self.by_nothing.insert(uid.clone());
        }
        for plugin in &by {
            self.by_plugin.entry(plugin).or_default().insert(uid.clone());
        }
        let waiting = Waiting {
            pod,
            place: Place::Refused { since: now },
            refused_by: by,
            ready,
        };
        self.waiting.insert(uid, waiting);
    }

    /// Something failed that has nothing to do with nodes: it is tried again after the back-off.
    pub fn retry(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let ready = now + self.next_backoff(&pod.uid);
        self.take(&pod.uid);
        self.back_off(pod, BTreeSet::new(), ready, false);
    }

    fn back_off(&mut self, pod: Arc<PodInfo>, refused_by: BTreeSet<&'static str>, ready: Instant, eager: bool) {
        let uid = pod.uid.clone();
        self.backoff.insert((ready, uid.clone()));
        if eager {
            self.eager.insert((ready, uid.clone()));
        }
        let waiting = Waiting {
            pod,
            place: Place::Backoff { ready, eager },
            refused_by,
            ready,
        };
        self.waiting.insert(uid, waiting);
    }

    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
        self.attempts.remove(uid);
        self.held.remove(uid);
    }

    /// Something has happened: `listens` says for which plug-ins it matters at all, `helps` for which pods.
    pub fn happened(
        &mut self,
        now: Instant,
        listens: impl Fn(&str) -> bool,
        helps: impl Fn(&PodInfo, &'static str) -> bool,
    ) {
        let mut woken: Vec<String> = self.by_nothing.iter().cloned().collect();
        let mut seen: HashSet<&String> = HashSet::new();
        for (plugin, uids) in &self.by_plugin {
            if !listens(plugin) {
                continue;
            }
            for uid in uids {
                let pod = self.waiting.get(uid).map(|waiting| &waiting.pod);
                if !seen.contains(uid) && pod.is_some_and(|pod| helps(pod, plugin)) {
                    seen.insert(uid);
                    woken.push(uid.clone());
                }
            }
        }
        drop(seen);
        for uid in woken {
            self.wake(&uid, now);
        }
    }

    /// Tries the pod again as soon as its back-off is over.
    pub fn wake(&mut self, uid: &str, now: Instant) {
        if !matches!(
            self.waiting.get(uid),
            Some(Waiting {
                place: Place::Refused { .. },
                ..
            })
        ) {
            return;
        }
        if let Some(woken) = self.held.get_mut(uid) {
            *woken = true;
            return;
        }
        if let Some(waiting) = self.take(uid) {
            if waiting.ready <= now {
                self.activate(waiting.pod);
            } else {
                self.back_off(waiting.pod, waiting.refused_by, waiting.ready, true);
            }
        }
    }

    /// Others are being deleted for the pod; it is not tried before [`Queue::release`].
    pub fn hold(&mut self, uid: &str) {
        self.held.insert(uid.to_owned(), false);
    }

    /// `failed`: it has to be tried again, whatever happened meanwhile.
    pub fn release(&mut self, uid: &str, failed: bool, now: Instant) {
        if self.held.remove(uid).is_some_and(|woken| woken || failed) {
            self.wake(uid, now);
        }
    }

    /// When [`Queue::pop`] may give something that it does not give now.
    pub fn next_wake(&self) -> Option<Instant> {
        let backoff = self.backoff.first().map(|(ready, _)| *ready);
        let refused = self.refused.first().map(|(since, _)| *since + REFUSED_MAX);
        [backoff, refused].into_iter().flatten().min()
    }

    /// Whether [`Queue::pop`] has something to give.
    pub fn is_ready(&self, now: Instant) -> bool {
        let eager = !self.eager.is_empty() && self.eager.len() <= EAGER_MAX;
        !self.active.is_empty() || eager || self.next_wake().is_some_and(|wake| wake <= now)
    }

    /// The next pod to place.
    pub fn pop(&mut self, now: Instant) -> Option<Popped> {
        while let Some((ready, uid)) = self.backoff.first()
            && *ready <= now
        {
            let uid = uid.clone();
            if let Some(waiting) = self.take(&uid) {
                self.activate(waiting.pod);
            }
        }
        if let Some((_, uid)) = self.active.first_key_value() {
            let uid = uid.clone();
            return self.take(&uid).map(|waiting| Popped {
                pod: waiting.pod,
                by_time: false,
            });
        }
        if self.eager.len() <= EAGER_MAX
            && let Some((_, uid)) = self.eager.first()
        {
            let uid = uid.clone();
            return self.take(&uid).map(|waiting| Popped {
                pod: waiting.pod,
                by_time: false,
            });
        }
        while let Some((since, uid)) = self.refused.first()
            && *since + REFUSED_MAX <= now
        {
            let uid = uid.clone();
            let is_held = self.held.contains_key(&uid);
            match self.take(&uid) {
                Some(waiting) if is_held => self.keep_refused(waiting.pod, waiting.refused_by, waiting.ready, now),
                Some(waiting) => {
                    return Some(Popped {
                        pod: waiting.pod,
                        by_time: true,
                    });
                }
                None => {}
            }
        }
        None
    }

    fn activate(&mut self, pod: Arc<PodInfo>) {
        self.arrivals += 1;
        let order = (Reverse(pod.priority), self.arrivals);
        let uid = pod.uid.clone();
        self.active.insert(order, uid.clone());
        let waiting = Waiting {
            pod,
            place: Place::Active(order),
            refused_by: BTreeSet::new(),
            ready: Instant::now(),
        };
        self.waiting.insert(uid, waiting);
    }

    fn take(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.waiting.remove(uid)?;
        match &waiting.place {
            Place::Active(order) => {
                self.active.remove(order);
            }
            Place::Backoff { ready, eager } => {
                let entry = (*ready, uid.to_owned());
                self.backoff.remove(&entry);
                if *eager {
                    self.eager.remove(&entry);
                }
            }
            Place::Refused { since } => {
                self.refused.remove(&(*since, uid.to_owned()));
                self.by_nothing.remove(uid);
                for plugin in &waiting.refused_by {
                    if let Some(uids) = self.by_plugin.get_mut(plugin) {
                        uids.remove(uid);
                        if uids.is_empty() {
                            self.by_plugin.remove(plugin);
                        }
                    }
                }
            }
        }
        Some(waiting)
    }

    fn next_backoff(&mut self, uid: &str) -> Duration {
        let attempts = self.attempts.entry(uid.to_owned()).or_default();
        let backoff = self.backoff_first.saturating_mul(1 << (*attempts).min(20));
        *attempts += 1;
        backoff.min(self.backoff_last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FIRST: Duration = Duration::from_secs(1);

    fn queue() -> Queue {
        Queue::new(FIRST, Duration::from_secs(10))
    }
    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"uid": uid, "name": uid}, "spec": {"containers": [], "priority": priority}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }
    fn name(popped: Option<Popped>) -> Option<String> {
        popped.map(|popped| popped.pod.uid.clone())
    }
    fn fit() -> BTreeSet<&'static str> {
        ["NodeResourcesFit"].into()
    }
    fn all(queue: &mut Queue, now: Instant) {
        queue.happened(now, |_| true, |_, _| true);
    }

    #[test]
    fn priority_then_arrival() {
        let mut queue = queue();
        let now = Instant::now();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            queue.put(pod(uid, priority), true);
        }
        queue.put(pod("a", 0), true);
        let order: Vec<_> = std::iter::from_fn(|| name(queue.pop(now))).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn refused_pods_wait_for_what_may_help() {
        let mut queue = queue();
        let start = Instant::now();
        queue.refuse(pod("a", 0), fit(), start);
        assert_eq!(name(queue.pop(start)), None);
        queue.happened(start, |plugin| plugin == "NodePorts", |_, _| true);
        queue.happened(start, |_| true, |_, _| false);
        assert_eq!(
            name(queue.pop(start + Duration::from_secs(60))),
            None,
            "nothing that helps"
        );
        all(&mut queue, start + Duration::from_secs(60));
        assert_eq!(name(queue.pop(start + Duration::from_secs(60))), Some("a".into()));
        queue.refuse(pod("b", 0), BTreeSet::new(), start);
        queue.happened(start, |_| false, |_, _| false);
        assert_eq!(name(queue.pop(start)), Some("b".into()), "anything may help");
    }

    #[test]
    fn the_backoff_doubles_and_only_few_are_spared_it() {
        let mut queue = queue();
        let start = Instant::now();
        let many = EAGER_MAX as u64 + 1;
        for round in 0..2u32 {
            for n in 0..many {
                queue.refuse(pod(&n.to_string(), 0), fit(), start);
            }
            all(&mut queue, start);
            let ready = start + FIRST * (round + 1);
            assert_eq!(queue.next_wake(), Some(ready));
            assert!(queue.pop(start).is_none(), "too many to be eager");
            let woken = std::iter::from_fn(|| queue.pop(ready)).count();
            assert_eq!(woken as u64, many);
        }
        queue.retry(pod("x", 0), start);
        assert!(queue.pop(start).is_none(), "what failed is never eager");
        assert!(queue.pop(start + FIRST).is_some());
    }

    #[test]
    fn refused_pods_are_tried_again_some_day() {
        let mut queue = queue();
        let start = Instant::now();
        queue.refuse(pod("a", 0), fit(), start);
        assert_eq!(queue.next_wake(), Some(start + REFUSED_MAX));
        assert!(queue.pop(start + REFUSED_MAX - FIRST).is_none());
        assert!(queue.pop(start + REFUSED_MAX).is_some_and(|popped| popped.by_time));
        queue.remove("a");
        assert_eq!(queue.next_wake(), None);
    }

    #[test]
    fn own_report_does_not_wake() {
        let mut queue = queue();
        let start = Instant::now();
        queue.refuse(pod("a", 0), fit(), start);
        queue.put(pod("a", 0), false);
        assert!(queue.pop(start).is_none());
        queue.put(pod("a", 1), true);
        assert_eq!(name(queue.pop(start)), Some("a".into()), "a change is tried at once");
    }

    #[test]
    fn held_pods_wait_for_the_end_of_what_is_done_for_them() {
        let mut queue = queue();
        let start = Instant::now();
        let later = start + FIRST * 2;
        for (woken, failed, expected) in [(false, false, false), (true, false, true), (false, true, true)] {
            queue.hold("a");
            queue.refuse(pod("a", 0), fit(), start);
            if woken {
                all(&mut queue, later);
            }
            assert!(queue.pop(later).is_none());
            queue.release("a", failed, later);
            assert_eq!(queue.pop(later).is_some(), expected, "{woken} {failed}");
            queue.remove("a");
        }
    }

    #[test]
    fn many_that_wait_cost_nothing() {
        let mut queue = queue();
        let start = Instant::now();
        for n in 0..50_000 {
            queue.refuse(pod(&n.to_string(), 0), fit(), start);
        }
        let before = Instant::now();
        for n in 0..50_000 {
            queue.put(pod("other", n), true);
            queue.happened(start, |plugin| plugin == "NodePorts", |_, _| true);
            assert!(queue.pop(start).is_some());
        }
        // A look at each of them every time would take minutes.
        assert!(before.elapsed().as_secs() < 20, "{:?}", before.elapsed());
        all(&mut queue, start);
        let woken = std::iter::from_fn(|| queue.pop(start + FIRST)).count();
        assert_eq!((woken, queue.waiting.len(), queue.backoff.len()), (50_000, 0, 0));
        assert!(queue.by_plugin.is_empty() && queue.refused.is_empty());
    }
}
