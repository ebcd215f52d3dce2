//! Who is asked once more because somebody changed the object after them: mutating policies and webhooks that want that
//! (upstream: `plugin/webhook/mutating/reinvocationcontext.go`, `plugin/policy/mutating/reinvocationcontext.go`).

use crate::registry::strategy::Object;
use std::collections::BTreeSet;

/// The rounds of one kind of mutators in one request; `K` is the place of one in their order.
pub struct Reinvocation<K> {
    is_second: bool,
    /// Those that want to be asked again and were asked since the last change.
    asked: BTreeSet<K>,
    /// Those that others changed the object after.
    again: BTreeSet<K>,
    /// How the first round left the object, if anybody may be asked again.
    left: Option<Object>,
}

impl<K: Ord> Default for Reinvocation<K> {
    fn default() -> Self {
        Self {
            is_second: false,
            asked: BTreeSet::new(),
            again: BTreeSet::new(),
            left: None,
        }
    }
}

impl<K: Ord> Reinvocation<K> {
    /// Begins the second round. What others changed after the first is a change for all.
    pub fn begin_second(&mut self, object: &Object) {
        self.is_second = true;
        if self.left.take().is_some_and(|left| left != *object) {
            self.changed();
        }
    }

    /// In the second round nobody is asked for the first time.
    pub fn takes_part(&self, place: &K) -> bool {
        !self.is_second || self.again.contains(place)
    }

    /// Whether that can still become so in this round.
    pub fn may_take_part(&self, place: &K) -> bool {
        self.asked.contains(place)
    }

    /// Somebody was asked who wants to be asked again.
    pub fn asked(&mut self, place: K) {
        self.asked.insert(place);
    }

    /// The object is not what those saw who were asked before.
    pub fn changed(&mut self) {
        self.again.append(&mut self.asked);
    }

    /// The round is over.
    pub fn end(&mut self, object: &Object) {
        let nobody = self.asked.is_empty() && self.again.is_empty();
        if !(self.is_second || nobody) {
            self.left = Some(object.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A round in which all want to be asked again, and some change the object.
    fn round(rounds: &mut Reinvocation<usize>, object: &Object, changes: &[usize]) -> Vec<usize> {
        let mut called = Vec::new();
        for place in 0..3 {
            if rounds.takes_part(&place) {
                called.push(place);
                if changes.contains(&place) {
                    rounds.changed();
                }
                rounds.asked(place);
            }
        }
        rounds.end(object);
        called
    }

    #[test]
    fn only_those_are_asked_again_that_others_changed_the_object_after() {
        let object = Object::new();
        let other = json!({"a": 1}).as_object().unwrap().clone();
        for (changes, between, second) in [
            (vec![], &object, vec![]),
            (vec![0], &object, vec![]),
            (vec![1], &object, vec![0]),
            (vec![2], &object, vec![0, 1]),
            (vec![0, 2], &object, vec![0, 1]),
            (vec![], &other, vec![0, 1, 2]),
        ] {
            let mut rounds = Reinvocation::default();
            assert_eq!(round(&mut rounds, &object, &changes), [0, 1, 2]);
            rounds.begin_second(between);
            assert_eq!(round(&mut rounds, between, &[]), second, "{changes:?}");
        }
    }

    #[test]
    fn a_change_in_the_second_round_reaches_those_behind_it() {
        let object = Object::new();
        let mut rounds = Reinvocation::default();
        round(&mut rounds, &object, &[1]);
        rounds.begin_second(&object);
        // The second was asked after its own change, and now the first changes the object again.
        assert_eq!(round(&mut rounds, &object, &[0]), [0, 1, 2]);
    }

    #[test]
    fn who_was_not_asked_in_the_first_round_is_not_asked_in_the_second() {
        let mut rounds = Reinvocation::default();
        rounds.asked(0);
        rounds.changed();
        rounds.asked(2);
        rounds.end(&Object::new());
        rounds.begin_second(&Object::new());
        assert!(rounds.takes_part(&0) && !rounds.takes_part(&1) && !rounds.takes_part(&2));
    }
}
