//! Makes pods' resource claims from templates, keeps the reservations of claims true, and frees what nobody uses
//! (upstream: `pkg/controller/resourceclaim`).

mod plan;

use super::Context;
use super::claims::is_scheduled;
use super::pods::{is_namespace_terminating, is_terminating, message_of};
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use plan::{
    Make, Meant, Step, claim_words, entries, extended_claim, is_done, is_made_for, make, meant, next_step, owning_pod,
    reserved, unprotected,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

const NAME: &str = "resource-claim-controller";
/// As what it owns fields of a pod's status.
const FIELD_MANAGER: &str = "ResourceClaimController";
const WORKERS: usize = 10;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{verb} {key}: {source}")]
    Call {
        verb: &'static str,
        key: ObjectKey,
        source: kube::Error,
    },
    #[error("pod {pod}, claim {entry}: {reason}")]
    Make {
        pod: ObjectKey,
        entry: String,
        reason: String,
    },
}

fn failed(verb: &'static str, key: &ObjectKey) -> impl FnOnce(kube::Error) -> Error {
    let key = key.clone();
    move |source| Error::Call { verb, key, source }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Claim(key) => write!(f, "claim {key}"),
        }
    }
}

struct Controller {
    client: Client,
    pods: Informer<Pod>,
    claims: Informer<ResourceClaim>,
    templates: Informer<ResourceClaimTemplate>,
    pods_by_claim: Index<Pod>,
    recorder: Recorder,
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let pods = ctx.informers.of::<Pod>();
    let controller = Controller {
        client: ctx.client(NAME),
        claims: ctx.informers.of(),
        templates: ctx.informers.of(),
        pods_by_claim: pods.index(claim_words),
        pods,
        recorder: ctx.recorder_as(NAME, "resource_claim"),
    };
    let queue = WorkQueue::new("resource_claim");
    controller.subscribe(&queue);
    let synced = async {
        tokio::join!(
            controller.pods.synced(),
            controller.claims.synced(),
            controller.templates.synced()
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    queue.run(WORKERS, &ctx.shutdown, |key| controller.work(key)).await;
}

impl Controller {
    fn subscribe(&self, queue: &WorkQueue<Key>) {
        let added = queue.clone();
        self.pods.on_change(move |change: &Change<Pod>| {
            let Some(pod) = change.object() else { return };
            if change.new.is_none() || is_done(pod) {
                let claims = claim_words(pod);
                let keys = claims.iter().filter_map(|word| word.split_once('/'));
                keys.for_each(|(namespace, name)| added.add(Key::Claim(ObjectKey::new(namespace, name))));
                if let Some(name) = extended_claim(pod) {
                    let namespace = pod.namespace().unwrap_or_default();
                    added.add(Key::Claim(ObjectKey::new(&namespace, name)));
                }
            }
            if change.new.is_some() && !entries(pod).is_empty() {
                added.add(Key::Pod(ObjectKey::of(&**pod)));
            }
        });
        let (added, by_claim) = (queue.clone(), self.pods_by_claim.clone());
        self.claims.on_change(move |change: &Change<ResourceClaim>| {
            let Some(claim) = change.object() else { return };
            let key = ObjectKey::of(&**claim);
            for pod in by_claim.get(&key.to_string()) {
                added.add(Key::Pod(ObjectKey::of(&*pod)));
            }
            if change.new.is_some() {
                added.add(Key::Claim(key));
            }
        });
        // Pods wait for templates that come after them.
        let waiting = self.pods.index(|pod| {
            let namespace = pod.namespace().unwrap_or_default();
            let open = entries(pod).iter().filter(|entry| meant(pod, entry) == Meant::NotYet);
            let names = open.filter_map(|entry| entry.resource_claim_template_name.as_ref());
            names.map(|name| format!("{namespace}/{name}")).collect()
        });
        let added = queue.clone();
        self.templates.on_change(move |change: &Change<ResourceClaimTemplate>| {
            let new = change.new.iter();
            let pods = new.flat_map(|template| waiting.get(&ObjectKey::of(&**template).to_string()));
            pods.for_each(|pod| added.add(Key::Pod(ObjectKey::of(&*pod))));
        });
    }

    async fn work(&self, key: Key) -> Result<Next, Error> {
        match key {
            Key::Pod(key) => self.pod(key).await,
            Key::Claim(key) => self.claim(key).await,
        }
    }

    async fn pod(&self, key: ObjectKey) -> Result<Next, Error> {
        let pod = self.pods.get_key(&key);
        let Some(pod) = pod.filter(|pod| !is_terminating(pod)) else {
            return Ok(Next::Done);
        };
        let mut made: BTreeMap<String, String> = BTreeMap::new();
        for entry in entries(&pod) {
            match self.make(&pod, entry).await {
                Ok(Some(claim)) => drop(made.insert(entry.name.clone(), claim)),
                Ok(None) => {}
                Err(None) => return Ok(Next::Done),
                Err(Some(reason)) => {
                    let message = format!("PodResourceClaim {}: {reason}", entry.name);
                    self.recorder
                        .event(&*pod, Level::Warning, "FailedResourceClaimCreation", message);
                    let entry = entry.name.clone();
                    return Err(Error::Make {
                        pod: key,
                        entry,
                        reason,
                    });
                }
            }
        }
        if !made.is_empty() {
            self.note(&pod, &key, made).await?;
        }
        if !is_scheduled(&pod) || is_done(&pod) {
            // The scheduler reserves for those that it places.
            return Ok(Next::Done);
        }
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        for entry in entries(&pod) {
            let (name, own) = match meant(&pod, entry) {
                Meant::Given(name) => (name, false),
                Meant::Made(name) => (name, true),
                Meant::None | Meant::NotYet => continue,
            };
            let claim = self.claims.get(&key.namespace, &name);
            let Some(claim) = claim.filter(|claim| !own || is_made_for(claim, &pod)) else {
                continue;
            };
            if let Some(reserved) = reserved(&claim, &pod) {
                let written = api.replace_status(&name, &PostParams::default(), &reserved).await;
                written.map_err(failed("reserving for", &key))?;
            }
        }
        Ok(Next::Done)
    }

    /// The claim that the pod's status must name from now on, if there is a new one. Err(None): the namespace is going.
    async fn make(&self, pod: &Pod, entry: &PodResourceClaim) -> Result<Option<String>, Option<String>> {
        let namespace = pod.namespace().unwrap_or_default();
        let own = self.claims.controlled_by(&pod.uid().unwrap_or_default());
        let template = match make(pod, entry, |name| self.claims.get(&namespace, name), &own) {
            Make::Nothing => return Ok(None),
            Make::Note(name) => return Ok(Some(name)),
            Make::FromTemplate(name) => name,
        };
        let found = self.templates.get(&namespace, &template);
        let found = found.ok_or_else(|| {
            let missing = format!("resourceclaimtemplate.resource.k8s.io \"{template}\" not found");
            Some(format!("resource claim template \"{template}\": {missing}"))
        })?;
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &namespace);
        let claim = plan::from_template(pod, entry, &found);
        match api.create(&PostParams::default(), &claim).await {
            Ok(claim) => {
                // Else the next look would make another one, should the note fail.
                self.claims.seen(&claim.resource_version().unwrap_or_default()).await;
                Ok(Some(claim.name_any()))
            }
            Err(error) if is_namespace_terminating(&error) => Err(None),
            Err(error) => Err(Some(format!("create ResourceClaim : {}", message_of(&error)))),
        }
    }

    async fn note(&self, pod: &Pod, key: &ObjectKey, mut made: BTreeMap<String, String>) -> Result<(), Error> {
        // What was noted before is part of what we own, and stays.
        for entry in entries(pod)
            .iter()
            .filter(|entry| entry.resource_claim_template_name.is_some())
        {
            if let Meant::Made(name) = meant(pod, entry) {
                made.entry(entry.name.clone()).or_insert(name);
            }
        }
        let statuses: Vec<_> = made
            .iter()
            .map(|(name, claim)| json!({"name": name, "resourceClaimName": claim}))
            .collect();
        let apply = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": key.name, "namespace": key.namespace},
            "status": {"resourceClaimStatuses": statuses},
        });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let written = api.patch_status(&key.name, &parameters, &Patch::Apply(apply)).await;
        let written = written.map_err(failed("noting claims of", key))?;
        self.pods.seen(&written.resource_version().unwrap_or_default()).await;
        Ok(())
    }

    async fn claim(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(claim) = self.claims.get_key(&key) else {
            return Ok(Next::Done);
        };
        let gone = self.gone(&claim, &key).await?;
        let owner = owning_pod(&claim);
        let owner_is_done = owner.is_some_and(|owner| {
            let pod = self.pods.get(&key.namespace, &owner.name);
            // One that is not here may come yet; if it does not, the garbage collector sees to it.
            pod.is_some_and(|pod| pod.metadata.uid.as_ref() != Some(&owner.uid) || is_done(&pod))
        });
        let is_valid = |one: &ResourceClaimConsumerReference| !gone.contains(&one.uid);
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PostParams::default();
        match next_step(&claim, is_valid, owner_is_done) {
            Step::Nothing => {}
            Step::Status(new) => {
                let written = api.replace_status(&key.name, &parameters, &new).await;
                let written = written.map_err(failed("freeing", &key))?;
                if let Some(free) = unprotected(&written) {
                    let written = api.replace(&key.name, &parameters, &free).await;
                    written.map_err(failed("letting go of", &key))?;
                }
            }
            Step::Unprotect(new) => {
                let written = api.replace(&key.name, &parameters, &new).await;
                written.map_err(failed("letting go of", &key))?;
            }
            Step::Delete => {
                let parameters = DeleteParams::default().preconditions(client::only(claim.uid()));
                match api.delete(&key.name, &parameters).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    Err(source) => return Err(failed("deleting", &key)(source)),
                }
            }
        }
        Ok(Next::Done)
    }

    /// The uids of reservations for pods that do not need the claim. A pod that the cache does not show is looked up.
    async fn gone(&self, claim: &Arc<ResourceClaim>, key: &ObjectKey) -> Result<BTreeSet<String>, Error> {
        let reserved = claim
            .status
            .iter()
            .flat_map(|status| status.reserved_for.iter().flatten());
        let mut gone = BTreeSet::new();
        for one in
            reserved.filter(|one| one.resource == "pods" && one.api_group.as_deref().unwrap_or_default().is_empty())
        {
            let needs = match self.pods.get(&key.namespace, &one.name) {
                Some(pod) => pod.metadata.uid.as_ref() == Some(&one.uid) && !is_done(&pod),
                None => {
                    let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                    let live = api
                        .get_opt(&one.name)
                        .await
                        .map_err(failed("looking up a user of", key))?;
                    live.is_some_and(|live| live.metadata.uid.as_ref() == Some(&one.uid))
                }
            };
            if !needs {
                gone.insert(one.uid.clone());
            }
        }
        Ok(gone)
    }
}
