//! What Docker's API does not have is written into the control group of a container that has just started: limits of huge
//! pages, and that its processes are killed for memory together (upstream: `kuberuntime_container_linux.go`).

use super::super::cgroups::{self, Abilities, Groups};
use super::{Engine, labels};
use bollard::query_parameters::InspectContainerOptions;
use std::collections::BTreeMap;
use std::path::Path;

/// Where there is nothing to write, nobody is asked.
pub(super) async fn complete(engine: &Engine, id: &str) {
    let abilities = Abilities::read(Path::new(cgroups::ROOT));
    if !cgroups::has_huge_pages() && !abilities.unified {
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
    let groups = groups(id, pid.unwrap_or(0));
    if let Ok(groups) = &groups
        && let Err(error) = groups.kill_together()
    {
        tracing::debug!(id, %error, "a container's processes are killed for memory one by one");
    }
    if let Err(error) = groups.and_then(|groups| limit_pages(&groups, abilities, &wanted))
        && wanted.values().any(|bytes| *bytes > 0)
    {
        tracing::warn!(id, error, "the huge pages of a container are not limited");
    }
}

fn groups(id: &str, pid: u32) -> Result<Groups, String> {
    let groups = Groups::of_process(pid).ok_or("the process has ended, or cannot be seen from here")?;
    // The number may be another process's here, if the engine counts them in another namespace.
    let group = groups.of("hugetlb").or(groups.unified.as_deref());
    if !group.is_some_and(|group| group.to_string_lossy().contains(id)) {
        return Err("the control group of the container cannot be seen from here".to_owned());
    }
    Ok(groups)
}

fn limit_pages(groups: &Groups, abilities: Abilities, wanted: &BTreeMap<u64, u64>) -> Result<(), String> {
    if !abilities.huge_pages {
        return Err("the controller hugetlb is not mounted".to_owned());
    }
    for (size, bytes) in cgroups::page_limits(wanted, &cgroups::page_sizes()) {
        let written = groups.limit_huge_pages(&size, bytes);
        written.map_err(|error| format!("pages of {size}: {error}"))?;
    }
    Ok(())
}
