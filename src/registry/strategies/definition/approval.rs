//! Groups of the Kubernetes community need their approval (upstream: `apiextensions-apiserver/pkg/apihelpers`).

use crate::registry::field::FieldError;
use crate::registry::json::{map, text};
use crate::registry::strategy::Object;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const POLICY: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Approval {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group
            .strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

fn annotation(definition: &Object) -> &str {
    map(definition, &["metadata", "annotations"])
        .and_then(|annotations| annotations.get(ANNOTATION)?.as_str())
        .unwrap_or_default()
}

fn approval(annotation: &str) -> Approval {
    let is_url = || {
        let (scheme, rest) = annotation.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next()?;
        Some(!scheme.is_empty() && !host.is_empty() && !annotation.contains(char::is_whitespace))
    };
    match annotation {
        "" => Approval::Missing,
        _ if annotation.starts_with("unapproved") => Approval::Bypassed,
        _ if is_url().unwrap_or(false) => Approval::Approved,
        _ => Approval::Invalid,
    }
}

/// What is wrong with the approval; nothing if it was so before.
pub fn validate(definition: &Object, old: Option<&Object>) -> Vec<FieldError> {
    if !is_protected(text(definition, &["spec", "group"])) {
        return Vec::new();
    }
    let given = annotation(definition);
    let state = approval(given);
    if old.is_some_and(|old| approval(annotation(old)) == state) {
        return Vec::new();
    }
    let path = format!("metadata.annotations[{ANNOTATION}]");
    match state {
        Approval::Approved | Approval::Bypassed => Vec::new(),
        Approval::Missing => {
            let detail = format!("protected groups must have approval annotation {ANNOTATION:?}, {POLICY}");
            vec![FieldError::required(path, &detail)]
        }
        Approval::Invalid => {
            let detail = format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting \
                 with \"unapproved\", {POLICY}"
            );
            vec![FieldError::invalid(path, given, &detail)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_end_at_dots() {
        let protected = ["k8s.io", "a.k8s.io", "kubernetes.io", "x.y.kubernetes.io"];
        assert!(protected.iter().all(|group| is_protected(group)));
        let free = ["example.com", "ak8s.io", "k8s.io.example.com"];
        assert!(free.iter().all(|group| !is_protected(group)));
    }

    #[test]
    fn an_approval_is_a_url_or_says_that_there_is_none() {
        for (annotation, state) in [
            ("", Approval::Missing),
            ("unapproved, testing", Approval::Bypassed),
            (
                "https://github.com/kubernetes/kubernetes/pull/78458",
                Approval::Approved,
            ),
            ("https://", Approval::Invalid),
            ("yes", Approval::Invalid),
        ] {
            assert!(approval(annotation) == state, "{annotation}");
        }
    }
}
