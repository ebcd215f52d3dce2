//! What is known of a node's health, and what its conditions and taints should be. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A node that says nothing for so long is not known to be well any more,
pub const GRACE: SignedDuration = SignedDuration::from_secs(50);
/// and one that has never said anything.
pub const GRACE_AT_START: SignedDuration = SignedDuration::from_secs(60);

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// What a condition at a status means for pods.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// What nobody knows of a silent node. Its network is somebody else's to judge.
const UNKNOWN_WHEN_SILENT: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// `True`, `False`, `Unknown`; None if nobody has said anything.
pub fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|condition| condition.status.as_str())
}

/// When a node was last heard, by the clock of this process: those of nodes may be wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    pub heard: Timestamp,
    /// The heartbeat that its status showed then.
    heartbeat: Option<Timestamp>,
    /// It has said once whether it is ready.
    spoke: bool,
}

impl Health {
    /// What is known after a look at the node, with its lease renewed at `renewed` by this process' clock.
    pub fn after(before: Option<&Health>, node: &Node, renewed: Option<Timestamp>, now: Timestamp) -> Health {
        let ready = condition(node, "Ready");
        let heartbeat = ready
            .and_then(|condition| condition.last_heartbeat_time.as_ref())
            .map(|time| time.0);
        let created = node.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
        let heard = match (before, ready) {
            (None, Some(_)) => now,
            (None, None) => created,
            // It has begun to speak, or its condition was taken away: both are news.
            (Some(before), _) if before.spoke != ready.is_some() => now,
            (Some(before), Some(_)) if before.heartbeat != heartbeat => now,
            (Some(before), _) => before.heard,
        };
        Health {
            heard: renewed.map_or(heard, |renewed| renewed.max(heard)),
            heartbeat,
            spoke: ready.is_some(),
        }
    }

    /// Until when its silence is no concern.
    pub fn patience(&self) -> Timestamp {
        let grace = if self.spoke { GRACE } else { GRACE_AT_START };
        self.heard.checked_add(grace).unwrap_or(Timestamp::MAX)
    }
}

/// The conditions of a node that has been silent for too long; None if they say so already.
pub fn silent(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let said = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default();
    let mut conditions = said.clone();
    for kind in UNKNOWN_WHEN_SILENT {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (conditions != said).then_some(conditions)
}

/// The taint that drives pods from a node in this state, and the one that must not be there beside it.
pub fn driving(ready: &str) -> Option<(&'static str, &'static str)> {
    match ready {
        "False" => Some((NOT_READY, UNREACHABLE)),
        "Unknown" => Some((UNREACHABLE, NOT_READY)),
        _ => None,
    }
}

/// Whether pods may be driven from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// As its condition says.
    Allowed,
    /// Not yet: a taint that is there stays, or becomes the other.
    Later,
    /// Nowhere: no node can be reached, so that it is rather us.
    Never,
}

/// The node's taints as they should be; None if they are so.
pub fn taints(node: &Node, drive: Drive, now: Timestamp) -> Option<Vec<Taint>> {
    let there = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.clone())
        .unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in CONDITION_TAINTS {
        if condition(node, kind).is_some_and(|condition| condition.status == status) {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let has = |key: &str| {
        there
            .iter()
            .any(|taint| taint.key == key && taint.effect == "NoExecute")
    };
    if let Some((key, opposite)) = ready(node).and_then(driving) {
        let tainted = has(key) || has(opposite);
        if drive == Drive::Allowed || (drive == Drive::Later && tainted) {
            wanted.push((key, "NoExecute"));
        }
    } else if ready(node).is_none() {
        // Nothing is known: what is there stays.
        wanted.extend(
            [NOT_READY, UNREACHABLE]
                .into_iter()
                .filter(|key| has(key))
                .map(|key| (key, "NoExecute")),
        );
    }
    let ours = |taint: &Taint| match taint.effect.as_str() {
        "NoSchedule" => taint.key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key),
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    };
    let is_wanted = |taint: &Taint| {
        wanted
            .iter()
            .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    let mut taints: Vec<Taint> = there
        .iter()
        .filter(|taint| !ours(taint) || is_wanted(taint))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            taints.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                ..Taint::default()
            });
        }
    }
    (taints != there).then_some(taints)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn node(ready: Option<(&str, i64)>, taints: &[(&str, &str)]) -> Node {
        let conditions: Vec<Value> = ready
            .into_iter()
            .map(|(status, heartbeat)| json!({"type": "Ready", "status": status, "lastHeartbeatTime": Time(at(heartbeat))}))
            .collect();
        let taints: Vec<Value> = taints
            .iter()
            .map(|(key, effect)| json!({"key": key, "effect": effect}))
            .collect();
        serde_json::from_value(json!({"metadata": {"name": "n", "creationTimestamp": Time(at(5))},
            "spec": {"taints": taints}, "status": {"conditions": conditions}}))
        .unwrap()
    }

    #[test]
    fn a_node_is_heard_by_its_status_and_its_lease() {
        let fresh = Health::after(None, &node(None, &[]), None, at(20));
        assert_eq!((fresh.heard, fresh.patience()), (at(5), at(65)));
        // A restart of ours gives it the whole grace anew.
        let first = Health::after(None, &node(Some(("True", 3)), &[]), None, at(20));
        assert_eq!((first.heard, first.patience()), (at(20), at(70)));
        let same = Health::after(Some(&first), &node(Some(("True", 3)), &[]), None, at(40));
        assert_eq!(same.heard, at(20));
        let beat = Health::after(Some(&first), &node(Some(("True", 30)), &[]), None, at(40));
        assert_eq!(beat.heard, at(40));
        let renewed = Health::after(Some(&first), &node(Some(("True", 3)), &[]), Some(at(45)), at(46));
        assert_eq!(renewed.heard, at(45));
        let spoke = Health::after(Some(&fresh), &node(Some(("True", 3)), &[]), None, at(40));
        assert_eq!(spoke.heard, at(40));
    }

    #[test]
    fn of_a_silent_node_nothing_is_known() {
        let known = node(Some(("True", 3)), &[]);
        let conditions = silent(&known, at(99)).unwrap();
        let shown: Vec<_> = conditions
            .iter()
            .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                ("Ready", "Unknown", "NodeStatusUnknown"),
                ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
                ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
                ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
            ]
        );
        assert_eq!(conditions[0].last_transition_time, Some(Time(at(99))));
        let mut told = known;
        told.status.as_mut().unwrap().conditions = Some(conditions);
        assert_eq!(silent(&told, at(120)), None);
    }

    #[test]
    fn taints_follow_conditions() {
        let (schedule, execute) = ("NoSchedule", "NoExecute");
        let own = ("example.com/own", execute);
        for (ready, there, drive, expected) in [
            // A new node, which admission has tainted.
            (None, &[(NOT_READY, schedule)][..], Drive::Later, Some(&[][..])),
            (Some("True"), &[(NOT_READY, schedule), own], Drive::Later, Some(&[own])),
            (Some("True"), &[own], Drive::Allowed, None),
            (Some("False"), &[], Drive::Later, Some(&[(NOT_READY, schedule)])),
            (
                Some("False"),
                &[],
                Drive::Allowed,
                Some(&[(NOT_READY, schedule), (NOT_READY, execute)]),
            ),
            (
                Some("Unknown"),
                &[(NOT_READY, schedule), (NOT_READY, execute)],
                Drive::Later,
                Some(&[(UNREACHABLE, schedule), (UNREACHABLE, execute)]),
            ),
            (
                Some("Unknown"),
                &[(UNREACHABLE, schedule), (UNREACHABLE, execute)],
                Drive::Never,
                Some(&[(UNREACHABLE, schedule)]),
            ),
            (
                Some("True"),
                &[(UNREACHABLE, execute), (UNREACHABLE, schedule)],
                Drive::Never,
                Some(&[]),
            ),
            (Some("True"), &[(UNSCHEDULABLE, schedule)], Drive::Later, Some(&[])),
            (None, &[(UNREACHABLE, execute)], Drive::Later, None),
        ] {
            let node = node(ready.map(|status| (status, 3)), there);
            let taints = taints(&node, drive, at(9));
            let shown: Option<Vec<(&str, &str)>> = taints
                .as_ref()
                .map(|taints| taints.iter().map(|taint| (&*taint.key, &*taint.effect)).collect());
            assert_eq!(shown.as_deref(), expected, "{ready:?} {there:?} {drive:?}");
        }
        let mut cordoned = node(Some(("True", 3)), &[]);
        cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
        let mut pressed: Node = cordoned.clone();
        let disk = json!({"type": "DiskPressure", "status": "True"});
        pressed
            .status
            .as_mut()
            .unwrap()
            .conditions
            .as_mut()
            .unwrap()
            .push(serde_json::from_value(disk).unwrap());
        let taints = taints(&pressed, Drive::Later, at(9)).unwrap();
        let keys: Vec<&str> = taints.iter().map(|taint| taint.key.as_str()).collect();
        assert_eq!(keys, ["node.kubernetes.io/disk-pressure", UNSCHEDULABLE]);
        assert!(taints.iter().all(|taint| taint.time_added == Some(Time(at(9)))));
    }
}
