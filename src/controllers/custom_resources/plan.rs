//! What the status of a definition should be. Pure.

use super::definition::{APPROVAL_ANNOTATION, Condition, Definition, Status};
use super::names::Claims;

const POLICY: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// The status that `definition` should have; None: it has it.
pub fn status(definition: &Definition, claims: &Claims, now: jiff::Timestamp) -> Option<Status> {
    let mut status = definition.status.clone();
    if !definition.has_its_names() {
        name(definition, claims, now, &mut status);
    }
    if status.is_true("NamesAccepted") && !status.is_true("Established") {
        let message = "the initial names have been accepted";
        status.set(Condition::new(
            "Established",
            true,
            "InitialNamesAccepted",
            message,
            now,
        ));
    }
    if let Some(condition) = approval(definition, now) {
        status.set(condition);
    }
    // Schemas are structural, or the definition is refused; this old switch alone is left.
    if definition.spec.preserve_unknown_fields {
        let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
        status.set(Condition::new("NonStructuralSchema", true, "Violations", message, now));
    } else {
        status
            .conditions
            .retain(|condition| condition.kind != "NonStructuralSchema");
    }
    (status != definition.status).then_some(status)
}

/// Its instances are to be deleted, and then it is to be released.
pub fn is_to_be_cleaned(definition: &Definition) -> bool {
    definition.is_deleted() && definition.has_finalizer()
}

/// Accepts the names that are free; what stays are the ones that it had.
fn name(definition: &Definition, claims: &Claims, now: jiff::Timestamp, status: &mut Status) {
    let (group, wanted) = (&definition.spec.group, &definition.spec.names);
    let had = definition.status.accepted_names.clone();
    let mut conflict: Option<(&str, String)> = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut accept = |reason, wanted: &String, had: &String, taken: bool, accepted: &mut String| {
        if wanted != had && taken {
            conflict = Some((reason, in_use(wanted)));
        } else {
            accepted.clone_from(wanted);
        }
    };
    let resource = |name: &String| claims.has_resource(group, name);
    let kind = |name: &String| claims.has_kind(group, name);
    let accepted = &mut status.accepted_names;
    accept(
        "PluralConflict",
        &wanted.plural,
        &had.plural,
        resource(&wanted.plural),
        &mut accepted.plural,
    );
    accept(
        "SingularConflict",
        &wanted.singular,
        &had.singular,
        resource(&wanted.singular),
        &mut accepted.singular,
    );
    if wanted.short_names != had.short_names {
        let taken = wanted
            .short_names
            .iter()
            .filter(|name| !had.short_names.contains(name) && resource(name));
        let taken: Vec<String> = taken.map(|name| in_use(name)).collect();
        match taken.as_slice() {
            [] => accepted.short_names.clone_from(&wanted.short_names),
            [one] => conflict = Some(("ShortNamesConflict", one.clone())),
            several => conflict = Some(("ShortNamesConflict", format!("[{}]", several.join(", ")))),
        }
    }
    let mut accept = |reason, wanted: &String, had: &String, taken: bool, accepted: &mut String| {
        if wanted != had && taken {
            conflict = Some((reason, in_use(wanted)));
        } else {
            accepted.clone_from(wanted);
        }
    };
    accept(
        "KindConflict",
        &wanted.kind,
        &had.kind,
        kind(&wanted.kind),
        &mut accepted.kind,
    );
    accept(
        "ListKindConflict",
        &wanted.list_kind,
        &had.list_kind,
        kind(&wanted.list_kind),
        &mut accepted.list_kind,
    );
    accepted.categories.clone_from(&wanted.categories);
    match conflict {
        None => status.set(Condition::new(
            "NamesAccepted",
            true,
            "NoConflicts",
            "no conflicts found",
            now,
        )),
        Some((reason, message)) => {
            status.set(Condition::new("NamesAccepted", false, reason, message, now));
            if definition.condition("Established").is_none() {
                let message = "not all names are accepted";
                status.set(Condition::new("Established", false, "NotAccepted", message, now));
            }
        }
    }
}

/// Whether a definition in a group of the Kubernetes community is approved of.
fn approval(definition: &Definition, now: jiff::Timestamp) -> Option<Condition> {
    let group = definition.spec.group.as_str();
    let protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return None;
    }
    let given = definition.approval();
    let (state, reason, message) = if given.is_empty() {
        let message = format!("protected groups must have approval annotation {APPROVAL_ANNOTATION:?}, {POLICY}");
        (false, "MissingAnnotation", message)
    } else if given.starts_with("unapproved") {
        (false, "UnapprovedAnnotation", format!("not approved: {given:?}"))
    } else if is_url(given) {
        (true, "ApprovedAnnotation", format!("approved in {given}"))
    } else {
        let message = format!(
            "protected groups must have approval annotation {APPROVAL_ANNOTATION:?} with either a URL or a reason \
             starting with \"unapproved\", {POLICY}"
        );
        (false, "InvalidAnnotation", message)
    };
    Some(Condition::new(
        "KubernetesAPIApprovalPolicyConformant",
        state,
        reason,
        message,
        now,
    ))
}

fn is_url(text: &str) -> bool {
    let host = |rest: &str| !rest.split(['/', '?', '#']).next().unwrap_or_default().is_empty();
    text.split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && host(rest))
}

impl Status {
    fn is_true(&self, kind: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.kind == kind && condition.status == "True")
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Names;
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn definition(value: Value) -> Definition {
        serde_json::from_value(value).unwrap()
    }

    fn widgets(change: impl FnOnce(&mut Value)) -> Definition {
        let mut value = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {
                "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
                "shortNames": ["wg"], "categories": ["all"],
            }},
        });
        change(&mut value);
        definition(value)
    }

    fn decide(definition: &Definition, taken: &[Names]) -> Option<Status> {
        let mut claims = Claims::default();
        claims.claim("example.com", &definition.status.accepted_names);
        taken.iter().for_each(|names| claims.claim("example.com", names));
        status(definition, &claims, NOW.parse().unwrap())
    }

    fn told(status: &Status) -> Vec<String> {
        let conditions = status.conditions.iter();
        conditions
            .map(|c| format!("{} {} {}: {}", c.kind, c.status, c.reason, c.message))
            .collect()
    }

    #[test]
    fn free_names_are_accepted_and_the_definition_is_established_at_once() {
        let new = widgets(|_| {});
        let status = decide(&new, &[]).expect("a status");
        assert_eq!(
            told(&status),
            [
                "NamesAccepted True NoConflicts: no conflicts found",
                "Established True InitialNamesAccepted: the initial names have been accepted",
            ]
        );
        assert_eq!(status.accepted_names, new.spec.names);
        assert_eq!(status.conditions[0].last_transition_time, NOW);
        let settled = Definition { status, ..new };
        assert_eq!(decide(&settled, &[]), None, "nothing more is to be done");
    }

    #[test]
    fn the_last_conflict_is_the_reason() {
        let names = |plural: &str, kind: &str| Names {
            plural: plural.into(),
            kind: kind.into(),
            ..Names::default()
        };
        let cases = [
            (names("widget", ""), "SingularConflict: \"widget\" is already in use"),
            (names("wg", ""), "ShortNamesConflict: \"wg\" is already in use"),
            (names("", "Widget"), "KindConflict: \"Widget\" is already in use"),
            (
                names("", "WidgetList"),
                "ListKindConflict: \"WidgetList\" is already in use",
            ),
            (names("widgets", "Widget"), "KindConflict: \"Widget\" is already in use"),
        ];
        for (taken, expected) in cases {
            let status = decide(&widgets(|_| {}), &[taken]).expect("a status");
            let told = told(&status);
            assert_eq!(told[0], format!("NamesAccepted False {expected}"));
            assert_eq!(told[1], "Established False NotAccepted: not all names are accepted");
        }
        let both = widgets(|d| d["spec"]["names"]["shortNames"] = json!(["a", "b"]));
        let status = decide(&both, &[names("a", ""), names("b", "")]).expect("a status");
        assert!(told(&status)[0].ends_with("[\"a\" is already in use, \"b\" is already in use]"));
    }

    #[test]
    fn what_is_established_stays_so_when_a_new_name_is_taken() {
        let mut old = widgets(|_| {});
        old.status = decide(&old, &[]).expect("a status");
        old.spec.names.short_names = vec!["x".into()];
        let x = Names {
            short_names: vec!["x".into()],
            ..Names::default()
        };
        let status = decide(&old, &[x]).expect("a status");
        assert_eq!(
            told(&status),
            [
                "NamesAccepted False ShortNamesConflict: \"x\" is already in use",
                "Established True InitialNamesAccepted: the initial names have been accepted",
            ]
        );
        assert_eq!(status.accepted_names.short_names, ["wg"]);
    }

    #[test]
    fn groups_of_the_community_need_an_approval() {
        for (annotation, expected) in [
            (
                "unapproved, mine",
                "False UnapprovedAnnotation: not approved: \"unapproved, mine\"",
            ),
            ("https://a/b", "True ApprovedAnnotation: approved in https://a/b"),
        ] {
            let definition = widgets(|d| {
                d["spec"]["group"] = json!("x.k8s.io");
                d["metadata"]["annotations"] = json!({APPROVAL_ANNOTATION: annotation});
            });
            let status = decide(&definition, &[]).expect("a status");
            assert!(told(&status).contains(&format!("KubernetesAPIApprovalPolicyConformant {expected}")));
        }
    }

    #[test]
    fn only_deleted_definitions_with_our_finalizer_are_cleaned() {
        let deleted = |finalizers: Value| {
            widgets(|d| {
                d["metadata"]["deletionTimestamp"] = json!(NOW);
                d["metadata"]["finalizers"] = finalizers;
            })
        };
        assert!(is_to_be_cleaned(&deleted(json!([
            "customresourcecleanup.apiextensions.k8s.io"
        ]))));
        assert!(!is_to_be_cleaned(&deleted(json!(["other/one"]))));
        assert!(!is_to_be_cleaned(&widgets(|_| {})));
    }
}
