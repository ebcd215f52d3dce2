//! The groups in the order that APIServices ask for (upstream: `kube-aggregator/pkg/apiserver/handler_apis.go` and
//! `APIServicesByGroup`).

use super::services::ApiServices;
use crate::registry::Group;
use crate::registry::custom::compare_versions;
use crate::registry::intern::intern;
use std::cmp::Reverse;

/// What a version has whose APIService is still to be made: that of custom resources.
const VERSION_PRIORITY: i64 = 100;

/// `local` in its order, with the groups and versions of other servers at their places.
pub fn merge(services: &ApiServices, local: Vec<Group>) -> Vec<Group> {
    let mut groups = local;
    let mut remotes = services.remotes().peekable();
    if remotes.peek().is_none() {
        return groups;
    }
    let group_priority = |name: &str| {
        let of_group = services.all().filter(|service| service.group == name);
        of_group.map(|service| service.group_priority).max()
    };
    let version_priority = |group: &str, version: &str| {
        let service = services.get(&format!("{version}.{group}"));
        service.map_or(VERSION_PRIORITY, |service| service.version_priority)
    };
    for service in remotes.filter(|service| !service.group.is_empty()) {
        let version = intern(&service.version);
        if let Some(group) = groups.iter_mut().find(|group| group.name == service.group) {
            if !group.versions.contains(&version) {
                group.versions.push(version);
            }
            let name = group.name;
            group.versions.sort_by(|left, right| {
                let priority = |version: &str| Reverse(version_priority(name, version));
                priority(left)
                    .cmp(&priority(right))
                    .then_with(|| compare_versions(right, left))
            });
            continue;
        }
        let mine = group_priority(&service.group).unwrap_or_default();
        // A group whose APIServices are still to be made stands where the one before it does.
        let mut last = i64::MAX;
        let place = groups.iter().position(|group| {
            last = group_priority(group.name).unwrap_or(last);
            last < mine || (last == mine && *group.name > *service.group)
        });
        let group = Group {
            name: intern(&service.group),
            versions: vec![version],
        };
        groups.insert(place.unwrap_or(groups.len()), group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::authorization::follower::Mirror;
    use crate::registry::metadata_index;
    use crate::storage::{Entry, Key};
    use serde_json::{Value, json};

    fn services(list: &[(&str, &str, i64, i64, bool)]) -> ApiServices {
        let mut services = ApiServices::default();
        for (group, version, group_priority, version_priority, remote) in list {
            let name = format!("{version}.{group}");
            let mut object = json!({"metadata": {"name": name}, "spec": {
                "group": group, "version": version,
                "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
            }});
            if *remote {
                object["spec"]["service"] = json!({"namespace": "ns", "name": "api"});
            }
            services.put(&entry(&name, &object), None);
        }
        services
    }

    fn entry(name: &str, object: &Value) -> Entry {
        Entry {
            key: Key::new(super::super::services::RESOURCE, "", name),
            revision: 1,
            bytes: object.to_string().into(),
            index: metadata_index(object.as_object().unwrap()),
        }
    }

    fn group(name: &'static str, versions: &[&'static str]) -> Group {
        Group {
            name,
            versions: versions.to_vec(),
        }
    }

    #[test]
    fn groups_of_other_servers_stand_where_their_priority_puts_them() {
        let local = vec![
            group("", &["v1"]),
            group("apps", &["v1"]),
            group("fresh.example.com", &["v1"]),
            group("own.example.com", &["v1"]),
        ];
        let known = [
            ("", "v1", 18_000, 15, false),
            ("apps", "v1", 17_800, 15, false),
            ("own.example.com", "v1", 1000, 100, false),
        ];
        let with = |more: &[(&'static str, &'static str, i64, i64, bool)]| {
            let all: Vec<_> = known.iter().chain(more).copied().collect();
            let merged = merge(&services(&all), local.clone());
            merged
                .iter()
                .map(|group| format!("{} {}", group.name, group.versions.join(",")))
                .collect::<Vec<_>>()
        };
        assert_eq!(with(&[]).len(), 4);
        let table = [
            ("wardle.example.com", 2000, 3),
            ("wardle.example.com", 1000, 4),
            ("a.example.com", 1000, 3),
            ("wardle.example.com", 17_900, 1),
            ("wardle.example.com", 1, 4),
        ];
        for (name, priority, place) in table {
            let merged = with(&[(name, "v1alpha1", priority, 200, true)]);
            assert_eq!(merged[place], format!("{name} v1alpha1"), "{priority}: {merged:?}");
        }
        let two = with(&[
            ("own.example.com", "v2", 1000, 200, true),
            ("own.example.com", "v1beta1", 1000, 100, true),
        ]);
        assert_eq!(two[3], "own.example.com v2,v1,v1beta1");
    }

    #[test]
    fn a_group_version_is_another_servers_while_its_api_service_says_so() {
        let mut services = services(&[("example.com", "v1", 1000, 100, true)]);
        let generation = services.generation();
        let found = services.remote("example.com", "v1").unwrap();
        assert_eq!((found.remote.as_ref().unwrap().port, found.available), (443, false));
        assert_eq!(found.remote.as_ref().unwrap().server_name(), "api.ns.svc");
        assert!(services.remote("example.com", "v2").is_none());
        // A condition is nothing that discovery shows.
        let mut object = json!({"spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100,
            "service": {"namespace": "ns", "name": "api"},
        }});
        object["status"] = json!({"conditions": [{"type": "Available", "status": "True"}]});
        services.put(&entry("v1.example.com", &object), None);
        assert!(services.remote("example.com", "v1").unwrap().available);
        assert_eq!(services.generation(), generation);
        object["spec"].as_object_mut().unwrap().remove("service");
        services.put(&entry("v1.example.com", &object), None);
        assert!(services.remote("example.com", "v1").is_none());
        assert!(services.generation() > generation);
        services.remove(&entry("v1.example.com", &object));
        assert_eq!(services.all().count(), 0);
    }
}
