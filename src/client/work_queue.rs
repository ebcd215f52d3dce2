//! Keys that wait to be worked on (upstream: `client-go/util/workqueue`).
//!
//! A key that is added again before its turn waits once. One that is added while somebody works on it comes again
//! afterwards, so a key is never with two workers. Failures come again after a delay that grows with their number.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::error::Error;
use std::fmt::Display;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY_FIRST: Duration = Duration::from_millis(5);
/// Upstream waits up to 1,000 seconds, which nobody in front of a terminal understands.
const RETRY_LAST: Duration = Duration::from_secs(60);

/// How long changes are waited for by [`WorkQueue::add_of_many`]: some times as long as it takes to look at an object.
const DELAY_PER_OBJECT: Duration = Duration::from_micros(10);
/// Less is not worth a timer.
const DELAY_MIN: Duration = Duration::from_millis(1);
const DELAY_MAX: Duration = Duration::from_millis(100);

/// What becomes of a key that was worked on without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until it is added again.
    Done,
    /// It comes again after this time, unless it is added before.
    After(Duration),
    /// It comes again with a growing delay, as after an error, but that is no news.
    Retry,
}

/// Clones are the same queue.
pub struct WorkQueue<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

struct Inner<T> {
    name: &'static str,
    keys: Mutex<Keys<T>>,
    wake: Notify,
}

struct Keys<T> {
    ready: VecDeque<T>,
    /// Those in `ready`, and those with a worker that were added meanwhile.
    wanted: HashSet<T>,
    busy: HashSet<T>,
    /// By due time, then by the order of their coming.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    delayed_count: u64,
    failures: HashMap<T, u32>,
}

impl<T: Clone + Eq + Hash + Display + Send + 'static> WorkQueue<T> {
    /// `name` is that of the controller, for logs.
    pub fn new(name: &'static str) -> Self {
        let keys = Keys {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            busy: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            delayed_count: 0,
            failures: HashMap::new(),
        };
        Self {
            inner: Arc::new(Inner {
                name,
                keys: Mutex::new(keys),
                wake: Notify::new(),
            }),
        }
    }

    pub fn add(&self, key: T) {
        if self.inner.keys.lock().add(key) {
            self.inner.wake.notify_one();
        }
    }

    /// Adds `key` once `delay` has passed. Of several times the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.inner.keys.lock().delay(key, Instant::now() + delay) {
            self.inner.wake.notify_one();
        }
    }

    /// Adds `key`, whose work takes the longer the more `objects` there are to be looked at: changes of many objects are
    /// waited for a little, or every single one would have all of them looked at.
    pub fn add_of_many(&self, key: T, objects: usize) {
        let delay = DELAY_PER_OBJECT.saturating_mul(u32::try_from(objects).unwrap_or(u32::MAX));
        if delay < DELAY_MIN {
            return self.add(key);
        }
        self.add_after(key, delay.min(DELAY_MAX));
    }

    /// The number of keys that are ready.
    pub fn len(&self) -> usize {
        self.inner.keys.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Works on the keys with up to `workers` at once until `shutdown`; what has been begun then is finished.
    pub async fn run<F, E>(&self, workers: usize, shutdown: &CancellationToken, work: impl Fn(T) -> F + Send + Sync)
    where
        F: Future<Output = Result<Next, E>> + Send,
        E: Error + 'static,
    {
        let work = &work;
        let worker = || async move {
            loop {
                let key = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    key = self.next() => key,
                };
                let result = work(key.clone()).await;
                self.finish(key, result);
            }
        };
        futures_util::future::join_all((0..workers.max(1)).map(|_| worker())).await;
    }

    async fn next(&self) -> T {
        loop {
            let woken = self.inner.wake.notified();
            let due = {
                let mut keys = self.inner.keys.lock();
                keys.release(Instant::now());
                if let Some(key) = keys.take() {
                    // Others may sleep although there is more: one call wakes one of them.
                    if !keys.ready.is_empty() {
                        self.inner.wake.notify_one();
                    }
                    return key;
                }
                keys.delayed.first_key_value().map(|((due, _), _)| *due)
            };
            match due {
                Some(due) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => woken.await,
            }
        }
    }

    fn finish<E: Error + 'static>(&self, key: T, result: Result<Next, E>) {
        let mut keys = self.inner.keys.lock();
        let mut wake = keys.give_back(&key);
        let retry = match result {
            Ok(Next::Done) => None,
            Ok(Next::After(delay)) => {
                keys.failures.remove(&key);
                wake |= keys.delay(key.clone(), Instant::now() + delay);
                None
            }
            Ok(Next::Retry) => Some(None),
            Err(error) => Some(Some(error)),
        };
        match retry {
            None => {
                keys.failures.remove(&key);
            }
            Some(error) => {
                let failures = keys.failures.entry(key.clone()).or_default();
                *failures = failures.saturating_add(1);
                let delay = retry_delay(*failures);
                wake |= keys.delay(key.clone(), Instant::now() + delay);
                if let Some(error) = error {
                    let (queue, delay_millis) = (self.inner.name, delay.as_millis());
                    // Somebody else was faster, or our cache is behind: the normal course of things.
                    if is_conflict(&error) {
                        tracing::debug!(queue, %key, %error, delay_millis, "a conflict is resolved by another look");
                    } else {
                        let error = with_sources(&error);
                        tracing::warn!(queue, %key, error, delay_millis, "work on an object failed and is retried");
                    }
                }
            }
        }
        drop(keys);
        if wake {
            self.inner.wake.notify_one();
        }
    }
}

impl<T: Clone + Eq + Hash> Keys<T> {
    /// True if a worker has something to do now.
    fn add(&mut self, key: T) -> bool {
        if let Some(due) = self.due.remove(&key) {
            self.delayed.remove(&due);
        }
        if !self.wanted.insert(key.clone()) || self.busy.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// True if it is now the first to come due.
    fn delay(&mut self, key: T, due: Instant) -> bool {
        if self.wanted.contains(&key) {
            return false;
        }
        if let Some(known) = self.due.get(&key) {
            if known.0 <= due {
                return false;
            }
            self.delayed.remove(known);
        }
        self.delayed_count += 1;
        let place = (due, self.delayed_count);
        self.due.insert(key.clone(), place);
        self.delayed.insert(place, key);
        self.delayed.first_key_value().is_some_and(|(first, _)| *first == place)
    }

    fn release(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let key = first.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.busy.insert(key.clone());
        Some(key)
    }

    /// True if it is ready again at once.
    fn give_back(&mut self, key: &T) -> bool {
        self.busy.remove(key);
        let again = self.wanted.contains(key);
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }
}

fn retry_delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    (RETRY_FIRST * 2u32.pow(doublings)).min(RETRY_LAST)
}

fn is_conflict(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            return status.code == 409;
        }
        cause = error.source();
    }
    false
}

/// What happened and why, in one line. Many errors of ours name their source already.
fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("refused")]
    struct Refused;

    fn log() -> Arc<Mutex<Vec<String>>> {
        Arc::default()
    }

    #[tokio::test]
    async fn keys_wait_once_and_come_again_after_their_worker() {
        let (queue, stop, seen) = (WorkQueue::new("test"), CancellationToken::new(), log());
        for key in ["a", "b", "a"] {
            queue.add(key);
        }
        assert_eq!(queue.len(), 2);
        let within = queue.clone();
        queue
            .run(1, &stop, |key| {
                let (seen, within, stop) = (seen.clone(), within.clone(), stop.clone());
                async move {
                    seen.lock().push(key.to_owned());
                    let times = seen.lock().iter().filter(|seen| *seen == key).count();
                    if key == "a" && times == 1 {
                        // Added twice while it is worked on: once more.
                        within.add("a");
                        within.add("a");
                    }
                    if seen.lock().len() == 3 {
                        stop.cancel();
                    }
                    Ok::<_, Refused>(Next::Done)
                }
            })
            .await;
        assert_eq!(*seen.lock(), ["a", "b", "a"]);
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn failures_come_again_ever_later() {
        let (queue, stop, seen) = (WorkQueue::new("test"), CancellationToken::new(), log());
        queue.add("a");
        let begin = Instant::now();
        queue
            .run(2, &stop, |_| {
                let (seen, stop) = (seen.clone(), stop.clone());
                async move {
                    seen.lock().push(begin.elapsed().as_millis().to_string());
                    match seen.lock().len() {
                        1 | 2 => Err(Refused),
                        3 => Ok(Next::Retry),
                        4 => Ok(Next::After(Duration::from_millis(30))),
                        5 => Err(Refused),
                        _ => {
                            stop.cancel();
                            Ok(Next::Done)
                        }
                    }
                }
            })
            .await;
        // 5, 10 and 20 ms, 30, and 5 ms again since there was a success between: at least, on a busy machine.
        let at: Vec<u128> = seen.lock().iter().map(|millis| millis.parse().unwrap()).collect();
        for (at, least) in at.iter().zip([0, 5, 15, 35, 65, 70]) {
            assert!(*at >= least, "{at} ms instead of {least} in {:?}", seen.lock());
        }
        assert_eq!(at.len(), 6);
        assert_eq!(retry_delay(1), RETRY_FIRST);
        assert_eq!(retry_delay(u32::MAX), RETRY_LAST);
    }

    #[tokio::test]
    async fn changes_of_many_objects_are_taken_together() {
        let queue = WorkQueue::new("test");
        queue.add_of_many("few", 50);
        for _ in 0..3 {
            queue.add_of_many("many", 10_000);
        }
        let keys = queue.inner.keys.lock();
        assert_eq!((keys.ready.len(), keys.delayed.len()), (1, 1));
        let (due, _) = keys.due["many"];
        assert!(due <= Instant::now() + DELAY_MAX);
    }

    #[tokio::test]
    async fn of_two_times_the_earlier_counts_and_an_addition_comes_before() {
        let (queue, stop, seen) = (WorkQueue::new("test"), CancellationToken::new(), log());
        queue.add_after("late", Duration::from_secs(90));
        queue.add_after("late", Duration::from_millis(60));
        queue.add_after("late", Duration::from_secs(50));
        queue.add_after("soon", Duration::from_millis(20));
        queue.add_after("now", Duration::from_secs(60));
        queue.add("now");
        queue
            .run(3, &stop, |key| {
                let (seen, stop) = (seen.clone(), stop.clone());
                async move {
                    seen.lock().push(key.to_owned());
                    if seen.lock().len() == 3 {
                        stop.cancel();
                    }
                    Ok::<_, Refused>(Next::Done)
                }
            })
            .await;
        assert_eq!(*seen.lock(), ["now", "soon", "late"]);
        assert!(queue.inner.keys.lock().delayed.is_empty());
    }
}
