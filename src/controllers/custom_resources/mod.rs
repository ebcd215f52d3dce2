//! The life of CustomResourceDefinitions: names, conditions, the end of their instances
//! (upstream: `apiextensions-apiserver/pkg/controller/{status,establish,apiapproval,nonstructuralschema,finalizer}`).
//!
//! - [`plan`]: what the status of a definition should be; [`names`]: which names are taken.
//! - [`cleanup`]: deletes the instances of a definition that goes.
//!
//! Upstream runs these within the API server, under its identity.

mod cleanup;
pub mod definition;
mod names;
mod plan;

use cleanup::Cleaner;
use definition::Definition;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use names::Claims;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a write that failed for no fault of the definition waits for its next try.
const RETRY: Duration = Duration::from_secs(1);

/// Runs until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let controller = Controller {
        api: Api::all(client.clone()),
        cleaner: Cleaner::new(client, shutdown.clone()),
        known: BTreeMap::new(),
        claims: Claims::default(),
        due: BTreeSet::new(),
    };
    shutdown.run_until_cancelled(controller.run()).await;
}

struct Controller {
    api: Api<Definition>,
    cleaner: Cleaner,
    /// All definitions as far as they matter here, by name. Their accepted names are those that were decided on,
    /// written or not.
    known: BTreeMap<String, Definition>,
    claims: Claims,
    /// What is to be looked at.
    due: BTreeSet<String>,
}

impl Controller {
    async fn run(mut self) {
        let events = watcher::watcher(self.api.clone(), watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut writes = FuturesUnordered::new();
        let mut listed = BTreeSet::new();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return,
                    Some(Err(error)) => tracing::warn!(%error, "definitions of custom resources cannot be watched"),
                    Some(Ok(Event::Init)) => listed.clear(),
                    Some(Ok(Event::InitApply(definition))) => {
                        listed.insert(definition.name().to_owned());
                        self.learn(definition);
                    }
                    Some(Ok(Event::InitDone)) => {
                        let gone: Vec<String> = self.known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                        gone.iter().for_each(|name| self.forget(name));
                    }
                    Some(Ok(Event::Apply(definition))) => self.learn(definition),
                    Some(Ok(Event::Delete(definition))) => self.forget(definition.name()),
                },
                Some(again) = writes.next(), if !writes.is_empty() => {
                    let again: Option<String> = again;
                    self.due.extend(again);
                }
            }
            while let Some(name) = self.due.pop_first() {
                if let Some(status) = self.decide(&name) {
                    writes.push(write(self.api.clone(), name, status));
                }
            }
        }
    }

    fn learn(&mut self, definition: Definition) {
        let definition = definition.reduced();
        let name = definition.name().to_owned();
        if let Some(old) = self.known.remove(&name) {
            self.claims.release(&old.spec.group, &old.status.accepted_names);
            if old.status.accepted_names != definition.status.accepted_names {
                self.look_again(&definition.spec.group);
            }
        }
        self.claims
            .claim(&definition.spec.group, &definition.status.accepted_names);
        self.known.insert(name.clone(), definition);
        self.due.insert(name);
    }

    fn forget(&mut self, name: &str) {
        if let Some(old) = self.known.remove(name) {
            self.claims.release(&old.spec.group, &old.status.accepted_names);
            self.look_again(&old.spec.group);
        }
    }

    /// A name has become free: those that wanted one in the group may have it now.
    fn look_again(&mut self, group: &str) {
        let waiting = self
            .known
            .values()
            .filter(|definition| definition.spec.group == group && !definition.has_its_names());
        self.due.extend(waiting.map(|definition| definition.name().to_owned()));
    }

    /// The status to write, if it is not what it should be.
    fn decide(&mut self, name: &str) -> Option<Value> {
        let definition = self.known.get_mut(name)?;
        if plan::is_to_be_cleaned(definition) {
            self.cleaner.clean(definition);
        }
        let decided = plan::status(definition, &self.claims, jiff::Timestamp::now())?;
        let patch = definition.status_patch(&decided);
        // Decided is as good as written: who comes next must not get the same names.
        self.claims
            .release(&definition.spec.group, &definition.status.accepted_names);
        definition.status = decided;
        self.claims
            .claim(&definition.spec.group, &definition.status.accepted_names);
        Some(patch)
    }
}

/// Writes a status; the name if it is to be looked at again.
async fn write(api: Api<Definition>, name: String, status: Value) -> Option<String> {
    match api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
    {
        Ok(_) => None,
        // Somebody else wrote: the change is on its way here.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => None,
        Err(error) => {
            tracing::warn!(definition = name, %error, "the status of a definition is not written");
            tokio::time::sleep(RETRY).await;
            Some(name)
        }
    }
}
