//! All controllers and the scheduler together, against an API server that misbehaves: conflicts, refused calls, answers
//! that are lost, watches that break, and restarts at any moment. What they must keep holds all the time, and in the
//! end everything is as it was asked for.
//!
//! - `shares`: what is asked for, and what must have come of it, by the controllers that it concerns.
//! - `invariants`: what must hold at every moment.
//! - `faults`: what goes wrong; `cluster`: restarts, and what people do meanwhile; `history`: explains a failure.
//!
//! `KRUST_TEST_SEED=N` runs that seed alone, `KRUST_TEST_SEEDS=N` so many of them.

mod cluster;
mod faults;
mod history;
#[path = "../support/hollow.rs"]
mod hollow;
mod invariants;
mod shares;

use cluster::Cluster;
use faults::Faults;

/// The seeds that are run in turn.
fn seeds() -> Vec<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|number| number.parse::<u64>().expect("a number"))
    };
    match (number("KRUST_TEST_SEED"), number("KRUST_TEST_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(2)).collect(),
    }
}

/// Nothing is lost but time: no bound is ever broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_broken_watches_and_restarts() {
    for seed in seeds() {
        let faults = Faults {
            refused: 3,
            conflicts: 6,
            lost_answers: 0,
            broken_watches: 10,
        };
        story(seed, faults).await;
    }
}

/// A call whose answer is lost was done, and who called does not know: for each pod that was made so there may be one
/// more for a while than bounds allow, as upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers() {
    for seed in seeds() {
        let faults = Faults {
            refused: 2,
            conflicts: 3,
            lost_answers: 5,
            broken_watches: 5,
        };
        story(seed, faults).await;
    }
}

async fn story(seed: u64, faults: Faults) {
    let mut cluster = Cluster::start(seed, faults).await;
    shares::begin(&cluster).await;
    cluster.disturb(4).await;
    shares::change(&cluster).await;
    cluster.disturb(4).await;
    shares::change_again(&cluster).await;
    cluster.disturb(3).await;
    cluster.settles().await;
    cluster.bounds_held();
    cluster.deletes_all().await;
    cluster.stop().await;
}
