//! LimitRanger (upstream: `plugin/pkg/admission/limitranger`): requests and limits that a namespace's LimitRanges
//! give to containers that name none, and their bounds for containers, pods and claims.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::quantity::Quantity;
use crate::registry::json::{child_or_new, map, objects, quantity, text};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::BTreeMap;

const RANGES: &str = "limitranges";
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts above this are compared without their thousandths.
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

type Amounts = BTreeMap<String, Quantity>;

pub fn admit(ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    if subject.creates_pod() {
        ranges(ctx)?.iter().for_each(|range| fill(range, object));
    }
    Ok(())
}

/// New pods, those that are resized, and claims keep within the bounds.
pub fn validate(ctx: &Context, subject: &Subject<'_>, object: &Object) -> Result<(), ApiError> {
    let is = |resource: &str| subject.kind.group.is_empty() && subject.kind.resource == resource;
    let is_claim = is("persistentvolumeclaims");
    let concerned = match (subject.operation, subject.subresource) {
        (Operation::Create, "") => is_claim || is("pods"),
        (Operation::Update, "") => is_claim,
        (Operation::Update, "resize") => is("pods"),
        _ => false,
    };
    // What goes need not fit any more.
    let goes = subject.operation == Operation::Update && !text(object, &["metadata", "deletionTimestamp"]).is_empty();
    if !concerned || goes {
        return Ok(());
    }
    for range in ranges(ctx)? {
        let problems = match is_claim {
            true => claim(&range, object),
            false => pod(&range, object),
        };
        let why = match problems.as_slice() {
            [] => continue,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(ApiError::forbidden(subject.kind, &subject.name, &why));
    }
    Ok(())
}

fn ranges(ctx: &Context) -> Result<Vec<Object>, ApiError> {
    let ranges = ctx
        .storage()
        .list(RANGES, Some(&ctx.info.namespace), None)
        .map_err(ApiError::internal)?;
    let ranges = ranges.entries.iter().map(|entry| serde_json::from_slice(&entry.bytes));
    ranges.collect::<Result<_, _>>().map_err(ApiError::internal)
}

/// Gives the containers what the range has for those that name nothing, and notes it on the pod.
fn fill(range: &Object, pod: &mut Object) {
    let mut defaults: [(&str, &str, Object); 2] = [
        ("requests", "request", Object::new()),
        ("limits", "limit", Object::new()),
    ];
    for (_, item) in objects(range, &["spec", "limits"]).filter(|(_, item)| text(item, &["type"]) == "Container") {
        for (slot, list) in [(0, "defaultRequest"), (1, "default")] {
            defaults[slot]
                .2
                .extend(map(item, &[list]).cloned().into_iter().flatten());
        }
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(Value::Array(containers)) = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)) else {
            continue;
        };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            let name = text(container, &["name"]).to_owned();
            for (field, noun, amounts) in &defaults {
                let absent =
                    |key: &&String| map(container, &["resources", field]).is_none_or(|set| !set.contains_key(*key));
                let mut missing: Vec<String> = amounts.keys().filter(absent).cloned().collect();
                if missing.is_empty() {
                    continue;
                }
                let set = child_or_new(child_or_new(container, "resources"), field);
                for key in &missing {
                    set.insert(key.clone(), amounts[key].clone());
                }
                missing.sort_unstable();
                notes.push(format!("{} {noun} for {what} {name}", missing.join(", ")));
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        child_or_new(child_or_new(pod, "metadata"), "annotations").insert(ANNOTATION.into(), note.into());
    }
}

fn amounts(owner: &Object, path: &[&str]) -> Amounts {
    let listed = map(owner, path).into_iter().flatten();
    listed
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

fn pod(range: &Object, pod: &Object) -> Vec<String> {
    let mut problems = Vec::new();
    for (_, item) in objects(range, &["spec", "limits"]) {
        match text(item, &["type"]) {
            "Container" => {
                for list in ["containers", "initContainers"] {
                    for (_, container) in objects(pod, &["spec", list]) {
                        let requests = amounts(container, &["resources", "requests"]);
                        let limits = amounts(container, &["resources", "limits"]);
                        problems.extend(bounds(item, "Container", &requests, &limits));
                    }
                }
            }
            "Pod" => {
                let (requests, limits) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
                problems.extend(bounds(item, "Pod", &requests, &limits));
            }
            _ => {}
        }
    }
    problems
}

/// What the containers of a pod ask for together: the sum, or what one init container asks for if that is more.
/// What one of several containers leaves open is open for the pod. The pod's own figures come first.
fn of_pod(pod: &Object, field: &str) -> Amounts {
    let lists = |list: &'static str, sidecars: bool| -> Vec<Amounts> {
        objects(pod, &["spec", list])
            .filter(|(_, container)| (text(container, &["restartPolicy"]) == "Always") == sidecars)
            .map(|(_, container)| amounts(container, &["resources", field]))
            .collect()
    };
    let mut running = lists("containers", false);
    running.extend(lists("initContainers", true));
    let mut total = Amounts::new();
    for name in running.iter().flat_map(|set| set.keys()) {
        let shares: Option<Vec<Quantity>> = running.iter().map(|set| set.get(name).copied()).collect();
        if let Some(shares) = shares {
            let sum = shares.into_iter().reduce(Quantity::plus).unwrap_or(Quantity::ZERO);
            total.insert(name.clone(), sum);
        }
    }
    for set in lists("initContainers", false) {
        for (name, amount) in set {
            let most = total.entry(name).or_insert(amount);
            *most = (*most).max(amount);
        }
    }
    total.extend(amounts(pod, &["spec", "resources", field]));
    total
}

fn claim(range: &Object, claim: &Object) -> Vec<String> {
    let requests = amounts(claim, &["spec", "resources", "requests"]);
    let mut problems = Vec::new();
    let items = objects(range, &["spec", "limits"]);
    for (_, item) in items.filter(|(_, item)| text(item, &["type"]) == "PersistentVolumeClaim") {
        for (name, bound) in amounts(item, &["min"]) {
            problems.extend(minimum(
                "PersistentVolumeClaim",
                &name,
                bound,
                requests.get(&name),
                None,
            ));
        }
        for (name, bound) in amounts(item, &["max"]) {
            let head = format!("maximum {name} usage per PersistentVolumeClaim is {bound}");
            match requests.get(&name) {
                None => problems.push(format!("{head}.  No request is specified")),
                Some(request) if *request > bound => problems.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    problems
}

fn bounds(item: &Object, kind: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, bound) in amounts(item, &["min"]) {
        problems.extend(minimum(kind, &name, bound, requests.get(&name), limits.get(&name)));
    }
    for (name, bound) in amounts(item, &["max"]) {
        let head = format!("maximum {name} usage per {kind} is {bound}");
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => problems.push(format!("{head}.  No limit is specified")),
            (Some(limit), _) if *limit > bound => problems.push(format!("{head}, but limit is {limit}")),
            (_, Some(request)) if *request > bound => problems.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(item, &["maxLimitRequestRatio"]) {
        problems.extend(ratio(kind, &name, bound, requests.get(&name), limits.get(&name)));
    }
    problems
}

fn minimum(
    kind: &str,
    name: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("minimum {name} usage per {kind} is {bound}");
    match (request, limit) {
        (None, _) => Some(format!("{head}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{head}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{head}, but limit is {limit}")),
        _ => None,
    }
}

fn ratio(
    kind: &str,
    name: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {kind} is {bound}");
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let small = request.value() <= MILLI_VALUE_MAX && limit.value() <= MILLI_VALUE_MAX;
    let size = |amount: &Quantity| if small { amount.milli_value() } else { amount.value() } as f64;
    let given = size(limit) / size(request);
    let allowed = if bound.value() <= MILLI_VALUE_MAX {
        bound.milli_value() as f64 / 1000.0
    } else {
        bound.value() as f64
    };
    (given > allowed).then(|| format!("{head}, but provided ratio is {given:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn containers_get_what_they_do_not_name_and_the_pod_says_so() {
        let range = object(json!({"spec": {"limits": [{"type": "Container",
            "defaultRequest": {"cpu": "100m", "memory": "200Mi"}, "default": {"cpu": "500m"}}]}}));
        let mut pod = object(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "1"}}}]}}));
        fill(&range, &mut pod);
        assert_eq!(
            text(&pod, &["metadata", "annotations", ANNOTATION]),
            "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; \
             cpu, memory request for init container i"
        );
        let (_, first) = objects(&pod, &["spec", "containers"]).next().unwrap();
        assert_eq!(
            Value::Object(first.clone()),
            json!({"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m"}}})
        );
    }

    #[test]
    fn bounds_are_kept_in_upstreams_words() {
        let range = |item: Value| object(json!({"spec": {"limits": [item]}}));
        let with = |requests: Value, limits: Value| {
            object(json!({"spec": {"containers": [
                {"name": "a", "resources": {"requests": requests.clone(), "limits": limits.clone()}},
                {"name": "b", "resources": {"requests": requests, "limits": limits}}]}}))
        };
        let cases = [
            (
                json!({"type": "Pod", "min": {"cpu": "1"}}),
                with(json!({"cpu": "100m"}), json!({})),
                vec!["minimum cpu usage per Pod is 1, but request is 200m"],
            ),
            (
                json!({"type": "Pod", "max": {"memory": "1Gi"}}),
                with(json!({"memory": "1Mi"}), json!({"memory": "1Gi"})),
                vec!["maximum memory usage per Pod is 1Gi, but limit is 2Gi"],
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                with(json!({}), json!({})),
                vec!["maximum cpu usage per Pod is 1.  No limit is specified"],
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                with(json!({"cpu": "1"}), json!({"cpu": "3"})),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"; 2],
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}}),
                with(json!({"cpu": "100m"}), json!({"cpu": "1"})),
                vec![],
            ),
        ];
        for (item, subject, expected) in cases {
            assert_eq!(pod(&range(item.clone()), &subject), expected, "{item}");
        }
        let small = object(json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}));
        let item = json!({"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}});
        assert_eq!(
            claim(&range(item), &small),
            ["minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"]
        );
    }
}
