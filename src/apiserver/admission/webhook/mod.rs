//! Admission webhooks (upstream: `apiserver/pkg/admission/plugin/webhook`).
//!
//! - this file: the stored configurations, and which of their webhooks are for a request.
//! - [`call`]: what is sent to one, and what its answer means.
//! - [`mutating`], [`validating`]: what they do to a request.

mod call;
pub mod mutating;
pub mod validating;

use super::policy::attributes::{Asked, Attributes};
use crate::apiserver::authorization::follower::Mirror;
use crate::apiserver::conversion;
use crate::apiserver::error::{ApiError, Subject};
use crate::registry::Kind;
use crate::registry::policy::criteria::{Match, MatchError};
use crate::registry::policy::evaluate::{Evaluation, Inputs};
use crate::registry::policy::hook::Hook;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

const NAMESPACES: Subject<'static> = Subject {
    group: "",
    resource: "namespaces",
};

/// All webhooks, by the names of their configurations.
#[derive(Default)]
pub struct Webhooks {
    mutating: Family,
    validating: Family,
}

#[derive(Default)]
struct Family {
    configurations: BTreeMap<Arc<str>, Vec<Arc<Hook>>>,
    all: Arc<[Arc<Hook>]>,
}

impl Webhooks {
    pub fn mutating(&self) -> Arc<[Arc<Hook>]> {
        self.mutating.all.clone()
    }

    pub fn validating(&self) -> Arc<[Arc<Hook>]> {
        self.validating.all.clone()
    }

    fn family(&mut self, resource: &str) -> &mut Family {
        if resource == MUTATING {
            &mut self.mutating
        } else {
            &mut self.validating
        }
    }
}

impl Family {
    fn changed(&mut self) {
        self.all = self.configurations.values().flatten().cloned().collect();
    }
}

impl Mirror for Webhooks {
    const RESOURCES: &'static [&'static str] = &[MUTATING, VALIDATING];

    fn clear(&mut self, resource: &str) {
        let family = self.family(resource);
        family.configurations.clear();
        family.changed();
    }

    fn put(&mut self, entry: &Entry, _previous: Option<&Entry>) {
        let configuration: Object = match serde_json::from_slice(&entry.bytes) {
            Ok(configuration) => configuration,
            Err(error) => {
                tracing::error!(%error, key = %entry.key, "a stored configuration of webhooks is unreadable");
                return;
            }
        };
        let hooks = Hook::all_of(&configuration).into_iter().map(Arc::new).collect();
        let family = self.family(&entry.key.resource);
        family.configurations.insert(entry.key.name.clone(), hooks);
        family.changed();
    }

    fn remove(&mut self, entry: &Entry) {
        let family = self.family(&entry.key.resource);
        family.configurations.remove(&entry.key.name);
        family.changed();
    }
}

/// A request as one webhook is told of it: in the version that it is for.
struct Told<'a> {
    /// None: as it was asked for.
    kind: Option<Arc<Kind>>,
    object: Option<Cow<'a, Object>>,
    old: Option<Cow<'a, Object>>,
}

/// What a webhook is told; None if it is not for the request.
async fn told<'a>(hook: &Hook, attributes: &'a Attributes<'_>) -> Result<Option<Told<'a>>, ApiError> {
    let found = attributes.matches(&hook.criteria).map_err(|error| match error {
        MatchError::Namespace(name) => ApiError::not_found(NAMESPACES, &name),
        MatchError::Selector(_) => ApiError::internal(error),
    })?;
    let kind = match found {
        Match::No => return Ok(None),
        Match::Exactly => None,
        Match::As(kind) => Some(kind),
    };
    let told = Told {
        object: shown(attributes, kind.as_deref(), attributes.object.as_deref()).await?,
        old: shown(attributes, kind.as_deref(), attributes.old.as_deref()).await?,
        kind,
    };
    match holds(hook, attributes, &told) {
        Ok(true) => Ok(Some(told)),
        Ok(false) => Ok(None),
        Err(_) if !hook.fails => Ok(None),
        Err(error) => Err(ApiError::forbidden(
            attributes.subject.kind,
            &attributes.subject.name,
            &error,
        )),
    }
}

/// An object in the version that a webhook is for.
async fn shown<'a>(
    attributes: &Attributes<'_>,
    kind: Option<&Kind>,
    object: Option<&'a Object>,
) -> Result<Option<Cow<'a, Object>>, ApiError> {
    Ok(match (object, kind) {
        (Some(object), Some(kind)) if attributes.subject.subresource != "scale" => {
            let converted = conversion::between(attributes.ctx, attributes.subject.kind, kind, object).await;
            Some(Cow::Owned(converted.map_err(ApiError::internal)?))
        }
        (object, _) => object.map(Cow::Borrowed),
    })
}

/// Whether the conditions of a webhook hold. Err says why that cannot be known.
fn holds(hook: &Hook, attributes: &Attributes<'_>, told: &Told<'_>) -> Result<bool, String> {
    if hook.conditions.0.is_empty() {
        return Ok(true);
    }
    let (request, subject) = (attributes.admission_request(told.kind.as_deref()), attributes.subject());
    let inputs = Inputs {
        object: told.object.as_deref(),
        old: told.old.as_deref(),
        params: None,
        // Upstream tells webhooks' conditions nothing of it.
        namespace: None,
        request: &request,
        authorizer: &Asked(attributes.ctx),
        subject: &subject,
    };
    Evaluation::new(inputs, &[]).holds(&hook.conditions)
}
