//! The history of a DaemonSet's template (upstream: `constructHistory`, `cleanupHistory` in `daemon/update.go`).

use super::{Controller, Error, call};
use crate::client::ObjectKey;
use crate::controllers::history::{self, Candidate, REVISION_LABEL};
use crate::controllers::ownership;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Selector;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

pub struct History {
    /// What pods of the current template carry.
    pub hash: String,
    pub old: Vec<Arc<ControllerRevision>>,
}

/// Those of the current template, and those of others.
fn split(
    revisions: Vec<Arc<ControllerRevision>>,
    data: &Value,
) -> (Vec<Arc<ControllerRevision>>, Vec<Arc<ControllerRevision>>) {
    revisions.into_iter().partition(|revision| revision.data.0 == *data)
}

fn hash_of(revision: &ControllerRevision) -> String {
    revision.labels().get(REVISION_LABEL).cloned().unwrap_or_default()
}

/// Old ones beyond the limit, the oldest first, without those that pods were made from.
fn surplus(
    mut old: Vec<Arc<ControllerRevision>>,
    live: &BTreeSet<String>,
    limit: usize,
) -> Vec<Arc<ControllerRevision>> {
    history::sort(&mut old);
    let count = old.len().saturating_sub(limit);
    old.retain(|revision| !live.contains(&hash_of(revision)));
    old.truncate(count);
    old
}

impl Controller {
    /// Makes the history say what the template is now. None: a name was taken, and is avoided from now on.
    pub(super) async fn history(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        selector: &Selector,
        pods: &[Arc<Pod>],
    ) -> Result<Option<History>, Error> {
        let data = history::data_of(&set.spec.template).map_err(|source| Error::Template {
            set: key.clone(),
            source,
        })?;
        let candidates = ownership::candidates(set, &self.revisions.cache, &self.orphaned_revisions);
        let api = self.revisions.api(&key.namespace);
        let settled = ownership::settle(&self.api(key), &api, set, selector, candidates).await;
        let mut revisions = Vec::new();
        for revision in settled.map_err(call("adopting revisions", key))? {
            revisions.push(self.labelled(key, revision).await?);
        }
        let (current, old) = split(revisions, &data);
        let number = old.iter().map(|revision| history::number(revision)).max().unwrap_or(0) + 1;
        let newest = match current
            .iter()
            .max_by_key(|revision| (history::number(revision), revision.name_any()))
        {
            None => match self.snapshot(key, set, data, number).await? {
                Some(revision) => revision,
                None => return Ok(None),
            },
            Some(kept) => {
                self.merge(key, kept, &current, pods).await?;
                if history::number(kept) < number {
                    let renumbered = self.revisions.renumber(kept, number).await;
                    renumbered.map_err(call("renumbering a revision", key))?
                } else {
                    Arc::clone(kept)
                }
            }
        };
        Ok(Some(History {
            hash: hash_of(&newest),
            old,
        }))
    }

    /// A revision carries what its pods carry; one that somebody stripped of it goes by its name.
    async fn labelled(
        &self,
        key: &ObjectKey,
        revision: Arc<ControllerRevision>,
    ) -> Result<Arc<ControllerRevision>, Error> {
        if revision.labels().contains_key(REVISION_LABEL) {
            return Ok(revision);
        }
        let mut labelled = ControllerRevision::clone(&revision);
        let name = labelled.name_any();
        labelled.labels_mut().insert(REVISION_LABEL.to_owned(), name);
        let written = self.revisions.replace(labelled).await;
        written.map_err(call("labelling a revision", key))
    }

    async fn snapshot(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        data: Value,
        number: i64,
    ) -> Result<Option<Arc<ControllerRevision>>, Error> {
        let candidate = Candidate::new(set, &set.spec.template, data, number, REVISION_LABEL);
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let created = self.revisions.create(&candidate, collisions.unwrap_or(0)).await;
        let created = created.map_err(call("creating a revision", key))?;
        if created.is_none() {
            self.count_collision(key, collisions).await?;
        }
        Ok(created)
    }

    /// Counts a collision up, unless that was done already.
    async fn count_collision(&self, key: &ObjectKey, known: Option<i32>) -> Result<(), Error> {
        let api = self.api(key);
        let fresh = api.get_opt(&key.name).await.map_err(call("reading", key))?;
        let Some(mut fresh) = fresh else { return Ok(()) };
        let status = fresh.status.get_or_insert_default();
        if status.collision_count != known {
            return Ok(());
        }
        status.collision_count = Some(known.unwrap_or(0) + 1);
        let written = api.replace_status(&key.name, &PostParams::default(), &fresh).await;
        let written = written.map_err(call("counting a collision", key))?;
        self.sets
            .seen(written.metadata.resource_version.as_deref().unwrap_or_default())
            .await;
        Ok(())
    }

    /// Of several revisions of one template one is kept, and all pods become its pods.
    async fn merge(
        &self,
        key: &ObjectKey,
        kept: &ControllerRevision,
        all: &[Arc<ControllerRevision>],
        pods: &[Arc<Pod>],
    ) -> Result<(), Error> {
        if all.len() <= 1 {
            return Ok(());
        }
        let others = || all.iter().filter(|revision| revision.name_any() != kept.name_any());
        let hashes: BTreeSet<String> = others().map(|revision| hash_of(revision)).collect();
        let hash = hash_of(kept);
        for pod in pods {
            let carried = pod.labels().get(REVISION_LABEL);
            if carried.is_none_or(|carried| *carried == hash || !hashes.contains(carried)) {
                continue;
            }
            let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION_LABEL: hash}}}));
            let api = self.pod_api(key);
            match api.patch(&pod.name_any(), &PatchParams::default(), &patch).await {
                Ok(pod) => self.expectations.written(key, &pod),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(call("labelling pods", key)(error)),
            }
        }
        for revision in others() {
            let deleted = self.revisions.delete(revision).await;
            deleted.map_err(call("deleting a revision", key))?;
        }
        Ok(())
    }

    /// Deletes old revisions beyond the limit.
    pub(super) async fn truncate(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        pods: &[Arc<Pod>],
        old: Vec<Arc<ControllerRevision>>,
    ) -> Result<(), Error> {
        let limit = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let carried = pods.iter().filter_map(|pod| pod.labels().get(REVISION_LABEL));
        let live: BTreeSet<String> = carried.cloned().collect();
        for revision in surplus(old, &live, limit) {
            let deleted = self.revisions.delete(&revision).await;
            deleted.map_err(call("deleting a revision", key))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, number: i64, data: &str) -> Arc<ControllerRevision> {
        let labels = json!({REVISION_LABEL: name});
        let value = json!({"metadata": {"name": name, "labels": labels}, "revision": number, "data": {"is": data}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn names(revisions: &[Arc<ControllerRevision>]) -> Vec<String> {
        revisions.iter().map(|revision| revision.name_any()).collect()
    }

    #[test]
    fn the_current_template_has_its_revisions() {
        let all = vec![revision("a", 1, "x"), revision("b", 2, "y"), revision("c", 3, "x")];
        let (current, old) = split(all, &json!({"is": "x"}));
        assert_eq!(
            (names(&current), names(&old)),
            (vec!["a".into(), "c".into()], vec!["b".into()])
        );
    }

    #[test]
    fn old_revisions_in_use_stay_and_count() {
        let all = || {
            vec![
                revision("c", 3, ""),
                revision("a", 1, ""),
                revision("b", 2, ""),
                revision("d", 4, ""),
            ]
        };
        let live = BTreeSet::from(["a".to_owned()]);
        assert_eq!(names(&surplus(all(), &live, 2)), ["b", "c"]);
        assert_eq!(names(&surplus(all(), &live, 0)), ["b", "c", "d"]);
        assert!(surplus(all(), &live, 4).is_empty());
    }
}
