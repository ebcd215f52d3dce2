//! What policies are told of a request, and what they may look up
//! (upstream: `apiserver/pkg/admission/attributes.go`, `plugin/cel/condition.go`, `plugin/policy/generic/policy_dispatcher.go`).

use super::{Binding, Hook, ParamRef};
use crate::apiserver::admission::{Operation, Subject};
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::{RequestInfo, User};
use crate::registry::cel::{self, Access, Account, Authorizer, Check};
use crate::registry::policy::criteria::{Criteria, Match, MatchError, Request, Surroundings};
use crate::registry::policy::{EXEMPT, GROUP, ParamKind, Policy};
use crate::registry::scale;
use crate::registry::strategy::Object;
use crate::registry::{Kind, metadata_index};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// Nothing refuses or changes the configuration of admission itself.
pub fn is_exempt(kind: &Kind) -> bool {
    kind.group == GROUP && EXEMPT.contains(&kind.resource)
}

/// A request before policies.
pub struct Attributes<'a> {
    pub ctx: &'a Context,
    pub subject: &'a Subject<'a>,
    pub object: Option<Cow<'a, Object>>,
    pub old: Option<Cow<'a, Object>>,
    /// Of a Namespace that is its own name.
    namespace: &'a str,
    /// As requests name it.
    operation: &'static str,
}

impl<'a> Attributes<'a> {
    /// What is deleted is only an old object.
    pub fn new(ctx: &'a Context, subject: &'a Subject<'a>, object: &'a Object) -> Self {
        let object = (subject.operation != Operation::Delete).then_some(object);
        let namespace = match subject.kind.resource {
            "namespaces" if subject.kind.group.is_empty() => &subject.name,
            _ => ctx.key_namespace(subject.kind),
        };
        let mut attributes = Self {
            ctx,
            subject,
            object: object.map(Cow::Borrowed),
            old: subject.old.map(Cow::Borrowed),
            namespace,
            operation: match subject.operation {
                Operation::Create => "CREATE",
                Operation::Update => "UPDATE",
                Operation::Delete => "DELETE",
                Operation::Connect => "CONNECT",
            },
        };
        // What goes through `scale` is a Scale.
        if subject.subresource == "scale"
            && let Some(paths) = scale::paths(subject.kind)
        {
            let scaled = |object: Cow<'a, Object>| paths.of(&object).map_or(object, Cow::Owned);
            attributes.object = attributes.object.map(scaled);
            attributes.old = attributes.old.map(scaled);
        }
        attributes
    }

    pub fn request(&self) -> Request<'_> {
        Request {
            kind: self.subject.kind,
            subresource: self.subject.subresource,
            operation: self.operation,
            name: &self.subject.name,
            namespace: self.namespace,
            object: self.object.as_deref(),
            old: self.old.as_deref(),
        }
    }

    pub fn matches(&self, criteria: &Criteria) -> Result<Match, MatchError> {
        criteria.matches(&self.request(), &Around(self.ctx))
    }

    /// In which version a hook is for the request; None if it is not. Err also if a policy that is for the request names a
    /// kind of parameters that is not served.
    pub fn matched(&self, hook: &Hook) -> Result<Option<Option<Arc<Kind>>>, String> {
        let policy = &hook.policy;
        let matched = match self.matches(&policy.constraints).map_err(|error| error.to_string())? {
            Match::No => return Ok(None),
            Match::Exactly => None,
            // Policies are evaluated without waiting for anybody.
            Match::As(kind) if conversion::by_webhook(&kind) => {
                return Err(format!(
                    "unable to convert to {}: policies call no webhook",
                    kind.group_version()
                ));
            }
            Match::As(kind) => Some(kind),
        };
        match &policy.param_kind {
            Some(wanted) if self.param_kind(wanted).is_none() => Err(unknown(wanted)),
            _ => Ok(Some(matched)),
        }
    }

    fn is_bound(&self, binding: &Binding) -> Result<bool, MatchError> {
        match &binding.criteria {
            None => Ok(true),
            Some(criteria) => Ok(!matches!(self.matches(criteria)?, Match::No)),
        }
    }

    /// The parameters of a binding, each of which is an evaluation of its own; one that is None is one without. None if the
    /// binding is not for the request.
    pub fn params(&self, policy: &Policy, binding: &Binding) -> Result<Option<Vec<Option<Object>>>, String> {
        if !self.is_bound(binding).map_err(|error| error.to_string())? {
            return Ok(None);
        }
        let (Some(wanted), Some(reference)) = (&policy.param_kind, &binding.params) else {
            return Ok(Some(vec![None]));
        };
        let kind = self.param_kind(wanted).ok_or_else(|| unknown(wanted))?;
        let found = self.find_params(&kind, reference)?;
        if found.is_empty() && reference.denies {
            return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
        }
        Ok(Some(found.into_iter().map(Some).collect()))
    }

    fn param_kind(&self, wanted: &ParamKind) -> Option<Arc<Kind>> {
        let (group, version) = split(&wanted.api_version);
        self.ctx.server.registry.lookup_kind(group, version, &wanted.kind)
    }

    fn find_params(&self, kind: &Kind, reference: &ParamRef) -> Result<Vec<Object>, String> {
        let namespace = match (kind.namespaced(), reference.namespace.as_str()) {
            (false, "") => "",
            (false, _) => {
                return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
            }
            (true, "") if self.namespace.is_empty() => {
                let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(why.to_owned());
            }
            (true, "") => self.namespace,
            (true, namespace) => namespace,
        };
        let storage = self.ctx.storage();
        let read = |entry: &crate::storage::Entry| stored::object(kind, entry).map_err(|error| error.to_string());
        if !reference.name.is_empty() {
            let found = storage.get(kind.storage_resource, namespace, &reference.name);
            return found.iter().map(|entry| read(entry)).collect();
        }
        let selector = match &reference.selector {
            Some(selector) => selector.as_ref().map_err(Clone::clone)?,
            None => return Err("one of name or selector must be provided".to_owned()),
        };
        let within = kind.namespaced().then_some(namespace);
        let snapshot = storage
            .list(kind.storage_resource, within, None)
            .map_err(|error| error.to_string())?;
        let selected = snapshot.entries.iter().filter(|entry| selector.matches(&entry.index));
        selected.map(|entry| read(entry)).collect()
    }

    /// The namespace that the object is in, if it is in one.
    pub fn namespace_object(&self) -> Result<Option<Object>, ApiError> {
        if self.namespace.is_empty() || self.subject.kind.resource == "namespaces" {
            return Ok(None);
        }
        let registry = &self.ctx.server.registry;
        let kind = registry
            .lookup("", "v1", "namespaces")
            .ok_or_else(ApiError::unknown_resource)?;
        match self.ctx.storage().get("namespaces", "", self.namespace) {
            Some(entry) => stored::object(&kind, &entry).map(Some),
            None => Err(ApiError::not_found(&*kind, self.namespace)),
        }
    }

    /// The AdmissionRequest without its objects; `matched` is the version that the policy is for.
    pub fn admission_request(&self, matched: Option<&Kind>) -> Object {
        let Subject {
            kind,
            subresource,
            name,
            dry_run,
            ..
        } = self.subject;
        let user = &self.ctx.user;
        let matched = matched.unwrap_or(kind);
        // What goes through a subresource may be of another kind.
        let of_kind = |kind: &Kind| match kind.subresource(subresource) {
            Some(sub) => json!({"group": sub.group, "version": sub.version, "kind": sub.kind}),
            None => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        };
        let of_resource =
            |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.resource});
        let mut request = Map::new();
        let mut set = |field: &str, value: Value| request.insert(field.to_owned(), value);
        set("uid", json!(""));
        set("kind", of_kind(matched));
        set("resource", of_resource(matched));
        set("requestKind", of_kind(kind));
        set("requestResource", of_resource(kind));
        if !subresource.is_empty() {
            set("subResource", json!(subresource));
            set("requestSubResource", json!(subresource));
        }
        if !name.is_empty() {
            set("name", json!(name));
        }
        if !self.namespace.is_empty() {
            set("namespace", json!(self.namespace));
        }
        set("operation", json!(self.operation));
        set("userInfo", user_info(user));
        set("dryRun", json!(dry_run));
        set("options", self.options());
        request
    }

    /// The options of the request.
    fn options(&self) -> Value {
        let kind = match (self.subject.operation, self.ctx.info.verb.as_str()) {
            (Operation::Create, _) => "CreateOptions",
            (Operation::Update, "patch") => "PatchOptions",
            (Operation::Update, _) => "UpdateOptions",
            (Operation::Delete, _) => "DeleteOptions",
            (Operation::Connect, _) => return Value::Null,
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        for field in ["fieldManager", "fieldValidation", "propagationPolicy"] {
            if let Some(value) = self.ctx.query.get(field).filter(|value| !value.is_empty()) {
                options[field] = json!(value);
            }
        }
        if self.subject.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if let Some(deletion) = self.subject.deletion {
            let given = [
                ("gracePeriodSeconds", deletion.grace_period_seconds.map(Value::from)),
                (
                    "propagationPolicy",
                    deletion.propagation.map(|policy| policy.name().into()),
                ),
            ];
            for (field, value) in given {
                if let Some(value) = value {
                    options[field] = value;
                }
            }
            for (field, value) in [("uid", &deletion.uid), ("resourceVersion", &deletion.resource_version)] {
                if let Some(value) = value {
                    options["preconditions"][field] = json!(value);
                }
            }
        }
        options
    }

    /// What the request is about, for `authorizer.requestResource`.
    pub fn subject(&self) -> cel::Subject {
        cel::Subject {
            group: self.subject.kind.group.to_owned(),
            resource: self.subject.kind.resource.to_owned(),
            subresource: self.subject.subresource.to_owned(),
            namespace: self.namespace.to_owned(),
            name: self.subject.name.clone(),
            ..cel::Subject::default()
        }
    }
}

fn unknown(wanted: &ParamKind) -> String {
    let (group, version) = split(&wanted.api_version);
    format!(
        "failed to find resource referenced by paramKind: '{group}/{version}, Kind={}'",
        wanted.kind
    )
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    for (field, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            info.insert(field.to_owned(), json!(value));
        }
    }
    if !user.groups.is_empty() {
        info.insert("groups".to_owned(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".to_owned(), json!(user.extra));
    }
    Value::Object(info)
}

/// The object in the version that a policy is for.
pub fn in_version<'a>(
    attributes: &Attributes<'_>,
    matched: Option<&Kind>,
    object: Option<&'a Object>,
) -> Option<Cow<'a, Object>> {
    let object = object?;
    Some(match matched {
        Some(kind) if attributes.subject.subresource != "scale" => {
            Cow::Owned(stored::converted(attributes.subject.kind, kind, object))
        }
        _ => Cow::Borrowed(object),
    })
}

struct Around<'a>(&'a Context);

impl Surroundings for Around<'_> {
    fn namespace_labels(&self, name: &str) -> Option<Vec<(String, String)>> {
        let entry = self.0.storage().get("namespaces", "", name)?;
        let object: Object = serde_json::from_slice(&entry.bytes).ok()?;
        Some(metadata_index(&object).labels)
    }

    fn versions(&self, kind: &Kind) -> Vec<Arc<Kind>> {
        let kinds = self.0.server.registry.kinds();
        kinds
            .filter(|other| other.storage_resource == kind.storage_resource)
            .collect()
    }
}

/// Answers for the user of the request, or for a service account.
pub struct Asked<'a>(pub &'a Context);

impl Authorizer for Asked<'_> {
    fn decide(&self, account: Option<&Account>, check: &Check) -> Access {
        let account = account.map(|Account { namespace, name }| User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ],
            ..User::default()
        });
        let info = match check {
            Check::Path { path, verb } => RequestInfo {
                path: path.clone(),
                verb: verb.clone(),
                ..RequestInfo::default()
            },
            Check::Resource { subject, verb } => RequestInfo {
                is_resource_request: true,
                verb: verb.clone(),
                api_group: subject.group.clone(),
                api_version: "*".to_owned(),
                resource: subject.resource.clone(),
                subresource: subject.subresource.clone(),
                namespace: subject.namespace.clone(),
                name: subject.name.clone(),
                selected_fields: crate::apiserver::request::equal_fields(&subject.field_selector),
                ..RequestInfo::default()
            },
        };
        let user = account.as_ref().unwrap_or(&self.0.user);
        let decision = self.0.server.authorizer.decide(user, &info);
        Access {
            allowed: decision.is_allowed(),
            reason: decision.reason(),
        }
    }
}
