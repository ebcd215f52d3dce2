//! A profile: which plug-ins have a say about the pods of one schedulerName (upstream: `pkg/scheduler/profile`).

use super::configuration::args::PreemptionArgs;
use super::framework::Plugin;
use std::sync::Arc;

/// How long a pod may wait for what it needs before it is bound.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub volumes: std::time::Duration,
    pub devices: std::time::Duration,
}

pub struct Profile {
    pub scheduler_name: String,
    /// Of the nodes that can take a pod, so many percent are enough; 0: fewer the more nodes there are.
    pub nodes_to_score_percentage: usize,
    /// In the order in which they are asked.
    pub filters: Vec<Arc<dyn Plugin>>,
    /// With their weights.
    pub scorers: Vec<(Arc<dyn Plugin>, i64)>,
    /// None: no pod is taken away for another.
    pub preemption: Option<PreemptionArgs>,
    /// Claims for devices are looked after.
    pub dynamic_resources: bool,
    pub timeouts: Timeouts,
}

impl Profile {
    pub fn filter(&self, name: &str) -> Option<&Arc<dyn Plugin>> {
        self.filters.iter().find(|plugin| plugin.name() == name)
    }

    /// How many nodes that can take the pod are enough. `others_choose`: extenders do.
    pub fn nodes_to_find(&self, nodes: usize, others_choose: bool) -> usize {
        const FEW: usize = 100;
        if self.scorers.is_empty() && !others_choose {
            return 1;
        }
        if nodes < FEW {
            return nodes;
        }
        let percentage = match self.nodes_to_score_percentage {
            0 => 50usize.saturating_sub(nodes / 125).max(5),
            percentage => percentage,
        };
        (nodes * percentage / 100).max(FEW)
    }
}

#[cfg(test)]
mod tests {
    use crate::scheduler::configuration::Configuration;

    #[test]
    fn large_clusters_are_not_searched_whole() {
        let mut profile = Configuration::default().profiles().remove(0);
        for (percentage, nodes, expected) in [
            (0, 10, 10),
            (0, 99, 99),
            (0, 100, 100),
            (0, 1000, 420),
            (0, 6000, 300),
            (0, 20_000, 1000),
            (100, 5000, 5000),
            (10, 500, 100),
        ] {
            profile.nodes_to_score_percentage = percentage;
            assert_eq!(
                profile.nodes_to_find(nodes, false),
                expected,
                "{percentage} % of {nodes}"
            );
        }
        profile.scorers.clear();
        assert_eq!(profile.nodes_to_find(500, false), 1);
        assert_eq!(profile.nodes_to_find(500, true), 100);
    }
}
