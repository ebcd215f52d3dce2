//! Which APIServices there should be. Pure.

use crate::controllers::custom_resources::definition::Definition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use kube::ResourceExt;
use kube::api::ObjectMeta;
use std::collections::BTreeSet;

/// Group, empty for the core group, and version.
pub type GroupVersion = (String, String);

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Made once, at start.
const ON_START: &str = "onstart";
/// Kept for as long as there is a definition for it.
const CONTINUOUSLY: &str = "true";
/// The aggregator's own, which is no APIService.
pub const OWN_GROUP: &str = "apiregistration.k8s.io";
const CUSTOM_PRIORITY: (i32, i32) = (1000, 100);

/// Upstream's priorities of groups; what is not here comes after.
const GROUP_PRIORITIES: [(&str, i32); 23] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("internal.apiserver.k8s.io", 16_000),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
    ("metrics.k8s.io", 100),
];

#[derive(Debug, PartialEq)]
pub enum Step {
    Create(Box<APIService>),
    Delete(String),
}

/// The group-versions that a definition has served.
pub fn served(definition: &Definition) -> impl Iterator<Item = GroupVersion> {
    let established = definition.has_condition("Established") && !definition.is_deleted();
    let versions = definition
        .spec
        .versions
        .iter()
        .filter(move |version| established && version.served);
    versions.map(|version| (definition.spec.group.clone(), version.name.clone()))
}

/// The group-version of an APIService that names a Service.
pub fn elsewhere(service: &APIService) -> Option<GroupVersion> {
    let spec = service.spec.as_ref().filter(|spec| spec.service.is_some())?;
    Some((
        spec.group.clone().unwrap_or_default(),
        spec.version.clone().unwrap_or_default(),
    ))
}

/// From what there is to what there should be.
pub fn steps(builtin: &BTreeSet<GroupVersion>, custom: &BTreeSet<GroupVersion>, there: &[APIService]) -> Vec<Step> {
    let known: BTreeSet<String> = there.iter().map(ResourceExt::name_any).collect();
    let missing = |wanted: &BTreeSet<GroupVersion>, managed: &'static str| -> Vec<Step> {
        let wanted = wanted.iter().filter(|version| !known.contains(&name(version)));
        wanted
            .map(|version| Step::Create(Box::new(service(version, managed))))
            .collect()
    };
    let mut steps = missing(builtin, ON_START);
    steps.extend(missing(custom, CONTINUOUSLY));
    let wanted: BTreeSet<String> = builtin.iter().chain(custom).map(name).collect();
    let left = there.iter().filter(|service| {
        let managed = service.labels().get(MANAGED).map(String::as_str);
        // Who gave a group-version to another server has taken it from here.
        let is_ours = matches!(managed, Some(CONTINUOUSLY | ON_START)) && elsewhere(service).is_none();
        is_ours && !wanted.contains(&service.name_any())
    });
    steps.extend(left.map(|service| Step::Delete(service.name_any())));
    steps
}

fn name((group, version): &GroupVersion) -> String {
    format!("{version}.{group}")
}

fn service(group_version: &GroupVersion, managed: &str) -> APIService {
    let (group, version) = group_version;
    let (group_priority_minimum, version_priority) = match managed {
        CONTINUOUSLY => CUSTOM_PRIORITY,
        // As metrics-server's own has it.
        _ if group == "metrics.k8s.io" => (group_priority(group), 100),
        _ => (group_priority(group), version_priority(version)),
    };
    APIService {
        metadata: ObjectMeta {
            name: Some(name(group_version)),
            labels: Some([(MANAGED.to_owned(), managed.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: (!group.is_empty()).then(|| group.clone()),
            version: Some(version.clone()),
            group_priority_minimum,
            version_priority,
            ..APIServiceSpec::default()
        }),
        status: None,
    }
}

fn group_priority(group: &str) -> i32 {
    let known = GROUP_PRIORITIES.iter().find(|(name, _)| *name == group);
    known.map_or(15_000, |(_, priority)| *priority)
}

/// Stable versions before betas, betas before alphas, higher numbers first.
fn version_priority(version: &str) -> i32 {
    let number = |text: &str| text.parse::<i32>().unwrap_or_default().min(9);
    let rest = version.trim_start_matches('v');
    match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((_, minor)), _) => 9 + number(minor),
        (_, Some((_, minor))) => 1 + number(minor) / 2,
        _ if rest == "1" => 15,
        _ => 28 + number(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::ServiceReference;
    use serde_json::json;

    fn versions(list: &[(&str, &str)]) -> BTreeSet<GroupVersion> {
        list.iter()
            .map(|(group, version)| ((*group).to_owned(), (*version).to_owned()))
            .collect()
    }

    fn told(steps: &[Step]) -> Vec<String> {
        let mut told: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Step::Delete(name) => format!("-{name}"),
                Step::Create(service) => {
                    let spec = service.spec.as_ref().unwrap();
                    let (group, version) = (spec.group_priority_minimum, spec.version_priority);
                    format!(
                        "+{} {} {group}/{version}",
                        service.name_any(),
                        service.labels()[MANAGED]
                    )
                }
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn every_served_group_version_has_one() {
        let steps = steps(
            &versions(&[("", "v1"), ("apps", "v1")]),
            &versions(&[("example.com", "v1")]),
            &[],
        );
        assert_eq!(
            told(&steps),
            [
                "+v1. onstart 18000/15",
                "+v1.apps onstart 17800/15",
                "+v1.example.com true 1000/100",
            ]
        );
    }

    #[test]
    fn only_what_was_made_here_is_removed() {
        let there = ["v1.example.com", "v1.other.com", "v1.elsewhere.com"].map(|name| {
            let managed = service(&("x".into(), "v1".into()), CONTINUOUSLY);
            let mut there = managed;
            there.metadata.name = Some(name.to_owned());
            if name == "v1.other.com" {
                there.metadata.labels = None;
            }
            if name == "v1.elsewhere.com" {
                there.spec.as_mut().unwrap().service = Some(ServiceReference::default());
            }
            there
        });
        assert_eq!(
            told(&steps(&BTreeSet::new(), &BTreeSet::new(), &there)),
            ["-v1.example.com"]
        );
    }

    #[test]
    fn a_definition_counts_when_it_is_established() {
        let definition = |status: &str| -> Definition {
            serde_json::from_value(json!({
                "spec": {"group": "example.com", "versions": [
                    {"name": "v1", "served": true}, {"name": "v2", "served": false},
                ]},
                "status": {"conditions": [{"type": "Established", "status": status}]},
            }))
            .unwrap()
        };
        assert_eq!(
            served(&definition("True")).collect::<BTreeSet<_>>(),
            versions(&[("example.com", "v1")])
        );
        assert_eq!(served(&definition("False")).count(), 0);
    }
}
