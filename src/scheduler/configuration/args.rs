//! What plug-ins can be told (upstream: `kube-scheduler/config/v1`, types_pluginargs.go).

use k8s_openapi::api::core::v1::NodeAffinity;
use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ResourceWeight {
    pub name: String,
    #[serde(default = "one")]
    pub weight: i64,
}

fn one() -> i64 {
    1
}

fn cpu_and_memory() -> Vec<ResourceWeight> {
    ["cpu", "memory"]
        .map(|name| ResourceWeight {
            name: name.into(),
            weight: 1,
        })
        .into()
}

/// How much a node is wanted that would be used that much.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShapePoint {
    /// Percent.
    pub utilization: i32,
    /// 0 to 10.
    pub score: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ScoringStrategy {
    LeastAllocated {
        resources: Vec<ResourceWeight>,
    },
    MostAllocated {
        resources: Vec<ResourceWeight>,
    },
    RequestedToCapacityRatio {
        resources: Vec<ResourceWeight>,
        shape: Vec<ShapePoint>,
    },
}

impl ScoringStrategy {
    pub fn resources(&self) -> &[ResourceWeight] {
        match self {
            Self::LeastAllocated { resources }
            | Self::MostAllocated { resources }
            | Self::RequestedToCapacityRatio { resources, .. } => resources,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StrategyFile {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceWeight>,
    requested_to_capacity_ratio: Option<ShapeFile>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ShapeFile {
    #[serde(default)]
    shape: Vec<ShapePoint>,
}

impl TryFrom<StrategyFile> for ScoringStrategy {
    type Error = String;

    fn try_from(file: StrategyFile) -> Result<Self, String> {
        let resources = if file.resources.is_empty() {
            cpu_and_memory()
        } else {
            file.resources
        };
        check_weights(&resources)?;
        let shape = file.requested_to_capacity_ratio.map(|file| file.shape);
        match (file.kind.as_str(), shape) {
            ("" | "LeastAllocated", None) => Ok(Self::LeastAllocated { resources }),
            ("MostAllocated", None) => Ok(Self::MostAllocated { resources }),
            ("RequestedToCapacityRatio", Some(shape)) => {
                check_shape(&shape)?;
                Ok(Self::RequestedToCapacityRatio { resources, shape })
            }
            ("RequestedToCapacityRatio", None) => {
                Err("scoringStrategy.requestedToCapacityRatio.shape: at least one point must be specified".into())
            }
            ("" | "LeastAllocated" | "MostAllocated", Some(_)) => {
                Err("scoringStrategy.requestedToCapacityRatio is only for the type RequestedToCapacityRatio".into())
            }
            (other, _) => Err(format!(
                "scoringStrategy.type: Unsupported value: {other:?}: supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            )),
        }
    }
}

fn check_weights(resources: &[ResourceWeight]) -> Result<(), String> {
    match resources.iter().find(|resource| !(1..=100).contains(&resource.weight)) {
        Some(wrong) => Err(format!(
            "resources: the weight of {} is {}, not in valid range [1-100]",
            wrong.name, wrong.weight
        )),
        None => Ok(()),
    }
}

fn check_shape(shape: &[ShapePoint]) -> Result<(), String> {
    if shape.is_empty() {
        return Err("scoringStrategy.requestedToCapacityRatio.shape: at least one point must be specified".into());
    }
    let rises = shape.windows(2).all(|pair| pair[0].utilization < pair[1].utilization);
    let within = shape
        .iter()
        .all(|point| (0..=100).contains(&point.utilization) && (0..=10).contains(&point.score));
    if !rises || !within {
        return Err("scoringStrategy.requestedToCapacityRatio.shape: utilization must rise from point to point within [0-100], scores must be within [0-10]".into());
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "FitFile")]
pub struct FitArgs {
    pub ignored_resources: Vec<String>,
    pub ignored_resource_groups: Vec<String>,
    pub scoring_strategy: ScoringStrategy,
}

impl Default for FitArgs {
    fn default() -> Self {
        Self {
            ignored_resources: Vec::new(),
            ignored_resource_groups: Vec::new(),
            scoring_strategy: ScoringStrategy::LeastAllocated {
                resources: cpu_and_memory(),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct FitFile {
    #[serde(default)]
    ignored_resources: Vec<String>,
    #[serde(default)]
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<StrategyFile>,
}

impl TryFrom<FitFile> for FitArgs {
    type Error = String;

    fn try_from(file: FitFile) -> Result<Self, String> {
        if let Some(group) = file.ignored_resource_groups.iter().find(|group| group.contains('/')) {
            return Err(format!(
                "ignoredResourceGroups: resource group name can't contain '/': {group}"
            ));
        }
        let default = Self::default();
        Ok(Self {
            ignored_resources: file.ignored_resources,
            ignored_resource_groups: file.ignored_resource_groups,
            scoring_strategy: match file.scoring_strategy {
                Some(strategy) => strategy.try_into()?,
                None => default.scoring_strategy,
            },
        })
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "BalancedAllocationFile")]
pub struct BalancedAllocationArgs {
    pub resources: Vec<ResourceWeight>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BalancedAllocationFile {
    #[serde(default)]
    resources: Vec<ResourceWeight>,
}

impl TryFrom<BalancedAllocationFile> for BalancedAllocationArgs {
    type Error = String;

    fn try_from(file: BalancedAllocationFile) -> Result<Self, String> {
        // As upstream: a balance knows no weights.
        if let Some(wrong) = file.resources.iter().find(|resource| resource.weight != 1) {
            return Err(format!("resources: the weight of {} must be 1", wrong.name));
        }
        Ok(if file.resources.is_empty() {
            Self::default()
        } else {
            Self {
                resources: file.resources,
            }
        })
    }
}

impl Default for BalancedAllocationArgs {
    fn default() -> Self {
        Self {
            resources: cpu_and_memory(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeAffinityArgs {
    pub added_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct InterPodAffinityArgs {
    pub hard_pod_affinity_weight: i64,
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinityArgs {
    fn default() -> Self {
        Self {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

impl InterPodAffinityArgs {
    pub fn check(self) -> Result<Self, String> {
        if (0..=100).contains(&self.hard_pod_affinity_weight) {
            Ok(self)
        } else {
            Err("hardPodAffinityWeight: not in valid range [0-100]".into())
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DefaultConstraint {
    pub max_skew: i32,
    pub topology_key: String,
    pub when_unsatisfiable: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Defaulting {
    #[default]
    System,
    List,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TopologySpreadArgs {
    default_constraints: Vec<DefaultConstraint>,
    defaulting_type: Defaulting,
}

impl TopologySpreadArgs {
    pub fn check(self) -> Result<Self, String> {
        if self.is_system() && !self.default_constraints.is_empty() {
            return Err("defaultConstraints: when .defaultingType is System, must be empty".into());
        }
        for constraint in &self.default_constraints {
            if constraint.max_skew <= 0 {
                return Err("defaultConstraints: maxSkew: not in valid range (0, inf)".into());
            }
            if constraint.topology_key.is_empty() {
                return Err("defaultConstraints: topologyKey: can not be empty".into());
            }
            if !matches!(
                constraint.when_unsatisfiable.as_str(),
                "DoNotSchedule" | "ScheduleAnyway"
            ) {
                return Err("defaultConstraints: whenUnsatisfiable: must be DoNotSchedule or ScheduleAnyway".into());
            }
        }
        Ok(self)
    }

    pub fn is_system(&self) -> bool {
        self.defaulting_type == Defaulting::System
    }

    /// For pods that have none of their own.
    pub fn constraints(&self) -> Vec<DefaultConstraint> {
        let soft = |key: &str, max_skew: i32| DefaultConstraint {
            max_skew,
            topology_key: key.into(),
            when_unsatisfiable: "ScheduleAnyway".into(),
        };
        if self.is_system() {
            vec![
                soft("kubernetes.io/hostname", 3),
                soft("topology.kubernetes.io/zone", 5),
            ]
        } else {
            self.default_constraints.clone()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PreemptionArgs {
    pub min_candidate_nodes_percentage: usize,
    pub min_candidate_nodes_absolute: usize,
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        Self {
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
        }
    }
}

impl PreemptionArgs {
    pub fn check(self) -> Result<Self, String> {
        if self.min_candidate_nodes_percentage > 100 {
            return Err("minCandidateNodesPercentage: not in valid range [0, 100]".into());
        }
        if self.min_candidate_nodes_percentage == 0 && self.min_candidate_nodes_absolute == 0 {
            return Err("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be 0".into());
        }
        Ok(self)
    }

    /// How many nodes are tried before the best of them is taken.
    pub fn candidates(&self, nodes: usize) -> usize {
        let share = nodes * self.min_candidate_nodes_percentage / 100;
        share.max(self.min_candidate_nodes_absolute).min(nodes)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DynamicResourcesFile {
    binding_timeout: Option<String>,
    filter_timeout: Option<String>,
}

/// Upstream's `filterTimeout` has no effect, which is told: the search for devices on a node ends after a number of steps, not by time.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicResourcesArgs {
    /// How long devices may take to become ready for a pod.
    pub binding_timeout: Duration,
}

impl Default for DynamicResourcesArgs {
    fn default() -> Self {
        Self {
            binding_timeout: Duration::from_secs(600),
        }
    }
}

impl TryFrom<DynamicResourcesFile> for DynamicResourcesArgs {
    type Error = String;

    fn try_from(file: DynamicResourcesFile) -> Result<Self, String> {
        if let Some(text) = file.filter_timeout {
            let timeout = text.parse::<SignedDuration>();
            let timeout = timeout.map_err(|error| format!("filterTimeout: {error}"))?;
            if timeout.is_negative() {
                return Err("filterTimeout: must be zero or positive".into());
            }
        }
        let Some(text) = file.binding_timeout else {
            return Ok(Self::default());
        };
        let timeout = text.parse::<SignedDuration>();
        let timeout = timeout.map_err(|error| format!("bindingTimeout: {error}"))?;
        match Duration::try_from(timeout) {
            Ok(binding_timeout) if binding_timeout >= Duration::from_secs(1) => Ok(Self { binding_timeout }),
            _ => Err("bindingTimeout: must be at least 1 second".into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct VolumeBindingArgs {
    pub bind_timeout_seconds: u64,
}

impl Default for VolumeBindingArgs {
    fn default() -> Self {
        Self {
            bind_timeout_seconds: 600,
        }
    }
}
