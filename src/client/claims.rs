//! Claims as the controllers and the node agent know them (upstream: `component-helpers/storage`).

use k8s_openapi::api::core::v1::{Pod, Volume};

/// On volumes that were made for a claim: who made them.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The built-in provisioner, which makes directories on the node.
pub const LOCAL_PATH: &str = "krust.dev/local-path";

/// The claim of a volume, if it has one: given by name, or made for the pod.
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    let pod = pod.metadata.name.as_deref().unwrap_or_default();
    Some(format!("{pod}-{}", volume.name))
}
