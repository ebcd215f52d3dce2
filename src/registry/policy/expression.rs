//! Expressions of admission and what they can name (upstream: `apiserver/pkg/admission/plugin/cel/compile.go`).

use crate::registry::cel::decl::{FieldDecl, ListKind, ObjectDecl, REQUEST_BYTES_MAX, Shape, escape};
use crate::registry::cel::{self, Decl, Environment, OBJECT, PATCH, Program, Type};
use crate::registry::field::FieldError;
use std::sync::{Arc, LazyLock};

/// What an expression can name besides the objects and the request.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub params: bool,
    pub authorizer: bool,
    /// It makes objects and patches.
    pub patches: bool,
}

impl Names {
    /// What conditions of webhooks can name.
    pub fn of_hook() -> Self {
        Self {
            params: false,
            authorizer: true,
            patches: false,
        }
    }
}

/// What an expression must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    Bool,
    Text,
    TextOrNull,
    Object,
    Patch,
    Anything,
}

/// An expression, compiled or not.
#[derive(Debug)]
pub struct Expression {
    path: String,
    pub source: String,
    program: Result<Program, String>,
}

impl Expression {
    pub fn compile(path: String, source: &str, environment: &Environment, returns: Returns) -> Self {
        let program = cel::compile(source, environment)
            .map_err(|error| format!("compilation failed: {error}"))
            .and_then(|program| match returns.refuse(program.result()) {
                None => Ok(program),
                Some(why) => Err(why),
            });
        Self {
            path,
            source: source.to_owned(),
            program,
        }
    }

    /// Where it stands in its object.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Err says why it cannot be run.
    pub fn program(&self) -> Result<&Program, &str> {
        self.program.as_ref().map_err(String::as_str)
    }

    /// The type of what it comes to; dyn if it does not compile.
    pub fn result(&self) -> Type {
        self.program
            .as_ref()
            .map_or(Type::Dyn, |program| program.result().clone())
    }

    /// The field error of an expression that is there and does not compile.
    pub fn problem(&self) -> Option<FieldError> {
        match &self.program {
            Err(detail) if !self.source.trim().is_empty() => {
                Some(FieldError::invalid(self.path.as_str(), self.source.as_str(), detail))
            }
            _ => None,
        }
    }
}

impl Returns {
    /// Why a result of this type will not do.
    fn refuse(self, found: &Type) -> Option<String> {
        let fits = match (self, found) {
            (Self::Anything, _) | (Self::Bool, Type::Bool) | (Self::Text | Self::TextOrNull, Type::String) => true,
            (Self::TextOrNull, Type::Null) => true,
            (Self::Object, Type::Struct(name)) => &**name == OBJECT,
            (Self::Patch, Type::List(item)) => matches!(&**item, Type::Struct(name) if &**name == PATCH),
            _ => false,
        };
        let expected = match self {
            Self::Bool => "bool",
            Self::Text => "string",
            Self::TextOrNull => "one of [string null_type]",
            Self::Object => OBJECT,
            Self::Patch => "list(JSONPatch)",
            Self::Anything => "anything",
        };
        let shown = match found {
            Type::Null => "null_type".to_owned(),
            other => other.to_string(),
        };
        (!fits).then(|| format!("must evaluate to {expected} but got {shown}"))
    }
}

/// Objects are not typed: a policy may be for several kinds.
pub fn environment(names: Names) -> Environment {
    typed_environment(names, Type::Dyn, Type::Dyn)
}

/// The same with the types that objects and parameters have.
pub fn typed_environment(names: Names, object: Type, params: Type) -> Environment {
    let mut environment = Environment::default()
        .with("object", object.clone())
        .with("oldObject", object)
        .with_data("namespaceObject", &NAMESPACE)
        .with_data("request", &REQUEST);
    if names.params {
        environment = environment.with("params", params);
    }
    if names.authorizer {
        environment = environment
            .with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
            .with(
                "authorizer.requestResource",
                Type::Opaque("kubernetes.authorization.ResourceCheck"),
            );
    }
    if names.patches {
        environment = environment.with_patches();
    }
    environment
}

/// The type of a variable of a policy: that of its expression, as far as a declaration can say it.
pub fn declared(found: &Type) -> Type {
    match found {
        Type::Bool
        | Type::Bytes
        | Type::Double
        | Type::Duration
        | Type::Int
        | Type::Null
        | Type::String
        | Type::Timestamp
        | Type::Uint => found.clone(),
        Type::List(item) => Type::list(declared(item)),
        Type::Map(entry) => Type::map(declared(&entry.0), declared(&entry.1)),
        _ => Type::Dyn,
    }
}

/// What `variables` is besides the variables that it has.
pub static NO_VARIABLES: LazyLock<Arc<Decl>> = LazyLock::new(|| object("kubernetes.variables", &[]));

/// Of what a request may bring, which its size bounds.
pub(super) fn decl(shape: Shape) -> Arc<Decl> {
    Arc::new(Decl {
        shape,
        nullable: false,
        elements_max: REQUEST_BYTES_MAX,
        bytes_min: 2,
    })
}

fn object(name: &str, fields: &[(&str, Arc<Decl>)]) -> Arc<Decl> {
    let fields = fields.iter().filter_map(|(name, decl)| {
        let field = FieldDecl {
            name: (*name).into(),
            decl: decl.clone(),
        };
        Some((Arc::from(escape(name)?), field))
    });
    decl(Shape::Object(ObjectDecl {
        name: name.into(),
        fields: fields.collect(),
    }))
}

fn text() -> Arc<Decl> {
    decl(Shape::String)
}

fn list(item: Arc<Decl>) -> Arc<Decl> {
    decl(Shape::List {
        item,
        kind: ListKind::Atomic,
    })
}

fn map(value: Arc<Decl>) -> Arc<Decl> {
    decl(Shape::Map(value))
}

/// `request`: an AdmissionRequest without the objects, which are variables of their own.
pub static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[("group", text()), ("version", text()), ("kind", text())],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", list(text())),
            ("extra", map(list(text()))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", decl(Shape::Bool)),
            ("options", decl(Shape::Any)),
        ],
    )
});

/// `namespaceObject`: what is told of the namespace of the object.
pub static NAMESPACE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let (int, time) = (|| decl(Shape::Int), || decl(Shape::DateTime));
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map(text())),
            ("annotations", map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", int()),
            ("deletionTimestamp", time()),
            ("generation", int()),
            ("resourceVersion", text()),
            ("finalizers", list(text())),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let status = object(
        "kubernetes.NamespaceStatus",
        &[("conditions", list(condition)), ("phase", text())],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", list(text()))]);
    object(
        "kubernetes.Namespace",
        &[("metadata", metadata), ("spec", spec), ("status", status)],
    )
});
