//! Seeded runs of a small model: writers, a controller with stale views, conflicts and restarts. No quota is ever
//! exceeded, and in the end its usage is exact.

use super::plan;
use crate::controllers::dice::Dice;
use crate::usage::{Amounts, Change, Charge, Evaluator, Measured, charge, scopes, total};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use serde_json::json;
use std::collections::BTreeMap;

/// What the API server holds.
struct Cluster {
    revision: u64,
    quota: ResourceQuota,
    /// Every version of the quota, as a cache may still show it.
    versions: Vec<ResourceQuota>,
    pods: BTreeMap<u64, Pod>,
}

/// How far the controller is with one look at the quota.
enum Controller {
    Idle,
    Read(ResourceQuota),
    Counted(ResourceQuota, Amounts),
}

fn pod(cpu: u64) -> Pod {
    let resources = json!({"requests": {"cpu": format!("{cpu}m")}});
    serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
}

impl Cluster {
    fn new(hard: serde_json::Value) -> Self {
        let quota: ResourceQuota =
            serde_json::from_value(json!({"metadata": {"name": "q", "resourceVersion": "1"}, "spec": {"hard": hard}}))
                .unwrap();
        Self {
            revision: 1,
            versions: vec![quota.clone()],
            quota,
            pods: BTreeMap::new(),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut ResourceQuota)) {
        self.revision += 1;
        change(&mut self.quota);
        self.quota.metadata.resource_version = Some(self.revision.to_string());
        self.versions.push(self.quota.clone());
    }

    fn actual(&self) -> Amounts {
        total(self.pods.values(), &scopes(&self.quota), Timestamp::UNIX_EPOCH)
    }

    fn status(&self, part: &str) -> Amounts {
        let status = self.quota.status.as_ref();
        Amounts::from_api(status.and_then(|status| {
            if part == "hard" {
                status.hard.as_ref()
            } else {
                status.used.as_ref()
            }
        }))
    }

    fn create(&mut self, pod: Pod) {
        let change = Change {
            evaluator: Evaluator::of("", "pods").unwrap(),
            object: Box::new(pod.clone()),
            old: None,
            is_status: false,
            now: Timestamp::UNIX_EPOCH,
        };
        match charge(&self.quota, &change) {
            Ok(Charge::Nothing) => {}
            Ok(Charge::Recount) => self.change(|_| {}),
            Ok(Charge::Used(used)) => self.change(|quota| quota.status.as_mut().unwrap().used = Some(used.to_api())),
            Err(why) => {
                assert!(why.starts_with("exceeded quota: q"), "{why}");
                return;
            }
        }
        let charged = self.status("used").0.len();
        self.revision += 1;
        self.pods.insert(self.revision, pod.clone());
        let (actual, hard) = (self.actual(), self.status("hard"));
        for name in pod.usage(Timestamp::UNIX_EPOCH).names() {
            if let Some(limit) = hard.get(name) {
                assert!(
                    actual.get(name) <= Some(limit),
                    "{name} is exceeded: {actual} of {hard}, {charged} charged"
                );
            }
        }
    }

    /// Takes one step of the controller; true if it has finished a look that left nothing to do.
    fn control(&mut self, controller: &mut Controller, stale: u64) -> bool {
        *controller = match std::mem::replace(controller, Controller::Idle) {
            Controller::Idle => {
                let newest = self.versions.len() - 1;
                let at = newest.saturating_sub(usize::try_from(stale).unwrap());
                Controller::Read(self.versions[at].clone())
            }
            Controller::Read(quota) => {
                let mut counted = self.actual();
                let hard = quota
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.hard.clone())
                    .unwrap_or_default();
                for name in hard
                    .keys()
                    .filter(|name| Evaluator::of("", "pods").unwrap().tracks(name))
                {
                    if counted.get(name).is_none() {
                        counted.count(name, 0);
                    }
                }
                Controller::Counted(quota, counted)
            }
            Controller::Counted(quota, counted) => match plan::status(&quota, &counted) {
                Some(status) if quota.metadata.resource_version == self.quota.metadata.resource_version => {
                    self.change(|quota| quota.status = Some(status));
                    return false;
                }
                // The conflict: again, with a newer view.
                Some(_) => return false,
                None => return quota.metadata.resource_version == self.quota.metadata.resource_version,
            },
        };
        false
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let limits = |dice: &mut Dice| {
        let mut hard = json!({"pods": (1 + dice.below(8)).to_string()});
        if dice.below(2) == 0 {
            hard["requests.cpu"] = json!(format!("{}m", 200 + dice.below(1500)));
        }
        if dice.below(4) == 0 {
            hard["count/pods"] = json!((1 + dice.below(10)).to_string());
        }
        hard
    };
    let hard = limits(&mut dice);
    let mut cluster = Cluster::new(hard);
    let mut controllers = [Controller::Idle, Controller::Idle];
    for _ in 0..120 {
        match dice.below(12) {
            0..=4 => cluster.create(pod(50 + dice.below(400))),
            5 if !cluster.pods.is_empty() => {
                let at = usize::try_from(dice.below(cluster.pods.len() as u64)).unwrap();
                let key = *cluster.pods.keys().nth(at).unwrap();
                cluster.revision += 1;
                cluster.pods.remove(&key);
            }
            6 => {
                if let Some(mut first) = cluster.pods.first_entry() {
                    cluster.revision += 1;
                    first.get_mut().status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
                }
            }
            7 if dice.below(4) == 0 => {
                let hard = serde_json::from_value(limits(&mut dice)).unwrap();
                cluster.change(|quota| quota.spec.as_mut().unwrap().hard = Some(hard));
            }
            // A restart at any moment: what was begun is forgotten.
            8 if dice.below(4) == 0 => controllers = [Controller::Idle, Controller::Idle],
            _ => {
                let which = usize::try_from(dice.below(2)).unwrap();
                cluster.control(&mut controllers[which], dice.below(4));
            }
        }
        // What is told is never less than what is there.
        let (actual, used, hard) = (cluster.actual(), cluster.status("used"), cluster.status("hard"));
        for name in hard.names() {
            assert!(
                used.get(name) >= actual.get(name),
                "{name}: used {used}, but there is {actual}"
            );
        }
    }
    // Left alone, it comes to the truth within a few looks, and then writes nothing more.
    let mut controller = Controller::Idle;
    let quiet = (0..12).any(|_| cluster.control(&mut controller, 0));
    assert!(quiet, "the controller finds no rest");
    let (actual, used) = (cluster.actual(), cluster.status("used"));
    let spec = Amounts::from_api(cluster.quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()));
    assert_eq!(cluster.status("hard"), spec);
    for name in spec.names() {
        let there = actual.get(name).unwrap_or(crate::quantity::Quantity::ZERO);
        assert_eq!(used.get(name), Some(there), "{name}");
    }
}

#[test]
fn no_quota_is_exceeded_and_usage_ends_exact() {
    for seed in 0..200 {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}
