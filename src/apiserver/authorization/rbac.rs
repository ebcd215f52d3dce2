//! Roles and bindings, compiled and indexed by whom they are bound to
//! (upstream: `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac/validation/rule.go`).

use super::follower::Mirror;
use super::rule::{Rule, list};
use crate::apiserver::request::{RequestInfo, User};
use crate::storage::Entry;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

pub const GROUP: &str = "rbac.authorization.k8s.io";

const ROLES: &str = "roles.rbac.authorization.k8s.io";
const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

/// The rules of roles, by name.
type Roles = HashMap<Arc<str>, Arc<[Rule]>>;

/// All roles and bindings. Cluster-wide ones stand under the empty namespace.
#[derive(Default)]
pub struct Policy {
    roles: HashMap<Arc<str>, Roles>,
    bindings: HashMap<Arc<str>, Bindings>,
}

/// The bindings of one namespace, by name and by whom they name. The names keep the order steady.
#[derive(Default)]
struct Bindings {
    by_name: HashMap<Arc<str>, Arc<Binding>>,
    users: HashMap<String, BTreeMap<Arc<str>, Arc<Binding>>>,
    groups: HashMap<String, BTreeMap<Arc<str>, Arc<Binding>>>,
}

/// A RoleBinding or, without a namespace, a ClusterRoleBinding.
#[derive(Debug)]
pub struct Binding {
    namespace: Arc<str>,
    name: Arc<str>,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Which role a binding grants.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RoleObject {
    #[serde(deserialize_with = "list")]
    rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct BindingObject {
    role_ref: RoleRef,
    #[serde(deserialize_with = "list")]
    subjects: Vec<Subject>,
}

/// Which subject of which binding allowed something.
#[derive(Debug)]
pub struct Grant {
    binding: Arc<Binding>,
    subject: usize,
}

/// A binding names a role that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchRole(pub RoleRef);

impl fmt::Display for NoSuchRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RoleRef { kind, name } = &self.0;
        match kind.as_str() {
            "Role" | "ClusterRole" => write!(f, "{}.{GROUP} {name:?} not found", kind.to_lowercase()),
            other => write!(f, "unsupported role reference kind: {other:?}"),
        }
    }
}

impl Policy {
    /// What the user is allowed by, or the roles that were looked for in vain.
    pub fn allows(&self, user: &User, info: &RequestInfo) -> Result<Grant, Vec<NoSuchRole>> {
        let mut lost = Vec::new();
        for binding in self.bindings_of(user, &info.namespace) {
            match self.rules_of(&binding.role, &binding.namespace) {
                Ok(rules) if rules.iter().any(|rule| rule.allows(info)) => {
                    return Ok(Grant {
                        binding: binding.clone(),
                        subject: binding.subject_of(user),
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    if !lost.contains(&error) {
                        lost.push(error);
                    }
                }
            }
        }
        Err(lost)
    }

    /// Every rule that holds for the user in the namespace, and the roles that were looked for in vain.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<&Rule>, Vec<NoSuchRole>) {
        let (mut rules, mut lost) = (Vec::new(), Vec::new());
        let mut seen: Vec<*const Binding> = Vec::new();
        for binding in self.bindings_of(user, namespace) {
            if seen.contains(&Arc::as_ptr(binding)) {
                continue;
            }
            seen.push(Arc::as_ptr(binding));
            match self.rules_of(&binding.role, &binding.namespace) {
                Ok(found) => rules.extend(found),
                Err(error) => lost.push(error),
            }
        }
        (rules, lost)
    }

    /// The rules of the role that a binding in `namespace` (empty: cluster-wide) names.
    pub fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[Rule], NoSuchRole> {
        let place = match role.kind.as_str() {
            "Role" if !namespace.is_empty() => namespace,
            "ClusterRole" => "",
            _ => return Err(NoSuchRole(role.clone())),
        };
        let found = self.roles.get(place).and_then(|roles| roles.get(role.name.as_str()));
        found.map(|rules| &**rules).ok_or_else(|| NoSuchRole(role.clone()))
    }

    /// Cluster-wide bindings first. One that names the user in several ways may come several times.
    fn bindings_of<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Binding>> {
        let places = [Some(""), Some(namespace).filter(|namespace| !namespace.is_empty())];
        places
            .into_iter()
            .flatten()
            .filter_map(|place| self.bindings.get(place))
            .flat_map(|bindings| {
                let own = bindings.users.get(&user.name).into_iter();
                let shared = user.groups.iter().filter_map(|group| bindings.groups.get(group));
                own.chain(shared).flat_map(BTreeMap::values)
            })
    }
}

impl Bindings {
    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Arc::new(binding);
        for subject in &binding.subjects {
            if let Some((map, holder)) = self.place(subject.holder(&binding.namespace)) {
                map.entry(holder)
                    .or_default()
                    .insert(binding.name.clone(), binding.clone());
            }
        }
        self.by_name.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.by_name.remove(name) else {
            return;
        };
        for subject in &binding.subjects {
            if let Some((map, holder)) = self.place(subject.holder(&binding.namespace))
                && let Some(bound) = map.get_mut(&holder)
            {
                bound.remove(name);
                if bound.is_empty() {
                    map.remove(&holder);
                }
            }
        }
    }

    #[allow(clippy::type_complexity)] // The two maps of this struct and nothing else.
    fn place(
        &mut self,
        holder: Option<Holder>,
    ) -> Option<(&mut HashMap<String, BTreeMap<Arc<str>, Arc<Binding>>>, String)> {
        match holder? {
            Holder::User(name) => Some((&mut self.users, name)),
            Holder::Group(name) => Some((&mut self.groups, name)),
        }
    }
}

enum Holder {
    User(String),
    Group(String),
}

impl Subject {
    /// Whom the subject of a binding in `namespace` stands for.
    fn holder(&self, namespace: &str) -> Option<Holder> {
        match self.kind.as_str() {
            "User" => Some(Holder::User(self.name.clone())),
            "Group" => Some(Holder::Group(self.name.clone())),
            "ServiceAccount" => {
                let namespace = self.account_namespace(namespace);
                let known = !namespace.is_empty();
                known.then(|| Holder::User(format!("system:serviceaccount:{namespace}:{}", self.name)))
            }
            _ => None,
        }
    }

    fn account_namespace<'a>(&'a self, namespace: &'a str) -> &'a str {
        if self.namespace.is_empty() {
            namespace
        } else {
            &self.namespace
        }
    }
}

impl Binding {
    /// The first subject that stands for the user.
    fn subject_of(&self, user: &User) -> usize {
        let stands_for = |subject: &Subject| match subject.holder(&self.namespace) {
            Some(Holder::User(name)) => name == user.name,
            Some(Holder::Group(name)) => user.groups.contains(&name),
            None => false,
        };
        self.subjects.iter().position(stands_for).unwrap_or_default()
    }
}

/// Upstream's sentence about why something is allowed.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding {
            namespace,
            name,
            role,
            subjects,
        } = &*self.binding;
        let (kind, name) = match &**namespace {
            "" => ("ClusterRoleBinding", name.to_string()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        let RoleRef {
            kind: role_kind,
            name: role,
        } = role;
        write!(f, "RBAC: allowed by {kind} {name:?} of {role_kind} {role:?} to ")?;
        match subjects.get(self.subject) {
            Some(subject) if subject.kind == "ServiceAccount" => {
                let account = format!("{}/{}", subject.name, subject.account_namespace(namespace));
                write!(f, "{} {account:?}", subject.kind)
            }
            Some(subject) => write!(f, "{} {:?}", subject.kind, subject.name),
            None => Ok(()),
        }
    }
}

impl Mirror for Policy {
    const RESOURCES: &'static [&'static str] = &[ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];

    fn clear(&mut self, resource: &str) {
        match resource {
            ROLES => self.roles.retain(|namespace, _| namespace.is_empty()),
            CLUSTER_ROLES => self.roles.retain(|namespace, _| !namespace.is_empty()),
            ROLE_BINDINGS => self.bindings.retain(|namespace, _| namespace.is_empty()),
            _ => self.bindings.retain(|namespace, _| !namespace.is_empty()),
        }
    }

    fn put(&mut self, entry: &Entry, _previous: Option<&Entry>) {
        let (namespace, name) = (entry.key.namespace.clone(), entry.key.name.clone());
        let unreadable = |error: &serde_json::Error| {
            // An object that says nothing grants nothing.
            tracing::error!(object = %entry.key, %error, "a stored role or binding can not be read");
        };
        if matches!(&*entry.key.resource, ROLES | CLUSTER_ROLES) {
            let role: RoleObject = serde_json::from_slice(&entry.bytes)
                .inspect_err(unreadable)
                .unwrap_or_default();
            self.roles.entry(namespace).or_default().insert(name, role.rules.into());
        } else {
            let binding: BindingObject = serde_json::from_slice(&entry.bytes)
                .inspect_err(unreadable)
                .unwrap_or_default();
            self.bindings.entry(namespace.clone()).or_default().put(Binding {
                namespace,
                name,
                role: binding.role_ref,
                subjects: binding.subjects,
            });
        }
    }

    fn remove(&mut self, entry: &Entry) {
        let (namespace, name) = (&entry.key.namespace, &entry.key.name);
        if matches!(&*entry.key.resource, ROLES | CLUSTER_ROLES) {
            if let Some(roles) = self.roles.get_mut(namespace) {
                roles.remove(name);
                if roles.is_empty() {
                    self.roles.remove(namespace);
                }
            }
        } else if let Some(bindings) = self.bindings.get_mut(namespace) {
            bindings.remove(name);
            if bindings.by_name.is_empty() {
                self.bindings.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Index, Key};
    use serde_json::{Value, json};

    fn entry(resource: &str, namespace: &str, name: &str, object: Value) -> Entry {
        Entry {
            key: Key::new(resource, namespace, name),
            revision: 1,
            bytes: object.to_string().into(),
            index: Index::default(),
        }
    }

    fn role(namespace: &str, name: &str, verb: &str, resource: &str) -> Entry {
        let resource_name = if namespace.is_empty() { CLUSTER_ROLES } else { ROLES };
        let rules = json!([{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]);
        entry(resource_name, namespace, name, json!({ "rules": rules }))
    }

    fn binding(namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Entry {
        let resource = if namespace.is_empty() {
            CLUSTER_ROLE_BINDINGS
        } else {
            ROLE_BINDINGS
        };
        let role = json!({"kind": role.0, "name": role.1});
        entry(
            resource,
            namespace,
            name,
            json!({"roleRef": role, "subjects": subjects}),
        )
    }

    fn policy(entries: &[Entry]) -> Policy {
        let mut policy = Policy::default();
        for entry in entries {
            policy.put(entry, None);
        }
        policy
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    fn ask(policy: &Policy, user: &User, verb: &str, resource: &str, namespace: &str) -> Result<String, String> {
        let info = RequestInfo {
            is_resource_request: true,
            verb: verb.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        };
        match policy.allows(user, &info) {
            Ok(grant) => Ok(grant.to_string()),
            Err(lost) => Err(lost.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn bindings_hold_where_they_are_and_say_why() {
        let policy = policy(&[
            role("", "reader", "get", "pods"),
            role("a", "local", "list", "pods"),
            binding(
                "a",
                "b1",
                ("ClusterRole", "reader"),
                json!([{"kind": "User", "name": "jane"}]),
            ),
            binding(
                "a",
                "b2",
                ("Role", "local"),
                json!([
                    {"kind": "User", "name": "nobody"}, {"kind": "ServiceAccount", "name": "robot"},
                    {"kind": "ServiceAccount", "name": "other", "namespace": "b"}]),
            ),
            binding(
                "",
                "all",
                ("ClusterRole", "reader"),
                json!([{"kind": "Group", "name": "ops"}]),
            ),
        ]);
        let jane = user("jane", &[]);
        assert_eq!(
            ask(&policy, &jane, "get", "pods", "a").unwrap(),
            r#"RBAC: allowed by RoleBinding "b1/a" of ClusterRole "reader" to User "jane""#
        );
        assert_eq!(ask(&policy, &jane, "get", "pods", "b"), Err(String::new()));
        assert_eq!(ask(&policy, &jane, "get", "pods", ""), Err(String::new()));
        let robot = user("system:serviceaccount:a:robot", &[]);
        assert_eq!(
            ask(&policy, &robot, "list", "pods", "a").unwrap(),
            r#"RBAC: allowed by RoleBinding "b2/a" of Role "local" to ServiceAccount "robot/a""#
        );
        assert!(
            ask(
                &policy,
                &user("system:serviceaccount:b:other", &[]),
                "list",
                "pods",
                "a"
            )
            .is_ok()
        );
        assert!(
            ask(
                &policy,
                &user("system:serviceaccount:a:other", &[]),
                "list",
                "pods",
                "a"
            )
            .is_err()
        );
        let ops = user("joe", &["dev", "ops"]);
        for namespace in ["", "a", "z"] {
            assert_eq!(
                ask(&policy, &ops, "get", "pods", namespace).unwrap(),
                r#"RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "reader" to Group "ops""#
            );
        }
        assert!(ask(&policy, &ops, "delete", "pods", "a").is_err());
    }

    #[test]
    fn changes_take_effect_and_missing_roles_are_named() {
        let jane = user("jane", &["dev"]);
        let subjects = json!([{"kind": "User", "name": "jane"}, {"kind": "Group", "name": "dev"}]);
        let bound = binding("a", "b", ("Role", "r"), subjects);
        let mut policy = policy(std::slice::from_ref(&bound));
        assert_eq!(
            ask(&policy, &jane, "get", "pods", "a"),
            Err("role.rbac.authorization.k8s.io \"r\" not found".to_owned())
        );
        policy.put(&role("a", "r", "get", "pods"), None);
        assert!(ask(&policy, &jane, "get", "pods", "a").is_ok());
        assert_eq!(policy.rules_for(&jane, "a").0.len(), 1, "a binding counts once");
        policy.put(&role("a", "r", "list", "pods"), None);
        assert!(ask(&policy, &jane, "get", "pods", "a").is_err());
        let other = binding("a", "b", ("Role", "r"), json!([{"kind": "User", "name": "joe"}]));
        policy.put(&other, Some(&bound));
        assert!(ask(&policy, &jane, "list", "pods", "a").is_err());
        assert!(ask(&policy, &user("joe", &[]), "list", "pods", "a").is_ok());
        policy.remove(&other);
        assert!(ask(&policy, &user("joe", &[]), "list", "pods", "a").is_err());
        assert!(policy.bindings.is_empty());
        policy.remove(&role("a", "r", "list", "pods"));
        assert!(policy.roles.is_empty());
    }

    #[test]
    fn a_role_is_no_role_of_the_cluster() {
        let policy = policy(&[
            role("a", "r", "get", "pods"),
            binding("", "b", ("Role", "r"), json!([{"kind": "User", "name": "jane"}])),
        ]);
        assert!(ask(&policy, &user("jane", &[]), "get", "pods", "a").is_err());
        let nobody = binding("", "x", ("ClusterRole", "r"), Value::Null);
        assert!(policy_is_empty_for(&nobody));
    }

    fn policy_is_empty_for(entry: &Entry) -> bool {
        let policy = policy(std::slice::from_ref(entry));
        policy
            .bindings
            .values()
            .all(|bindings| bindings.users.is_empty() && bindings.groups.is_empty())
    }
}
