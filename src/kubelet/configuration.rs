//! The kubelet's configuration in upstream's form, as `/configz` shows it: what is said is so, and the rest is left out
//! (upstream: `k8s.io/kubelet/config/v1beta1` KubeletConfiguration).

use super::KubeletOptions;
use super::eviction::threshold::Threshold;
use super::pod::go_duration;
use serde_json::{Value, json};

pub fn describe(options: &KubeletOptions) -> Value {
    let eviction = &options.eviction;
    type Shown = fn(&Threshold) -> Option<String>;
    let thresholds = |hard: bool, shown: Shown| -> serde_json::Map<String, Value> {
        let all = eviction.thresholds.iter().filter(|one| one.is_hard() == hard);
        all.filter_map(|one| Some((one.signal.name().to_owned(), json!(shown(one)?))))
            .collect()
    };
    let value: Shown = |one| Some(one.value.to_string());
    let reclaim: Shown = |one| one.minimum_reclaim.map(|reclaim| reclaim.to_string());
    let mut reclaims = thresholds(true, reclaim);
    reclaims.extend(thresholds(false, reclaim));
    let periods = options.shutdown_periods.iter();
    let periods =
        periods.map(|period| json!({"priority": period.priority, "shutdownGracePeriodSeconds": period.seconds}));
    let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
    let images = &options.policy.images;
    let mut described = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": options.listen.ip().to_string(),
        "port": options.listen.port(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "clusterDNS": options.cluster_dns,
        "clusterDomain": crate::kubelet::sandbox::CLUSTER_DOMAIN,
        "evictionHard": thresholds(true, value),
        "evictionMaxPodGracePeriod": eviction.pod_grace_seconds_max,
        "evictionMinimumReclaim": reclaims,
        "evictionPressureTransitionPeriod": go_duration(eviction.pressure_transition),
        "evictionSoft": thresholds(false, value),
        "evictionSoftGracePeriod": thresholds(false, |one| Some(go_duration(one.grace))),
        "imageGCHighThresholdPercent": images.garbage.high_percent,
        "imageGCLowThresholdPercent": images.garbage.low_percent,
        "imageMaximumGCAge": seconds(images.garbage.age_max),
        "imageMinimumGCAge": seconds(images.garbage.age_min),
        "maxPods": options.pods_max,
        "nodeLeaseDurationSeconds": 40,
        "nodeStatusReportFrequency": "5m0s",
        "nodeStatusUpdateFrequency": "10s",
        "registryPullQPS": 0,
        "serializeImagePulls": images.pulls_max == 1,
        "shutdownGracePeriodByPodPriority": periods.collect::<Vec<_>>(),
        "streamingConnectionIdleTimeout": "4h0m0s",
    });
    if images.pulls_max > 1 {
        described["maxParallelImagePulls"] = json!(images.pulls_max);
    }
    described
}
