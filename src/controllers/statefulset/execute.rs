//! What a plan asks for, done: pods, their claims, and the events about them
//! (upstream: `stateful_pod_control.go`).

use super::plan::{self, Action, Plan};
use super::{Controller, identity, retention};
use crate::client::events::Level;
use crate::client::{self, ObjectKey};
use crate::controllers::{pods, slow_start};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Pod(#[source] kube::Error),
    #[error("failed to create PVC {claim}: {}", pods::message_of(.source))]
    CreateClaim { claim: String, source: kube::Error },
    #[error("could not update claim {claim} for delete policy ownerRefs: {}", pods::message_of(.source))]
    UpdateClaim { claim: String, source: kube::Error },
    #[error("pvc {0} is being deleted")]
    ClaimGoes(String),
}

impl Error {
    /// As people read it in events.
    fn message(&self) -> String {
        match self {
            Self::Pod(source) => pods::message_of(source),
            other => other.to_string(),
        }
    }
}

pub struct Executor<'a> {
    pub controller: &'a Controller,
    pub key: &'a ObjectKey,
    pub set: &'a StatefulSet,
    /// Names and templates of the revisions.
    pub current: (&'a str, &'a PodTemplateSpec),
    pub update: (&'a str, &'a PodTemplateSpec),
}

impl Executor<'_> {
    /// Does it all, up to the first failure, and says what the status is now.
    pub async fn execute(&self, plan: Plan) -> (StatefulSetStatus, Result<(), Error>) {
        let mut deleted = 0;
        let done = async {
            for phase in plan.phases {
                if plan.together {
                    slow_start::run(phase, |action| self.act(action)).await.result()?;
                } else {
                    for action in phase {
                        self.act(action).await?;
                    }
                }
            }
            for pod in plan.outdated {
                self.delete(&pod).await?;
                deleted += 1;
            }
            Ok(())
        };
        let done = done.await;
        (plan::finish(self.set, plan.status, deleted), done)
    }

    async fn act(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::Create { ordinal, at_current } => self.create(ordinal, at_current).await,
            Action::CreateClaims(pod) => self.create_claims(&pod).await,
            Action::Correct(pod) => self.correct(&pod).await,
            Action::CorrectClaims(pod) => self.correct_claims(&pod).await,
            Action::Delete(pod) => self.delete(&pod).await,
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.controller.client.clone(), &self.key.namespace)
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.controller.client.clone(), &self.key.namespace)
    }

    async fn create(&self, ordinal: i32, at_current: bool) -> Result<(), Error> {
        let (revision, template) = if at_current { self.current } else { self.update };
        let mut pod = pods::from_template(self.set, template);
        identity::dress(self.set, &mut pod, ordinal, revision);
        let created = async {
            self.create_claims(&pod).await?;
            let created = self.pods().create(&PostParams::default(), &pod).await;
            let created = created.map_err(Error::Pod)?;
            self.controller.expectations.written(self.key, &created);
            self.correct_claims(&created).await
        };
        let created = created.await;
        // One that is there already was made by us, and told of, before the cache showed it; or it is another's.
        let is_there =
            matches!(&created, Err(Error::Pod(kube::Error::Api(status))) if status.reason == "AlreadyExists");
        if !is_there {
            self.tell("create", &pod, &created);
        }
        created
    }

    /// Creates the claims that the pod lacks, with the owners that they are to have.
    async fn create_claims(&self, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = identity::ordinal(pod) else {
            return Ok(());
        };
        let mut first_failure = Ok(());
        for mut claim in identity::claims(self.set, ordinal) {
            let name = claim.name_any();
            match self.controller.claims.get(&self.key.namespace, &name) {
                Some(there) if there.metadata.deletion_timestamp.is_some() => {
                    first_failure = first_failure.and(Err(Error::ClaimGoes(name)));
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            let owners = retention::owners_wanted(&claim, self.set, pod);
            claim.metadata.owner_references = (!owners.is_empty()).then_some(owners);
            match self.claims().create(&PostParams::default(), &claim).await {
                Ok(_) => self.tell_of_claim(pod, &name, None),
                // The cache does not show it yet.
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
                Err(source) => {
                    self.tell_of_claim(pod, &name, Some(&source));
                    first_failure = first_failure.and(Err(Error::CreateClaim { claim: name, source }));
                }
            }
        }
        first_failure?;
        if pod.metadata.uid.is_some() {
            self.correct_claims(pod).await?;
        }
        Ok(())
    }

    /// Gives the claims of the pod the owners that they are to have.
    async fn correct_claims(&self, pod: &Pod) -> Result<(), Error> {
        let Some(ordinal) = identity::ordinal(pod) else {
            return Ok(());
        };
        for name in identity::claim_names(self.set, ordinal) {
            let Some(claim) = self.controller.claims.get(&self.key.namespace, &name) else {
                continue;
            };
            if retention::is_up_to_date(&claim, self.set, pod) {
                continue;
            }
            let mut claim = PersistentVolumeClaim::clone(&claim);
            claim.metadata.owner_references = Some(retention::owners_wanted(&claim, self.set, pod));
            let written = self.claims().replace(&name, &PostParams::default(), &claim).await;
            written.map_err(|source| Error::UpdateClaim { claim: name, source })?;
        }
        Ok(())
    }

    /// Makes a pod the one of its ordinal, as far as a pod can be changed.
    async fn correct(&self, pod: &Arc<Pod>) -> Result<(), Error> {
        let Some(ordinal) = identity::ordinal(pod) else {
            return Ok(());
        };
        let corrected = async {
            let mut corrected = Pod::clone(pod);
            if !identity::identity_matches(self.set, pod) {
                identity::set_identity(&mut corrected, ordinal);
            }
            if !identity::storage_matches(self.set, pod) {
                identity::set_storage(self.set, &mut corrected, ordinal);
                self.create_claims(pod).await?;
            }
            self.correct_claims(pod).await?;
            if corrected == **pod {
                return Ok(());
            }
            let name = pod.name_any();
            let written = self.pods().replace(&name, &PostParams::default(), &corrected).await;
            self.controller
                .expectations
                .written(self.key, &written.map_err(Error::Pod)?);
            Ok(())
        };
        let corrected = corrected.await;
        self.tell("update", pod, &corrected);
        corrected
    }

    /// Deletes this very pod, with its own grace period.
    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let parameters = DeleteParams::default().preconditions(client::only(pod.metadata.uid.clone()));
        let deleted = match self.pods().delete(&pod.name_any(), &parameters).await {
            Ok(_) => {
                self.controller.expectations.deleted(self.key, pod);
                Ok(())
            }
            // It is gone, or another one has its place already.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
            Err(source) => Err(Error::Pod(source)),
        };
        self.tell("delete", pod, &deleted);
        deleted
    }

    fn tell(&self, verb: &'static str, pod: &Pod, result: &Result<(), Error>) {
        let (pod, set) = (pod.name_any(), &self.key.name);
        let (level, outcome, end) = match result {
            Ok(()) => (Level::Normal, "Successful", "successful".to_owned()),
            Err(error) => (Level::Warning, "Failed", format!("failed error: {}", error.message())),
        };
        let reason = format!("{outcome}{}", capitalised(verb));
        let message = format!("{verb} Pod {pod} in StatefulSet {set} {end}");
        self.controller.recorder.event(self.set, level, reason, message);
    }

    fn tell_of_claim(&self, pod: &Pod, claim: &str, failure: Option<&kube::Error>) {
        let (pod, set) = (pod.name_any(), &self.key.name);
        let (level, reason, message) = match failure {
            None => (
                Level::Normal,
                "SuccessfulCreate",
                format!("create Claim {claim} Pod {pod} in StatefulSet {set} success"),
            ),
            Some(failure) => (
                Level::Warning,
                "FailedCreate",
                format!(
                    "create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {}",
                    pods::message_of(failure)
                ),
            ),
        };
        self.controller.recorder.event(self.set, level, reason, message);
    }
}

fn capitalised(verb: &str) -> String {
    let mut letters = verb.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
