//! Limits of huge pages, which Docker's API does not have: they are written into the control group of a container that has
//! just started (upstream: `pkg/kubelet/cm`, which limits the pod's group).

use super::super::cgroups::{self, Abilities, Groups};
use super::{Engine, labels};
use bollard::query_parameters::InspectContainerOptions;
use std::collections::BTreeMap;
use std::path::Path;

/// On a machine without huge pages there is nothing to limit, and nobody is asked.
pub(super) async fn limit(engine: &Engine, id: &str) {
    if !cgroups::has_huge_pages() {
        return;
    }
    let found = engine
        .docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await;
    let Ok(found) = found else {
        // What is gone needs no limit; an engine that does not answer is told of by whoever asks next.
        return;
    };
    let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
    let wanted: BTreeMap<u64, u64> = labels
        .get(labels::HUGE_PAGES)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let pid = found
        .state
        .and_then(|state| state.pid)
        .and_then(|pid| u32::try_from(pid).ok());
    if let Err(error) = write(id, pid.unwrap_or(0), &wanted)
        && wanted.values().any(|bytes| *bytes > 0)
    {
        tracing::warn!(id, error, "the huge pages of a container are not limited");
    }
}

fn write(id: &str, pid: u32, wanted: &BTreeMap<u64, u64>) -> Result<(), String> {
    if !Abilities::read(Path::new(cgroups::ROOT)).huge_pages {
        return Err("the controller hugetlb is not mounted".to_owned());
    }
    let groups = Groups::of_process(pid).ok_or("the process has ended, or cannot be seen from here")?;
    // The number may be another process's here, if the engine counts them in another namespace.
    let group = groups.of("hugetlb").or(groups.unified.as_deref());
    if !group.is_some_and(|group| group.to_string_lossy().contains(id)) {
        return Err("the control group of the container cannot be seen from here".to_owned());
    }
    for (size, bytes) in cgroups::page_limits(wanted, &cgroups::page_sizes()) {
        let written = groups.limit_huge_pages(&size, bytes);
        written.map_err(|error| format!("pages of {size}: {error}"))?;
    }
    Ok(())
}
