//! Seeded runs of graph and worker on a cluster in memory: events of different kinds come in any order, late or again
//! after a new list; the collector is restarted; others write in between. Whatever happens: nothing is collected that
//! has a living owner, and in the end nothing is left that should have gone.

mod model;

use super::graph::{Graph, Seen, Work};
use super::identity::{Type, Uid};
use super::plan::{FOREGROUND, ORPHAN};
use super::worker::{Outcome, Worker};
use model::{Event, Model, OTHER_FINALIZER, Store, Stored, kind};
use rand::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

const SEEDS: u64 = 400;
const STEPS: usize = 120;

/// The collector, fed by hand.
struct Run {
    model: Arc<Model>,
    worker: Worker<Arc<Model>>,
    /// How far each kind's watch has come; None before its list.
    cursors: [Option<usize>; 3],
    examine: BTreeSet<Uid>,
    orphan: BTreeSet<Uid>,
    later: BTreeSet<Uid>,
}

impl Run {
    fn new(model: Arc<Model>) -> Self {
        Self {
            worker: Worker::new(model.clone(), Arc::default()),
            model,
            cursors: [None; 3],
            examine: BTreeSet::new(),
            orphan: BTreeSet::new(),
            later: BTreeSet::new(),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Graph)) {
        let work = {
            let mut graph = self.worker.graph.lock();
            change(&mut graph);
            graph.take_work()
        };
        for work in work {
            match work {
                Work::Examine(uid) => drop(self.examine.insert(uid)),
                Work::ExamineLater(uid) => drop(self.later.insert(uid)),
                Work::Orphan(uid) => drop(self.orphan.insert(uid)),
                Work::WrongNamespace { .. } => {}
            }
        }
    }

    fn observe(&mut self, stored: &Stored) {
        let seen = Seen {
            identity: stored.identity.clone(),
            owners: stored.latest.owners.clone(),
            deleting: stored.latest.deleting,
            foreground: stored.latest.has(FOREGROUND),
            orphan: stored.latest.has(ORPHAN),
        };
        self.change(|graph| graph.observe(seen));
    }

    /// One event of a kind's watch, or its list. False: there is nothing new.
    fn deliver(&mut self, kind_index: usize) -> bool {
        let Some(at) = self.cursors[kind_index] else {
            self.list(kind_index);
            return true;
        };
        let event = self.model.0.lock().log[kind_index].get(at).cloned();
        let Some(event) = event else {
            return false;
        };
        self.cursors[kind_index] = Some(at + 1);
        match event {
            Event::Put(stored) => self.observe(&stored),
            Event::Gone(uid) => self.change(|graph| graph.vanish(&uid)),
        }
        true
    }

    fn list(&mut self, kind_index: usize) {
        let (objects, end): (Vec<Stored>, usize) = {
            let store = self.model.0.lock();
            let of = store.objects.iter().filter(|(key, _)| key.0 == kind_index);
            (
                of.map(|(_, stored)| stored.clone()).collect(),
                store.log[kind_index].len(),
            )
        };
        let present: BTreeSet<Uid> = objects.iter().map(|stored| stored.identity.uid.clone()).collect();
        objects.iter().for_each(|stored| self.observe(stored));
        let is_of = |seen: &Type| *seen == *kind(kind_index);
        self.change(|graph| {
            for uid in graph.seen_of(is_of).iter().filter(|uid| !present.contains(*uid)) {
                graph.vanish(uid);
            }
        });
        self.cursors[kind_index] = Some(end);
    }

    /// Some of what waits in the queues.
    async fn work(&mut self) -> bool {
        let pick = self.model.0.lock().random.random_range(0..1000usize);
        let count = self.examine.len() + self.orphan.len();
        if count == 0 {
            return false;
        }
        if pick % count < self.examine.len() {
            let uid = self.examine.iter().nth(pick % count).cloned().expect("counted");
            self.examine.remove(&uid);
            match self.worker.examine(&uid).await {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Unseen) | Err(_) => drop(self.later.insert(uid)),
            }
        } else {
            let uid = self.orphan.pop_first().expect("counted");
            if self.worker.orphan(&uid).await.is_err() {
                self.orphan.insert(uid);
            }
        }
        self.change(|_| {});
        true
    }
}

async fn run(seed: u64) {
    let model = Model::new(seed);
    let mut run = Run::new(model.clone());
    for _ in 0..STEPS {
        let step = model.0.lock().random.random_range(0..100);
        match step {
            0..35 => model.0.lock().act(),
            35..65 => drop(run.deliver(step % 3)),
            65..94 => drop(run.work().await),
            94..96 => {
                let later = std::mem::take(&mut run.later);
                run.examine.extend(later);
            }
            96..98 => run.list(step % 3),
            _ => run = Run::new(model.clone()),
        }
    }
    // The world comes to rest.
    {
        let mut store = model.0.lock();
        store.calm = true;
        let held: Vec<Stored> = store
            .objects
            .values()
            .filter(|s| s.latest.has(OTHER_FINALIZER))
            .cloned()
            .collect();
        for mut stored in held {
            stored.latest.finalizers.retain(|name| name != OTHER_FINALIZER);
            store.put(stored);
        }
    }
    for round in 0.. {
        assert!(round < 50, "it does not come to rest");
        let before = model.0.lock().revision;
        let later = std::mem::take(&mut run.later);
        run.examine.extend(later);
        while (0..3).any(|kind_index| run.deliver(kind_index)) || run.work().await {}
        if before == model.0.lock().revision && run.later.is_empty() && round > 2 {
            break;
        }
    }
    let store = model.0.lock();
    for stored in store.objects.values() {
        let namespace = &*stored.identity.namespace;
        let owners = &stored.latest.owners;
        if stored.latest.deleting {
            assert!(
                store.waits_for_undecided(stored, &mut BTreeSet::new()),
                "{stored:?} does not go"
            );
            continue;
        }
        let undecided = owners.iter().any(|owner| Store::is_impossible(owner, namespace));
        let alive = owners.iter().filter(|owner| store.lives(owner, namespace)).count();
        assert!(
            owners.is_empty() || undecided || alive == owners.len(),
            "{stored:?} is left, with {alive} living owners"
        );
    }
}

#[tokio::test]
async fn nothing_with_an_owner_goes_and_nothing_without_one_stays() {
    for seed in 0..SEEDS {
        if let Err(panic) = tokio::spawn(run(seed)).await {
            eprintln!("the seed was {seed}");
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}
