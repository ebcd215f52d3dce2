//! Which plug-ins a profile has at which point, and what they are told (upstream: `apis/config/v1/default_plugins.go`,
//! `framework/runtime`).

use super::PluginConfig;
use super::args::{
    BalancedAllocationArgs, DynamicResourcesArgs, DynamicResourcesFile, FitArgs, InterPodAffinityArgs,
    NodeAffinityArgs, PreemptionArgs, TopologySpreadArgs, VolumeBindingArgs,
};
use crate::scheduler::framework::Plugin;
use crate::scheduler::plugins;
use crate::scheduler::profile::{Profile, Timeouts};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Plugins {
    multi_point: PluginSet,
    pre_enqueue: PluginSet,
    queue_sort: PluginSet,
    pre_filter: PluginSet,
    filter: PluginSet,
    post_filter: PluginSet,
    pre_score: PluginSet,
    score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PluginSet {
    enabled: Vec<Named>,
    disabled: Vec<Named>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    #[serde(default)]
    weight: i64,
}

/// Name, weight, and the points that it extends: e(nqueue) q(ueue sort) F (pre-filter and filter) P(ost-filter)
/// S (score) s (pre-score) r(eserve) b (pre-bind) B(ind). In upstream's order.
const ALL: &[(&str, i64, &str)] = &[
    ("SchedulingGates", 0, "e"),
    ("PrioritySort", 0, "q"),
    ("NodeUnschedulable", 0, "F"),
    ("NodeName", 0, "F"),
    ("TaintToleration", 3, "FsS"),
    ("NodeAffinity", 2, "pFsS"),
    ("NodePorts", 0, "pF"),
    ("NodeResourcesFit", 1, "pFsS"),
    ("VolumeRestrictions", 0, "pF"),
    ("NodeVolumeLimits", 0, "pF"),
    ("VolumeBinding", 0, "pFrb"),
    ("VolumeZone", 0, "pF"),
    ("PodTopologySpread", 2, "pFsS"),
    ("InterPodAffinity", 2, "pFsS"),
    ("DynamicResources", 2, "epFPsSrb"),
    ("DefaultPreemption", 0, "eP"),
    ("NodeResourcesBalancedAllocation", 1, "sS"),
    ("ImageLocality", 1, "S"),
    ("DefaultBinder", 0, "B"),
    ("NodeDeclaredFeatures", 0, "pF"),
];

/// Without these a profile is none.
const INDISPENSABLE: &[&str] = &["PrioritySort", "DefaultBinder", "SchedulingGates"];

fn known(name: &str) -> Option<&'static (&'static str, i64, &'static str)> {
    ALL.iter().find(|(known, _, _)| *known == name)
}

fn is_disabled(set: &PluginSet, name: &str) -> bool {
    set.disabled
        .iter()
        .any(|disabled| disabled.name == name || disabled.name == "*")
}

/// The plug-ins of one point with their weights: first what the point itself enables, then what is enabled everywhere.
fn at_point(all: &Plugins, set: &PluginSet, point: &str, letter: char) -> Result<Vec<(&'static str, i64)>, String> {
    let mut found: Vec<(&'static str, i64)> = Vec::new();
    for named in &set.enabled {
        let Some((name, _, points)) = known(&named.name) else {
            return Err(format!("plugins.{point}: there is no plugin {}", named.name));
        };
        if !points.contains(letter) {
            return Err(format!("plugins.{point}: the plugin {name} does not extend {point}"));
        }
        if found.iter().any(|(other, _)| other == name) {
            return Err(format!("plugins.{point}: plugin {name} already registered"));
        }
        found.push((name, if named.weight == 0 { 1 } else { named.weight }));
    }
    for named in &all.multi_point.enabled {
        if known(&named.name).is_none() {
            return Err(format!("plugins.multiPoint: there is no plugin {}", named.name));
        }
    }
    for disabled in set.disabled.iter().chain(&all.multi_point.disabled) {
        if disabled.name != "*" && known(&disabled.name).is_none() {
            return Err(format!("plugins.{point}: there is no plugin {}", disabled.name));
        }
    }
    let everywhere = ALL.iter().filter(|(name, _, points)| {
        let explicit = all.multi_point.enabled.iter().any(|named| named.name == *name);
        points.contains(letter)
            && !is_disabled(set, name)
            && (explicit || !is_disabled(&all.multi_point, name))
            && !found.iter().any(|(other, _)| other == name)
    });
    let everywhere: Vec<_> = everywhere
        .map(|(name, weight, _)| {
            let said = all.multi_point.enabled.iter().find(|named| named.name == *name);
            let weight = said
                .map(|named| named.weight)
                .filter(|weight| *weight != 0)
                .unwrap_or(*weight);
            (*name, if weight == 0 { 1 } else { weight })
        })
        .collect();
    found.extend(everywhere);
    if let Some((name, _)) = found
        .iter()
        .find(|(_, weight)| !(1..=i64::from(i32::MAX)).contains(weight))
    {
        return Err(format!(
            "plugins.{point}: the weight of {name} must be greater than zero"
        ));
    }
    Ok(found)
}

/// `ignored_resources`: extenders look after them, whatever the file says of others.
pub fn build(said: &Plugins, config: &[PluginConfig], ignored_resources: &[String]) -> Result<Profile, String> {
    let filter = at_point(said, &said.filter, "filter", 'F')?;
    let pre_filter = at_point(said, &said.pre_filter, "preFilter", 'p')?;
    let score = at_point(said, &said.score, "score", 'S')?;
    let pre_score = at_point(said, &said.pre_score, "preScore", 's')?;
    let has = |list: &[(&str, i64)], name: &str| list.iter().any(|(other, _)| *other == name);
    for (name, _, points) in ALL {
        if points.contains('p') && has(&filter, name) != has(&pre_filter, name) {
            return Err(format!(
                "plugins: {name} must be in both preFilter and filter, or in neither"
            ));
        }
        if points.contains('s') && has(&score, name) && !has(&pre_score, name) && is_disabled(&said.pre_score, name) {
            return Err(format!(
                "plugins: {name} must be in both preScore and score, or in neither"
            ));
        }
    }
    let post_filter = at_point(said, &said.post_filter, "postFilter", 'P')?;
    for (set, point, letter) in [
        (&said.pre_enqueue, "preEnqueue", 'e'),
        (&said.queue_sort, "queueSort", 'q'),
        (&said.reserve, "reserve", 'r'),
        (&said.pre_bind, "preBind", 'b'),
        (&said.bind, "bind", 'B'),
        (&said.permit, "permit", '-'),
        (&said.post_bind, "postBind", '-'),
    ] {
        let found = at_point(said, set, point, letter)?;
        let always = ALL.iter().filter(|(name, _, points)| {
            points.contains(letter)
                && (INDISPENSABLE.contains(name) || (matches!(letter, 'r' | 'b') && has(&filter, name)))
        });
        for (name, _, _) in always {
            if !has(&found, name) {
                return Err(format!("plugins.{point}: {name} cannot be disabled"));
            }
        }
    }
    let mut args = Args::read(config)?;
    if !ignored_resources.is_empty() {
        args.fit.ignored_resources = ignored_resources.to_vec();
    }
    Ok(Profile {
        scheduler_name: String::new(),
        nodes_to_score_percentage: 0,
        filters: filter.iter().filter_map(|(name, _)| args.plugin(name)).collect(),
        scorers: score
            .iter()
            .filter_map(|(name, weight)| Some((args.plugin(name)?, *weight)))
            .collect(),
        preemption: has(&post_filter, "DefaultPreemption").then(|| args.preemption.clone()),
        dynamic_resources: has(&post_filter, "DynamicResources"),
        timeouts: Timeouts {
            volumes: Duration::from_secs(args.volume_binding.bind_timeout_seconds),
            devices: args.dynamic_resources.binding_timeout,
        },
    })
}

#[derive(Default)]
struct Args {
    fit: FitArgs,
    balanced: BalancedAllocationArgs,
    node_affinity: NodeAffinityArgs,
    pod_affinity: InterPodAffinityArgs,
    spread: TopologySpreadArgs,
    preemption: PreemptionArgs,
    volume_binding: VolumeBindingArgs,
    dynamic_resources: DynamicResourcesArgs,
}

impl Args {
    fn read(config: &[PluginConfig]) -> Result<Self, String> {
        let mut args = Self::default();
        for PluginConfig { name, args: value } in config {
            let wrong = |reason: String| format!("pluginConfig: {name}: {reason}");
            match name.as_str() {
                "NodeResourcesFit" => args.fit = of(name, value).map_err(wrong)?,
                "NodeResourcesBalancedAllocation" => args.balanced = of(name, value).map_err(wrong)?,
                "NodeAffinity" => args.node_affinity = of(name, value).map_err(wrong)?,
                "InterPodAffinity" => {
                    args.pod_affinity = of(name, value).and_then(InterPodAffinityArgs::check).map_err(wrong)?;
                }
                "PodTopologySpread" => {
                    args.spread = of(name, value).and_then(TopologySpreadArgs::check).map_err(wrong)?;
                }
                "DefaultPreemption" => {
                    args.preemption = of(name, value).and_then(PreemptionArgs::check).map_err(wrong)?;
                }
                "VolumeBinding" => args.volume_binding = of(name, value).map_err(wrong)?,
                "DynamicResources" => {
                    let file: DynamicResourcesFile = of(name, value).map_err(wrong)?;
                    args.dynamic_resources = file.try_into().map_err(wrong)?;
                }
                _ if known(name).is_none() => return Err(format!("pluginConfig: there is no plugin {name}")),
                _ => return Err(format!("pluginConfig: {name} takes no args")),
            }
        }
        Ok(args)
    }

    fn plugin(&self, name: &str) -> Option<Arc<dyn Plugin>> {
        Some(match name {
            "NodeUnschedulable" => Arc::new(plugins::NodeUnschedulable),
            "NodeName" => Arc::new(plugins::NodeName),
            "TaintToleration" => Arc::new(plugins::TaintToleration),
            "NodeAffinity" => Arc::new(plugins::NodeAffinity::new(&self.node_affinity)),
            "NodePorts" => Arc::new(plugins::NodePorts),
            "NodeResourcesFit" => Arc::new(plugins::Fit::new(self.fit.clone())),
            "VolumeRestrictions" => Arc::new(plugins::VolumeRestrictions),
            "NodeVolumeLimits" => Arc::new(plugins::NodeVolumeLimits),
            "VolumeBinding" => Arc::new(plugins::VolumeBinding),
            "VolumeZone" => Arc::new(plugins::VolumeZone),
            "PodTopologySpread" => Arc::new(plugins::TopologySpread::new(self.spread.clone())),
            "InterPodAffinity" => Arc::new(plugins::InterPodAffinity::new(self.pod_affinity.clone())),
            "DynamicResources" => Arc::new(plugins::DynamicResources::new(&self.dynamic_resources)),
            "NodeResourcesBalancedAllocation" => Arc::new(plugins::BalancedAllocation::new(self.balanced.clone())),
            "ImageLocality" => Arc::new(plugins::ImageLocality),
            "NodeDeclaredFeatures" => Arc::new(plugins::NodeDeclaredFeatures),
            _ => return None,
        })
    }
}

/// Args carry a kind of their own.
fn of<T: DeserializeOwned + Default>(plugin: &str, value: &Value) -> Result<T, String> {
    if value.is_null() {
        return Ok(T::default());
    }
    let mut value = value.clone();
    let Some(members) = value.as_object_mut() else {
        return Err("args must be an object".into());
    };
    let kind = members.remove("kind");
    let version = members.remove("apiVersion");
    if kind.is_some_and(|kind| kind != format!("{plugin}Args")) {
        return Err(format!("args.kind must be {plugin}Args"));
    }
    if version.is_some_and(|version| version != super::API_VERSION) {
        return Err(format!("args.apiVersion must be {}", super::API_VERSION));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}
