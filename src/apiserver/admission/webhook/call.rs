//! What is sent to a webhook, and what its answer means
//! (upstream: `plugin/webhook/request/admissionreview.go`, `plugin/webhook/{mutating,validating}/dispatcher.go`).

use super::Told;
use crate::apiserver::admission::policy::attributes::Attributes;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::webhook_client;
use crate::registry::json::{items, map, text};
use crate::registry::policy::hook::Hook;
use crate::registry::schema::syntax_error;
use crate::registry::strategy::Object;
use base64::Engine as _;
use serde_json::{Value, json};
use std::borrow::Cow;

/// The operations of a JSON patch; none from those that only look.
pub type Patch = Vec<Object>;

/// What a webhook is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Changes,
    Consent,
}

/// A review that is ready to be sent.
pub struct Review {
    uid: String,
    body: Value,
}

impl Review {
    pub fn of(hook: &Hook, attributes: &Attributes<'_>, told: &Told<'_>) -> Result<Self, ApiError> {
        if attributes.subject.dry_run && !hook.harmless {
            return Err(ApiError::bad_request(format!(
                "admission webhook {:?} does not support dry run",
                hook.name
            )));
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let mut request = attributes.admission_request(told.kind.as_deref());
        let shown = |object: &Option<Cow<'_, Object>>| object.as_deref().map_or(Value::Null, |object| json!(object));
        request.insert("uid".to_owned(), json!(uid));
        request.insert("object".to_owned(), shown(&told.object));
        request.insert("oldObject".to_owned(), shown(&told.old));
        let body = json!({"kind": "AdmissionReview", "apiVersion": hook.review_version, "request": request});
        Ok(Self { uid, body })
    }
}

/// Calls a webhook. Err is the refusal, or that the call failed where the webhook's policy does not ignore that.
pub async fn call(ctx: &Context, hook: &Hook, review: &Review, asks: Asks) -> Result<Patch, ApiError> {
    let timeout = ctx.time_left().map_or(hook.timeout, |left| left.min(hook.timeout));
    let sent = webhook_client::exchange(ctx.storage(), &hook.client, timeout, &review.body).await;
    let sent = sent.map_err(|why| format!("failed to call webhook: {why}"));
    let answered = sent.and_then(|answer| {
        verified(&answer, hook.review_version, &review.uid, asks)
            .map_err(|why| format!("received invalid webhook response: {why}"))
    });
    let failed = |why: String| {
        let (webhook, refused) = (&hook.name, hook.fails);
        tracing::warn!(webhook, refused, why, "an admission webhook could not be asked");
        if !hook.fails {
            return Ok(Patch::new());
        }
        Err(ApiError::internal(format_args!(
            "failed calling webhook {webhook:?}: {why}"
        )))
    };
    let response = match answered {
        Ok(response) => response,
        Err(why) => return failed(why),
    };
    for warning in items(&response, &["warnings"]).iter().filter_map(Value::as_str) {
        ctx.warnings.add(warning);
    }
    if response.get("allowed") != Some(&Value::Bool(true)) {
        return Err(ApiError::denied_by_webhook(&hook.name, map(&response, &["status"])));
    }
    match asks {
        Asks::Consent => Ok(Patch::new()),
        Asks::Changes => patch(&response).or_else(failed),
    }
}

/// The response of a review, if it is a valid answer to it.
fn verified(answer: &Object, version: &str, uid: &str, asks: Asks) -> Result<Object, String> {
    let response = map(answer, &["response"]).ok_or("webhook response was absent")?;
    // Nothing of this was asked of the older version.
    if version != "admission.k8s.io/v1" {
        return Ok(response.clone());
    }
    let got = text(response, &["uid"]);
    if got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let (api_version, kind) = (text(answer, &["apiVersion"]), text(answer, &["kind"]));
    if api_version != version || kind != "AdmissionReview" {
        let api_version = if api_version.contains('/') {
            api_version.to_owned()
        } else {
            format!("/{api_version}")
        };
        return Err(format!(
            "expected webhook response of {version}, Kind=AdmissionReview, got {api_version}, Kind={kind}"
        ));
    }
    let has_patch = !text(response, &["patch"]).is_empty();
    let patch_type = response.get("patchType").and_then(Value::as_str);
    match (asks, has_patch, patch_type) {
        (Asks::Consent, true, _) => Err("validating webhook may not return response.patch".to_owned()),
        (Asks::Consent, false, Some(_)) => Err("validating webhook may not return response.patchType".to_owned()),
        (Asks::Changes, true, None) => Err("webhook returned response.patch but not response.patchType".to_owned()),
        (Asks::Changes, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".to_owned()),
        (Asks::Changes, true, Some("")) => Err("webhook returned invalid response.patchType of \"\"".to_owned()),
        _ => Ok(response.clone()),
    }
}

fn patch(response: &Object) -> Result<Patch, String> {
    let encoded = text(response, &["patch"]);
    if encoded.is_empty() {
        return Ok(Patch::new());
    }
    match text(response, &["patchType"]) {
        "" | "JSONPatch" => {}
        other => return Err(format!("unsupported patch type {other:?}")),
    }
    let undecodable = |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map_err(|error| undecodable(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| undecodable(syntax_error(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_held_to_their_version() {
        const V1: &str = "admission.k8s.io/v1";
        let check = |answer: Value, version: &str, asks: Asks| {
            verified(answer.as_object().unwrap(), version, "u", asks).map(|_| ())
        };
        let review = |more: Value| {
            let mut response = json!({"uid": "u", "allowed": true});
            for (field, value) in more.as_object().unwrap() {
                response[field] = value.clone();
            }
            json!({"apiVersion": V1, "kind": "AdmissionReview", "response": response})
        };
        let patch = json!({"patch": "W10=", "patchType": "JSONPatch"});
        let table = [
            (json!({}), Asks::Consent, "webhook response was absent"),
            (
                review(json!({"uid": "v"})),
                Asks::Consent,
                "expected response.uid=\"u\", got \"v\"",
            ),
            (
                json!({"response": {"uid": "u"}}),
                Asks::Consent,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
            (
                review(patch.clone()),
                Asks::Consent,
                "validating webhook may not return response.patch",
            ),
            (
                review(json!({"patch": "W10="})),
                Asks::Changes,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                review(json!({"patchType": "JSONPatch"})),
                Asks::Changes,
                "webhook returned response.patchType but not response.patch",
            ),
        ];
        for (answer, asks, expected) in table {
            assert_eq!(check(answer, V1, asks), Err(expected.to_owned()));
        }
        assert_eq!(check(review(patch), V1, Asks::Changes), Ok(()));
        let old = json!({"response": {"patch": "W10="}});
        assert_eq!(check(old, "admission.k8s.io/v1beta1", Asks::Changes), Ok(()));
    }
}
