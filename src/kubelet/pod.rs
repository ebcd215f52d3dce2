//! Questions the kubelet asks a Pod object (upstream: `pkg/api/v1/pod`, `kubecontainer/helpers.go`).

pub use crate::client::pods::is_finished;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// Pods of this priority and above are critical (upstream: `scheduling.SystemCriticalPriority`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a container is to its pod; decides order, restarts and what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside the app containers.
    Sidecar,
    App,
    /// Added by `kubectl debug`; never restarted.
    Ephemeral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: &str) -> Self {
        match text {
            "OnFailure" => Self::OnFailure,
            "Never" => Self::Never,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with `exit_code` runs again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

/// The pod's spec; an empty one for the malformed pod without any.
pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&NO_SPEC)
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream names a pod in messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    RestartPolicy::parse(spec(pod).restart_policy.as_deref().unwrap_or_default())
}

/// Whether a container that ended with `exit_code` runs again: by the first of its rules that fits, else by its policy
/// (upstream: `ContainerShouldRestart`).
pub fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    match matching_rule(container, exit_code) {
        Some(_) => true,
        None => container_restart_policy(pod, role, container).restarts(exit_code),
    }
}

/// What a rule asks for when its container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    Restart,
    RestartAllContainers,
}

/// The first rule that fits, if it is one that is known (upstream: `FindMatchingContainerRestartRule`).
pub fn matching_rule(container: &Container, exit_code: i32) -> Option<RuleAction> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let rule = rules.find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })?;
    match rule.action.as_str() {
        "Restart" => Some(RuleAction::Restart),
        "RestartAllContainers" => Some(RuleAction::RestartAllContainers),
        _ => None,
    }
}

/// The policy of one container: its own where it has one, else the pod's.
fn container_restart_policy(pod: &Pod, role: Role, container: &Container) -> RestartPolicy {
    match (role, container.restart_policy.as_deref()) {
        (Role::Ephemeral, _) => RestartPolicy::Never,
        (Role::Sidecar, _) => RestartPolicy::Always,
        (_, Some(own)) => RestartPolicy::parse(own),
        // An init container that succeeded is done, whatever the pod's policy.
        (Role::Init, None) if restart_policy(pod) == RestartPolicy::Always => RestartPolicy::OnFailure,
        (_, None) => restart_policy(pod),
    }
}

fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// Init containers and sidecars, in order.
pub fn init_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
    let containers = spec(pod).init_containers.as_deref().unwrap_or_default();
    containers.iter().map(|c| (init_role(c), c))
}

pub fn app_containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let containers = spec(pod).ephemeral_containers.as_deref().unwrap_or_default();
    // The two types share their fields by name; what only one of them has is not needed to run it.
    containers
        .iter()
        .filter_map(|c| serde_json::from_value(serde_json::to_value(c).ok()?).ok())
        .collect()
}

/// Every container with its role: init containers first, then app, then ephemeral ones.
pub fn all_containers(pod: &Pod) -> Vec<(Role, Cow<'_, Container>)> {
    let init = init_containers(pod).map(|(role, c)| (role, Cow::Borrowed(c)));
    let app = app_containers(pod).iter().map(|c| (Role::App, Cow::Borrowed(c)));
    let ephemeral = ephemeral_containers(pod).into_iter();
    init.chain(app)
        .chain(ephemeral.map(|c| (Role::Ephemeral, Cow::Owned(c))))
        .collect()
}

pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<(Role, Cow<'a, Container>)> {
    all_containers(pod).into_iter().find(|(_, c)| c.name == name)
}

/// `spec.containers{c}`: what an event about a container points at.
pub fn field_path(role: Role, container: &str) -> String {
    let list = match role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::App => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{container}}}")
}

pub fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// Seconds between SIGTERM and SIGKILL: the deletion's own, else the spec's; at least 1, as upstream.
pub fn grace_seconds(pod: &Pod) -> u32 {
    let asked = pod
        .metadata
        .deletion_grace_period_seconds
        .or(spec(pod).termination_grace_period_seconds)
        .unwrap_or(30);
    u32::try_from(asked.clamp(1, i64::from(i32::MAX))).unwrap_or(30)
}

/// When `activeDeadlineSeconds` is over, once the pod has a start time.
pub fn deadline(pod: &Pod) -> Option<SystemTime> {
    let seconds = u64::try_from(spec(pod).active_deadline_seconds?).ok()?;
    let start = pod.status.as_ref()?.start_time.as_ref()?;
    SystemTime::from(start.0).checked_add(Duration::from_secs(seconds))
}

/// API times have whole seconds.
pub fn api_time(time: SystemTime) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    let stamp = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let whole = Timestamp::from_second(stamp.as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(whole)
}

/// A duration as Go prints whole seconds: `10s`, `1m20s`, `1h0m5s`.
pub fn go_duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (seconds, text) in [(0, "0s"), (10, "10s"), (80, "1m20s"), (300, "5m0s"), (3605, "1h0m5s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn rules_come_before_policies() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {"restartPolicy": "Never", "containers": [
            {"name": "ruled", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}},
            ]},
            {"name": "all-but", "restartPolicy": "Never", "restartPolicyRules": [
                {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}},
            ]},
            {"name": "own", "restartPolicy": "OnFailure"},
            {"name": "plain"},
        ]}}))
        .unwrap();
        let restarts = |index: usize, code| restarts(&pod, Role::App, &app_containers(&pod)[index], code);
        for (index, code, again) in [
            (0, 42, true),
            (0, 1, false),
            (0, 0, false),
            (1, 2, true),
            (1, 1, false),
            (2, 1, true),
            (2, 0, false),
            (3, 1, false),
        ] {
            assert_eq!(restarts(index, code), again, "{index} {code}");
        }
    }

    #[test]
    fn grace_prefers_the_deletion_and_is_at_least_one() {
        let mut pod = Pod {
            spec: Some(PodSpec::default()),
            ..Pod::default()
        };
        assert_eq!(grace_seconds(&pod), 30);
        pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(5);
        assert_eq!(grace_seconds(&pod), 5);
        pod.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(grace_seconds(&pod), 1);
    }
}
