//! Many writes of one kind, at once but carefully (upstream: `slowStartBatch` in `controller_utils.go`).
//!
//! One first, then two, then four: where all would fail for the same reason, a quota perhaps, few are tried in vain.

use futures_util::stream::{self, StreamExt};

const FIRST: usize = 1;
/// Of a batch (upstream: `BurstReplicas`).
const BATCH_MAX: usize = 500;
/// Writes under way at the same time. More make nothing faster, and the API server has only so many places for who waits
/// (upstream: the client's `kube-api-burst`).
const UNDER_WAY_MAX: usize = 50;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome<E> {
    pub done: usize,
    /// Of the batch after which nothing more was tried.
    pub failures: Vec<E>,
}

impl<E> Outcome<E> {
    /// The first failure, if there was one.
    pub fn result(self) -> Result<usize, E> {
        match self.failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(self.done),
        }
    }
}

/// Does all of it, some at the same time; the results come as the work ends.
pub async fn all<F: Future>(work: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let work: Vec<F> = work.into_iter().collect();
    stream::iter(work).buffer_unordered(UNDER_WAY_MAX).collect().await
}

/// Does `work` with each of `items`, in growing batches, until one of a batch fails.
pub async fn run<T, F, E>(items: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Outcome<E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut items = items.into_iter();
    let mut outcome = Outcome {
        done: 0,
        failures: Vec::new(),
    };
    let mut size = FIRST;
    loop {
        let batch: Vec<F> = items.by_ref().take(size).map(&work).collect();
        if batch.is_empty() {
            return outcome;
        }
        for result in all(batch).await {
            match result {
                Ok(()) => outcome.done += 1,
                Err(failure) => outcome.failures.push(failure),
            }
        }
        if !outcome.failures.is_empty() {
            return outcome;
        }
        size = (size * 2).min(BATCH_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[tokio::test]
    async fn batches_grow_and_stop_at_the_first_that_fails() {
        let tried = Mutex::new(Vec::new());
        let work = |number: usize| {
            tried.lock().push(number);
            async move { if number == 5 { Err("five") } else { Ok(()) } }
        };
        let outcome = run(0..100, work).await;
        // 0, 1 and 2, 3 to 6.
        assert_eq!(*tried.lock(), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(outcome.done, 6);
        assert_eq!(outcome.result(), Err("five"));

        let outcome = run(0..100, |_| async { Ok::<_, ()>(()) }).await;
        assert_eq!(outcome.result(), Ok(100));
        let outcome = run(0..0, |_| async { Ok::<_, ()>(()) }).await;
        assert_eq!(outcome.result(), Ok(0));
    }
}
