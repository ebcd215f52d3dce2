//! PodSecurity (upstream: `plugin/pkg/admission/security/podsecurity`, `pod-security-admission/admission`): pods keep to the
//! level that the labels of their namespace ask for. Nobody is exempt; what would be noted in an audit log is not.

mod checks;
mod policy;

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::registry::json::{items, map};
use crate::registry::strategy::Object;
use crate::storage::Entry;
use checks::{Pod, Violation};
use policy::{PREFIX, Policy, Standard};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many pods of a namespace are looked at when it becomes stricter, and for so long.
const PODS_MAX: usize = 3000;
const LOOK_TIME_MAX: Duration = Duration::from_secs(1);

/// Refuses what the namespace does not allow, and warns of what it warns of.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    if subject.operation == Operation::Delete {
        return Ok(());
    }
    let kind = (subject.kind.group, subject.kind.resource, subject.subresource);
    match kind {
        ("", "pods", "" | "ephemeralcontainers") => {
            let matters = subject.old.is_none_or(|old| is_significant(object, old));
            if matters { pod(ctx, subject, object) } else { Ok(()) }
        }
        ("", "podtemplates", "") => template(ctx, object, &["template"]),
        ("", "replicationcontrollers", "")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets", "")
        | ("batch", "jobs", "") => template(ctx, object, &["spec", "template"]),
        ("batch", "cronjobs", "") => template(ctx, object, &["spec", "jobTemplate", "spec", "template"]),
        ("", "namespaces", "") => namespace(ctx, subject, object),
        _ => Ok(()),
    }
}

/// What the labels of the request's namespace ask for; None if nothing.
fn policy_here(ctx: &Context) -> Result<Option<Policy>, ApiError> {
    let Some(entry) = ctx.storage().get("namespaces", "", &ctx.info.namespace) else {
        return Ok(None);
    };
    // Most namespaces have no such label, and need not be decoded.
    if !entry.index.labels.iter().any(|(name, _)| name.starts_with(PREFIX)) {
        return Ok(None);
    }
    let namespace: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    Ok(Some(Policy::of(&namespace).0))
}

fn pod(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let Some(policy) = policy_here(ctx)? else { return Ok(()) };
    let found = look(object, policy.enforce);
    if !found.is_empty() {
        let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found));
        return Err(ApiError::forbidden(subject.kind, &subject.name, &why));
    }
    warn(ctx, object, policy.warn);
    Ok(())
}

/// Whoever makes the pods of a template is told now; it is the pods that are refused.
fn template(ctx: &Context, object: &Object, path: &[&str]) -> Result<(), ApiError> {
    if let (Some(template), Some(policy)) = (map(object, path), policy_here(ctx)?) {
        warn(ctx, template, policy.warn);
    }
    Ok(())
}

fn warn(ctx: &Context, pod: &Object, standard: Standard) {
    let found = look(pod, standard);
    if !found.is_empty() {
        let found = details(&found);
        ctx.warnings
            .add(format!("would violate PodSecurity \"{standard}\": {found}"));
    }
}

fn look(pod: &Object, standard: Standard) -> Vec<Violation> {
    let none = Object::new();
    let part = |name| map(pod, &[name]).unwrap_or(&none);
    let pod = Pod {
        metadata: part("metadata"),
        spec: part("spec"),
    };
    standard.violations(pod)
}

fn details(found: &[Violation]) -> String {
    let text = |one: &Violation| format!("{} ({})", one.reason, one.detail);
    found.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Whether an update changes what the levels look at: images, and containers for debugging.
fn is_significant(new: &Object, old: &Object) -> bool {
    let images = |pod: &Object, list: &str| -> Vec<(Value, Value)> {
        let containers = items(pod, &["spec", list]).iter();
        containers
            .map(|container| (container["name"].clone(), container["image"].clone()))
            .collect()
    };
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    lists.iter().any(|list| images(new, list) != images(old, list))
}

/// Labels must be understood, and whoever makes a namespace stricter is told which pods break its rules already.
fn namespace(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let (new, errors) = Policy::of(object);
    let Some(old) = subject.old else {
        return match errors.is_empty() {
            true => Ok(()),
            false => Err(ApiError::invalid("", "Namespace", &subject.name, &errors)),
        };
    };
    let (old, old_errors) = Policy::of(old);
    if !errors.is_empty() && errors != old_errors {
        return Err(ApiError::invalid("", "Namespace", &subject.name, &errors));
    }
    if new.enforce.is_stricter_than(old.enforce) {
        for warning in existing(ctx, &subject.name, new.enforce)? {
            ctx.warnings.add(warning);
        }
    }
    Ok(())
}

/// One pod of each owner and those that have none, then the others: pods of one template have the same faults.
fn each_kind_first(pods: &[Arc<Entry>]) -> impl Iterator<Item = &Arc<Entry>> {
    let mut owners = HashSet::new();
    let (first, others): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| {
        let owner = pod.index.owner_uids.first();
        owner.is_none_or(|owner| owners.insert(owner.as_str()))
    });
    first.into_iter().chain(others)
}

fn existing(ctx: &Context, namespace: &str, standard: Standard) -> Result<Vec<String>, ApiError> {
    let end = Instant::now() + LOOK_TIME_MAX;
    let pods = ctx.storage().list("pods", Some(namespace), None);
    let pods = pods.map_err(ApiError::internal)?.entries;
    // The first pod by name, and how many there are, by what is wrong with them.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut looked_at = 0;
    for entry in each_kind_first(&pods).take(PODS_MAX) {
        let pod: Object = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
        looked_at += 1;
        let reasons: Vec<String> = look(&pod, standard).into_iter().map(|one| one.reason).collect();
        if !reasons.is_empty() {
            let name = metadata::text(&pod, "name").to_owned();
            let (first, count) = found.entry(reasons.join(", ")).or_insert_with(|| (name.clone(), 0));
            if name < *first {
                *first = name;
            }
            *count += 1;
        }
        if Instant::now() > end {
            break;
        }
    }
    let mut warnings = Vec::new();
    if looked_at < pods.len() {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {looked_at} of {} existing pods",
            pods.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut of_pods: Vec<String> = found
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            more => format!("{first} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    of_pods.sort();
    warnings.append(&mut of_pods);
    Ok(warnings)
}
