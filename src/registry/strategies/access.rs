//! RBAC kinds (upstream: `pkg/apis/rbac/v1/defaults.go`, `pkg/apis/rbac/validation`).

use super::Stored;
use super::pod::validate::label_selector;
use crate::registry::columns::policy::ROLE_BINDING;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, path_segment};
use crate::registry::json::{child_or_new, children, default_text, is_set, items, objects, text};
use crate::registry::strategy::Object;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn role() -> Stored {
    Stored::default()
        .named(path_segment)
        .upsert()
        .rules(|role| rules(role, true))
}

pub fn cluster_role() -> Stored {
    Stored::default().named(path_segment).upsert().rules(cluster_role_rules)
}

pub fn role_binding() -> Stored {
    binding().rules(|binding| binding_rules(binding, true))
}

pub fn cluster_role_binding() -> Stored {
    binding().rules(|binding| binding_rules(binding, false))
}

fn binding() -> Stored {
    Stored::new(ROLE_BINDING)
        .named(path_segment)
        .upsert()
        .defaults(default_binding)
        .update_rules(|new, old| {
            let role = new.get("roleRef");
            let changed = role != old.get("roleRef");
            let error = || FieldError::invalid("roleRef", role.cloned().unwrap_or_default(), "cannot change roleRef");
            changed.then(error).into_iter().collect()
        })
}

fn default_binding(binding: &mut Object) {
    default_text(child_or_new(binding, "roleRef"), "apiGroup", GROUP);
    for subject in children(binding, "subjects") {
        if matches!(text(subject, &["kind"]), "User" | "Group") {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn rules(role: &Object, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, rule) in objects(role, &["rules"]) {
        let path = format!("rules[{index}]");
        if !is_set(rule, "verbs") {
            errors.push(FieldError::required(
                format!("{path}.verbs"),
                "verbs must contain at least one value",
            ));
        }
        if is_set(rule, "nonResourceURLs") {
            let shown = items(rule, &["nonResourceURLs"]).to_vec();
            let path = format!("{path}.nonResourceURLs");
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(path.as_str(), shown.clone(), detail));
            }
            if ["apiGroups", "resources", "resourceNames"]
                .iter()
                .any(|field| is_set(rule, field))
            {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(path, shown, detail));
            }
            continue;
        }
        if items(rule, &["apiGroups"]).is_empty() {
            let detail = "resource rules must supply at least one api group";
            errors.push(FieldError::required(format!("{path}.apiGroups"), detail));
        }
        if items(rule, &["resources"]).is_empty() {
            let detail = "resource rules must supply at least one resource";
            errors.push(FieldError::required(format!("{path}.resources"), detail));
        }
    }
    errors
}

fn cluster_role_rules(role: &Object) -> Vec<FieldError> {
    let mut errors = rules(role, false);
    let path = "aggregationRule.clusterRoleSelectors";
    let aggregation = role.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if aggregation && items(role, &["aggregationRule", "clusterRoleSelectors"]).is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(path, detail));
    }
    for (index, selector) in objects(role, &["aggregationRule", "clusterRoleSelectors"]) {
        errors.extend(label_selector(selector, &format!("{path}[{index}]")));
    }
    errors
}

fn binding_rules(binding: &Object, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let role = |field: &str| text(binding, &["roleRef", field]);
    if role("apiGroup") != GROUP {
        errors.push(FieldError::not_supported(
            "roleRef.apiGroup",
            role("apiGroup"),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if namespaced {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&role("kind")) {
        errors.push(FieldError::not_supported("roleRef.kind", role("kind"), kinds));
    }
    match role("name") {
        "" => errors.push(FieldError::required("roleRef.name", "")),
        name => {
            for problem in path_segment(name, false) {
                errors.push(FieldError::invalid("roleRef.name", name, &problem));
            }
        }
    }
    for (index, subject) in objects(binding, &["subjects"]) {
        let path = format!("subjects[{index}]");
        let part = |field: &str| text(subject, &[field]);
        if part("name").is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        let group = match part("kind") {
            "ServiceAccount" => {
                for problem in dns1123_subdomain(part("name"), false)
                    .iter()
                    .filter(|_| !part("name").is_empty())
                {
                    errors.push(FieldError::invalid(format!("{path}.name"), part("name"), problem));
                }
                if !namespaced && part("namespace").is_empty() {
                    errors.push(FieldError::required(format!("{path}.namespace"), ""));
                }
                ""
            }
            "User" | "Group" => GROUP,
            other => {
                let kinds = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(format!("{path}.kind"), other, &kinds));
                continue;
            }
        };
        if part("apiGroup") != group {
            errors.push(FieldError::not_supported(
                format!("{path}.apiGroup"),
                part("apiGroup"),
                &[group],
            ));
        }
    }
    errors
}
