//! The list of all conformance tests (tests.tsv), and the count of those that have a test of ours.

use crate::nodes::Backend;
use std::collections::BTreeMap;

/// Whether pods must run, by the test's name without its tags.
pub struct List(BTreeMap<String, bool>);

/// What a run of ours came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// Fails, as its mark says it will until a part of krust exists.
    Waits,
    /// Needs what was not asked for, or is filtered out.
    NotRun,
}

impl List {
    pub fn read() -> Self {
        let mut names = BTreeMap::new();
        for line in include_str!("tests.tsv").lines().filter(|line| !line.starts_with('#')) {
            let (name, pods) = line.split_once('\t').expect("a name and whether pods run");
            assert!(matches!(pods, "yes" | "no"), "{line}");
            let before = names.insert(without_tags(name).to_owned(), pods == "yes");
            assert!(before.is_none(), "{name} stands twice in the list");
        }
        Self(names)
    }

    /// What is wrong with the names of our tests: unknown to the list, or used twice.
    pub fn problems<'a>(&self, ours: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for name in ours {
            if !self.0.contains_key(name) {
                problems.push(format!("{name:?} is no conformance test"));
            }
            if !seen.insert(name) {
                problems.push(format!("{name:?} has two tests of ours"));
            }
        }
        problems
    }

    /// The line that says how far we are. A test passes when it does on every backend that it has.
    pub fn count(&self, outcomes: &[(&str, Option<Backend>, Outcome)]) -> String {
        let mut passes: BTreeMap<&str, bool> = BTreeMap::new();
        for (name, _, outcome) in outcomes.iter().filter(|(name, ..)| self.0.contains_key(*name)) {
            *passes.entry(name).or_insert(true) &= *outcome == Outcome::Passed;
        }
        let of = |pods: bool| self.0.values().filter(|needs| **needs == pods).count();
        let passed = passes.iter().filter(|(_, passes)| **passes);
        let passed_without_pods = passed.clone().filter(|(name, _)| !self.0[**name]).count();
        let on = |backend: Backend| {
            let here = outcomes
                .iter()
                .filter(|(_, on, o)| *on == Some(backend) && *o == Outcome::Passed);
            let count = here.filter(|(name, ..)| self.0.contains_key(*name)).count();
            format!("{count} on {backend}")
        };
        let by_backend: Vec<String> = Backend::ALL.iter().map(|backend| on(*backend)).collect();
        format!(
            "conformance: {} of {} have a test of ours, {} pass ({passed_without_pods} of {} that need no pod; of {} with pods {})",
            passes.len(),
            self.0.len(),
            passed.count(),
            of(false),
            of(true),
            by_backend.join(", ")
        )
    }

    /// Those without a test of ours; of those only that need no pod, unless `all`.
    pub fn missing<'a>(&'a self, ours: &[&str], all: bool) -> Vec<&'a str> {
        let missing = self
            .0
            .iter()
            .filter(|(name, pods)| (all || !**pods) && !ours.contains(&name.as_str()));
        missing.map(|(name, _)| name.as_str()).collect()
    }
}

/// A name without `[Conformance]`, `[Serial]` and the like at its end.
fn without_tags(name: &str) -> &str {
    match name.rsplit_once(" [") {
        Some((rest, tag)) if tag.ends_with(']') && !tag[..tag.len() - 1].contains(']') => without_tags(rest),
        _ => name,
    }
}

/// The list's own checks. The binary has a runner of its own, which runs them before anything else.
pub fn check_the_list() {
    assert_eq!(
        without_tags("[sig-a] B should c [Serial] [Conformance]"),
        "[sig-a] B should c"
    );
    let list = List::read();
    assert_eq!(list.0.len(), 449);
    let known = list.0.keys().next().unwrap().as_str();
    assert!(list.problems([known]).is_empty());
    assert_eq!(list.problems([known, known]).len(), 1);
    assert_eq!(list.problems(["[sig-a] B should c"]).len(), 1);
    let second = list.0.keys().nth(1).unwrap().as_str();
    let count = list.count(&[
        (known, None, Outcome::Passed),
        (second, Some(Backend::Docker), Outcome::Passed),
        (second, Some(Backend::Containerd), Outcome::Failed),
        ("no conformance test", None, Outcome::Failed),
    ]);
    assert!(
        count.starts_with("conformance: 2 of 449 have a test of ours, 1 pass (")
            && count.ends_with("1 on docker, 0 on containerd)"),
        "{count}"
    );
}
