//! Admission policies of users at work (upstream: `apiserver/pkg/admission/plugin/policy`).
//!
//! - this file: the stored policies, compiled when they were written, and their bindings.
//! - [`attributes`]: what policies are told of a request, and whom they may ask.
//! - [`mutating`], [`validating`]: what they do to it.

pub mod attributes;
pub mod mutating;
pub mod validating;

use crate::apiserver::authorization::follower::Mirror;
use crate::registry::json::{items, map, text};
use crate::registry::policy::Policy;
use crate::registry::policy::criteria::Criteria;
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

const VALIDATING: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const VALIDATING_BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
const MUTATING: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
const MUTATING_BINDINGS: &str = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";

/// All policies and bindings.
#[derive(Default)]
pub struct Policies {
    validating: Family,
    mutating: Family,
}

#[derive(Default)]
struct Family {
    policies: BTreeMap<Arc<str>, Compiled>,
    bindings: BTreeMap<Arc<str>, Arc<Binding>>,
    /// What is in force, until something changes.
    hooks: OnceLock<Arc<[Hook]>>,
}

struct Compiled {
    /// Of the object: its status may change without any need to compile it again.
    uid: String,
    generation: i64,
    policy: Arc<Policy>,
}

/// A policy that is bound, and what binds it.
pub struct Hook {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Arc<Binding>>,
}

pub struct Binding {
    pub name: String,
    policy: String,
    /// None matches whatever the policy does.
    pub criteria: Option<Criteria>,
    pub params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

pub struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<Result<LabelSelector, String>>,
    /// Without parameters the request is refused.
    pub denies: bool,
}

impl Policies {
    /// What is in force of validating policies, by name.
    pub fn validating(&self) -> Arc<[Hook]> {
        self.validating.hooks()
    }

    pub fn mutating(&self) -> Arc<[Hook]> {
        self.mutating.hooks()
    }

    fn family(&mut self, resource: &str) -> &mut Family {
        if matches!(resource, VALIDATING | VALIDATING_BINDINGS) {
            &mut self.validating
        } else {
            &mut self.mutating
        }
    }
}

impl Family {
    fn hooks(&self) -> Arc<[Hook]> {
        let hooks = || {
            let mut by_policy: BTreeMap<&str, Vec<Arc<Binding>>> = BTreeMap::new();
            for binding in self.bindings.values() {
                by_policy.entry(&binding.policy).or_default().push(binding.clone());
            }
            let bound = by_policy.into_iter().filter_map(|(name, bindings)| {
                let policy = self.policies.get(name)?.policy.clone();
                Some(Hook { policy, bindings })
            });
            bound.collect()
        };
        self.hooks.get_or_init(hooks).clone()
    }

    fn put_policy(&mut self, entry: &Entry) {
        let Some(object) = read(entry) else { return };
        let uid = text(&object, &["metadata", "uid"]).to_owned();
        let generation = crate::registry::json::number(&object, &["metadata", "generation"]);
        let known = self.policies.get(&entry.key.name);
        if known.is_some_and(|known| known.uid == uid && known.generation == generation) {
            return;
        }
        self.hooks = OnceLock::new();
        let compiled = Compiled {
            uid,
            generation,
            policy: Arc::new(Policy::compile(&object)),
        };
        self.policies.insert(entry.key.name.clone(), compiled);
    }

    fn put_binding(&mut self, entry: &Entry) {
        let Some(object) = read(entry) else { return };
        self.hooks = OnceLock::new();
        self.bindings
            .insert(entry.key.name.clone(), Arc::new(Binding::of(&object)));
    }
}

fn read(entry: &Entry) -> Option<Object> {
    serde_json::from_slice(&entry.bytes)
        .inspect_err(|error| tracing::error!(%error, key = %entry.key, "a stored policy is unreadable"))
        .ok()
}

impl Binding {
    fn of(binding: &Object) -> Self {
        let empty = Object::new();
        let spec = map(binding, &["spec"]).unwrap_or(&empty);
        let params = map(spec, &["paramRef"]).map(|reference| ParamRef {
            name: text(reference, &["name"]).to_owned(),
            namespace: text(reference, &["namespace"]).to_owned(),
            selector: map(reference, &["selector"]).map(LabelSelector::from_object),
            denies: text(reference, &["parameterNotFoundAction"]) == "Deny",
        });
        let actions = items(spec, &["validationActions"]).iter().filter_map(Value::as_str);
        Self {
            name: text(binding, &["metadata", "name"]).to_owned(),
            policy: text(spec, &["policyName"]).to_owned(),
            criteria: map(spec, &["matchResources"]).map(Criteria::of_policy),
            actions: actions.map(str::to_owned).collect(),
            params,
        }
    }
}

impl Mirror for Policies {
    const RESOURCES: &'static [&'static str] = &[VALIDATING, VALIDATING_BINDINGS, MUTATING, MUTATING_BINDINGS];

    fn clear(&mut self, resource: &str) {
        let family = self.family(resource);
        family.hooks = OnceLock::new();
        if matches!(resource, VALIDATING | MUTATING) {
            family.policies.clear();
        } else {
            family.bindings.clear();
        }
    }

    fn put(&mut self, entry: &Entry, _previous: Option<&Entry>) {
        let resource = &*entry.key.resource;
        let family = self.family(resource);
        if matches!(resource, VALIDATING | MUTATING) {
            family.put_policy(entry);
        } else {
            family.put_binding(entry);
        }
    }

    fn remove(&mut self, entry: &Entry) {
        let resource = &*entry.key.resource;
        let family = self.family(resource);
        family.hooks = OnceLock::new();
        if matches!(resource, VALIDATING | MUTATING) {
            family.policies.remove(&entry.key.name);
        } else {
            family.bindings.remove(&entry.key.name);
        }
    }
}
