//! What the controller remembers of a node: since when volumes are to leave it, and what it has told its pods
//! and whom it is about to give volumes (upstream: `pkg/controller/volume/attachdetach/cache`). Nothing of it has to outlive
//! krust.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// How long a node that is not ready may keep a volume that nobody there needs.
pub const PATIENCE: Duration = Duration::from_secs(6 * 60);

#[derive(Debug, Default)]
pub struct Memory {
    nodes: HashMap<String, OfNode>,
    /// The node that a volume of one node is being attached to, and the attachment's name, as long as the cache may not
    /// show it.
    given: HashMap<String, (String, String)>,
}

#[derive(Debug, Default)]
struct OfNode {
    /// By the attachment's name.
    leaving_since: HashMap<String, Instant>,
    /// What a node that is gone had in use when it went.
    left_in_use: Vec<String>,
    /// What was said of a volume last.
    told: BTreeMap<String, String>,
}

impl Memory {
    /// Whether the attachment was to leave the node for so long that it may be taken away.
    pub fn is_overdue(&self, node: &str, attachment: &str, now: Instant) -> bool {
        let since = self.nodes.get(node).and_then(|node| node.leaving_since.get(attachment));
        since.is_some_and(|since| now.duration_since(*since) > PATIENCE)
    }

    /// Notes which attachments are to leave and cannot yet; says when to look again.
    pub fn note_leaving(&mut self, node: &str, leaving: &[String], now: Instant) -> Option<Duration> {
        let held = self.at(node, !leaving.is_empty())?;
        held.leaving_since.retain(|name, _| leaving.contains(name));
        let mut next = None;
        for name in leaving {
            let since = *held.leaving_since.entry(name.clone()).or_insert(now);
            // Who is overdue waits for a change of the node.
            let left = (PATIENCE + Duration::from_millis(1)).checked_sub(now.duration_since(since));
            next = left.into_iter().chain(next).min();
        }
        self.forget_if_empty(node);
        next
    }

    /// Notes that the node is given volumes that one node may have, by the names of their attachments, and says which of
    /// them others are being given.
    pub fn give(&mut self, node: &str, volumes: &BTreeMap<String, String>) -> Vec<String> {
        let taken = volumes.iter().filter(|(attachment, volume)| {
            let given = (node.to_owned(), (*attachment).clone());
            self.given.entry((*volume).clone()).or_insert(given).0 != node
        });
        taken.map(|(_, volume)| volume.clone()).collect()
    }

    /// What the node was given before and is not `wanted` any more: attachments and volumes.
    pub fn given(&self, node: &str, wanted: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let given = self.given.iter().filter(|(_, (to, _))| to == node);
        let old = given.filter(|(_, (_, attachment))| !wanted.contains_key(attachment));
        old.map(|(volume, (_, attachment))| (attachment.clone(), volume.clone()))
            .collect()
    }

    /// The cache shows whether the volume was attached.
    pub fn settle(&mut self, volume: &str) {
        self.given.remove(volume);
    }

    pub fn note_gone(&mut self, node: &str, in_use: Vec<String>) {
        if let Some(held) = self.at(node, !in_use.is_empty()) {
            held.left_in_use = in_use;
        }
        self.forget_if_empty(node);
    }

    pub fn left_in_use(&self, node: &str) -> Vec<String> {
        self.nodes
            .get(node)
            .map_or_else(Vec::new, |held| held.left_in_use.clone())
    }

    /// Keeps only what is still so, and gives back what is new of it.
    pub fn news(&mut self, node: &str, said: BTreeMap<String, String>) -> Vec<(String, String)> {
        let Some(held) = self.at(node, !said.is_empty()) else {
            return Vec::new();
        };
        let new = said.iter().filter(|(about, text)| held.told.get(*about) != Some(text));
        let new = new.map(|(about, text)| (about.clone(), text.clone())).collect();
        held.told = said;
        self.forget_if_empty(node);
        new
    }

    fn at(&mut self, node: &str, make: bool) -> Option<&mut OfNode> {
        if make {
            return Some(self.nodes.entry(node.to_owned()).or_default());
        }
        self.nodes.get_mut(node)
    }

    fn forget_if_empty(&mut self, node: &str) {
        let is_empty =
            |held: &OfNode| held.leaving_since.is_empty() && held.left_in_use.is_empty() && held.told.is_empty();
        if self.nodes.get(node).is_some_and(is_empty) {
            self.nodes.remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_six_minutes_from_the_first_request() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        let after = |minutes: u64| start + Duration::from_secs(minutes * 60);
        let leaving = ["a".to_owned()];
        let left = memory.note_leaving("n", &leaving, start).unwrap();
        assert_eq!(left.as_millis(), 360_001);
        assert_eq!(memory.note_leaving("n", &leaving, after(4)).unwrap().as_secs(), 120);
        assert!(!memory.is_overdue("n", "a", after(6)));
        assert!(memory.is_overdue("n", "a", after(7)));
        assert_eq!(memory.note_leaving("n", &leaving, after(7)), None);
        // Somebody needed it again: the time starts anew.
        assert_eq!(memory.note_leaving("n", &[], after(8)), None);
        assert!(memory.nodes.is_empty());
        memory.note_leaving("n", &leaving, after(9));
        assert!(!memory.is_overdue("n", "a", after(12)));
    }

    #[test]
    fn a_volume_is_given_to_one_node() {
        let mut memory = Memory::default();
        let of = |node: &str, volumes: &[&str]| -> BTreeMap<String, String> {
            let volumes = volumes.iter();
            volumes
                .map(|volume| (format!("{volume}-{node}"), (*volume).to_owned()))
                .collect()
        };
        assert_eq!(memory.give("n", &of("n", &["a", "b"])), [""; 0]);
        assert_eq!(memory.give("m", &of("m", &["b", "c"])), ["b"]);
        assert_eq!(memory.given("n", &of("n", &["a", "b"])), []);
        let old = memory.given("n", &of("n", &["a"]));
        assert_eq!(old, [("b-n".to_owned(), "b".to_owned())]);
        memory.settle("b");
        assert_eq!(memory.give("m", &of("m", &["b"])), [""; 0]);
    }

    #[test]
    fn what_is_said_twice_is_no_news() {
        let mut memory = Memory::default();
        let said = |text: &str| BTreeMap::from([("v".to_owned(), text.to_owned())]);
        assert_eq!(memory.news("n", said("x")).len(), 1);
        assert_eq!(memory.news("n", said("x")).len(), 0);
        assert_eq!(memory.news("n", said("y")).len(), 1);
        assert_eq!(memory.news("n", BTreeMap::new()).len(), 0);
        assert!(memory.nodes.is_empty());
        memory.note_gone("n", vec!["u".to_owned()]);
        assert_eq!(memory.left_in_use("n"), ["u"]);
        memory.note_gone("n", Vec::new());
        assert!(memory.nodes.is_empty());
    }
}
