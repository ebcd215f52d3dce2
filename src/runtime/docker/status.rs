//! What containers are doing: one list call, and an inspection only of what changed (upstream: the kubelet's PLEG).

use super::{ContainerState, ContainerStatus, DockerRuntime, Engine, Result, images, is_not_found, labels};
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

/// Inspections under way at once for one list.
const INSPECTIONS_MAX: usize = 8;

/// Inspection results by container id. An entry holds as long as the list shows the same state and no event
/// told of a change.
#[derive(Default)]
pub(super) struct Cache {
    entries: Mutex<HashMap<String, Entry>>,
    /// Image id, and name as the container has it, to image reference.
    image_refs: Mutex<HashMap<(String, String), String>>,
}

#[derive(Default)]
struct Entry {
    /// Counts the changes that were told of, so that an inspection which a change overtook is not kept.
    changes: u64,
    /// The state as the list shows it, and the status.
    known: Option<(String, ContainerStatus)>,
}

impl Cache {
    /// The container changed.
    pub fn forget(&self, id: &str) {
        if let Some(entry) = self.entries.lock().get_mut(id) {
            entry.changes += 1;
            entry.known = None;
        }
    }

    /// Changes may have been missed.
    pub fn forget_all(&self) {
        for entry in self.entries.lock().values_mut() {
            entry.changes += 1;
            entry.known = None;
        }
        self.forget_image_refs();
    }

    pub fn forget_image_refs(&self) {
        self.image_refs.lock().clear();
    }

    fn known(&self, id: &str, shown: &str) -> Option<ContainerStatus> {
        let entries = self.entries.lock();
        let (known_as, status) = entries.get(id)?.known.as_ref()?;
        (known_as == shown).then(|| status.clone())
    }

    fn changes(&self, id: &str) -> u64 {
        self.entries.lock().entry(id.to_string()).or_default().changes
    }

    fn keep(&self, id: &str, changes: u64, shown: &str, status: &ContainerStatus) {
        if let Some(entry) = self.entries.lock().get_mut(id)
            && entry.changes == changes
        {
            entry.known = Some((shown.to_string(), status.clone()));
        }
    }

    fn retain(&self, ids: &HashSet<&str>) {
        self.entries.lock().retain(|id, _| ids.contains(id.as_str()));
    }
}

impl DockerRuntime {
    pub(super) async fn list(&self) -> Result<Vec<ContainerStatus>> {
        let summaries = list_by_type(&self.engine, labels::TYPE_CONTAINER).await?;
        self.statuses
            .retain(&summaries.iter().filter_map(|summary| summary.id.as_deref()).collect());
        let statuses = futures_util::stream::iter(summaries.into_iter().map(|summary| async move {
            let shown = shown_state(&summary);
            let id = summary.id.unwrap_or_default();
            match self.statuses.known(&id, &shown) {
                Some(status) => Ok(Some(status)),
                None => self.inspect(&id, &shown).await,
            }
        }))
        .buffered(INSPECTIONS_MAX)
        .try_collect::<Vec<_>>()
        .await?;
        Ok(statuses.into_iter().flatten().collect())
    }

    pub(super) async fn status(&self, id: &str) -> Result<ContainerStatus> {
        // Nothing is kept under this state, since it is not one that lists show.
        self.inspect(id, "")
            .await?
            .ok_or_else(|| super::RuntimeError::NotFound {
                what: "container",
                id: id.to_string(),
            })
    }

    /// None if it is gone, or is not one of this krust's.
    async fn inspect(&self, id: &str, shown: &str) -> Result<Option<ContainerStatus>> {
        let changes = self.statuses.changes(id);
        let found = match self
            .engine
            .docker
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
        {
            Ok(found) => found,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(self.engine.error("inspect", "container", id, error)),
        };
        if !is_own(&self.engine, &found, labels::TYPE_CONTAINER) {
            return Ok(None);
        }
        let image_ref = self.image_ref(&found).await?;
        let status = describe(&found, image_ref);
        // A created container may still be on its way to be started, which the list would not show.
        let lasting = matches!(status.state, ContainerState::Running | ContainerState::Exited);
        if lasting && !shown.is_empty() {
            self.statuses.keep(id, changes, shown, &status);
        }
        Ok(Some(status))
    }

    /// The repository digest of the container's image, else its id.
    async fn image_ref(&self, found: &ContainerInspectResponse) -> Result<String> {
        let id = found.image.clone().unwrap_or_default();
        let name = found
            .config
            .as_ref()
            .and_then(|config| config.image.clone())
            .unwrap_or_default();
        let key = (id, name);
        let known = self.statuses.image_refs.lock().get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let (id, name) = &key;
        let image_ref = match images::inspect(&self.engine, id).await? {
            Some(image) => images::image_ref(&image, name),
            // Removed by force while the container lives.
            None => id.clone(),
        };
        self.statuses.image_refs.lock().insert(key, image_ref.clone());
        Ok(image_ref)
    }
}

/// All containers of one type of this krust's, dead ones too.
pub(super) async fn list_by_type(engine: &Engine, object_type: &str) -> Result<Vec<ContainerSummary>> {
    let filters = vec![
        labels::cluster_filter(&engine.cluster_id),
        labels::type_filter(object_type),
    ];
    list_filtered(engine, filters).await
}

pub(super) async fn list_filtered(engine: &Engine, label_filters: Vec<String>) -> Result<Vec<ContainerSummary>> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_string(), label_filters)])),
        ..Default::default()
    };
    engine
        .docker
        .list_containers(Some(options))
        .await
        .map_err(|error| engine.error("list", "engine", "containers", error))
}

/// Whether an inspected container is one of this krust's.
pub(super) fn is_own(engine: &Engine, found: &ContainerInspectResponse, object_type: &str) -> bool {
    let labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
    let label = |key| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    label(labels::CLUSTER) == Some(engine.cluster_id.as_str()) && label(labels::TYPE) == Some(object_type)
}

/// The state in a list, exit code included; without what counts the time since.
fn shown_state(summary: &ContainerSummary) -> String {
    let state = summary.state.map(|state| state.to_string()).unwrap_or_default();
    let status = summary.status.as_deref().unwrap_or_default();
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    match code {
        Some((code, _)) if !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{state} {code}")
        }
        _ => state,
    }
}

/// Reads an inspection.
pub(super) fn describe(found: &ContainerInspectResponse, image_ref: String) -> ContainerStatus {
    let config = found.config.clone().unwrap_or_default();
    let state = found.state.clone().unwrap_or_default();
    let identity = labels::read(&config.labels.unwrap_or_default());
    let created_at = time(found.created.as_deref()).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut started_at = time(state.started_at.as_deref());
    let mut finished_at = time(state.finished_at.as_deref());
    let mut exit_code = i32::try_from(state.exit_code.unwrap_or(0)).unwrap_or(-1);
    let mut message = state.error.unwrap_or_default();
    let (engine_state, oom_killed) = (state.status, state.oom_killed.unwrap_or(false));
    use ContainerStateStatusEnum as Engine;
    let (state, reason) = match engine_state {
        // The engine leaves what it could not start in this state, with the error.
        Some(Engine::CREATED) if !message.is_empty() => {
            exit_code = 128;
            finished_at = finished_at.or(Some(created_at));
            (ContainerState::Exited, "StartError")
        }
        Some(Engine::CREATED) => (ContainerState::Created, ""),
        Some(Engine::RUNNING | Engine::PAUSED | Engine::RESTARTING | Engine::STOPPING) => {
            finished_at = None;
            (ContainerState::Running, "")
        }
        Some(Engine::EXITED | Engine::DEAD | Engine::REMOVING) => {
            // The engine notes the start of a short process after its end.
            if let (Some(started), Some(finished)) = (started_at, finished_at) {
                started_at = Some(started.min(finished));
            }
            let reason = match exit_code {
                _ if oom_killed => "OOMKilled",
                0 => "Completed",
                _ => "Error",
            };
            (ContainerState::Exited, reason)
        }
        Some(Engine::EMPTY) | None => (ContainerState::Unknown, ""),
    };
    if state != ContainerState::Exited {
        message.clear();
    }
    ContainerStatus {
        id: found.id.clone().unwrap_or_default(),
        sandbox_id: identity.sandbox_id,
        name: identity.container_name,
        attempt: identity.pod.attempt,
        pod_uid: identity.pod.uid,
        state,
        created_at,
        started_at,
        finished_at,
        exit_code,
        reason: reason.to_string(),
        message,
        image: config.image.unwrap_or_default(),
        image_ref,
        labels: identity.labels,
        annotations: identity.annotations,
        tty: config.tty.unwrap_or(false),
        user: None,
    }
}

/// Reads the engine's times; its zero is year 1.
pub(super) fn time(text: Option<&str>) -> Option<SystemTime> {
    let timestamp: jiff::Timestamp = text?.parse().ok()?;
    (timestamp.as_second() > 0).then(|| timestamp.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models;

    fn inspected(state: models::ContainerState) -> ContainerInspectResponse {
        ContainerInspectResponse {
            id: Some("c1".into()),
            created: Some("2026-01-02T03:04:05.000000006Z".into()),
            state: Some(state),
            ..Default::default()
        }
    }

    #[test]
    fn states_and_reasons() {
        use ContainerStateStatusEnum as Engine;
        let cases = [
            (Engine::CREATED, 0, false, "", ContainerState::Created, 0, ""),
            (
                Engine::CREATED,
                127,
                false,
                "no such file",
                ContainerState::Exited,
                128,
                "StartError",
            ),
            (Engine::RUNNING, 0, false, "", ContainerState::Running, 0, ""),
            (Engine::PAUSED, 0, false, "", ContainerState::Running, 0, ""),
            (Engine::EXITED, 0, false, "", ContainerState::Exited, 0, "Completed"),
            (Engine::EXITED, 3, false, "", ContainerState::Exited, 3, "Error"),
            (Engine::EXITED, 137, true, "", ContainerState::Exited, 137, "OOMKilled"),
            (Engine::DEAD, 137, false, "", ContainerState::Exited, 137, "Error"),
        ];
        for (status, code, oom_killed, error, state, exit_code, reason) in cases {
            let found = inspected(models::ContainerState {
                status: Some(status),
                exit_code: Some(code),
                oom_killed: Some(oom_killed),
                error: Some(error.into()),
                started_at: Some("0001-01-01T00:00:00Z".into()),
                ..Default::default()
            });
            let described = describe(&found, "ref".into());
            assert_eq!(
                (described.state, described.exit_code, described.reason.as_str()),
                (state, exit_code, reason),
                "{status:?} {code}"
            );
            assert_eq!(described.started_at, None);
            assert_eq!(described.message, error);
        }
    }

    #[test]
    fn a_list_shows_exit_codes_but_not_ages() {
        let summary = |state, status: &str| ContainerSummary {
            state: Some(state),
            status: Some(status.to_string()),
            ..Default::default()
        };
        use models::ContainerSummaryStateEnum as State;
        assert_eq!(shown_state(&summary(State::RUNNING, "Up 5 seconds")), "running");
        assert_eq!(
            shown_state(&summary(State::RUNNING, "Up 5 minutes (healthy)")),
            "running"
        );
        assert_eq!(
            shown_state(&summary(State::EXITED, "Exited (137) 1 second ago")),
            "exited 137"
        );
    }

    #[test]
    fn an_overtaken_inspection_is_not_kept() {
        let cache = Cache::default();
        let status = describe(&inspected(Default::default()), String::new());
        let changes = cache.changes("c1");
        cache.forget("c1");
        cache.keep("c1", changes, "running", &status);
        assert!(cache.known("c1", "running").is_none());
        cache.keep("c1", cache.changes("c1"), "running", &status);
        assert!(cache.known("c1", "running").is_some());
        assert!(cache.known("c1", "exited 0").is_none());
        cache.retain(&HashSet::new());
        assert!(cache.known("c1", "running").is_none());
    }
}
