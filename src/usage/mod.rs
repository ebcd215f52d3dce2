//! What objects use of a ResourceQuota (upstream: `apiserver/pkg/quota/v1` and `pkg/quota/v1/evaluator/core`).
//! A leaf: the API server charges new objects by the same rules by which the controller counts what is there.

mod amounts;
mod charge;
mod claims;
mod pods;
mod services;

pub use amounts::Amounts;
pub use charge::{Change, Charge, charge, objection};
pub use claims::{DeviceClaim, DeviceClasses, EXTENDED_CLAIM, is_extended_claim};
pub use pods::{DEVICE_CLASS, is_native};

use k8s_openapi::api::core::v1::{ResourceQuota, ScopedResourceSelectorRequirement};

/// What a quota counts besides the `count/…` name, for kinds that nothing else is known of.
const ALIASES: [(&str, &str); 4] = [
    ("configmaps", "configmaps"),
    ("replicationcontrollers", "replicationcontrollers"),
    ("resourcequotas", "resourcequotas"),
    ("secrets", "secrets"),
];

/// Kinds that no quota counts: questions, and what comes and goes too fast.
const IGNORED: [(&str, &str); 12] = [
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("metrics.k8s.io", "nodes"),
    ("metrics.k8s.io", "pods"),
];

/// The rules by which the objects of one kind are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluator {
    rules: Rules,
    /// `count/<resource>.<group>`
    count: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Pods,
    Services,
    PersistentVolumeClaims,
    ResourceClaims,
    Objects { alias: Option<&'static str> },
}

/// `count/deployments.apps`, `count/pods`.
pub fn count_name(group: &str, resource: &str) -> String {
    match group {
        "" => format!("count/{resource}"),
        group => format!("count/{resource}.{group}"),
    }
}

impl Evaluator {
    /// None for what is never counted.
    pub fn of(group: &str, resource: &str) -> Option<Evaluator> {
        if IGNORED.contains(&(group, resource)) {
            return None;
        }
        let rules = match (group, resource) {
            ("", "pods") => Rules::Pods,
            ("", "services") => Rules::Services,
            ("", "persistentvolumeclaims") => Rules::PersistentVolumeClaims,
            ("resource.k8s.io", "resourceclaims") => Rules::ResourceClaims,
            (group, resource) => Rules::Objects {
                alias: ALIASES
                    .iter()
                    .find(|(of, _)| group.is_empty() && *of == resource)
                    .map(|(_, alias)| *alias),
            },
        };
        Some(Evaluator {
            rules,
            count: count_name(group, resource),
        })
    }

    /// Whether objects of this kind can use the resource that a quota names.
    pub fn tracks(&self, resource: &str) -> bool {
        resource == self.count
            || match self.rules {
                Rules::Pods => pods::tracks(resource),
                Rules::Services => services::tracks(resource),
                Rules::PersistentVolumeClaims => claims::tracks_storage(resource),
                Rules::ResourceClaims => claims::tracks_devices(resource),
                Rules::Objects { alias } => alias == Some(resource),
            }
    }

    /// Nothing but the number of objects counts, and none is in a scope.
    pub fn only_counts(&self) -> bool {
        matches!(self.rules, Rules::Objects { .. })
    }

    /// An object of a kind of which only the number counts.
    pub fn one(&self) -> Counted {
        let mut usage = Amounts::default();
        usage.count(&self.count, 1);
        if let Rules::Objects { alias: Some(alias) } = self.rules {
            usage.count(alias, 1);
        }
        Counted(usage)
    }
}

/// An object that uses more than its place.
pub trait Measured {
    /// What it uses at the moment `now`.
    fn usage(&self, now: jiff::Timestamp) -> Amounts;

    /// Whether it is in a scope.
    fn is_in(&self, _scope: &ScopedResourceSelectorRequirement) -> bool {
        false
    }

    /// What decides in which scopes it is.
    fn scope_facts(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it must say and does not, if `required` is counted.
    fn lacks(&self, _required: &[&str]) -> Option<String> {
        None
    }
}

/// An object that counts by being there. It is in no scope.
pub struct Counted(Amounts);

impl Measured for Counted {
    fn usage(&self, _now: jiff::Timestamp) -> Amounts {
        self.0.clone()
    }
}

/// The scopes of a quota, those that are only named among them.
pub fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let Some(spec) = &quota.spec else {
        return Vec::new();
    };
    let named = spec
        .scopes
        .iter()
        .flatten()
        .map(|scope| ScopedResourceSelectorRequirement {
            operator: "Exists".to_owned(),
            scope_name: scope.clone(),
            values: None,
        });
    let selected = spec
        .scope_selector
        .iter()
        .flat_map(|selector| selector.match_expressions.iter().flatten());
    named.chain(selected.cloned()).collect()
}

/// Whether an object is in all of them.
pub fn in_all(object: &(impl Measured + ?Sized), scopes: &[ScopedResourceSelectorRequirement]) -> bool {
    scopes.iter().all(|scope| object.is_in(scope))
}

/// Whether one of the names that an object has for a scope fits its operator and values, as labels fit selectors.
fn fits(scope: &ScopedResourceSelectorRequirement, names: &[&str]) -> bool {
    let values: &[String] = scope.values.as_deref().unwrap_or_default();
    let listed = |name: &&str| values.iter().any(|value| value == name);
    match scope.operator.as_str() {
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        "In" => names.iter().any(listed),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
        _ => false,
    }
}

/// The sum of what `objects` use that are in all `scopes`.
pub fn total<'a, M: Measured + 'a>(
    objects: impl IntoIterator<Item = &'a M>,
    scopes: &[ScopedResourceSelectorRequirement],
    now: jiff::Timestamp,
) -> Amounts {
    let mut sum = Amounts::default();
    for object in objects {
        if in_all(object, scopes) {
            sum.add(&object.usage(now));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_what_they_can_use() {
        let of = |group: &str, resource: &str| Evaluator::of(group, resource).unwrap();
        assert!(Evaluator::of("", "events").is_none());
        let table = [
            (of("", "pods"), "pods", true),
            (of("", "pods"), "count/pods", true),
            (of("", "pods"), "requests.example.com/gpu", true),
            (of("", "pods"), "requests.hugepages-2Mi", true),
            (of("", "pods"), "requests.deviceclass.resource.kubernetes.io/gpu", true),
            (of("", "pods"), "requests.kubernetes.io/gpu", false),
            (of("", "pods"), "services", false),
            (of("", "pods"), "requests.storage", false),
            (of("", "services"), "services.nodeports", true),
            (of("", "persistentvolumeclaims"), "requests.storage", true),
            (
                of("", "persistentvolumeclaims"),
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
                true,
            ),
            (
                of("resource.k8s.io", "resourceclaims"),
                "a.deviceclass.resource.k8s.io/devices",
                true,
            ),
            (
                of("resource.k8s.io", "resourceclaims"),
                "requests.deviceclass.resource.kubernetes.io/gpu",
                true,
            ),
            (of("", "secrets"), "secrets", true),
            (of("", "secrets"), "count/secrets", true),
            (of("example.com", "secrets"), "secrets", false),
            (of("example.com", "widgets"), "count/widgets.example.com", true),
            (of("apps", "deployments"), "count/deployments.apps", true),
            (of("apps", "deployments"), "count/deployments", false),
        ];
        for (evaluator, resource, tracked) in table {
            assert_eq!(evaluator.tracks(resource), tracked, "{evaluator:?} {resource}");
        }
    }

    #[test]
    fn scopes_are_selectors() {
        let fits = |operator: &str, values: &[&str], names: &[&str]| {
            let scope = ScopedResourceSelectorRequirement {
                operator: operator.into(),
                scope_name: "PriorityClass".into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            };
            super::fits(&scope, names)
        };
        assert!(fits("In", &["a", "b"], &["b"]));
        assert!(!fits("In", &["a"], &[]));
        assert!(fits("NotIn", &["a"], &[]));
        assert!(!fits("NotIn", &["a"], &["a"]));
        assert!(fits("Exists", &[], &["a"]));
        assert!(fits("DoesNotExist", &[], &[]));
    }
}
