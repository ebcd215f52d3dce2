//! Nodes that have the pod's images are better, the more so the larger they are (upstream: `imagelocality`).

use crate::scheduler::framework::{Cx, Event, EventKind, Plugin, SCORE_MAX, Score};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

const MEGABYTE: i64 = 1024 * 1024;
/// Below this an image does not matter.
const SIZE_MIN: i64 = 23 * MEGABYTE;
/// Beyond this per container it cannot matter more.
const SIZE_MAX: i64 = 1000 * MEGABYTE;

pub struct ImageLocality;

struct Images {
    /// Name, and the share of the nodes that have it.
    wanted: Vec<(String, f64)>,
}

/// Names of images without a tag mean `latest`.
fn with_tag(image: &str) -> String {
    let after_path = image.rsplit('/').next().unwrap_or(image);
    if after_path.contains(':') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
    fn pre_score<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        let spec = pod.spec();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let of_containers = containers.map(|container| container.image.as_deref());
        let of_volumes = pod.volumes().iter().filter_map(|volume| volume.image.as_ref());
        let of_volumes = of_volumes.map(|image| image.reference.as_deref());
        let names = of_containers
            .chain(of_volumes)
            .map(|name| with_tag(name.unwrap_or_default()));
        let all = cx.cache.order().len().max(1) as f64;
        let wanted: Vec<(String, f64)> = names
            .map(|name| {
                let spread = f64::from(cx.cache.image_nodes(&name)) / all;
                (name, spread)
            })
            .collect();
        // No node has any: all are the same.
        if wanted.iter().all(|(_, spread)| *spread == 0.0) {
            return None;
        }
        Some(Box::new(Images { wanted }))
    }
    fn listens(&self, _: EventKind) -> bool {
        false
    }
    fn may_help(&self, _: Cx<'_>, _: &PodInfo, _: &Event<'_>) -> bool {
        false
    }
}

impl Score for Images {
    fn score(&self, node: &NodeInfo) -> i64 {
        let weighed = |(name, spread): &(String, f64)| {
            let size = node.images.get(name).copied().unwrap_or(0);
            (size as f64 * spread) as i64
        };
        let sum: i64 = self.wanted.iter().map(weighed).sum();
        let highest = SIZE_MAX * self.wanted.len() as i64;
        SCORE_MAX * (sum.clamp(SIZE_MIN, highest) - SIZE_MIN) / (highest - SIZE_MIN)
    }
}
