//! The pods that a Job makes (upstream: `pkg/controller/job/indexed_job_utils.go`, `manageJob`).

use super::pod::{self, FINALIZER, Failures, INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use super::policies::judge;
use crate::controllers::pods::from_template;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use std::sync::Arc;

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// What the API server leaves of a generateName.
const PREFIX_BYTES_MAX: usize = 58;

/// A pod that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewPod {
    pub index: Option<i32>,
    /// The failed pod of the same index, whose failures it takes over.
    pub replaces: Option<Arc<Pod>>,
}

/// The pod that `new` stands for.
pub fn pod_of(job: &Job, new: &NewPod) -> Pod {
    let Some(spec) = &job.spec else { return Pod::default() };
    let mut pod = from_template(job, &spec.template);
    let meta = &mut pod.metadata;
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = new.index else { return pod };
    let name = job.metadata.name.as_deref().unwrap_or_default();
    meta.generate_name = Some(prefix(name, index));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        let failures = new.replaces.as_deref().map(|replaced| failures_with(job, replaced));
        let failures = failures.unwrap_or_default();
        annotations.insert(INDEX_FAILURES.to_owned(), failures.counted.to_string());
        if failures.ignored > 0 {
            annotations.insert(INDEX_IGNORED_FAILURES.to_owned(), failures.ignored.to_string());
        }
    }
    let labels = meta.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        let init = spec.init_containers.iter_mut().flatten();
        init.chain(&mut spec.containers).for_each(index_variable);
    }
    pod
}

/// The failures of an index once `failed` counts, too.
fn failures_with(job: &Job, failed: &Pod) -> Failures {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref());
    let mut failures = pod::failures_of_index(failed);
    if judge(policy, failed).counts() {
        failures.counted = failures.counted.saturating_add(1);
    } else {
        failures.ignored = failures.ignored.saturating_add(1);
    }
    failures
}

/// `job-7-`, with the job's name cut where that is too long.
fn prefix(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let room = PREFIX_BYTES_MAX.saturating_sub(end.len());
    format!("{}{end}", &name[..name.len().min(room)])
}

fn index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value) -> Job {
        let template = json!({
            "metadata": {"labels": {"a": "b"}},
            "spec": {"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [
                {"name": "c", "env": [{"name": "X", "value": "y"}]},
                {"name": "own", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]},
            ]},
        });
        let mut value =
            json!({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": {"template": template}});
        let more = spec.as_object().unwrap().clone();
        value["spec"].as_object_mut().unwrap().extend(more);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn pods_without_and_with_an_index() {
        let plain = pod_of(
            &job(json!({})),
            &NewPod {
                index: None,
                replaces: None,
            },
        );
        let plain = serde_json::to_value(plain).unwrap();
        assert_eq!(plain["metadata"]["generateName"], "j-");
        assert_eq!(plain["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(plain["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(plain["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(plain["spec"]["hostname"], Value::Null);

        let failed: Pod = serde_json::from_value(json!({"metadata": {"annotations": {INDEX_FAILURES: "2"}},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}}))
        .unwrap();
        let policy = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
        let job = job(json!({"backoffLimitPerIndex": 5, "podFailurePolicy": policy}));
        let new = NewPod {
            index: Some(7),
            replaces: Some(Arc::new(failed)),
        };
        let indexed = serde_json::to_value(pod_of(&job, &new)).unwrap();
        assert_eq!(indexed["metadata"]["generateName"], "j-7-");
        let annotations = json!({INDEX: "7", INDEX_FAILURES: "2", INDEX_IGNORED_FAILURES: "1"});
        assert_eq!(indexed["metadata"]["annotations"], annotations);
        assert_eq!(indexed["metadata"]["labels"], json!({"a": "b", INDEX: "7"}));
        assert_eq!(indexed["spec"]["hostname"], "j-7");
        let variable = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef":
            {"fieldPath": "metadata.labels['batch.kubernetes.io/job-completion-index']"}}});
        assert_eq!(indexed["spec"]["initContainers"][0]["env"], json!([variable]));
        assert_eq!(indexed["spec"]["containers"][0]["env"][1], variable);
        assert_eq!(indexed["spec"]["containers"][1]["env"][0]["value"], "mine");
    }

    #[test]
    fn long_names_are_cut_before_the_index() {
        let long = "x".repeat(63);
        assert_eq!(prefix("j", 3), "j-3-");
        assert_eq!(prefix(&long, 12345).len(), PREFIX_BYTES_MAX);
        assert!(prefix(&long, 12345).ends_with("x-12345-"));
    }
}
