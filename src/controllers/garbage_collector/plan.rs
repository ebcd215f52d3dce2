//! What is to become of an object whose owners were looked at. Pure
//! (upstream: `attemptToDeleteItem` in `garbagecollector.go`).

use super::identity::{Owner, Uid};

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";

/// What an owner is to its dependent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    Solid,
    /// It is not.
    Dangling,
    /// It is being deleted in the foreground, and waits for its dependents.
    Waiting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Background,
    Foreground,
    Orphan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// These owners no longer count: the object has another one.
    DropOwners(Vec<Uid>),
    /// Delete it; with `unblock`, first let it block nobody, so that a circle cannot wait for itself.
    Delete {
        policy: Policy,
        unblock: bool,
    },
}

/// What is known of the object itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject {
    pub has_dependents: bool,
    /// A dependent of it waits for dependents of its own.
    pub has_waiting_dependent: bool,
    pub has_orphan_finalizer: bool,
    pub has_foreground_finalizer: bool,
}

/// `owners` are those of the stored object, with what they are now.
pub fn decide(subject: Subject, owners: &[(Owner, Standing)]) -> Action {
    let is = |standing: Standing| move |(_, found): &&(Owner, Standing)| *found == standing;
    if owners.is_empty() {
        return Action::Nothing;
    }
    if owners.iter().any(|owner| is(Standing::Solid)(&owner)) {
        let rest = owners.iter().filter(|(_, standing)| *standing != Standing::Solid);
        let rest: Vec<Uid> = rest.map(|(owner, _)| owner.uid.clone()).collect();
        return match rest.is_empty() {
            true => Action::Nothing,
            false => Action::DropOwners(rest),
        };
    }
    let waited_for = owners.iter().any(|owner| is(Standing::Waiting)(&owner));
    if waited_for && subject.has_dependents {
        return Action::Delete {
            policy: Policy::Foreground,
            unblock: subject.has_waiting_dependent,
        };
    }
    let policy = if subject.has_orphan_finalizer {
        Policy::Orphan
    } else if subject.has_foreground_finalizer {
        Policy::Foreground
    } else {
        Policy::Background
    };
    Action::Delete { policy, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::super::identity::Type;
    use super::*;
    use Standing::{Dangling, Solid, Waiting};

    #[test]
    fn situations() {
        let plain = Subject::default();
        let parent = Subject {
            has_dependents: true,
            ..plain
        };
        let in_circle = Subject {
            has_waiting_dependent: true,
            ..parent
        };
        let orphaning = Subject {
            has_orphan_finalizer: true,
            ..plain
        };
        let foreground = Subject {
            has_foreground_finalizer: true,
            ..plain
        };
        let delete = |policy, unblock| Action::Delete { policy, unblock };
        let drop = |indexes: &[usize]| Action::DropOwners(indexes.iter().map(|index| uid(*index)).collect());
        let cases: [(Subject, &[Standing], Action); 13] = [
            (plain, &[], Action::Nothing),
            (plain, &[Solid], Action::Nothing),
            (plain, &[Solid, Solid], Action::Nothing),
            (plain, &[Dangling], delete(Policy::Background, false)),
            (plain, &[Dangling, Solid, Waiting], drop(&[0, 2])),
            (parent, &[Waiting, Solid], drop(&[0])),
            (plain, &[Waiting], delete(Policy::Background, false)),
            (parent, &[Waiting, Dangling], delete(Policy::Foreground, false)),
            (in_circle, &[Waiting], delete(Policy::Foreground, true)),
            (in_circle, &[Dangling], delete(Policy::Background, false)),
            (orphaning, &[Dangling], delete(Policy::Orphan, false)),
            (foreground, &[Dangling], delete(Policy::Foreground, false)),
            (orphaning, &[Solid], Action::Nothing),
        ];
        for (subject, standings, action) in cases {
            let owners: Vec<(Owner, Standing)> = standings
                .iter()
                .enumerate()
                .map(|(index, standing)| (owner(index), *standing))
                .collect();
            assert_eq!(decide(subject, &owners), action, "{subject:?} {standings:?}");
        }
    }

    fn uid(index: usize) -> Uid {
        Uid::new(&format!("uid-{index}"))
    }

    fn owner(index: usize) -> Owner {
        Owner {
            kind: Type::new("v1", "ConfigMap"),
            name: format!("owner-{index}").into(),
            uid: uid(index),
            blocks: true,
        }
    }
}
