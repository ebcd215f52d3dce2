//! Who may do what (upstream: `apiserver/pkg/authorization`, `pkg/kubeapiserver/authorizer`): members of
//! `system:masters` may do everything, then the node authorizer and RBAC are asked. What none allows is refused.
//!
//! - [`rule`]: what a rule of a role allows.
//! - [`rbac`]: roles and bindings, indexed by whom they are bound to.
//! - [`node`]: what kubelets may do.
//! - [`escalation`]: nobody grants what they do not hold.
//! - [`bootstrap`]: the roles and bindings that every cluster has.
//! - [`follower`]: how indexes follow the store.

pub mod bootstrap;
pub mod escalation;
pub mod follower;
pub mod node;
pub mod rbac;
pub mod rule;

use super::request::{RequestInfo, User};
use crate::storage::Storage;
use follower::Follower;
use node::NodeAuthorizer;
use rbac::{Grant, Policy, RoleRef};
use rule::Rule;
use std::fmt;
use std::sync::Arc;

/// Members may do everything.
pub const PRIVILEGED_GROUP: &str = "system:masters";

/// Decides from the roles, bindings and pods in the store, in memory.
pub struct Authorizer {
    node: NodeAuthorizer,
    policy: Follower<Policy>,
}

/// The outcome. Nothing is ever denied for good: what nobody allows is refused in the end.
#[derive(Debug)]
pub enum Decision {
    Allowed(Reason),
    /// Why not, as far as anybody says; often empty.
    NoOpinion(String),
}

/// Why something is allowed; spelt out only where somebody asks.
#[derive(Debug)]
pub enum Reason {
    Privileged,
    Node,
    Granted(Grant),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Privileged | Reason::Node => Ok(()),
            Reason::Granted(grant) => grant.fmt(f),
        }
    }
}

impl Decision {
    /// Why, in words; often empty.
    pub fn reason(&self) -> String {
        match self {
            Decision::Allowed(reason) => reason.to_string(),
            Decision::NoOpinion(reason) => reason.clone(),
        }
    }

    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed(_))
    }
}

/// What a user may do in a namespace, as far as it can be listed.
pub struct HeldRules {
    pub rules: Vec<Rule>,
    /// What could not be found out; empty if that is all.
    pub errors: Vec<String>,
}

impl Authorizer {
    pub fn new(storage: &Arc<Storage>) -> Self {
        Self {
            node: NodeAuthorizer::new(storage.clone(), bootstrap::rules_of("system:node")),
            policy: Follower::new(storage.clone()),
        }
    }

    pub fn decide(&self, user: &User, info: &RequestInfo) -> Decision {
        if user.groups.iter().any(|group| group == PRIVILEGED_GROUP) {
            return Decision::Allowed(Reason::Privileged);
        }
        let mut reasons = Vec::new();
        match self.node.decide(user, info) {
            Some(Ok(())) => return Decision::Allowed(Reason::Node),
            Some(Err(reason)) => reasons.push(reason),
            None => {}
        }
        match self.policy.read().allows(user, info) {
            Ok(grant) => return Decision::Allowed(Reason::Granted(grant)),
            Err(lost) if lost.is_empty() => {}
            Err(lost) => {
                let texts: Vec<String> = lost.iter().map(ToString::to_string).collect();
                reasons.push(match texts.as_slice() {
                    [one] => format!("RBAC: {one}"),
                    several => format!("RBAC: [{}]", several.join(", ")),
                });
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// For members of the privileged group that is nothing of its own: upstream lists their roles, too.
    pub fn rules_for(&self, user: &User, namespace: &str) -> HeldRules {
        let policy = self.policy.read();
        let (rules, lost) = policy.rules_for(user, namespace);
        let mut errors: Vec<String> = lost.iter().map(ToString::to_string).collect();
        if node::node_of(user).is_some() {
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        HeldRules {
            rules: rules.into_iter().cloned().collect(),
            errors,
        }
    }

    /// The rules of a role that a binding in `namespace` (empty: cluster-wide) names.
    fn rules_of(&self, role: &RoleRef, namespace: &str) -> Option<Vec<Rule>> {
        let policy = self.policy.read();
        policy.rules_of(role, namespace).ok().map(<[Rule]>::to_vec)
    }
}
