//! emptyDir of huge pages: a hugetlbfs with pages of the size that the pod's containers ask for (upstream:
//! `pkg/volume/emptydir` `setupHugepages`).

use super::{SetUpError, io};
use crate::kubelet::{pod, resources};
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;
use nix::mount::{MsFlags, mount};
use std::path::Path;

const MEDIUM: &str = "HugePages";

/// Whether the medium is `HugePages` or `HugePages-<size>`.
pub fn is_medium(medium: &str) -> bool {
    medium == MEDIUM || medium.starts_with("HugePages-")
}

pub fn make(path: &Path, medium: &str, pod: &Pod) -> Result<(), SetUpError> {
    let options = format!("pagesize={}", page_size(medium, pod)?.value());
    mount(
        Some("nodev"),
        path,
        Some("hugetlbfs"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|errno| io("mount a hugetlbfs on", path)(errno.into()))
}

/// That of the medium, which a container must ask for; without one, the only one that containers ask for.
fn page_size(medium: &str, pod: &Pod) -> Result<Quantity, SetUpError> {
    let wanted = match medium.strip_prefix("HugePages-") {
        None => None,
        Some(size) => {
            let wrong = |_| SetUpError::HugePages(format!("medium {medium:?} names no size of huge pages"));
            Some(size.parse::<Quantity>().map_err(wrong)?)
        }
    };
    let apps = pod::app_containers(pod).iter();
    let containers = apps.chain(pod::init_containers(pod).map(|(_, container)| container));
    let lists = containers.filter_map(|container| container.resources.as_ref());
    // Limits and requests are the same; the API server fills in requests.
    let lists = lists
        .chain(pod::spec(pod).resources.as_ref())
        .filter_map(|r| r.requests.as_ref());
    let mut found: Option<Quantity> = None;
    for size in lists.flatten().filter_map(|(name, _)| resources::page_size(name)) {
        if wanted.is_some_and(|wanted| wanted.value() != size.value()) {
            continue;
        }
        if found.is_some_and(|other| other.value() != size.value()) {
            let message = format!("medium: {medium} can't be used if container requests multiple huge page sizes");
            return Err(SetUpError::HugePages(message));
        }
        found = Some(size);
    }
    found.ok_or_else(|| {
        let message = "hugePages storage requested, but there is no resource request for huge pages";
        SetUpError::HugePages(format!("medium {medium}: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_of_media() {
        let multiple = "medium: HugePages can't be used if container requests multiple huge page sizes";
        let none = |medium: &str| {
            format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")
        };
        let (small, large) = ("hugepages-2Mi", "hugepages-1Gi");
        for (app, init, medium, expected) in [
            (vec![small], vec![], "HugePages", Ok(2 << 20)),
            (vec!["cpu"], vec![large], "HugePages", Ok(1 << 30)),
            (vec![small], vec![large], "HugePages", Err(multiple.to_owned())),
            (vec![small], vec![large], "HugePages-1Gi", Ok(1 << 30)),
            (vec![small], vec![], "HugePages-1Gi", Err(none("HugePages-1Gi"))),
            (vec!["memory"], vec![], "HugePages", Err(none("HugePages"))),
        ] {
            let requests = |names: &[&str]| {
                let list: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), json!("2Gi"))).collect();
                json!({"name": "c", "resources": {"requests": list}})
            };
            let pod = json!({"spec": {"containers": [requests(&app)], "initContainers": [requests(&init)]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let size = page_size(medium, &pod).map(|size| size.value());
            assert_eq!(
                size.map_err(|error| error.to_string()),
                expected,
                "{medium} {app:?} {init:?}"
            );
            assert!(is_medium(medium));
        }
    }
}
