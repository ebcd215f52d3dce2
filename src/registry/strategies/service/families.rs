//! Which IP families a Service gets (upstream: `initIPFamilyFields` in `pkg/registry/core/service/storage/alloc.go`).
//! A pure decision over the Service, what it was, and the families that the cluster has.

use super::validate::cluster_ips;
use super::{kind, needs_cluster_ip, spec_texts};
use crate::registry::field::FieldError;
use crate::registry::json::{at, child_or_new, is_set, map, text};
use crate::registry::network::Family;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const POLICY: &str = "spec.ipFamilyPolicy";

fn policy(service: &Object) -> &str {
    text(service, &["spec", "ipFamilyPolicy"])
}

fn same_list(a: &Object, b: &Object, field: &str) -> bool {
    spec_texts(a, field) == spec_texts(b, field)
}

/// A Service that only prefers two stacks is not changed when the cluster's stacks change.
pub fn is_settled(service: &Object, old: Option<&Object>) -> bool {
    let Some(old) = old else { return false };
    let prefers = |service| policy(service) == "PreferDualStack";
    kind(old) == kind(service)
        && needs_cluster_ip(service)
        && prefers(service)
        && (prefers(old) || policy(old).is_empty())
        && same_list(old, service, "clusterIPs")
        && same_list(old, service, "ipFamilies")
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`; `configured` are the cluster's families, the default one first.
pub fn init(service: &mut Object, old: Option<&Object>, configured: &[Family]) -> Result<(), Vec<FieldError>> {
    if kind(service) == "ExternalName" || is_settled(service, old) {
        return Ok(());
    }
    let selects = map(service, &["spec"]).is_some_and(|spec| is_set(spec, "selector"));
    let free_headless = text(service, &["spec", "clusterIP"]) == "None" && !selects;
    if policy(service).is_empty() {
        let inherited = old.and_then(|old| at(old, &["spec", "ipFamilyPolicy"])).cloned();
        let value = inherited.unwrap_or_else(|| {
            json!(if free_headless {
                "RequireDualStack"
            } else {
                "SingleStack"
            })
        });
        child_or_new(service, "spec").insert("ipFamilyPolicy".into(), value);
    }
    refuse_if_any(cluster_ips(service, old))?;
    let mut errors = Vec::new();
    if let Some(old) = old {
        errors.extend(shrink(service, old));
    }
    if policy(service) == "SingleStack" {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if spec_texts(service, field).len() == 2 {
                let detail =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                errors.push(FieldError::invalid(POLICY, "SingleStack", &detail));
            }
        }
    }
    errors.extend(infer(service, configured));
    refuse_if_any(errors)?;
    let mut families: Vec<String> = spec_texts(service, "ipFamilies")
        .iter()
        .map(ToString::to_string)
        .collect();
    let default = configured.first().copied().unwrap_or(Family::V4);
    if !free_headless {
        refuse_if_any(unconfigured(service, &families, configured))?;
    }
    if families.is_empty() {
        families.push(default.name().to_owned());
    }
    let wants_both = policy(service) != "SingleStack" && families.len() == 1;
    if wants_both && (free_headless || configured.len() == 2) {
        let other = if families[0] == "IPv4" { Family::V6 } else { Family::V4 };
        families.push(other.name().to_owned());
    }
    child_or_new(service, "spec").insert("ipFamilies".into(), json!(families));
    Ok(())
}

fn refuse_if_any(errors: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Going back to one stack has to be asked for by the policy.
fn shrink(service: &mut Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let single = policy(service) == "SingleStack";
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (count, before) = (spec_texts(service, field).len(), spec_texts(old, field).len());
        if single && same_list(old, service, field) && count > 1 {
            if let Some(Value::Array(list)) = child_or_new(service, "spec").get_mut(field) {
                list.truncate(1);
            }
        } else if !single && count > 0 && count < before {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.push(FieldError::invalid(POLICY, policy(service), &detail));
        }
    }
    errors
}

/// Families of addresses that were given without.
fn infer(service: &mut Object, configured: &[Family]) -> Vec<FieldError> {
    let ips: Vec<String> = spec_texts(service, "clusterIPs")
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut families: Vec<String> = spec_texts(service, "ipFamilies")
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut errors = Vec::new();
    for (index, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        if index < families.len() {
            continue;
        }
        let Ok(family) = ip.parse().map(Family::of) else {
            continue;
        };
        if configured.contains(&family) {
            families.push(family.name().to_owned());
        } else {
            let detail = format!("{} is not configured on this cluster", family.name());
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{index}]"),
                json!(ips),
                &detail,
            ));
        }
    }
    if !families.is_empty() {
        child_or_new(service, "spec").insert("ipFamilies".into(), json!(families));
    }
    errors
}

fn unconfigured(service: &Object, families: &[String], configured: &[Family]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if policy(service) == "RequireDualStack" && configured.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(POLICY, "RequireDualStack", detail));
    }
    for (index, family) in families.iter().enumerate() {
        if !Family::from_name(family).is_some_and(|family| configured.contains(&family)) {
            let path = format!("spec.ipFamilies[{index}]");
            errors.push(FieldError::invalid(
                path,
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spec: Value, old: Option<Value>, configured: &[Family]) -> Result<Value, Vec<String>> {
        let object = |spec: Value| json!({ "spec": spec }).as_object().unwrap().clone();
        let mut service = object(spec);
        let old = old.map(object);
        init(&mut service, old.as_ref(), configured)
            .map(|()| service["spec"].clone())
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn families_follow_policy_addresses_and_cluster() {
        let (one, two) = ([Family::V4], [Family::V4, Family::V6]);
        let cases: [(Value, &[Family], &str, &[&str]); 7] = [
            (json!({"type": "ClusterIP"}), &one, "SingleStack", &["IPv4"]),
            (json!({"type": "ClusterIP"}), &two, "SingleStack", &["IPv4"]),
            (
                json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}),
                &one,
                "PreferDualStack",
                &["IPv4"],
            ),
            (
                json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"}),
                &two,
                "PreferDualStack",
                &["IPv4", "IPv6"],
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                &two,
                "SingleStack",
                &["IPv6"],
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}),
                &one,
                "RequireDualStack",
                &["IPv4", "IPv6"],
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"a": "b"}}),
                &one,
                "SingleStack",
                &["IPv4"],
            ),
        ];
        for (spec, configured, policy, families) in cases {
            let done = run(spec.clone(), None, configured).unwrap();
            assert_eq!(done["ipFamilyPolicy"], policy, "{spec}");
            assert_eq!(done["ipFamilies"], json!(families), "{spec}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_in_upstreams_words() {
        let one = [Family::V4];
        let cases = [
            (
                json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"}),
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
                 dual-stack services",
            ),
            (
                json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]}),
                "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
            ),
            (
                json!({"type": "ClusterIP", "clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster",
            ),
            (
                json!({"type": "ClusterIP", "ipFamilies": ["IPv4", "IPv6"]}),
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or \
                 'PreferDualStack' when multiple IP families are specified",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(run(spec.clone(), None, &one), Err(vec![expected.to_owned()]), "{spec}");
        }
    }

    #[test]
    fn one_stack_is_reached_by_the_policy_only() {
        let two = [Family::V4, Family::V6];
        let old = json!({
            "type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"],
        });
        let mut single = old.clone();
        single["ipFamilyPolicy"] = json!("SingleStack");
        let done = run(single, Some(old.clone()), &two).unwrap();
        assert_eq!(
            (&done["clusterIPs"], &done["ipFamilies"]),
            (&json!(["10.0.0.1"]), &json!(["IPv4"]))
        );
        let mut reduced = old.clone();
        reduced["clusterIPs"] = json!(["10.0.0.1"]);
        let expected = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be 'SingleStack' to release \
            the secondary cluster IP";
        assert_eq!(run(reduced, Some(old), &two), Err(vec![expected.to_owned()]));
    }
}
