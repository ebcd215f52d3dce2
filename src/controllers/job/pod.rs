//! What the pods of a Job carry: the finalizer, their index, and how often the index has failed (upstream:
//! `pkg/controller/job/tracking_utils.go`, `indexed_job_utils.go`).

use k8s_openapi::api::core::v1::Pod;

/// Keeps a pod until it is counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// The failures of an index before this pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    pub counted: i32,
    /// Those that a policy says not to count.
    pub ignored: i32,
}

impl Failures {
    pub fn total(self) -> i32 {
        self.counted.saturating_add(self.ignored)
    }
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the pod is still to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    let finalizers = pod.metadata.finalizers.iter().flatten();
    finalizers.into_iter().any(|finalizer| finalizer == FINALIZER)
}

fn number(pod: &Pod, annotation: &str) -> Option<i32> {
    let value = pod.metadata.annotations.as_ref()?.get(annotation)?;
    value.parse().ok().filter(|number| *number >= 0)
}

/// The pod's completion index; None if it has none, or no valid one.
pub fn index(pod: &Pod) -> Option<i32> {
    number(pod, INDEX)
}

/// What users may have made of the annotations counts as nothing.
pub fn failures_of_index(pod: &Pod) -> Failures {
    Failures {
        counted: number(pod, INDEX_FAILURES).unwrap_or(0),
        ignored: number(pod, INDEX_IGNORED_FAILURES).unwrap_or(0),
    }
}
