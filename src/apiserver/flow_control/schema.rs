//! FlowSchemas, read once for all requests (upstream: `flowcontrol/rule.go`).

use super::level::Level;
use super::metrics::FlowMetrics;
use crate::apiserver::request::{RequestInfo, User};
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema as Stored, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject as StoredSubject,
};
use poem::http::HeaderValue;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, LazyLock};

const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Requests of one kind, with the level that serves them.
#[derive(Debug)]
pub struct FlowSchema {
    pub name: String,
    pub uid: HeaderValue,
    pub precedence: i32,
    pub level: Arc<Level>,
    pub level_uid: HeaderValue,
    pub metrics: FlowMetrics,
    flows: Flows,
    rules: Vec<Rule>,
}

/// What tells one flow of a schema from another.
#[derive(Clone, Copy, Debug)]
enum Flows {
    One,
    ByUser,
    ByNamespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug)]
enum Subject {
    Everybody,
    User(String),
    Group(String),
    /// Without a name: all of the namespace.
    Account(String, Option<String>),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Names,
    groups: Names,
    resources: Names,
    namespaces: Names,
    outside_of_namespaces: bool,
}

#[derive(Debug)]
struct PathRule {
    verbs: Names,
    paths: Names,
}

#[derive(Debug)]
enum Names {
    All,
    Some(Vec<String>),
}

impl FlowSchema {
    pub fn new(stored: Stored, level: Arc<Level>, level_uid: HeaderValue) -> Self {
        let spec = stored.spec;
        let name = stored.metadata.name.unwrap_or_default();
        let flows = match spec.distinguisher_method.as_ref().map(|method| method.type_.as_str()) {
            Some("ByUser") => Flows::ByUser,
            Some("ByNamespace") => Flows::ByNamespace,
            _ => Flows::One,
        };
        Self {
            uid: uid(stored.metadata.uid.as_deref()),
            precedence: spec.matching_precedence.unwrap_or_default(),
            metrics: FlowMetrics::new(&level.name, &name),
            name,
            level,
            level_uid,
            flows,
            rules: spec.rules.unwrap_or_default().into_iter().map(Rule::new).collect(),
        }
    }

    pub fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// A number that all requests of a flow have, and of others hardly any.
    pub fn hash(&self, user: &User, info: &RequestInfo) -> u64 {
        static HASHER: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);
        let mut hasher = HASHER.build_hasher();
        hasher.write(self.name.as_bytes());
        hasher.write_u8(0);
        hasher.write(match self.flows {
            Flows::One => &[],
            Flows::ByUser => user.name.as_bytes(),
            Flows::ByNamespace => info.namespace.as_bytes(),
        });
        hasher.finish()
    }
}

/// As a header has it; empty for what is not stored.
pub fn uid(uid: Option<&str>) -> HeaderValue {
    HeaderValue::from_str(uid.unwrap_or_default()).unwrap_or(HeaderValue::from_static(""))
}

impl Rule {
    fn new(stored: PolicyRulesWithSubjects) -> Self {
        Self {
            subjects: stored.subjects.into_iter().filter_map(Subject::new).collect(),
            resources: stored
                .resource_rules
                .into_iter()
                .flatten()
                .map(ResourceRule::new)
                .collect(),
            paths: stored
                .non_resource_rules
                .into_iter()
                .flatten()
                .map(PathRule::new)
                .collect(),
        }
    }

    fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && match info.is_resource_request {
                true => self.resources.iter().any(|rule| rule.matches(info)),
                false => self.paths.iter().any(|rule| rule.matches(info)),
            }
    }
}

impl Subject {
    fn new(stored: StoredSubject) -> Option<Self> {
        match stored.kind.as_str() {
            "User" => stored.user.map(|user| match user.name.as_str() {
                "*" => Subject::Everybody,
                _ => Subject::User(user.name),
            }),
            "Group" => stored.group.map(|group| match group.name.as_str() {
                "*" => Subject::Everybody,
                _ => Subject::Group(group.name),
            }),
            "ServiceAccount" => stored.service_account.map(|account| {
                let name = (account.name != "*").then_some(account.name);
                Subject::Account(account.namespace, name)
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::Everybody => true,
            Subject::User(name) => *name == user.name,
            Subject::Group(name) => user.groups.contains(name),
            Subject::Account(namespace, name) => {
                let account = user.name.strip_prefix(ACCOUNT_PREFIX);
                let account = account.and_then(|account| account.strip_prefix(namespace.as_str())?.strip_prefix(':'));
                account.is_some_and(|account| name.as_ref().is_none_or(|name| name == account))
            }
        }
    }
}

impl ResourceRule {
    fn new(stored: ResourcePolicyRule) -> Self {
        Self {
            verbs: Names::new(stored.verbs),
            groups: Names::new(stored.api_groups),
            resources: Names::new(stored.resources),
            namespaces: Names::new(stored.namespaces.unwrap_or_default()),
            outside_of_namespaces: stored.cluster_scope.unwrap_or_default(),
        }
    }

    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.have(&info.verb)
            && self.resources.any(|name| is_resource(name, info))
            && self.groups.have(&info.api_group)
            && match info.namespace.is_empty() {
                true => self.outside_of_namespaces,
                false => self.namespaces.have(&info.namespace),
            }
    }
}

fn is_resource(name: &str, info: &RequestInfo) -> bool {
    if info.subresource.is_empty() {
        return name == info.resource;
    }
    let below = name.strip_prefix(info.resource.as_str());
    below.and_then(|below| below.strip_prefix('/')) == Some(info.subresource.as_str())
}

impl PathRule {
    fn new(stored: NonResourcePolicyRule) -> Self {
        Self {
            verbs: Names::new(stored.verbs),
            paths: Names::new(stored.non_resource_urls),
        }
    }

    /// A path of a rule stands for what is below it, too, with or without a star.
    fn matches(&self, info: &RequestInfo) -> bool {
        let fits = |path: &str| {
            path == info.path || {
                let above = path.strip_suffix('*').unwrap_or(path);
                let above = above.strip_suffix('/').unwrap_or(above);
                info.path
                    .strip_prefix(above)
                    .is_some_and(|below| below.starts_with('/'))
            }
        };
        self.verbs.have(&info.verb) && self.paths.any(fits)
    }
}

impl Names {
    /// A star stands alone.
    fn new(names: Vec<String>) -> Self {
        match names.as_slice() {
            [star] if star == "*" => Names::All,
            _ => Names::Some(names),
        }
    }

    fn have(&self, name: &str) -> bool {
        self.any(|known| known == name)
    }

    fn any(&self, fits: impl Fn(&str) -> bool) -> bool {
        match self {
            Names::All => true,
            Names::Some(names) => names.iter().any(|name| fits(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Shape;
    use super::*;
    use crate::apiserver::options::Query;
    use poem::http::{Method, Uri};
    use serde_json::{Value, json};

    fn schema(rule: Value) -> FlowSchema {
        let stored = json!({
            "metadata": {"name": "s"},
            "spec": {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 7, "rules": [rule]},
        });
        let level = Level::new("l", Shape::Reject, 1);
        FlowSchema::new(serde_json::from_value(stored).unwrap(), level, uid(None))
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    fn info(method: Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::resolve(&method, &uri, &Query::parse(uri.query().unwrap_or_default()))
    }

    #[test]
    fn subjects() {
        let matches = |subject: Value, user: &User| {
            let rule = json!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
            schema(rule).matches(user, &info(Method::GET, "/version"))
        };
        let jane = user("jane", &["dev"]);
        let robot = user("system:serviceaccount:ns:robot", &[]);
        for (subject, of_jane, of_robot) in [
            (json!({"kind": "User", "user": {"name": "*"}}), true, true),
            (json!({"kind": "User", "user": {"name": "jane"}}), true, false),
            (json!({"kind": "Group", "group": {"name": "dev"}}), true, false),
            (json!({"kind": "Group", "group": {"name": "*"}}), true, true),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "*"}}),
                false,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "robot"}}),
                false,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}),
                false,
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "rob"}}),
                false,
                false,
            ),
        ] {
            assert_eq!(
                (matches(subject.clone(), &jane), matches(subject.clone(), &robot)),
                (of_jane, of_robot),
                "{subject}"
            );
        }
    }

    #[test]
    fn resources() {
        let rule = |verbs: Value, resources: Value, namespaces: Value, outside: bool| {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}], "resourceRules": [{
                "verbs": verbs, "apiGroups": [""], "resources": resources, "namespaces": namespaces,
                "clusterScope": outside}]});
            schema(rule)
        };
        let nobody = user("x", &[]);
        let pods = rule(
            json!(["list", "update"]),
            json!(["pods", "pods/status"]),
            json!(["a"]),
            false,
        );
        for (method, uri, wanted) in [
            (Method::GET, "/api/v1/namespaces/a/pods", true),
            (Method::GET, "/api/v1/namespaces/b/pods", false),
            (Method::GET, "/api/v1/pods", false),
            (Method::GET, "/api/v1/namespaces/a/pods/x", false),
            (Method::PUT, "/api/v1/namespaces/a/pods/x/status", true),
            (Method::PUT, "/api/v1/namespaces/a/pods/x/resize", false),
            (Method::GET, "/apis/apps/v1/namespaces/a/pods", false),
            (Method::GET, "/api", false),
        ] {
            assert_eq!(
                pods.matches(&nobody, &info(method.clone(), uri)),
                wanted,
                "{method} {uri}"
            );
        }
        let all = rule(json!(["*"]), json!(["*"]), json!(["*"]), true);
        assert!(all.matches(&nobody, &info(Method::GET, "/api/v1/nodes/n/status")));
    }

    #[test]
    fn paths() {
        let matches = |paths: Value, path: &str| {
            let rule = json!({"subjects": [{"kind": "User", "user": {"name": "*"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": paths}]});
            schema(rule).matches(&user("x", &[]), &info(Method::GET, path))
        };
        assert!(matches(json!(["/healthz"]), "/healthz"));
        assert!(matches(json!(["/healthz"]), "/healthz/ping"));
        assert!(!matches(json!(["/healthz"]), "/healthzz"));
        assert!(matches(json!(["/apis/*"]), "/apis/apps"));
        assert!(!matches(json!(["/apis/*"]), "/api"));
        assert!(matches(json!(["*"]), "/whatever"));
        assert!(!matches(json!(["*"]), "/api/v1/pods"));
    }
}
