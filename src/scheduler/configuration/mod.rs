//! The scheduler's configuration file (upstream: `KubeSchedulerConfiguration`, `kubescheduler.config.k8s.io/v1`). What
//! Krust has of it is acted on. What makes no difference here is told in the log, and whatever else the file says is an
//! error that names it.

pub mod args;
mod extenders;
mod plugins;

use super::extenders::Extender;
use super::profile::Profile;
use extenders::ExtenderFile;
use plugins::Plugins;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {reason}", path.display())]
    Wrong { path: PathBuf, reason: String },
}

#[derive(Clone, Debug)]
pub struct Configuration {
    /// Of all profiles that do not say otherwise.
    nodes_to_score_percentage: usize,
    pub backoff_first: Duration,
    pub backoff_last: Duration,
    profiles: Vec<ProfileFile>,
    extenders: extenders::Said,
    /// What the file sets and makes no difference, and why.
    without_effect: Vec<(&'static str, &'static str)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    leader_election: Option<LeaderElection>,
    #[serde(default)]
    extenders: Vec<ExtenderFile>,
    parallelism: Option<i64>,
    client_connection: Option<Value>,
    enable_profiling: Option<bool>,
    enable_contention_profiling: Option<bool>,
    delay_cache_until_active: Option<bool>,
    #[serde(default)]
    profiles: Vec<ProfileFile>,
}

impl File {
    /// What is set and makes no difference, and why.
    fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let timed =
            |config: &PluginConfig| config.name == "DynamicResources" && config.args.get("filterTimeout").is_some();
        let mut configs = self.profiles.iter().flat_map(|profile| &profile.plugin_config);
        let all = [
            (
                self.parallelism.is_some(),
                "parallelism",
                "nodes are looked at by one thread",
            ),
            (
                self.client_connection.is_some(),
                "clientConnection",
                "the scheduler is in the API server's process",
            ),
            (
                self.enable_profiling == Some(true),
                "enableProfiling",
                "there are no profiles to read",
            ),
            (
                self.enable_contention_profiling == Some(true),
                "enableContentionProfiling",
                "there are no profiles to read",
            ),
            (
                self.delay_cache_until_active == Some(true),
                "delayCacheUntilActive",
                "there is one scheduler, and it is always active",
            ),
            (
                configs.any(timed),
                "DynamicResourcesArgs.filterTimeout",
                "the search for devices on a node ends after a number of steps, not by time",
            ),
        ];
        let set = all.into_iter().filter(|(is_set, _, _)| *is_set);
        set.map(|(_, field, why)| (field, why)).collect()
    }
}

/// There is one scheduler; only that is accepted. How it would be elected does not matter.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeaderElection {
    leader_elect: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ProfileFile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    plugins: Plugins,
    plugin_config: Vec<PluginConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            nodes_to_score_percentage: 0,
            backoff_first: Duration::from_secs(1),
            backoff_last: Duration::from_secs(10),
            profiles: vec![ProfileFile::default()],
            extenders: extenders::Said::default(),
            without_effect: Vec::new(),
        }
    }
}

impl Configuration {
    /// From the file that the setting names; the defaults if it names none.
    pub fn load(path: &Path) -> Result<Self, ConfigurationError> {
        if path.as_os_str().is_empty() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).map_err(|source| ConfigurationError::Read {
            path: path.to_owned(),
            source,
        })?;
        let this = Self::parse(&text).map_err(|reason| ConfigurationError::Wrong {
            path: path.to_owned(),
            reason,
        })?;
        for (field, why) in &this.without_effect {
            tracing::warn!(field, why, "a field of the scheduler's configuration has no effect");
        }
        Ok(this)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let file: File = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        if file.api_version != API_VERSION || file.kind != KIND {
            return Err(format!(
                "apiVersion and kind must be {API_VERSION} and {KIND}, not {} and {}",
                file.api_version, file.kind
            ));
        }
        if file
            .leader_election
            .as_ref()
            .is_some_and(|election| election.leader_elect)
        {
            return Err("leaderElection.leaderElect: must be false, because there is one scheduler".into());
        }
        if file.parallelism.is_some_and(|parallelism| parallelism <= 0) {
            return Err("parallelism: should be an integer value greater than zero".into());
        }
        let without_effect = file.without_effect();
        let default = Self::default();
        let seconds = |value: Option<i64>, default: Duration| match value {
            None | Some(0) => Ok(default),
            Some(value) => u64::try_from(value).map(Duration::from_secs),
        };
        let wrong = |field: &str| format!("{field}: must be greater than 0");
        let backoff_first = seconds(file.pod_initial_backoff_seconds, default.backoff_first)
            .map_err(|_| wrong("podInitialBackoffSeconds"))?;
        let backoff_last =
            seconds(file.pod_max_backoff_seconds, default.backoff_last).map_err(|_| wrong("podMaxBackoffSeconds"))?;
        if backoff_last < backoff_first {
            return Err("podMaxBackoffSeconds: must be greater than or equal to PodInitialBackoffSeconds".into());
        }
        let this = Self {
            without_effect,
            nodes_to_score_percentage: percentage(file.percentage_of_nodes_to_score)?.unwrap_or(0),
            backoff_first,
            backoff_last,
            extenders: extenders::build(&file.extenders)?,
            profiles: if file.profiles.is_empty() {
                default.profiles
            } else {
                file.profiles
            },
        };
        let mut names = HashSet::new();
        for (at, profile) in this.profiles.iter().enumerate() {
            let name = profile.scheduler_name.as_deref().unwrap_or(super::SCHEDULER_NAME);
            if this.profiles.len() > 1 && profile.scheduler_name.is_none() {
                return Err(format!("profiles[{at}].schedulerName: Required value"));
            }
            if !names.insert(name.to_owned()) {
                return Err(format!("profiles[{at}].schedulerName: Duplicate value: {name:?}"));
            }
            this.build(profile)
                .map_err(|reason| format!("profiles[{at}].{reason}"))?;
        }
        Ok(this)
    }

    /// They are asked in this order, whatever the profile.
    pub fn extenders(&self) -> Vec<Arc<Extender>> {
        self.extenders.extenders.clone()
    }

    /// The profiles with their plug-ins.
    pub fn profiles(&self) -> Vec<Profile> {
        // They were all built once when the file was read.
        self.profiles
            .iter()
            .filter_map(|profile| self.build(profile).ok())
            .collect()
    }

    fn build(&self, file: &ProfileFile) -> Result<Profile, String> {
        let own = percentage(file.percentage_of_nodes_to_score)?;
        let mut configured = HashSet::new();
        for config in &file.plugin_config {
            if !configured.insert(config.name.as_str()) {
                return Err(format!("pluginConfig: repeated config for plugin {}", config.name));
            }
        }
        let mut profile = plugins::build(&file.plugins, &file.plugin_config, &self.extenders.ignored_resources)?;
        profile.scheduler_name = file
            .scheduler_name
            .clone()
            .unwrap_or_else(|| super::SCHEDULER_NAME.to_owned());
        profile.nodes_to_score_percentage = own.unwrap_or(self.nodes_to_score_percentage);
        Ok(profile)
    }
}

fn percentage(value: Option<i64>) -> Result<Option<usize>, String> {
    match value {
        None => Ok(None),
        Some(value) => match usize::try_from(value) {
            Ok(value) if value <= 100 => Ok(Some(value)),
            _ => Err("percentageOfNodesToScore: not in valid range [0-100]".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Configuration, String> {
        Configuration::parse(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}"))
    }
    fn filters(profile: &Profile) -> Vec<&str> {
        profile.filters.iter().map(|plugin| plugin.name()).collect()
    }
    fn weights(profile: &Profile) -> Vec<(&str, i64)> {
        profile
            .scorers
            .iter()
            .map(|(plugin, weight)| (plugin.name(), *weight))
            .collect()
    }

    #[test]
    fn defaults_are_upstreams() {
        let profile = Configuration::default().profiles().remove(0);
        assert_eq!(profile.scheduler_name, "default-scheduler");
        assert_eq!(
            filters(&profile),
            [
                "NodeUnschedulable",
                "NodeName",
                "TaintToleration",
                "NodeAffinity",
                "NodePorts",
                "NodeResourcesFit",
                "VolumeRestrictions",
                "NodeVolumeLimits",
                "VolumeBinding",
                "VolumeZone",
                "PodTopologySpread",
                "InterPodAffinity",
                "DynamicResources",
                "NodeDeclaredFeatures",
            ]
        );
        assert_eq!(
            weights(&profile),
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("PodTopologySpread", 2),
                ("InterPodAffinity", 2),
                ("DynamicResources", 2),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1),
            ]
        );
        assert!(profile.preemption.is_some() && profile.dynamic_resources);
    }

    #[test]
    fn profiles_choose_their_plugins() {
        let configuration = with(
            r#"
percentageOfNodesToScore: 30
podInitialBackoffSeconds: 2
leaderElection: {leaderElect: false}
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  percentageOfNodesToScore: 100
  plugins:
    multiPoint:
      enabled: [{name: ImageLocality, weight: 5}]
      disabled: [{name: DefaultPreemption}, {name: NodePorts}]
    score:
      disabled: [{name: "*"}]
      enabled: [{name: NodeResourcesFit, weight: 7}, {name: TaintToleration}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResources: [example.com/x]
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}
"#,
        )
        .unwrap();
        assert_eq!(configuration.backoff_first, Duration::from_secs(2));
        let profiles = configuration.profiles();
        assert_eq!(profiles[0].nodes_to_score_percentage, 30);
        let packer = &profiles[1];
        assert_eq!(
            (packer.scheduler_name.as_str(), packer.nodes_to_score_percentage),
            ("packer", 100)
        );
        assert_eq!(weights(packer), [("NodeResourcesFit", 7), ("TaintToleration", 1)]);
        assert!(packer.preemption.is_none() && packer.filter("NodePorts").is_none());
        assert!(packer.filter("NodeResourcesFit").is_some());
    }

    /// As kubeadm and others write it.
    #[test]
    fn what_makes_no_difference_is_told() {
        let configuration = with(
            r#"
parallelism: 16
clientConnection: {kubeconfig: /etc/kubernetes/scheduler.conf, qps: 50}
leaderElection: {leaderElect: false, leaseDuration: 15s}
enableProfiling: false
extenders: []
profiles: [{pluginConfig: [{name: DynamicResources, args: {filterTimeout: 5s, bindingTimeout: 20s}}]}]
"#,
        );
        let told: Vec<&str> = configuration
            .unwrap()
            .without_effect
            .iter()
            .map(|(field, _)| *field)
            .collect();
        assert_eq!(
            told,
            ["parallelism", "clientConnection", "DynamicResourcesArgs.filterTimeout"]
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        for (text, expected) in [
            (
                "parallelism: 0",
                "parallelism: should be an integer value greater than zero",
            ),
            ("healthzBindAddress: x", "unknown field `healthzBindAddress`"),
            (
                "leaderElection: {leaderElect: true}",
                "leaderElection.leaderElect: must be false",
            ),
            (
                "percentageOfNodesToScore: 101",
                "percentageOfNodesToScore: not in valid range",
            ),
            (
                "podMaxBackoffSeconds: -1",
                "podMaxBackoffSeconds: must be greater than 0",
            ),
            ("podInitialBackoffSeconds: 20", "podMaxBackoffSeconds: must be greater"),
            ("profiles: [{}, {}]", "profiles[0].schedulerName: Required value"),
            (
                "profiles: [{schedulerName: a}, {schedulerName: a}]",
                "profiles[1].schedulerName: Duplicate value",
            ),
            (
                "profiles: [{plugins: {filter: {enabled: [{name: Mine}]}}}]",
                "profiles[0].plugins.filter: there is no plugin Mine",
            ),
            (
                "profiles: [{plugins: {score: {enabled: [{name: NodeName}]}}}]",
                "profiles[0].plugins.score: the plugin NodeName does not extend score",
            ),
            (
                "profiles: [{plugins: {bind: {disabled: [{name: DefaultBinder}]}}}]",
                "profiles[0].plugins.bind: DefaultBinder cannot be disabled",
            ),
            (
                "profiles: [{plugins: {preFilter: {disabled: [{name: NodePorts}]}}}]",
                "profiles[0].plugins: NodePorts must be in both preFilter and filter, or in neither",
            ),
            (
                "profiles: [{pluginConfig: [{name: NodeName, args: {x: 1}}]}]",
                "profiles[0].pluginConfig: NodeName takes no args",
            ),
            (
                "profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 500ms}}]}]",
                "profiles[0].pluginConfig: DynamicResources: bindingTimeout: must be at least 1 second",
            ),
            (
                "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Other}}}]}]",
                "scoringStrategy.type: Unsupported value: \"Other\"",
            ),
            (
                "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}}]}]",
                "when .defaultingType is System, must be empty",
            ),
            (
                "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 200}}]}]",
                "hardPodAffinityWeight: not in valid range",
            ),
        ] {
            let error = with(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(
            Configuration::parse("apiVersion: kubescheduler.config.k8s.io/v1beta3\nkind: KubeSchedulerConfiguration")
                .is_err()
        );
    }
}
