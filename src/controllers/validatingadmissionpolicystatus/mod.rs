//! Says in the status of every validating policy what the schemas of its objects have against its expressions
//! (upstream: `pkg/controller/validatingadmissionpolicystatus`).

mod plan;

use super::Context;
use crate::client::ObjectKey;
use crate::client::work_queue::{Next, WorkQueue};
use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicy};
use kube::api::{Api, Patch, PatchParams};
use plan::plan;
use std::sync::Arc;

const NAME: &str = "validatingadmissionpolicy-status-controller";
const WORKERS: usize = 5;

/// Knows the schemas, and the language of the expressions.
pub type TypeCheck = Box<dyn Fn(&ValidatingAdmissionPolicy) -> Vec<ExpressionWarning> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("writing the status of policy {policy}: {source}")]
struct Error {
    policy: ObjectKey,
    source: kube::Error,
}

/// Runs until `shutdown`.
pub async fn run(context: &Context) {
    let policies = context.informers.of::<ValidatingAdmissionPolicy>();
    let api: Api<ValidatingAdmissionPolicy> = Api::all(context.client(NAME));
    let queue = Arc::new(WorkQueue::new("validatingadmissionpolicy-status"));
    let added = Arc::clone(&queue);
    policies.on_change(move |change| {
        if let Some(policy) = &change.new {
            added.add(ObjectKey::of(&**policy));
        }
    });
    if !context.caught_up(policies.synced()).await {
        return;
    }
    let sync = |key: ObjectKey| {
        let (api, policies) = (api.clone(), policies.clone());
        async move {
            let policy = policies.get_key(&key);
            let Some(patch) = policy.and_then(|policy| plan(&policy, &context.type_check)) else {
                return Ok(Next::Done);
            };
            let params = PatchParams::apply(NAME).force();
            match api.patch_status(&key.name, &params, &Patch::Apply(patch)).await {
                Ok(_) => Ok(Next::Done),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
                Err(source) => Err(Error { policy: key, source }),
            }
        }
    };
    queue.run(WORKERS, &context.shutdown, sync).await;
}
