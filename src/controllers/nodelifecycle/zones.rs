//! How fast pods are driven from nodes, by how many nodes of a zone are well (upstream: `handleDisruption` and the
//! rate-limited queues of `node_lifecycle_controller.go`). Pure.

use super::plan::Drive;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, HashMap};

/// One node in so many seconds, as a rule,
const PACE: SignedDuration = SignedDuration::from_secs(10);
/// in a large zone of which much is ill,
const SLOW_PACE: SignedDuration = SignedDuration::from_secs(100);
/// and not at all in a zone that is not that large.
const LARGE_ZONE_NODES: usize = 50;
/// Much is ill from this share on, and more than [`ILL_NODES`].
const ILL_SHARE_PERCENT: usize = 55;
const ILL_NODES: usize = 2;
/// Nodes with this label are nobody's measure.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    PartlyIll,
    AllIll,
}

/// What the nodes of a cluster say together.
#[derive(Default)]
pub struct Zones {
    nodes: HashMap<String, (String, bool)>,
    zones: BTreeMap<String, Zone>,
}

#[derive(Default)]
struct Zone {
    well: usize,
    ill: usize,
    /// When a node was last given up.
    last: Option<Timestamp>,
}

impl Zone {
    fn state(&self) -> State {
        let all = self.well + self.ill;
        if self.well == 0 && self.ill > 0 {
            State::AllIll
        } else if self.ill > ILL_NODES && self.ill * 100 >= all * ILL_SHARE_PERCENT {
            State::PartlyIll
        } else {
            State::Normal
        }
    }
}

/// Region and zone.
pub fn zone_of(node: &Node) -> String {
    let label = |keys: [&str; 2]| {
        let labels = node.metadata.labels.as_ref();
        let found = keys.iter().find_map(|key| labels.and_then(|labels| labels.get(*key)));
        found.cloned().unwrap_or_default()
    };
    let region = label([
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/region",
    ]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    format!("{region}:{zone}")
}

impl Zones {
    /// Notes how a node is. True if that changed what holds for others.
    pub fn note(&mut self, name: &str, node: &Node, well: bool) -> bool {
        let excluded = node
            .metadata
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(EXCLUDED));
        let now = (zone_of(node), well);
        if excluded {
            return self.forget(name);
        }
        if self.nodes.get(name) == Some(&now) {
            return false;
        }
        let before = self.rules();
        self.take_out(name);
        let zone = self.zones.entry(now.0.clone()).or_default();
        *(if well { &mut zone.well } else { &mut zone.ill }) += 1;
        self.nodes.insert(name.to_owned(), now);
        self.rules() != before
    }

    /// A node is gone. True if that changed what holds for others.
    pub fn forget(&mut self, name: &str) -> bool {
        let before = self.rules();
        self.take_out(name);
        self.rules() != before
    }

    fn take_out(&mut self, name: &str) {
        let Some((zone, well)) = self.nodes.remove(name) else {
            return;
        };
        if let Some(counts) = self.zones.get_mut(&zone) {
            *(if well { &mut counts.well } else { &mut counts.ill }) -= 1;
            if counts.well + counts.ill == 0 {
                self.zones.remove(&zone);
            }
        }
    }

    /// No node anywhere is well.
    pub fn all_ill(&self) -> bool {
        !self.zones.is_empty() && self.zones.values().all(|zone| zone.state() == State::AllIll)
    }

    fn rules(&self) -> (bool, Vec<(String, State)>) {
        let states = self.zones.iter().map(|(name, zone)| (name.clone(), zone.state()));
        (self.all_ill(), states.collect())
    }

    fn pace(&self, zone: &str) -> Option<SignedDuration> {
        let Some(zone) = self.zones.get(zone) else {
            return Some(PACE);
        };
        match zone.state() {
            State::Normal | State::AllIll => Some(PACE),
            State::PartlyIll if zone.well + zone.ill > LARGE_ZONE_NODES => Some(SLOW_PACE),
            State::PartlyIll => None,
        }
    }

    /// Whether pods may be driven from a node of the zone now; the second is when to ask again.
    pub fn may_drive(&self, zone: &str, now: Timestamp) -> (Drive, Option<Timestamp>) {
        if self.all_ill() {
            return (Drive::Never, None);
        }
        let Some(pace) = self.pace(zone) else {
            return (Drive::Later, None);
        };
        let last = self.zones.get(zone).and_then(|zone| zone.last);
        match last.and_then(|last| last.checked_add(pace).ok()) {
            Some(next) if next > now => (Drive::Later, Some(next)),
            _ => (Drive::Allowed, None),
        }
    }

    /// A node of the zone was given up.
    pub fn drove(&mut self, zone: &str, now: Timestamp) {
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn node(zone: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}})).unwrap()
    }

    #[test]
    fn one_node_after_the_other() {
        let mut zones = Zones::default();
        for (name, well) in [("a", true), ("b", false), ("c", false), ("d", true)] {
            zones.note(name, &node("z"), well);
        }
        assert_eq!(zones.may_drive(":z", at(0)), (Drive::Allowed, None));
        zones.drove(":z", at(0));
        assert_eq!(zones.may_drive(":z", at(4)), (Drive::Later, Some(at(10))));
        assert_eq!(zones.may_drive(":z", at(10)), (Drive::Allowed, None));
    }

    #[test]
    fn much_illness_slows_and_illness_everywhere_stops() {
        let mut zones = Zones::default();
        for index in 0..4 {
            zones.note(&format!("n{index}"), &node("z"), index == 0);
        }
        assert_eq!(zones.may_drive(":z", at(0)), (Drive::Later, None));
        assert!(zones.note("n1", &node("z"), true), "the zone is normal again");
        assert!(!zones.note("n1", &node("z"), true));
        for index in 0..2 {
            zones.note(&format!("n{index}"), &node("z"), false);
        }
        assert_eq!(zones.may_drive(":z", at(0)).0, Drive::Never);
        // Another zone lives: this one's nodes are really gone.
        assert!(zones.note("m", &node("y"), true));
        assert_eq!(zones.may_drive(":z", at(0)).0, Drive::Allowed);
        assert!(zones.forget("m"));
        assert!(zones.all_ill());
        for index in 0..60 {
            zones.note(&format!("l{index}"), &node("x"), index < 10);
        }
        assert_eq!(zones.may_drive(":x", at(0)).0, Drive::Allowed);
        zones.drove(":x", at(0));
        assert_eq!(zones.may_drive(":x", at(50)), (Drive::Later, Some(at(100))));
    }

    #[test]
    fn excluded_nodes_are_no_measure() {
        let mut zones = Zones::default();
        let mut excluded = node("z");
        excluded
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert(EXCLUDED.into(), String::new());
        zones.note("a", &excluded, false);
        assert!(!zones.all_ill());
    }
}
