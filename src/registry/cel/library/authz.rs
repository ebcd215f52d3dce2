//! Questions of who may do what (upstream: `apiserver/pkg/cel/library/authz.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::signatures::opaque_names;
use crate::registry::cel::value::{Text, Value};
use crate::registry::formats::{dns1123_label, dns1123_subdomain};
use std::fmt;
use std::sync::Arc;

/// What asking costs.
pub const CHECK: u64 = 350_000;

/// Who answers. The user is the one who makes the request, or a service account that is named.
pub trait Authorizer: Sync {
    fn decide(&self, account: Option<&Account>, check: &Check) -> Access;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub namespace: String,
    pub name: String,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Path { path: String, verb: String },
    Resource { subject: Subject, verb: String },
}

/// What is to be done something with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub allowed: bool,
    pub reason: String,
}

/// A question as far as it was put together.
#[derive(Clone)]
pub enum Authz<'a> {
    Authorizer(Asker<'a>),
    Path(Asker<'a>, Arc<str>),
    Group(Asker<'a>, Arc<str>),
    Resource(Asker<'a>, Arc<Subject>),
    Decision(Arc<Access>),
}

#[derive(Clone)]
pub struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    account: Option<Arc<Account>>,
}

impl<'a> Authz<'a> {
    /// The variable `authorizer`.
    pub fn of(authorizer: &'a dyn Authorizer) -> Self {
        Self::Authorizer(Asker {
            authorizer,
            account: None,
        })
    }

    /// The variable `authorizer.requestResource`.
    pub fn resource(authorizer: &'a dyn Authorizer, subject: Subject) -> Self {
        let asker = Asker {
            authorizer,
            account: None,
        };
        Self::Resource(asker, Arc::new(subject))
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(_) => opaque_names::AUTHORIZER,
            Self::Path(..) => opaque_names::PATH_CHECK,
            Self::Group(..) => opaque_names::GROUP_CHECK,
            Self::Resource(..) => opaque_names::RESOURCE_CHECK,
            Self::Decision(_) => opaque_names::DECISION,
        }
    }
}

impl fmt::Debug for Authz<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "path" => |arguments| match arguments {
            [Value::Authz(Authz::Authorizer(asker)), Value::String(path)] => {
                let path = filled(path, "path")?;
                Ok(Value::Authz(Authz::Path(asker.clone(), path)))
            }
            _ => Err(Error::NoSuchOverload),
        },
        "group" => |arguments| match arguments {
            [Value::Authz(Authz::Authorizer(asker)), Value::String(group)] => {
                Ok(Value::Authz(Authz::Group(asker.clone(), (**group).into())))
            }
            _ => Err(Error::NoSuchOverload),
        },
        "serviceAccount" => |arguments| match arguments {
            [
                Value::Authz(Authz::Authorizer(asker)),
                Value::String(namespace),
                Value::String(name),
            ] => Ok(Value::Authz(Authz::Authorizer(account(asker, namespace, name)?))),
            _ => Err(Error::NoSuchOverload),
        },
        "resource" => |arguments| match arguments {
            [Value::Authz(Authz::Group(asker, group)), Value::String(resource)] => {
                let resource = filled(resource, "resource")?;
                let subject = Subject {
                    group: group.to_string(),
                    resource: resource.to_string(),
                    ..Subject::default()
                };
                Ok(Value::Authz(Authz::Resource(asker.clone(), Arc::new(subject))))
            }
            _ => Err(Error::NoSuchOverload),
        },
        "subresource" => |arguments| narrowed(arguments, |subject, text| subject.subresource = text),
        "namespace" => |arguments| narrowed(arguments, |subject, text| subject.namespace = text),
        "name" => |arguments| narrowed(arguments, |subject, text| subject.name = text),
        "fieldSelector" => |arguments| narrowed(arguments, |subject, text| subject.field_selector = text),
        "labelSelector" => |arguments| narrowed(arguments, |subject, text| subject.label_selector = text),
        "check" => |arguments| match arguments {
            [Value::Authz(Authz::Path(asker, path)), Value::String(verb)] => Ok(asked(
                asker,
                &Check::Path {
                    path: path.to_string(),
                    verb: verb.to_string(),
                },
            )),
            [Value::Authz(Authz::Resource(asker, subject)), Value::String(verb)] => Ok(asked(
                asker,
                &Check::Resource {
                    subject: (**subject).clone(),
                    verb: verb.to_string(),
                },
            )),
            _ => Err(Error::NoSuchOverload),
        },
        // A decision from memory does not fail.
        "errored" => |arguments| decision(arguments, |_| false.into()),
        "error" => |arguments| decision(arguments, |_| Value::from("")),
        "allowed" => |arguments| decision(arguments, |access| access.allowed.into()),
        "reason" => |arguments| decision(arguments, |access| access.reason.clone().into()),
        _ => return None,
    })
}

fn filled(text: &Text<'_>, what: &str) -> Result<Arc<str>, Error> {
    if text.trim().is_empty() {
        return Err(Error::of(format!("{what} must not be empty")));
    }
    Ok((**text).into())
}

fn account<'a>(asker: &Asker<'a>, namespace: &str, name: &str) -> Result<Asker<'a>, Error> {
    if !dns1123_subdomain(name, false).is_empty() {
        return Err(Error::of("Invalid service account name"));
    }
    if !dns1123_label(namespace, false).is_empty() {
        return Err(Error::of("Invalid service account namespace"));
    }
    let account = Account {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Ok(Asker {
        authorizer: asker.authorizer,
        account: Some(Arc::new(account)),
    })
}

fn narrowed<'a>(arguments: &[Value<'a>], set: fn(&mut Subject, String)) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Authz(Authz::Resource(asker, subject)), Value::String(text)] => {
            let mut subject = (**subject).clone();
            set(&mut subject, text.to_string());
            Ok(Value::Authz(Authz::Resource(asker.clone(), Arc::new(subject))))
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn asked<'a>(asker: &Asker<'a>, check: &Check) -> Value<'a> {
    let access = asker.authorizer.decide(asker.account.as_deref(), check);
    Value::Authz(Authz::Decision(Arc::new(access)))
}

fn decision<'a>(arguments: &[Value<'a>], look: fn(&Access) -> Value<'a>) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Authz(Authz::Decision(access))] => Ok(look(access)),
        _ => Err(Error::NoSuchOverload),
    }
}
