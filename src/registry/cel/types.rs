//! Types of expressions, and how one fits another (upstream: `cel-go/common/types/types.go`, `checker/types.go`).

use super::decl::{Decl, Shape};
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Type {
    /// Any type; what it is shows at run time.
    Dyn,
    /// Something that was found wrong already.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// An object with known fields.
    Object(Arc<Decl>),
    /// A type of a library: `net.IP`, `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type that expressions can make: `Object.spec`, `JSONPatch`.
    Struct(Arc<str>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type that is not known yet, by number.
    Param(u32),
}

impl Type {
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }
    pub fn optional(inner: Type) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// The type of values that a declaration describes.
    pub fn of(decl: &Arc<Decl>) -> Self {
        match &decl.shape {
            Shape::Any | Shape::IntOrString | Shape::Preserved => Self::Dyn,
            Shape::Bool => Self::Bool,
            Shape::Int => Self::Int,
            Shape::Double => Self::Double,
            Shape::String => Self::String,
            Shape::Bytes => Self::Bytes,
            Shape::Duration => Self::Duration,
            Shape::Date | Shape::DateTime => Self::Timestamp,
            Shape::List { item, .. } => Self::list(Self::of(item)),
            Shape::Map(value) => Self::map(Self::String, Self::of(value)),
            Shape::Object(_) => Self::Object(decl.clone()),
        }
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// The value's type of an optional, and whether it is one.
    pub(super) fn unwrap_optional(&self) -> (Type, bool) {
        match self {
            Self::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        }
    }

    /// Exactly the same type.
    pub(super) fn same(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b))
            | (Self::Optional(a), Self::Optional(b))
            | (Self::Type(a), Self::Type(b)) => a.same(b),
            (Self::Map(a), Self::Map(b)) => a.0.same(&b.0) && a.1.same(&b.1),
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Struct(a), Self::Struct(b)) => a == b,
            (Self::Param(a), Self::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && !matches!(a, Self::Object(_)),
        }
    }

    /// Bool, numbers and times: values of one size.
    pub(super) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Int | Self::Uint | Self::Double | Self::Duration | Self::Timestamp => true,
            Self::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }

    /// Null is a value of these.
    fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Null
                | Self::Optional(_)
                | Self::Object(_)
                | Self::Opaque(_)
                | Self::Struct(_)
                | Self::Duration
                | Self::Timestamp
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Object(decl) => f.write_str(decl.name()),
            Self::Opaque(name) => f.write_str(name),
            Self::Struct(name) => f.write_str(name),
            Self::Type(inner) => write!(f, "type({inner})"),
            Self::Param(number) => write!(f, "_var{number}"),
        }
    }
}

/// What is known of types that were unknown.
#[derive(Clone, Debug, Default)]
pub(super) struct Substitutions(Vec<Option<Type>>);

impl Substitutions {
    pub fn fresh(&mut self) -> Type {
        self.0.push(None);
        Type::Param(u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX))
    }

    fn find(&self, number: u32) -> Option<&Type> {
        self.0.get(number as usize)?.as_ref()
    }

    fn set(&mut self, number: u32, to: Type) {
        if let Some(slot) = self.0.get_mut(number as usize) {
            *slot = Some(to);
        }
    }

    /// The type with everything known filled in; what stays unknown becomes dyn if `to_dyn`.
    pub fn apply(&self, of: &Type, to_dyn: bool) -> Type {
        match of {
            Type::Param(number) => match self.find(*number) {
                Some(known) => self.apply(known, to_dyn),
                None if to_dyn => Type::Dyn,
                None => of.clone(),
            },
            Type::List(item) => Type::list(self.apply(item, to_dyn)),
            Type::Optional(inner) => Type::optional(self.apply(inner, to_dyn)),
            Type::Type(inner) => Type::Type(Arc::new(self.apply(inner, to_dyn))),
            Type::Map(entry) => Type::map(self.apply(&entry.0, to_dyn), self.apply(&entry.1, to_dyn)),
            other => other.clone(),
        }
    }

    /// Whether a value of `from` can be where `to` is asked for. What was learned of unknown types is kept only
    /// if it can.
    pub fn assign_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        if from.len() != to.len() {
            return false;
        }
        let mut tried = self.clone();
        let fits = from.iter().zip(to).all(|(from, to)| tried.assignable(from, to));
        if fits {
            *self = tried;
        }
        fits
    }

    pub fn assign(&mut self, from: &Type, to: &Type) -> bool {
        self.assign_all(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(number) = b {
            let (valid, known) = self.substitute(a, *number);
            if valid {
                return true;
            }
            if known {
                return false;
            }
        }
        if let Type::Param(number) = a {
            return self.substitute(b, *number).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => other.is_nullable(),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => self.assignable(a, b),
            (Type::Map(a), Type::Map(b)) => self.assignable(&a.0, &b.0) && self.assignable(&a.1, &b.1),
            (a, b) => a.same(b),
        }
    }

    /// Whether `of` can stand for the unknown type, and whether something stood for it before.
    fn substitute(&mut self, of: &Type, number: u32) -> (bool, bool) {
        if matches!(of, Type::Param(other) if *other == number) {
            return (true, true);
        }
        if let Some(known) = self.find(number).cloned() {
            if of.same(&known) {
                return (true, true);
            }
            if self.assignable(of, &known) {
                let general = most_general(of, &known).clone();
                if !self.occurs(number, &general) {
                    self.set(number, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.occurs(number, of) {
            return (false, false);
        }
        self.set(number, of.clone());
        (true, false)
    }

    fn occurs(&self, number: u32, within: &Type) -> bool {
        match within {
            Type::Param(other) if *other == number => true,
            Type::Param(other) => self.find(*other).is_some_and(|known| self.occurs(number, known)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(inner) => self.occurs(number, inner),
            Type::Map(entry) => self.occurs(number, &entry.0) || self.occurs(number, &entry.1),
            _ => false,
        }
    }
}

pub(super) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if is_equal_or_less_specific(a, b) { a } else { b }
}

fn is_equal_or_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => is_equal_or_less_specific(a, b),
        (Type::Map(a), Type::Map(b)) => is_equal_or_less_specific(&a.0, &b.0) && is_equal_or_less_specific(&a.1, &b.1),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a.same(b),
    }
}
