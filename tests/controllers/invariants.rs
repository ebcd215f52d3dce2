//! What must hold at every moment, looked at with each change of a pod.

use crate::faults::Lost;
use crate::history::{self, History};
use crate::shares::METERED;
use k8s_openapi::api::core::v1::Pod;
use krust::client::informer::Informer;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most active pods of each app that may be there at once.
const PODS_MAX: [(&str, usize); 9] = [
    // The most replicas it ever had, and maxSurge.
    ("web", 9 + 2),
    // Its parallelism.
    ("work", 3),
    ("brief", 1),
    ("db", 3),
    // Replicas, and a quarter of them as surge.
    ("guarded", 3 + 1),
    ("small", 3 + 1),
    // One more is somebody else's.
    ("legacy", 4 + 1),
    ("few", 3),
    ("load", 3),
];
/// What the budget of `guarded` keeps from evictions, once all three were there.
const GUARDED: (&str, usize, usize) = ("guarded", 3, 2);
/// What the quota allows, whatever is made.
const METERED_PODS_MAX: usize = 3;

/// What was broken, in words.
#[derive(Clone, Default)]
pub struct Broken(Arc<Mutex<Vec<String>>>);

impl Broken {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

fn text<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> &'a str {
    map.and_then(|map| map.get(key)).map_or("", String::as_str)
}

pub fn app(pod: &Pod) -> &str {
    text(pod.metadata.labels.as_ref(), "app")
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
}

fn controllers(pod: &Pod) -> Vec<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.map(|owner| owner.name.clone()).collect()
}

/// Watches `pods`, and remembers what should not have been. For each pod that was `lost` there may be one more.
pub fn follow(pods: &Informer<Pod>, history: &History, lost: &Lost) -> Broken {
    let broken = Broken::default();
    let (written, read) = (broken.clone(), pods.clone());
    let (history, lost) = (history.clone(), lost.clone());
    let complete = Mutex::new(BTreeSet::new());
    pods.on_change(move |change| {
        let (verb, pod) = match (&change.old, &change.new) {
            (_, Some(new)) => ("is", new),
            (Some(old), None) => ("is gone, was", old),
            (None, None) => return,
        };
        let (name, digest) = history::digest(&serde_json::to_value(&**pod).unwrap_or_default());
        history.note(&name, &format!("    pod {verb} {digest}"));
        let pods = read.list();
        let active = |name: &str| -> Vec<&Pod> {
            let of_app = pods.iter().map(|pod| &**pod).filter(|pod| app(pod) == name);
            of_app.filter(|pod| is_active(pod)).collect()
        };
        let mut broken: Vec<(&str, String)> = Vec::new();
        for (name, most) in PODS_MAX {
            let (count, most) = (active(name).len(), most + lost.of(name));
            if count > most {
                broken.push((
                    name,
                    format!("{count} active pods of {name}, at most {most} are allowed"),
                ));
            }
        }
        let metered = pods
            .iter()
            .filter(|pod| pod.metadata.namespace.as_deref() == Some(METERED));
        let metered = metered.filter(|pod| is_active(pod)).count();
        if metered > METERED_PODS_MAX {
            broken.push(("few", format!("{metered} active pods are more than the quota")));
        }
        let (guarded, all, least) = GUARDED;
        let serving = active(guarded).into_iter().filter(|pod| is_ready(pod)).count();
        if serving >= all {
            complete.lock().insert(guarded);
        } else if serving < least && complete.lock().contains(guarded) {
            broken.push((guarded, format!("{serving} pods serve, at least {least} are promised")));
        }
        for (name, owner) in [("foundling", "legacy"), ("stranger", "other")] {
            let pod = read.get("default", name);
            if let Some(owners) = pod.map(|pod| controllers(&pod)).filter(|owners| !owners.is_empty())
                && owners != [owner]
            {
                broken.push((name, format!("{name} has become the pod of {owners:?}")));
            }
        }
        let mut indexes = BTreeMap::<&str, usize>::new();
        for pod in active("work") {
            let index = text(
                pod.metadata.annotations.as_ref(),
                "batch.kubernetes.io/job-completion-index",
            );
            *indexes.entry(index).or_default() += 1;
        }
        let mut nodes = BTreeMap::<&str, usize>::new();
        for pod in active("agent") {
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .unwrap_or_default();
            *nodes.entry(node).or_default() += usize::from(!node.is_empty());
        }
        for (app, what, counts) in [("work", "index", indexes), ("agent", "node", nodes)] {
            let most = 1 + lost.of(app);
            let twice = counts.iter().filter(|(_, count)| **count > most);
            broken.extend(twice.map(|(name, count)| (app, format!("{count} active pods on {what} {name}"))));
        }
        for (app, what) in broken {
            let mut told = written.0.lock();
            // The first is explained; what follows from it is not.
            let story = match told.is_empty() {
                true => format!("\n{}", history.of(app, history.len())),
                false => String::new(),
            };
            told.push(format!("{what}{story}"));
        }
    });
    broken
}
