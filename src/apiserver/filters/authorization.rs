//! Who may do what (upstream: `apiserver/pkg/endpoints/filters/authorization.go`, and the bootstrap policy of
//! `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
//!
//! The roles are the ones that upstream binds at its first start to the users and groups of its own parts. They
//! are fixed until RBAC objects are served; nobody else may do anything but read what is public.

use super::authentication::{AUTHENTICATED_GROUP, PRIVILEGED_GROUP, UNAUTHENTICATED_GROUP};
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::request::{RequestInfo, User};

/// To whom a role is bound.
enum Holder {
    User(&'static str),
    Group(&'static str),
}

/// What a role allows. `*` stands for everything, in paths at the end for every rest.
enum Rule {
    Resources {
        verbs: &'static [&'static str],
        groups: &'static [&'static str],
        resources: &'static [&'static str],
    },
    Paths {
        verbs: &'static [&'static str],
        paths: &'static [&'static str],
    },
}

struct Role {
    holders: &'static [Holder],
    rules: &'static [Rule],
}

const READ: &[&str] = &["get", "list", "watch"];
const RECORD: &[&str] = &["create", "patch", "update"];
const READ_WRITE: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
const CORE: &[&str] = &[""];
const EVENTS: Rule = Rule::Resources {
    verbs: RECORD,
    groups: &["", "events.k8s.io"],
    resources: &["events"],
};
const ASK: Rule = Rule::Resources {
    verbs: &["create"],
    groups: &["authentication.k8s.io", "authorization.k8s.io"],
    resources: &["tokenreviews", "subjectaccessreviews"],
};

const ROLES: &[Role] = &[
    // cluster-admin
    Role {
        holders: &[Holder::Group(PRIVILEGED_GROUP)],
        rules: &[
            Rule::Resources {
                verbs: &["*"],
                groups: &["*"],
                resources: &["*"],
            },
            Rule::Paths {
                verbs: &["*"],
                paths: &["*"],
            },
        ],
    },
    // system:public-info-viewer
    Role {
        holders: &[Holder::Group(AUTHENTICATED_GROUP), Holder::Group(UNAUTHENTICATED_GROUP)],
        rules: &[Rule::Paths {
            verbs: &["get"],
            paths: &["/healthz", "/livez", "/readyz", "/version", "/version/"],
        }],
    },
    // system:discovery, and our own page about the API
    Role {
        holders: &[Holder::Group(AUTHENTICATED_GROUP)],
        rules: &[Rule::Paths {
            verbs: &["get"],
            paths: &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/openapi",
                "/openapi/*",
                "/docs",
                "/docs/*",
            ],
        }],
    },
    // system:basic-user
    Role {
        holders: &[Holder::Group(AUTHENTICATED_GROUP)],
        rules: &[
            Rule::Resources {
                verbs: &["create"],
                groups: &["authorization.k8s.io"],
                resources: &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            },
            Rule::Resources {
                verbs: &["create"],
                groups: &["authentication.k8s.io"],
                resources: &["selfsubjectreviews"],
            },
        ],
    },
    // system:monitoring
    Role {
        holders: &[Holder::Group("system:monitoring")],
        rules: &[Rule::Paths {
            verbs: &["get"],
            paths: &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/*",
                "/readyz",
                "/readyz/*",
            ],
        }],
    },
    // system:kube-scheduler
    Role {
        holders: &[Holder::User("system:kube-scheduler")],
        rules: &[
            EVENTS,
            ASK,
            Rule::Resources {
                verbs: &["create", "get", "update", "list", "watch"],
                groups: &["coordination.k8s.io"],
                resources: &["leases"],
            },
            Rule::Resources {
                verbs: READ,
                groups: CORE,
                resources: &["nodes", "namespaces"],
            },
            Rule::Resources {
                verbs: &["get", "list", "watch", "delete"],
                groups: CORE,
                resources: &["pods"],
            },
            Rule::Resources {
                verbs: &["create"],
                groups: CORE,
                resources: &["bindings", "pods/binding"],
            },
            Rule::Resources {
                verbs: &["patch", "update"],
                groups: CORE,
                resources: &["pods/status"],
            },
            Rule::Resources {
                verbs: READ,
                groups: CORE,
                resources: &[
                    "replicationcontrollers",
                    "services",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                ],
            },
            Rule::Resources {
                verbs: READ,
                groups: &["apps"],
                resources: &["replicasets", "statefulsets"],
            },
            Rule::Resources {
                verbs: READ,
                groups: &["policy"],
                resources: &["poddisruptionbudgets"],
            },
            Rule::Resources {
                verbs: READ,
                groups: &["storage.k8s.io"],
                resources: &["*"],
            },
        ],
    },
    // The union of the system:controller:* roles: between them the controllers write, and the collectors of
    // garbage and of namespaces delete, every kind there is. Neither holds `escalate`, `bind` or `impersonate`.
    Role {
        holders: &[Holder::User("system:kube-controller-manager")],
        rules: &[
            Rule::Resources {
                verbs: READ_WRITE,
                groups: &["*"],
                resources: &["*"],
            },
            Rule::Resources {
                verbs: &["deletecollection"],
                groups: &["*"],
                resources: &["*"],
            },
        ],
    },
    // system:node
    Role {
        holders: &[Holder::Group("system:nodes")],
        rules: &[
            EVENTS,
            ASK,
            Rule::Resources {
                verbs: READ_WRITE,
                groups: CORE,
                resources: &["nodes"],
            },
            Rule::Resources {
                verbs: &["patch", "update"],
                groups: CORE,
                resources: &["nodes/status", "pods/status"],
            },
            Rule::Resources {
                verbs: &["get", "list", "watch", "create", "delete"],
                groups: CORE,
                resources: &["pods"],
            },
            Rule::Resources {
                verbs: &["create"],
                groups: CORE,
                resources: &["pods/eviction", "serviceaccounts/token"],
            },
            Rule::Resources {
                verbs: READ,
                groups: CORE,
                resources: &[
                    "configmaps",
                    "secrets",
                    "services",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                ],
            },
            Rule::Resources {
                verbs: &["get"],
                groups: CORE,
                resources: &["endpoints"],
            },
            Rule::Resources {
                verbs: &["get", "create", "update", "patch", "delete"],
                groups: &["coordination.k8s.io"],
                resources: &["leases"],
            },
            Rule::Resources {
                verbs: READ,
                groups: &["node.k8s.io"],
                resources: &["runtimeclasses"],
            },
        ],
    },
];

/// Refuses what no role of the user allows.
pub fn authorize(user: &User, info: &RequestInfo) -> Result<(), ApiError> {
    let allowed = ROLES
        .iter()
        .filter(|role| role.is_held_by(user))
        .flat_map(|role| role.rules)
        .any(|rule| rule.allows(info));
    if allowed { Ok(()) } else { Err(forbidden(user, info)) }
}

impl Role {
    fn is_held_by(&self, user: &User) -> bool {
        self.holders.iter().any(|holder| match holder {
            Holder::User(name) => user.name == *name,
            Holder::Group(name) => user.groups.iter().any(|group| group == name),
        })
    }
}

impl Rule {
    fn allows(&self, info: &RequestInfo) -> bool {
        let holds = |allowed: &[&str], wanted: &str| allowed.iter().any(|entry| *entry == "*" || *entry == wanted);
        match self {
            Rule::Resources {
                verbs,
                groups,
                resources,
            } => {
                info.is_resource_request
                    && holds(verbs, &info.verb)
                    && holds(groups, &info.api_group)
                    && holds(resources, &resource_of(info))
            }
            Rule::Paths { verbs, paths } => {
                let covers = |path: &&str| match path.strip_suffix('*') {
                    Some(start) => info.path.starts_with(start),
                    None => info.path == **path,
                };
                !info.is_resource_request && holds(verbs, &info.verb) && paths.iter().any(covers)
            }
        }
    }
}

fn resource_of(info: &RequestInfo) -> String {
    match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    }
}

fn forbidden(user: &User, info: &RequestInfo) -> ApiError {
    let (name, verb) = (&user.name, &info.verb);
    if !info.is_resource_request {
        let why = format!("User {name:?} cannot {verb} path {:?}", info.path);
        return ApiError::forbidden(
            Subject {
                group: "",
                resource: "",
            },
            "",
            &escape(&why),
        );
    }
    let scope = match info.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let (resource, group) = (resource_of(info), &info.api_group);
    let why = format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}");
    ApiError::forbidden(
        Subject {
            group,
            resource: &info.resource,
        },
        &info.name,
        &escape(&why),
    )
}

/// Upstream escapes these, since the text repeats what the client sent and may end up in a browser.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use poem::http::{Method, StatusCode, Uri};

    use super::*;
    use crate::apiserver::options::Query;

    fn check(name: &str, groups: &[&str], method: Method, target: &str) -> Result<(), String> {
        let user = User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        };
        let uri: Uri = target.parse().unwrap();
        let query = Query::parse(uri.query().unwrap_or_default());
        authorize(&user, &RequestInfo::resolve(&method, &uri, &query)).map_err(|error| {
            assert_eq!(error.code(), StatusCode::FORBIDDEN);
            error.to_string()
        })
    }

    #[test]
    fn administrators_may_do_everything() {
        for (method, target) in [
            (Method::DELETE, "/api/v1/nodes"),
            (Method::GET, "/metrics"),
            (Method::POST, "/anything"),
        ] {
            assert_eq!(check("jane", &[PRIVILEGED_GROUP], method, target), Ok(()));
        }
    }

    #[test]
    fn nobody_sees_health_and_version_only() {
        let anonymous = |target| check("system:anonymous", &[UNAUTHENTICATED_GROUP], Method::GET, target);
        for target in ["/healthz", "/livez", "/readyz", "/version"] {
            assert_eq!(anonymous(target), Ok(()));
        }
        assert_eq!(
            anonymous("/"),
            Err("forbidden: User \"system:anonymous\" cannot get path \"/\"".to_owned())
        );
        assert!(anonymous("/api").is_err() && anonymous("/metrics").is_err() && anonymous("/healthz/x").is_err());
    }

    #[test]
    fn refusals_say_who_what_and_where() {
        let refused = |method, target| check("jane", &[AUTHENTICATED_GROUP], method, target).unwrap_err();
        assert_eq!(
            refused(Method::GET, "/api/v1/namespaces/default/pods/web/log"),
            "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!(
            refused(Method::GET, "/apis/apps/v1/deployments?watch=1"),
            "deployments.apps is forbidden: User \"jane\" cannot watch resource \"deployments\" in API group \"apps\" at the cluster scope"
        );
        assert!(refused(Method::GET, "/x%3Cscript%3E&").contains("&amp;"));
    }

    #[test]
    fn parts_of_the_cluster_hold_their_roles_and_no_more() {
        let node = |method, target| check("system:node:n1", &["system:nodes", AUTHENTICATED_GROUP], method, target);
        assert_eq!(node(Method::PATCH, "/api/v1/nodes/n1/status"), Ok(()));
        assert_eq!(
            node(Method::GET, "/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1"),
            Ok(())
        );
        assert!(node(Method::POST, "/api/v1/namespaces/default/secrets").is_err());
        let scheduler = |method, target| check("system:kube-scheduler", &[AUTHENTICATED_GROUP], method, target);
        assert_eq!(
            scheduler(Method::POST, "/api/v1/namespaces/default/pods/web/binding"),
            Ok(())
        );
        assert_eq!(scheduler(Method::GET, "/apis"), Ok(()));
        assert!(scheduler(Method::GET, "/api/v1/secrets").is_err());
        let manager = |method, target| check("system:kube-controller-manager", &[], method, target);
        assert_eq!(
            manager(Method::DELETE, "/apis/example.com/v1/namespaces/default/widgets"),
            Ok(())
        );
        assert!(manager(Method::GET, "/metrics").is_err());
    }
}
