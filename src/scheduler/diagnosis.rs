//! Why no node takes a pod, in upstream's words (upstream: `framework.Diagnosis`, `FitError`).

use super::framework::{Code, Reason, Refusal};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    pub nodes_count: usize,
    /// By slot of the node.
    pub refusals: HashMap<usize, Refusal>,
    /// What holds for the nodes that are not in `refusals`.
    pub others: Option<Refusal>,
    /// A rule has refused all nodes at once.
    pub before: Option<String>,
    /// What came of the attempt to make room.
    pub after: String,
    /// The plug-ins that have refused.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    pub fn code(&self, slot: usize) -> Code {
        let refusal = self.refusals.get(&slot).or(self.others.as_ref());
        refusal.map_or(Code::Unresolvable, |refusal| refusal.code)
    }

    /// `0/3 nodes are available: 2 Insufficient cpu, 1 node(s) were unschedulable. preemption: …`
    pub fn message(&self) -> String {
        let mut message = format!("0/{} nodes are available:", self.nodes_count);
        match &self.before {
            Some(before) => message.push_str(&format!(" {before}.")),
            None => {
                let mut counts: BTreeMap<&Reason, usize> = BTreeMap::new();
                for reason in self.refusals.values().flat_map(|refusal| &refusal.reasons) {
                    *counts.entry(reason).or_default() += 1;
                }
                let unseen = self.nodes_count.saturating_sub(self.refusals.len());
                if unseen > 0 {
                    for reason in self.others.iter().flat_map(|refusal| &refusal.reasons) {
                        *counts.entry(reason).or_default() += unseen;
                    }
                }
                // Upstream sorts the finished texts, count first.
                let mut parts: Vec<String> = counts
                    .iter()
                    .map(|(reason, count)| format!("{count} {reason}"))
                    .collect();
                parts.sort();
                if !parts.is_empty() {
                    message.push_str(&format!(" {}.", parts.join(", ")));
                }
            }
        }
        if !self.after.is_empty() {
            message.push_str(&format!(" {}", self.after));
        }
        message
    }
}

/// Notes of events have a limit.
pub fn as_note(message: &str) -> String {
    const LENGTH_MAX: usize = 1024;
    const MORE: &str = " ...";
    if message.len() <= LENGTH_MAX {
        return message.to_owned();
    }
    let mut end = LENGTH_MAX - MORE.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{MORE}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let mut diagnosis = Diagnosis {
            nodes_count: 4,
            ..Diagnosis::default()
        };
        assert_eq!(diagnosis.message(), "0/4 nodes are available:");
        let many = Refusal {
            code: Code::Unschedulable,
            reasons: vec!["Too many pods".into(), "Insufficient cpu".into()],
        };
        diagnosis.refusals.insert(0, many);
        diagnosis.refusals.insert(3, Refusal::unschedulable("Insufficient cpu"));
        diagnosis.others = Some(Refusal::unresolvable("node(s) didn't satisfy plugin(s) [NodeAffinity]"));
        assert_eq!(
            diagnosis.message(),
            "0/4 nodes are available: 1 Too many pods, 2 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        );
        diagnosis.after = "preemption: not eligible due to preemptionPolicy=Never.".into();
        diagnosis.before = Some("pod has unbound immediate PersistentVolumeClaims".into());
        assert_eq!(
            diagnosis.message(),
            "0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: not eligible due to preemptionPolicy=Never."
        );
        assert_eq!(as_note(&"x".repeat(2000)).len(), 1024);
    }
}
