//! Extended resources of pods that devices stand for: a class names the resource, and the pod gets a claim of its own for
//! them (upstream: `dynamicresources/extendeddynamicresources.go`). Pure.

use crate::scheduler::objects::Objects;
use crate::scheduler::plugins::is_extended;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::resources::Amounts;
use crate::usage::{DEVICE_CLASS, EXTENDED_CLAIM, is_extended_claim};
use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceClass, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Of a claim that is not written yet: no other claim can have that name.
const NOT_WRITTEN: &str = "<extended-resources>";

/// The classes that stand for resources, by resource.
pub type Backed = BTreeMap<String, String>;

pub fn may_be_backed(resource: &str) -> bool {
    is_extended(resource) || resource.starts_with(DEVICE_CLASS)
}

/// The class that stands for the resource: of those that name it the newest.
fn class_of<'a>(objects: &'a Objects, resource: &str) -> Option<&'a str> {
    let names_it = |class: &&DeviceClass| {
        let spec = class.spec.as_ref();
        spec.and_then(|spec| spec.extended_resource_name.as_deref()) == Some(resource)
    };
    let age = |class: &&DeviceClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (Reverse(created), class.metadata.name.clone())
    };
    let named = objects.device_classes.all().map(|class| &**class);
    let newest = named.filter(names_it).min_by_key(age);
    let implied = || objects.device_classes.get("", resource.strip_prefix(DEVICE_CLASS)?);
    newest
        .or_else(|| implied().map(|class| &**class))
        .and_then(|class| class.metadata.name.as_deref())
}

/// The resources that the pod asks for and classes stand for.
pub fn backed(objects: &Objects, pod: &PodInfo) -> Backed {
    let wanted = pod.requests.real.others().map(|(name, _)| name);
    let wanted = wanted.filter(|name| may_be_backed(name));
    let classes = wanted.filter_map(|name| Some((name.to_owned(), class_of(objects, name)?.to_owned())));
    classes.collect()
}

/// Whether the claim is one that the API does not have.
pub fn is_to_be_written(claim: &ResourceClaim) -> bool {
    claim.metadata.name.as_deref() == Some(NOT_WRITTEN)
}

/// The claim's uid until it is written.
pub fn temporary_uid(pod_uid: &str) -> String {
    format!("{NOT_WRITTEN}{pod_uid}")
}

/// The uid of the pod that such a claim is for.
pub fn owner(claim: &ResourceClaim) -> Option<&str> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true) && owner.kind == "Pod");
    owner
        .filter(|_| is_extended_claim(claim))
        .map(|owner| owner.uid.as_str())
}

/// The claim of the pod for what a node with that `allocatable` does not have by itself; None: for nothing.
pub fn claim(pod: &PodInfo, backed: &Backed, allocatable: &Amounts) -> Option<ResourceClaim> {
    let missing = backed.iter().filter(|(name, _)| allocatable.get(name) == 0);
    let missing: Backed = missing.map(|(name, class)| (name.clone(), class.clone())).collect();
    let (requests, _) = requests(
        &containers(pod),
        pod.spec().init_containers.as_ref().map_or(0, Vec::len),
        &missing,
    );
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    (!requests.is_empty()).then(|| ResourceClaim {
        metadata: ObjectMeta {
            name: Some(NOT_WRITTEN.to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name)),
            namespace: Some(pod.namespace.clone()),
            uid: Some(temporary_uid(&pod.uid)),
            annotations: Some([(EXTENDED_CLAIM.to_owned(), "true".to_owned())].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ResourceClaimSpec {
            devices: Some(DeviceClaim {
                requests: Some(requests),
                ..DeviceClaim::default()
            }),
        }),
        status: None,
    })
}

/// Which requests of such a claim are for which containers and resources.
pub fn mappings(pod: &PodInfo, claim: &ResourceClaim) -> Vec<ContainerExtendedResourceRequest> {
    let containers = containers(pod);
    let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    let requested = devices.iter().flat_map(|devices| devices.requests.iter().flatten());
    let resources = requested.filter_map(|request| {
        let (container, resource) = request.name.strip_prefix("container-")?.split_once("-request-")?;
        let names = names(containers.get(container.parse::<usize>().ok()?)?);
        let name = names.get(resource.parse::<usize>().ok()?)?;
        Some(((*name).to_owned(), request.exactly.as_ref()?.device_class_name.clone()))
    });
    let initial = pod.spec().init_containers.as_ref().map_or(0, Vec::len);
    requests(&containers, initial, &resources.collect()).1
}

/// The initial ones come first.
fn containers(pod: &PodInfo) -> Vec<&Container> {
    let spec = pod.spec();
    spec.init_containers.iter().flatten().chain(&spec.containers).collect()
}

/// What a container requests, in the order that requests are numbered by.
fn names(container: &Container) -> Vec<&str> {
    let requests = container
        .resources
        .iter()
        .flat_map(|resources| resources.requests.iter().flatten());
    requests.map(|(name, _)| name.as_str()).collect()
}

/// A request for what the container asks of the resource beyond the `usable` ones that it may use before.
fn request(
    at: usize,
    container: &Container,
    (resource, class): (&str, &str),
    usable: &[Option<DeviceRequest>],
    mappings: &mut Vec<ContainerExtendedResourceRequest>,
) -> Option<DeviceRequest> {
    let requests = container.resources.as_ref()?.requests.as_ref()?;
    let amounts = Amounts::from_api(Some(requests));
    let wanted = Some(amounts.get(resource)).filter(|wanted| *wanted > 0)?;
    let mut map = |request: &str| {
        mappings.push(ContainerExtendedResourceRequest {
            container_name: container.name.clone(),
            resource_name: resource.to_owned(),
            request_name: request.to_owned(),
        });
    };
    let mut has = 0;
    for usable in usable.iter().flatten() {
        map(&usable.name);
        has += count(usable);
        if has >= wanted {
            return None;
        }
    }
    let number = names(container).iter().position(|name| *name == resource)?;
    let name = format!("container-{at}-request-{number}");
    map(&name);
    Some(DeviceRequest {
        name,
        exactly: Some(ExactDeviceRequest {
            device_class_name: class.to_owned(),
            allocation_mode: Some("ExactCount".to_owned()),
            count: Some(wanted - has),
            ..ExactDeviceRequest::default()
        }),
        first_available: None,
    })
}

fn count(request: &DeviceRequest) -> i64 {
    request.exactly.as_ref().and_then(|exactly| exactly.count).unwrap_or(0)
}

/// One request per container and resource. Init containers that end take what later containers get, and share what they
/// need beyond that.
fn requests(
    containers: &[&Container],
    initial: usize,
    backed: &Backed,
) -> (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>) {
    let ends = |at: usize| at < initial && containers[at].restart_policy.as_deref() != Some("Always");
    let (mut all, mut mappings) = (Vec::new(), Vec::new());
    for (resource, class) in backed {
        let of = (resource.as_str(), class.as_str());
        let mut lasting: Vec<Option<DeviceRequest>> = Vec::new();
        for (at, container) in containers.iter().enumerate() {
            let request = if ends(at) {
                None
            } else {
                request(at, container, of, &[], &mut mappings)
            };
            lasting.push(request);
        }
        let (mut most, mut names, begin) = (None::<DeviceRequest>, Vec::new(), mappings.len());
        for at in (0..initial).filter(|at| ends(*at)) {
            let Some(request) = request(at, containers[at], of, &lasting[at..], &mut mappings) else {
                continue;
            };
            names.push(request.name.clone());
            if most.as_ref().is_none_or(|most| count(most) < count(&request)) {
                most = Some(request);
            }
        }
        if let Some(most) = most {
            for mapping in &mut mappings[begin..] {
                if names.contains(&mapping.request_name) {
                    mapping.request_name.clone_from(&most.name);
                }
            }
            all.push(most);
        }
        all.extend(lasting.into_iter().flatten());
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    (all, mappings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(initial: Value, containers: Value) -> PodInfo {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"initContainers": initial, "containers": containers}});
        PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    fn asks(name: &str, count: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": count}}})
    }

    #[test]
    fn requests_of_containers() {
        let backed = Backed::from([("example.com/gpu".to_owned(), "gpu".to_owned())]);
        let sidecar = |name: &str, count: &str| {
            let mut container = asks(name, count);
            container["restartPolicy"] = json!("Always");
            container
        };
        for (initial, containers, requested, mapped) in [
            (json!([]), json!([asks("a", "0")]), "", ""),
            (
                json!([]),
                json!([asks("a", "2")]),
                "container-0-request-1=2",
                "a:container-0-request-1",
            ),
            // What ends uses what comes later before it asks for more.
            (
                json!([asks("i", "3")]),
                json!([asks("a", "2")]),
                "container-0-request-1=1 container-1-request-1=2",
                "a:container-1-request-1 i:container-1-request-1 i:container-0-request-1",
            ),
            (
                json!([asks("i", "1")]),
                json!([asks("a", "2")]),
                "container-1-request-1=2",
                "a:container-1-request-1 i:container-1-request-1",
            ),
            // What ends shares the largest request.
            (
                json!([asks("i", "1"), asks("j", "2")]),
                json!([{"name": "a"}]),
                "container-1-request-1=2",
                "i:container-1-request-1 j:container-1-request-1",
            ),
            // A sidecar before it goes on running.
            (
                json!([sidecar("s", "1"), asks("i", "1")]),
                json!([asks("a", "1")]),
                "container-0-request-1=1 container-2-request-1=1",
                "s:container-0-request-1 a:container-2-request-1 i:container-2-request-1",
            ),
        ] {
            let pod = pod(initial.clone(), containers.clone());
            let Some(claim) = claim(&pod, &backed, &Amounts::default()) else {
                assert_eq!(requested, "");
                continue;
            };
            assert!(is_extended_claim(&claim) && is_to_be_written(&claim) && owner(&claim) == Some("u"));
            let devices = claim.spec.as_ref().unwrap().devices.as_ref().unwrap();
            let requests = devices.requests.iter().flatten();
            let requests: Vec<String> = requests.map(|one| format!("{}={}", one.name, count(one))).collect();
            assert_eq!(requests.join(" "), requested, "{initial} {containers}");
            let mappings = mappings(&pod, &claim).into_iter();
            let mappings: Vec<String> = mappings
                .map(|one| format!("{}:{}", one.container_name, one.request_name))
                .collect();
            assert_eq!(mappings.join(" "), mapped, "{initial} {containers}");
        }
    }

    #[test]
    fn classes_of_resources() {
        let mut objects = Objects::default();
        for (name, resource, created) in [
            ("old", Some("example.com/gpu"), "2024-01-01T00:00:00Z"),
            ("new", Some("example.com/gpu"), "2025-01-01T00:00:00Z"),
            ("other", None, "2026-01-01T00:00:00Z"),
        ] {
            let class = json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"extendedResourceName": resource}});
            let class = Arc::new(serde_json::from_value(class).unwrap());
            objects.device_classes.set("", name, Some(class));
        }
        assert_eq!(class_of(&objects, "example.com/gpu"), Some("new"));
        assert_eq!(class_of(&objects, "example.com/none"), None);
        let implied = class_of(&objects, "deviceclass.resource.kubernetes.io/other");
        assert_eq!(implied, Some("other"));
        assert_eq!(class_of(&objects, "deviceclass.resource.kubernetes.io/none"), None);
    }
}
