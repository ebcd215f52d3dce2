//! The scheduler: gives every pending pod a node, through the API (upstream: `pkg/scheduler`).
//!
//! - [`configuration`]: profiles from a file in upstream's form, or upstream's defaults.
//! - [`cache`]: nodes with the pods on them, assumed ones included; [`index`] counts pods as they come and go.
//! - [`queue`]: pods that wait: active, backing off, or refused until something may help.
//! - [`plugins`]: filters and scores, one rule per file; [`framework`] says what a rule is.
//! - [`plan`]: the decision for one pod; [`preemption`]: who would have to go for it.
//! - [`extenders`]: servers outside that have a say.
//! - [`devices`]: which devices claims get.
//! - [`engine`]: what happens goes in, what is to be done comes out; no calls.
//! - [`bind`]: the calls to the API.
//!
//! One task owns the engine; it wakes on watch events, on finished calls and when a back-off ends.

mod bind;
mod cache;
pub mod configuration;
pub mod devices;
mod diagnosis;
mod engine;
mod extenders;
mod feed;
mod framework;
mod index;
mod node_info;
mod nominations;
mod objects;
mod plan;
mod plugins;
mod pod_info;
mod preemption;
mod profile;
mod queue;
mod resources;
mod selector;

#[cfg(test)]
mod tests;

use crate::client::informer::Informers;
use bind::{Binder, CallResult};
use configuration::Configuration;
use devices::Expressions;
use engine::Engine;
use extenders::Extenders;
use extenders::network::Network;
use feed::News;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The name in `spec.schedulerName` of pods that do not say otherwise.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// Calls to the API under way at once; more pods wait in the queue.
const CALLS_MAX: usize = 64;

/// News taken in at once.
const NEWS_MAX: usize = 1024;

/// After so long the task lets others have a turn, although pods still wait.
const TURN: Duration = Duration::from_millis(5);

/// Runs until `shutdown`. Bindings under way are finished before it returns.
pub async fn run(
    client: kube::Client,
    configuration: Configuration,
    expressions: Arc<dyn Expressions>,
    shutdown: CancellationToken,
) {
    let informers = Informers::new(client.clone(), shutdown.clone());
    let (news, mut told) = mpsc::unbounded_channel();
    let outside = Network {
        shutdown: shutdown.clone(),
    };
    let extenders = Arc::new(Extenders::new(configuration.extenders(), outside));
    let mut binder = Binder::new(client, &informers, extenders.clone());
    let synced = feed::subscribe(&informers, &news);
    let mut engine = Engine::new(&configuration, rand::random());
    engine.objects.expressions = Some(expressions);
    engine.extenders = extenders;
    let mut buffer: Vec<News> = Vec::with_capacity(NEWS_MAX);
    // Nothing is placed before all lists are in: a pod must not go to a node that looks empty only to us.
    let mut synced = std::pin::pin!(synced);
    let mut all_listed = false;
    loop {
        // Pods that can be tried now are tried after the news that have come meanwhile.
        let busy = all_listed && binder.under_way() < CALLS_MAX && engine.queue.is_ready(Instant::now());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = &mut synced, if !all_listed => all_listed = true,
            count = told.recv_many(&mut buffer, NEWS_MAX) => {
                if count == 0 {
                    break;
                }
            }
            Some(result) = binder.next() => on_call(&mut engine, &mut binder, result),
            () = std::future::ready(()), if busy => {}
            () = sleep_until(engine.queue.next_wake()), if all_listed => {}
        }
        let now = Instant::now();
        for news in buffer.drain(..) {
            news.tell(&mut engine, now);
        }
        // What was heard before the lists were complete is taken in by now, for the channel keeps the order.
        if all_listed && told.is_empty() {
            schedule(&mut engine, &mut binder);
        }
        tokio::task::yield_now().await;
    }
    binder.stop_waiting();
    while let Some(result) = binder.next().await {
        on_call(&mut engine, &mut binder, result);
    }
    informers.stopped().await;
}

fn schedule(engine: &mut Engine, binder: &mut Binder) {
    let begin = Instant::now();
    while binder.under_way() < CALLS_MAX && begin.elapsed() < TURN {
        let Some(actions) = engine.step(Instant::now()) else {
            return;
        };
        for action in actions {
            binder.start(action);
        }
    }
}

fn on_call(engine: &mut Engine, binder: &mut Binder, result: CallResult) {
    let now = Instant::now();
    match result {
        CallResult::Bound { bindings, written } => {
            written.into_iter().for_each(|claim| engine.objects.allocated(claim));
            engine.bound(&bindings);
        }
        CallResult::NotBound {
            uid,
            bindings,
            claims,
            written,
            message,
        } => {
            written.into_iter().for_each(|claim| engine.objects.allocated(claim));
            if let Some(report) = engine.not_bound(&uid, &bindings, &claims, message, now) {
                binder.start(report);
            }
        }
        CallResult::RoomMade { uid, failed, displaced } => engine.room_was_made(&uid, &failed, &displaced, now),
        CallResult::Reported => {}
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
