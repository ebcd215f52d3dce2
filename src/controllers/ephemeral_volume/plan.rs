//! The claims that a pod's ephemeral volumes lack. Pure.

use crate::controllers::claims::{claim_name, is_made_for, volumes};
use crate::controllers::ownership::controller_ref;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::sync::Arc;

/// A volume, and why its claim cannot be made.
#[derive(Debug, PartialEq)]
pub struct Problem {
    pub volume: String,
    pub reason: String,
}

pub fn is_concerned(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && volumes(pod).iter().any(|volume| volume.ephemeral.is_some())
}

/// The claims to make, each with its volume's name, up to the first problem.
pub fn missing(
    pod: &Pod,
    held: impl Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
) -> (Vec<(String, PersistentVolumeClaim)>, Option<Problem>) {
    let mut claims = Vec::new();
    if pod.metadata.deletion_timestamp.is_some() {
        return (claims, None);
    }
    for volume in volumes(pod) {
        let template = volume
            .ephemeral
            .as_ref()
            .and_then(|source| source.volume_claim_template.as_ref());
        let (Some(template), Some(name)) = (template, claim_name(pod, volume)) else {
            continue;
        };
        match held(&name) {
            Some(claim) if is_made_for(&claim, pod) => {}
            Some(_) => {
                let namespace = pod.namespace().unwrap_or_default();
                let pod = pod.name_any();
                let reason =
                    format!("PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)");
                let volume = volume.name.clone();
                return (claims, Some(Problem { volume, reason }));
            }
            None => {
                let described = template.metadata.clone().unwrap_or_default();
                let claim = PersistentVolumeClaim {
                    metadata: ObjectMeta {
                        name: Some(name),
                        namespace: pod.metadata.namespace.clone(),
                        annotations: described.annotations,
                        labels: described.labels,
                        owner_references: Some(vec![controller_ref(pod)]),
                        ..Default::default()
                    },
                    spec: Some(template.spec.clone()),
                    status: None,
                };
                claims.push((volume.name.clone(), claim));
            }
        }
    }
    (claims, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn situations() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"containers": [], "volumes": [
                {"name": "other", "emptyDir": {}}, {"name": "data", "ephemeral": {"volumeClaimTemplate": template}}]},
        }))
        .unwrap();
        assert!(is_concerned(&pod));
        let (made, problem) = missing(&pod, |_| None);
        assert_eq!(problem, None);
        let (volume, claim) = &made[0];
        assert_eq!(
            (volume.as_str(), claim.name_any().as_str(), claim.labels()["a"].as_str()),
            ("data", "p-data", "b")
        );
        assert!(is_made_for(claim, &pod));
        let held = Arc::new(claim.clone());
        assert_eq!(missing(&pod, |_| Some(held.clone())), (vec![], None));
        let mut foreign = claim.clone();
        foreign.metadata.owner_references = None;
        let foreign = Arc::new(foreign);
        let (none, problem) = missing(&pod, |_| Some(foreign.clone()));
        assert!(none.is_empty());
        assert_eq!(
            problem.unwrap().reason,
            "PVC a/p-data was not created for pod a/p (pod is not owner)"
        );
        pod.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().into());
        assert!(!is_concerned(&pod) && missing(&pod, |_| None).0.is_empty());
    }
}
