//! Volumes that are bound or made before the pod is bound (upstream: `volumebinding`, BindPodVolumes).

use super::{Calls, said};
use crate::scheduler::plugins::volumes::binding::{Bindings, key};
use crate::scheduler::plugins::volumes::{SELECTED_NODE, annotation, is_bound, reaches, volume_of};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

impl Calls {
    /// Tells the volume controllers what was decided, and waits until they have done it.
    pub(super) async fn bind_volumes(&self, bindings: &Bindings, node: &str) -> Result<(), String> {
        for (claim, volume) in &bindings.volumes {
            let meta = &claim.metadata;
            let patch = json!({
                "metadata": {
                    "resourceVersion": volume.metadata.resource_version,
                    "annotations": {"pv.kubernetes.io/bound-by-controller": "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
                    "uid": meta.uid, "resourceVersion": meta.resource_version,
                }},
            });
            let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
            let patched = volumes
                .patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
            patched.map_err(|error| said(&error))?;
        }
        for claim in &bindings.provisions {
            if annotation(claim, SELECTED_NODE) == Some(node) {
                continue;
            }
            let patch = json!({"metadata": {
                "resourceVersion": claim.metadata.resource_version,
                "annotations": {SELECTED_NODE: node},
            }});
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
            let patched = claims
                .patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await;
            let written = patched.map_err(|error| said(&error))?;
            let revision = written.metadata.resource_version.unwrap_or_default();
            self.claims.seen(&revision).await;
        }
        let mut changed = self.storage_changed.clone();
        loop {
            changed.mark_unchanged();
            if self.are_bound(bindings, node)? {
                return Ok(());
            }
            changed
                .changed()
                .await
                .map_err(|_| "binding volumes: context canceled")?;
        }
    }

    fn are_bound(&self, bindings: &Bindings, node: &str) -> Result<bool, String> {
        let of_volumes = bindings.volumes.iter().map(|(claim, _)| (claim, false));
        let of_provisions = bindings.provisions.iter().map(|claim| (claim, true));
        let mut all = true;
        for (claim, provisioned) in of_volumes.chain(of_provisions) {
            let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
            let Some(now) = self.claims.get(&namespace, &name) else {
                return Err(format!("persistentvolumeclaim {name:?} not found"));
            };
            if provisioned && annotation(&now, SELECTED_NODE) != Some(node) {
                // The provisioner cannot do it there.
                return Err(format!("provisioning failed for PVC {:?}", key(claim)));
            }
            if !is_bound(&now) {
                all = false;
                continue;
            }
            let volume = self.volumes.get("", volume_of(&now));
            match (volume, self.nodes.get("", node)) {
                (Some(volume), Some(object)) if !reaches(&object, &volume) => {
                    let volume = volume.name_any();
                    return Err(format!(
                        "pv {volume:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
                    ));
                }
                (Some(_), _) => {}
                (None, _) => all = false,
            }
        }
        Ok(all)
    }
}
