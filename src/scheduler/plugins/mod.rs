//! Filters and scores, one rule per file (upstream: `pkg/scheduler/framework/plugins`). Which of them a profile has, and in
//! which order, says `configuration::plugins`.

pub mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod taint_toleration;
mod topology_spread;
pub mod volumes;

pub use dynamic_resources::DynamicResources;
pub use image_locality::ImageLocality;
pub use inter_pod_affinity::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_declared_features::NodeDeclaredFeatures;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use node_resources::{BalancedAllocation, Fit, is_extended};
pub use node_unschedulable::NodeUnschedulable;
pub use taint_toleration::TaintToleration;
pub use topology_spread::TopologySpread;
pub use volumes::binding::VolumeBinding;
pub use volumes::limits::NodeVolumeLimits;
pub use volumes::restrictions::VolumeRestrictions;
pub use volumes::zone::VolumeZone;
