//! The routes of the table of kinds and what each operation takes and gives
//! (upstream: `apiserver/pkg/endpoints/installer.go`, where routes get their names and parameters).

use super::parameters::{Parameter, lists};
use crate::registry::{Group, Kind, Registry, Subresource};
use poem::http::Method;

/// The definition that stands for every patch document.
pub const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// A path and its operations.
pub struct Route {
    pub path: String,
    pub operations: Vec<Operation>,
}

/// One operation of a route.
pub struct Operation {
    pub method: Method,
    /// `patchCoreV1NamespacedConfigMap`
    pub id: String,
    /// `core_v1`
    pub tag: String,
    /// `x-kubernetes-action`; None for discovery.
    pub action: Option<&'static str>,
    /// `x-kubernetes-group-version-kind`: group, version, kind.
    pub kind: Option<[&'static str; 3]>,
    pub parameters: Vec<Parameter>,
    pub body: Body,
    pub answer: Answer,
}

/// What an operation takes.
pub enum Body {
    None,
    /// An object of this definition, in any encoding.
    Object(String),
    /// DeleteOptions, which may be left out.
    DeleteOptions,
    Patch,
}

/// What an operation gives.
pub enum Answer {
    /// 200 with this definition.
    Read(String),
    /// 200 with this list, or watch events of its items.
    List(String),
    /// 200, 201 or 202 with this definition.
    Created(String),
    /// 200 or 201 with this definition.
    Written(String),
    /// 200 or 202 with this definition.
    Deleted(String),
    /// 200 with watch events.
    Watch,
    /// 200 with plain text (logs of containers).
    Text,
    /// 200 with text of this media type.
    TextOf(&'static str),
    /// 200 with this definition, in JSON only.
    Json(String),
    /// Files, about which nothing is said.
    Files,
    /// Whatever the other end of the connection says.
    Connection,
}

/// All routes of built-in kinds, by path.
pub fn routes(registry: &Registry) -> Vec<Route> {
    let snapshot = registry.snapshot();
    let mut routes = discovery(snapshot.builtin_groups());
    for kind in snapshot.builtin_kinds() {
        Routes {
            kind,
            name: Names::of(kind.group, kind.version),
        }
        .add_to(&mut routes);
    }
    routes
}

/// How a group-version shows in operation ids and tags.
pub struct Names {
    /// `RbacAuthorizationV1`
    pub id: String,
    /// `rbacAuthorization_v1`
    pub tag: String,
}

impl Names {
    pub fn of(group: &str, version: &str) -> Self {
        let group = group_id(group);
        let mut tag = group.clone();
        tag[..1].make_ascii_lowercase();
        Self {
            id: format!("{group}{}", capital(version)),
            tag: format!("{tag}_{version}"),
        }
    }
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`, `Core` for the core group.
fn group_id(group: &str) -> String {
    match group.trim_end_matches(".k8s.io") {
        "" => "Core".to_owned(),
        group => group.split('.').map(capital).collect(),
    }
}

fn capital(word: &str) -> String {
    let mut word = word.to_owned();
    if let Some(first) = word.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    word
}

/// What is no resource: `/api`, `/apis`, each group and group-version, `/version`, the keys of tokens, logs.
fn discovery(groups: &[Group]) -> Vec<Route> {
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let plain = |path: &str, id: &str, tag: &str, parameters: &[Parameter], answer: Answer| Route {
        path: path.to_owned(),
        operations: vec![Operation {
            method: Method::GET,
            id: id.to_owned(),
            tag: tag.to_owned(),
            action: None,
            kind: None,
            parameters: parameters.to_vec(),
            body: Body::None,
            answer,
        }],
    };
    let read = |path: String, id: String, tag: String, definition: &str| {
        plain(&path, &id, &tag, &[], Answer::Read(definition.to_owned()))
    };
    let mut routes = vec![
        plain(
            "/.well-known/openid-configuration/",
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            &[],
            Answer::TextOf("application/json"),
        ),
        read(
            "/api/".into(),
            "getCoreAPIVersions".into(),
            "core".into(),
            &format!("{META}.APIVersions"),
        ),
        read(
            "/apis/".into(),
            "getAPIVersions".into(),
            "apis".into(),
            &format!("{META}.APIGroupList"),
        ),
        plain("/logs/", "logFileListHandler", "logs", &[], Answer::Files),
        plain(
            "/logs/{logpath}",
            "logFileHandler",
            "logs",
            lists::LOG_PATH,
            Answer::Files,
        ),
        plain(
            "/openid/v1/jwks/",
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            &[],
            Answer::TextOf("application/jwk-set+json"),
        ),
        plain(
            "/version/",
            "getCodeVersion",
            "version",
            &[],
            Answer::Json("io.k8s.apimachinery.pkg.version.Info".to_owned()),
        ),
    ];
    for group in groups {
        let id = group_id(group.name);
        if !group.name.is_empty() {
            let mut tag = id.clone();
            tag[..1].make_ascii_lowercase();
            let path = format!("/apis/{}/", group.name);
            routes.push(read(path, format!("get{id}APIGroup"), tag, &format!("{META}.APIGroup")));
        }
        for version in &group.versions {
            let names = Names::of(group.name, version);
            let path = format!("{}/", base_path(group.name, version));
            let id = format!("get{}APIResources", names.id);
            routes.push(read(path, id, names.tag, &format!("{META}.APIResourceList")));
        }
    }
    routes
}

/// `/api/v1` or `/apis/apps/v1`.
fn base_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

/// The definition of a kind's list.
pub fn list_definition(kind: &Kind) -> String {
    let package = kind.definition.strip_suffix(kind.kind).unwrap_or(&kind.definition);
    format!("{package}{}", kind.list_kind)
}

/// The routes of one kind.
struct Routes<'a> {
    kind: &'a Kind,
    name: Names,
}

impl Routes<'_> {
    fn add_to(&self, routes: &mut Vec<Route>) {
        let kind = self.kind;
        let base = base_path(kind.group, kind.version);
        if kind.namespaced() && kind.has_verb("list") {
            let id = format!("list{}{}ForAllNamespaces", self.name.id, kind.kind);
            let parameters = [lists::READ, lists::LIST].concat();
            let operation = self.operation(Method::GET, id, "list", parameters, Body::None, self.list());
            routes.push(Route {
                path: format!("{base}/{}", kind.resource),
                operations: vec![operation],
            });
        }
        let namespace = if kind.namespaced() {
            "namespaces/{namespace}/"
        } else {
            ""
        };
        let collection = format!("{base}/{namespace}{}", kind.resource);
        push(routes, collection.clone(), self.collection());
        push(routes, format!("{collection}/{{name}}"), self.item());
        if kind.has_verb("watch") {
            self.add_watches_to(routes, &base, &format!("{namespace}{}", kind.resource));
        }
        for subresource in &kind.subresources {
            let path = format!("{collection}/{{name}}/{}", subresource.name);
            if !subresource.connect {
                push(routes, path, self.subresource(subresource));
                continue;
            }
            push(routes, path.clone(), self.connections(subresource, ""));
            if subresource.name == "proxy" {
                push(
                    routes,
                    format!("{path}/{{path}}"),
                    self.connections(subresource, "WithPath"),
                );
            }
        }
    }

    /// The old form of watches, with a path of its own.
    fn add_watches_to(&self, routes: &mut Vec<Route>, base: &str, collection: &str) {
        let kind = self.kind;
        let watch = |id: String, action: &'static str, parameters: Vec<Parameter>| {
            vec![self.operation(Method::GET, id, action, parameters, Body::None, Answer::Watch)]
        };
        let all = [lists::READ, lists::LIST];
        if kind.namespaced() {
            let id = format!("watch{}{}ListForAllNamespaces", self.name.id, kind.kind);
            let path = format!("{base}/watch/{}", kind.resource);
            push(routes, path, watch(id, "watchlist", all.concat()));
        }
        let id = format!("{}List", self.id("watch"));
        let path = format!("{base}/watch/{collection}");
        push(
            routes,
            path.clone(),
            watch(id, "watchlist", self.parameters(false, &all)),
        );
        let path = format!("{path}/{{name}}");
        let one = watch(self.id("watch"), "watch", self.parameters(true, &all));
        // A namespace itself, and things that there is but one of, are not watched by name.
        push(routes, path, one);
    }

    fn operation(
        &self,
        method: Method,
        id: String,
        action: &'static str,
        parameters: Vec<Parameter>,
        body: Body,
        answer: Answer,
    ) -> Operation {
        let kind = [self.kind.group, self.kind.version, self.kind.kind];
        Operation {
            method,
            id,
            tag: self.name.tag.clone(),
            action: Some(action),
            kind: Some(kind),
            parameters,
            body,
            answer,
        }
    }

    /// `createCoreV1NamespacedPod`
    fn id(&self, verb: &str) -> String {
        let namespaced = if self.kind.namespaced() { "Namespaced" } else { "" };
        format!("{verb}{}{namespaced}{}", self.name.id, self.kind.kind)
    }

    fn list(&self) -> Answer {
        Answer::List(list_definition(self.kind))
    }

    /// The parameters of the path before `groups` of others.
    fn parameters(&self, name: bool, groups: &[&[Parameter]]) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        if name {
            parameters.extend_from_slice(lists::NAME);
        }
        if self.kind.namespaced() {
            parameters.extend_from_slice(lists::NAMESPACE);
        }
        parameters.extend(groups.iter().copied().flatten());
        parameters
    }

    fn collection(&self) -> Vec<Operation> {
        let kind = self.kind;
        let definition = || kind.definition.clone();
        let mut operations = Vec::new();
        if kind.has_verb("list") {
            let parameters = self.parameters(false, &[lists::READ, lists::LIST]);
            operations.push(self.operation(
                Method::GET,
                self.id("list"),
                "list",
                parameters,
                Body::None,
                self.list(),
            ));
        }
        if kind.has_verb("create") {
            let parameters = self.parameters(false, &[lists::READ, lists::WRITE]);
            let (body, answer) = (Body::Object(definition()), Answer::Created(definition()));
            operations.push(self.operation(Method::POST, self.id("create"), "post", parameters, body, answer));
        }
        if kind.has_verb("deletecollection") {
            let id = self
                .id("delete")
                .replacen(&self.name.id, &format!("{}Collection", self.name.id), 1);
            let parameters = self.parameters(false, &[lists::READ, lists::DELETE, lists::SELECT]);
            let answer = Answer::Read(STATUS.to_owned());
            let action = "deletecollection";
            operations.push(self.operation(Method::DELETE, id, action, parameters, Body::DeleteOptions, answer));
        }
        operations
    }

    fn item(&self) -> Vec<Operation> {
        let mut operations = self.object_operations(self.kind.verbs, "", &self.kind.definition);
        if self.kind.has_verb("delete") {
            // A namespace is described as if it went like most things.
            let whole = self.kind.strategy.returns_deleted_object() && self.kind.resource != "namespaces";
            let answer = if whole {
                self.kind.definition.clone()
            } else {
                STATUS.to_owned()
            };
            let parameters = self.parameters(true, &[lists::READ, lists::DELETE]);
            let id = self.id("delete");
            let answer = Answer::Deleted(answer);
            operations.push(self.operation(Method::DELETE, id, "delete", parameters, Body::DeleteOptions, answer));
        }
        operations
    }

    /// GET, PUT and PATCH of an object or of a subresource, as far as `verbs` allow.
    fn object_operations(&self, verbs: &[&str], suffix: &str, definition: &str) -> Vec<Operation> {
        let mut operations = Vec::new();
        let id = |verb| format!("{}{suffix}", self.id(verb));
        if verbs.contains(&"get") {
            let parameters = self.parameters(true, &[lists::READ]);
            let answer = Answer::Read(definition.to_owned());
            operations.push(self.operation(Method::GET, id("read"), "get", parameters, Body::None, answer));
        }
        if verbs.contains(&"update") {
            let parameters = self.parameters(true, &[lists::READ, lists::WRITE]);
            let (body, answer) = (
                Body::Object(definition.to_owned()),
                Answer::Written(definition.to_owned()),
            );
            operations.push(self.operation(Method::PUT, id("replace"), "put", parameters, body, answer));
        }
        if verbs.contains(&"patch") {
            let parameters = self.parameters(true, &[lists::READ, lists::WRITE, lists::FORCE]);
            let answer = Answer::Written(definition.to_owned());
            operations.push(self.operation(Method::PATCH, id("patch"), "patch", parameters, Body::Patch, answer));
        }
        operations
    }

    fn subresource(&self, subresource: &Subresource) -> Vec<Operation> {
        let suffix = capital(subresource.name);
        let own = [subresource.group, subresource.version, subresource.kind];
        let definition = self.definition_of(subresource);
        let mut operations = self.object_operations(subresource.verbs, &suffix, &definition);
        if subresource.name == "log" {
            for operation in &mut operations {
                operation.answer = Answer::Text;
                operation.parameters = self.parameters(true, &[lists::READ, lists::LOG]);
            }
        }
        if subresource.verbs.contains(&"create") {
            let parameters = self.parameters(true, &[lists::READ, lists::WRITE]);
            let (body, answer) = (Body::Object(definition.clone()), Answer::Created(definition));
            let id = format!("{}{suffix}", self.id("create"));
            operations.push(self.operation(Method::POST, id, "post", parameters, body, answer));
        }
        for operation in &mut operations {
            operation.kind = Some(own);
        }
        operations
    }

    /// The definition that a subresource speaks.
    fn definition_of(&self, subresource: &Subresource) -> String {
        let Subresource {
            group, version, kind, ..
        } = subresource;
        if (*group, *version, *kind) == (self.kind.group, self.kind.version, self.kind.kind) {
            return self.kind.definition.clone();
        }
        let api_version = if group.is_empty() {
            (*version).to_owned()
        } else {
            format!("{group}/{version}")
        };
        // A body whose schema is not known is described as an object, like a patch.
        crate::registry::schema::lookup(&api_version, kind).map_or(PATCH.to_owned(), |found| found.name.clone())
    }

    fn connections(&self, subresource: &Subresource, suffix: &str) -> Vec<Operation> {
        let (methods, parameters): (&[Method], &[Parameter]) = match subresource.name {
            "proxy" => (&PROXY_METHODS, lists::PROXY),
            "attach" => (&STREAM_METHODS, lists::ATTACH),
            "exec" => (&STREAM_METHODS, lists::EXEC),
            _ => (&STREAM_METHODS, lists::PORT_FORWARD),
        };
        let with_path = if suffix.is_empty() { &[][..] } else { lists::PATH };
        let parameters = self.parameters(true, &[with_path, parameters]);
        let name = capital(subresource.name);
        let operation = |method: &Method| {
            let verb = capital(&method.as_str().to_lowercase());
            let id = self
                .id("connect")
                .replacen(&self.name.id, &format!("{}{verb}", self.name.id), 1);
            let id = format!("{id}{name}{suffix}");
            let parameters = parameters.clone();
            let mut operation = self.operation(
                method.clone(),
                id,
                "connect",
                parameters,
                Body::None,
                Answer::Connection,
            );
            operation.kind = Some([subresource.group, subresource.version, subresource.kind]);
            operation
        };
        methods.iter().map(operation).collect()
    }
}

const STREAM_METHODS: [Method; 2] = [Method::GET, Method::POST];
const PROXY_METHODS: [Method; 7] = [
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
];

fn push(routes: &mut Vec<Route>, path: String, operations: Vec<Operation>) {
    if !operations.is_empty() {
        routes.push(Route { path, operations });
    }
}
