//! Random writes against a naive model, with restarts and compaction in between.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// All that ever happened, kept the simple way.
#[derive(Default)]
struct Model {
    /// Per revision from 2 on: name, and the content or None for a deletion.
    log: Vec<(String, Option<String>)>,
}

impl Model {
    fn revision(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    /// Name to revision and content.
    fn at(&self, revision: u64) -> BTreeMap<String, (u64, String)> {
        let mut objects = BTreeMap::new();
        for (position, (name, content)) in self.log.iter().enumerate().take(revision as usize - 1) {
            match content {
                Some(content) => objects.insert(name.clone(), (position as u64 + 2, content.clone())),
                None => objects.remove(name),
            };
        }
        objects
    }

    fn events_after(&self, from: u64) -> Vec<String> {
        let mut before = self.at(from);
        let tell = |revision: u64| {
            let (name, content) = &self.log[revision as usize - 2];
            let previous = before.get(name).map_or(0, |(revision, _)| *revision);
            let kind = match content {
                Some(content) => {
                    before.insert(name.clone(), (revision, content.clone()));
                    "put"
                }
                None => {
                    before.remove(name);
                    "delete"
                }
            };
            let name = name.split('/').next_back().unwrap();
            format!("{kind} {revision} {name} after {previous}")
        };
        (from + 1..=self.revision()).map(tell).collect()
    }
}

fn check(storage: &Storage, model: &Model, random: &mut StdRng) {
    assert_eq!(storage.revision(), model.revision());
    let oldest = storage.oldest_revision();
    for revision in [oldest, model.revision(), random.random_range(oldest..=model.revision())] {
        let list = storage.list("configmaps", None, Some(revision)).unwrap();
        let found: BTreeMap<_, _> = (list.entries.iter())
            .map(|e| (format!("{}/{}", e.key.namespace, e.key.name), (e.revision, content(e))))
            .collect();
        assert_eq!(found, model.at(revision), "at {revision}");
        let told: Vec<_> = events(storage, revision)
            .unwrap()
            .iter()
            .map(|event| told(event))
            .collect();
        assert_eq!(told, model.events_after(revision), "after {revision}");
    }
    let list = storage.list("configmaps", None, None).unwrap();
    assert_eq!(
        storage.resources().iter().map(|(_, count)| count).sum::<usize>(),
        list.entries.len()
    );
}

/// On an empty database.
pub(super) async fn run(seed: u64, options: Options) {
    let mut random = StdRng::seed_from_u64(seed);
    let options = Options {
        history_events_max: 60,
        batch_writes_max: 8,
        ..options
    };
    let mut model = Model::default();
    for restart in 0..5 {
        let storage = open(options.clone()).await;
        check(&storage, &model, &mut random);
        let mut followed = storage.watch("configmaps", None, model.revision()).unwrap();
        let mut heard = Vec::new();
        let heard_from = model.revision();
        for step in 0..60 {
            // Several at once, on different keys, so that the order of commits is the order of sending.
            let mut names: Vec<_> = (0..random.random_range(1..6))
                .map(|_| random.random_range(0..12))
                .collect();
            names.sort_unstable();
            names.dedup();
            let now = model.at(model.revision());
            let mut operations = Vec::new();
            for name in names {
                let name = format!("ns{}/n{name}", name % 3);
                let content = format!("{seed}-{restart}-{step}");
                let (operation, content) = match (now.get(&name), random.random_range(0..10)) {
                    // Wrong on purpose: nothing may come of it.
                    (Some(_), 0) => (create(&name, "wrong"), None),
                    (Some((at, _)), 1) => (update(&name, at - 1, "wrong"), None),
                    (None, 0) => (update(&name, 1, "wrong"), None),
                    (None, _) => (create(&name, &content), Some(Some(content))),
                    (Some((at, _)), 2..5) => (delete(&name, *at), Some(None)),
                    (Some((at, _)), _) => (update(&name, *at, &content), Some(Some(content))),
                };
                operations.push(operation);
                if let Some(content) = &content {
                    let deleted = "deleted".to_owned();
                    assert_ne!(content.as_ref(), Some(&deleted));
                    model.log.push((name.clone(), content.clone()));
                }
            }
            let writes = operations.into_iter().map(|operation| storage.write(operation));
            let written = futures_util::future::join_all(writes).await;
            let accepted = written.iter().filter(|answer| answer.is_ok()).count();
            let refused = written.len() - accepted;
            assert_eq!(
                model.revision(),
                storage.revision(),
                "{accepted} accepted, {refused} refused"
            );
            heard.extend(followed.try_next().unwrap().iter().map(|event| told(event)));
        }
        assert_eq!(heard, model.events_after(heard_from));
        check(&storage, &model, &mut random);
        assert!(storage.oldest_revision() > 1, "nothing was compacted");
        storage.close().await;
    }
}

#[tokio::test]
async fn random_writes_agree_with_a_naive_model() {
    for seed in 0..4 {
        let place = Place::new();
        run(seed, place.options()).await;
    }
}
