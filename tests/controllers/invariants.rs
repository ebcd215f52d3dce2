//! What must hold at every moment, looked at with each change of a pod.

use crate::history::{self, History};
use k8s_openapi::api::core::v1::Pod;
use krust::client::informer::Informer;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most pods of Deployment `web` that may be there at once: the most replicas it ever had, and maxSurge.
const WEB_PODS_MAX: usize = 9 + 2;
const JOB_PODS_MAX: usize = 3;
const STATEFUL_PODS_MAX: usize = 3;

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

pub fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

/// Watches `pods`, and remembers what should not have been.
pub fn follow(pods: &Informer<Pod>, history: &History) -> Broken {
    let broken = Broken::default();
    let (written, read, history) = (broken.clone(), pods.clone(), history.clone());
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
        let mut broken = Vec::new();
        for (name, most) in [("web", WEB_PODS_MAX), ("work", JOB_PODS_MAX), ("db", STATEFUL_PODS_MAX)] {
            let count = active(name).len();
            if count > most {
                let what = format!("{count} active pods of {name}, at most {most} are allowed");
                broken.push((name.to_owned(), what));
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
            let twice = counts.iter().filter(|(_, count)| **count > 1);
            broken.extend(twice.map(|(name, count)| (app.to_owned(), format!("{count} active pods on {what} {name}"))));
        }
        for (app, what) in broken {
            let mut told = written.0.lock();
            // The first is explained; what follows from it is not.
            let story = match told.is_empty() {
                true => format!("\n{}", history.of(&app, history.len())),
                false => String::new(),
            };
            told.push(format!("{what}{story}"));
        }
    });
    broken
}
