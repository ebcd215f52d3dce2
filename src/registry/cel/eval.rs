//! Evaluates an expression, and counts what it costs (upstream: `cel-go/interpreter`).

use super::ast::{Comprehension, Element, Expr, Field, Kind, Literal};
use super::cost::{LIST_CREATE, MAP_CREATE, STRUCT_CREATE};
use super::error::Error;
use super::library::{Native, insert_into};
use super::runtime_cost;
use super::signatures;
use super::structs::Structure;
use super::value::{Entries, List, Map, Text, Value, type_value};
use std::sync::Arc;

/// Finds variables by name; each evaluation asks anew, so that they may be computed when they are needed.
pub type Lookup<'v, 'a> = &'v dyn Fn(&str) -> Option<Result<Value<'a>, Error>>;

pub(super) struct Evaluation<'v, 'a> {
    natives: &'a [Option<Native>],
    variables: Lookup<'v, 'a>,
    scopes: Vec<(&'a str, Result<Value<'a>, Error>)>,
    pub cost: u64,
    limit: u64,
}

type Evaluated<'a> = Result<Value<'a>, Error>;

impl<'v, 'a> Evaluation<'v, 'a> {
    pub fn new(natives: &'a [Option<Native>], variables: Lookup<'v, 'a>, limit: u64) -> Self {
        Self {
            natives,
            variables,
            scopes: Vec::new(),
            cost: 0,
            limit,
        }
    }

    fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit {
            Err(Error::CostLimit)
        } else {
            Ok(())
        }
    }

    pub fn expression(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test } => self.select(operand, field, *test),
            Kind::Call {
                function,
                target,
                arguments,
            } => self.call(expr.id, function, target.as_deref(), arguments),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => {
                self.charge(MAP_CREATE)?;
                let mut map = Entries::default();
                for entry in entries {
                    let key = self.expression(&entry.key)?;
                    let value = self.expression(&entry.value)?;
                    match (entry.optional, value) {
                        (true, Value::Optional(None)) => {}
                        (true, Value::Optional(Some(inner))) => map.insert(key, (*inner).clone())?,
                        (true, _) => return Err(Error::NoSuchOverload),
                        (false, value) => map.insert(key, value)?,
                    }
                }
                Ok(Value::map(map))
            }
            Kind::Struct { name, fields } => self.structure(name, fields),
            Kind::Comprehension(parts) => self.comprehension(parts),
        }
    }

    fn ident(&mut self, name: &str) -> Evaluated<'a> {
        if let Some((_, value)) = self.scopes.iter().rev().find(|(other, _)| *other == name) {
            let value = value.clone();
            self.charge(1)?;
            return value;
        }
        if let Some(value) = (self.variables)(name) {
            // `variables.x` is a variable and a member of it.
            self.charge(1 + u64::from(name.starts_with("variables.")))?;
            return value;
        }
        // Names of types are constants.
        match signatures::type_named(name) {
            Some(named) => Ok(Value::Type(type_value(&named))),
            None => Err(Error::of(format!("no such attribute(s): {name}"))),
        }
    }

    fn structure(&mut self, name: &Arc<str>, fields: &'a [Field]) -> Evaluated<'a> {
        self.charge(STRUCT_CREATE)?;
        let mut made = Vec::with_capacity(fields.len());
        for field in fields {
            let value = match (field.optional, self.expression(&field.value)?) {
                (true, Value::Optional(None)) => continue,
                (true, Value::Optional(Some(inner))) => (*inner).clone(),
                (true, _) => return Err(Error::NoSuchOverload),
                (false, value) => value,
            };
            made.push((field.name.clone(), value));
        }
        Ok(Value::Struct(Arc::new(Structure {
            name: name.clone(),
            fields: made,
        })))
    }

    fn list(&mut self, elements: &'a [Element]) -> Evaluated<'a> {
        self.charge(LIST_CREATE)?;
        let mut values = Vec::with_capacity(elements.len());
        for element in elements {
            match (element.optional, self.expression(&element.value)?) {
                (true, Value::Optional(None)) => {}
                (true, Value::Optional(Some(inner))) => values.push((*inner).clone()),
                (true, _) => return Err(Error::NoSuchOverload),
                (false, value) => values.push(value),
            }
        }
        Ok(Value::list(values))
    }

    fn select(&mut self, operand: &'a Expr, field: &str, test: bool) -> Evaluated<'a> {
        let operand = self.expression(operand)?;
        if !test {
            self.charge(1)?;
        }
        let (value, optional) = match operand {
            Value::Optional(None) if test => return Ok(false.into()),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match &value {
            Value::Map(map) => map.member(field),
            Value::Struct(structure) => structure.field(field).cloned().map(Ok),
            _ => return Err(Error::NoSuchOverload),
        };
        match found {
            found if test => Ok(found.is_some().into()),
            Some(found) if optional => found.map(Value::some),
            Some(found) => found,
            None if optional => Ok(Value::Optional(None)),
            None => Err(Error::of(format!("no such key: {field}"))),
        }
    }

    fn call(&mut self, id: u32, function: &'a str, target: Option<&'a Expr>, arguments: &'a [Expr]) -> Evaluated<'a> {
        match (function, arguments) {
            ("_&&_", [left, right]) => return self.logical(left, right, false),
            ("_||_", [left, right]) => return self.logical(left, right, true),
            ("_?_:_", [condition, truthy, falsy]) => {
                return match self.expression(condition)? {
                    Value::Bool(true) => self.expression(truthy),
                    Value::Bool(false) => self.expression(falsy),
                    _ => Err(Error::NoSuchOverload),
                };
            }
            ("@not_strictly_false", [argument]) => {
                let value = self.expression(argument);
                self.charge(1)?;
                return match value {
                    Err(Error::CostLimit) => Err(Error::CostLimit),
                    Ok(Value::Bool(value)) => Ok(value.into()),
                    _ => Ok(true.into()),
                };
            }
            ("_?._", [operand, field]) => {
                let operand = self.expression(operand)?;
                self.charge(1)?;
                let Kind::Literal(Literal::String(field)) = &field.kind else {
                    return Err(Error::NoSuchOverload);
                };
                return optional(operand, |value| match value {
                    Value::Map(map) => Ok(map.member(field)),
                    _ => Err(Error::NoSuchOverload),
                });
            }
            ("_[_]" | "_[?_]", [container, index]) => {
                let container = self.expression(container)?;
                let index = self.expression(index)?;
                self.charge(1)?;
                if function == "_[?_]" || matches!(container, Value::Optional(_)) {
                    return optional(container, |value| at(value, &index));
                }
                return match at(&container, &index)? {
                    Some(found) => found,
                    None if matches!(container, Value::List(_)) => {
                        Err(Error::of(format!("index out of bounds: {index}")))
                    }
                    None => Err(Error::of(format!("no such key: {index}"))),
                };
            }
            _ => {}
        }
        let native = self.natives.get(id as usize).copied().flatten();
        let native = native.ok_or_else(|| Error::of(format!("unbound function: {function}()")))?;
        let mut values = Vec::with_capacity(arguments.len() + 1);
        if let Some(target) = target {
            values.push(self.expression(target)?);
        }
        for argument in arguments {
            values.push(self.expression(argument)?);
        }
        self.charge(runtime_cost::before(function, &values))?;
        let result = native(&values)?;
        self.charge(runtime_cost::after(function, &result))?;
        Ok(result)
    }

    /// `&&` and `||`: one side that decides is enough, whatever the other comes to.
    fn logical(&mut self, left: &'a Expr, right: &'a Expr, decides: bool) -> Evaluated<'a> {
        let left = match self.expression(left) {
            Ok(Value::Bool(value)) if value == decides => return Ok(value.into()),
            Err(Error::CostLimit) => return Err(Error::CostLimit),
            other => other,
        };
        let right = match self.expression(right) {
            Ok(Value::Bool(value)) if value == decides => return Ok(value.into()),
            Err(Error::CostLimit) => return Err(Error::CostLimit),
            other => other,
        };
        match (left?, right?) {
            (Value::Bool(_), Value::Bool(_)) => Ok((!decides).into()),
            _ => Err(Error::NoSuchOverload),
        }
    }

    fn comprehension(&mut self, parts: &'a Comprehension) -> Evaluated<'a> {
        let range = self.expression(&parts.range)?;
        let init = self.expression(&parts.init)?;
        let slot = self.scopes.len();
        self.scopes.push((&parts.accumulator, Ok(init)));
        let looped = self.iterate(parts, &range, slot);
        let result = looped.and_then(|()| self.expression(&parts.result));
        self.scopes.truncate(slot);
        result
    }

    fn iterate(&mut self, parts: &'a Comprehension, range: &Value<'a>, slot: usize) -> Result<(), Error> {
        let two = parts.second.is_some();
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let item = list.get(index).unwrap_or(Err(Error::NoSuchOverload));
                    let going_on = if two {
                        let number = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                        self.round(parts, slot, Ok(number), Some(item))?
                    } else {
                        self.round(parts, slot, item, None)?
                    };
                    if !going_on {
                        break;
                    }
                }
                Ok(())
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = two.then(|| map.get(&key).unwrap_or(Err(Error::NoSuchOverload)));
                    if !self.round(parts, slot, Ok(key), value)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => Err(Error::NoSuchOverload),
        }
    }

    /// One round of a loop; false if it is the last.
    fn round(
        &mut self,
        parts: &'a Comprehension,
        slot: usize,
        first: Evaluated<'a>,
        second: Option<Evaluated<'a>>,
    ) -> Result<bool, Error> {
        self.scopes.push((&parts.variable, first));
        if let (Some(name), Some(value)) = (&parts.second, second) {
            self.scopes.push((name, value));
        }
        let condition = self.expression(&parts.condition);
        let going_on = match condition {
            Err(Error::CostLimit) => return Err(Error::CostLimit),
            Ok(Value::Bool(false)) => false,
            _ => true,
        };
        if going_on && let Some(next) = self.step(&parts.step, slot) {
            if next == Err(Error::CostLimit) {
                return Err(Error::CostLimit);
            }
            self.scopes[slot].1 = next.0;
        }
        self.scopes.truncate(slot + 1);
        Ok(going_on)
    }

    /// The next value of the accumulator; None if it stays as it is. Lists and maps that grow are not copied.
    fn step(&mut self, step: &'a Expr, slot: usize) -> Option<Next<'a>> {
        let name = self.scopes[slot].0;
        let is_accumulator = |expr: &Expr| matches!(&expr.kind, Kind::Ident(other) if **other == *name);
        if let Kind::Call {
            function,
            target: None,
            arguments,
        } = &step.kind
        {
            match (&**function, &arguments[..]) {
                ("_?_:_", [condition, truthy, falsy]) => {
                    let branch = match self.expression(condition) {
                        Ok(Value::Bool(true)) => truthy,
                        Ok(Value::Bool(false)) => falsy,
                        Ok(_) => return Some(Next(Err(Error::NoSuchOverload))),
                        Err(error) => return Some(Next(Err(error))),
                    };
                    if is_accumulator(branch) {
                        return self.charge(1).err().map(|error| Next(Err(error)));
                    }
                    return self.step(branch, slot);
                }
                ("_+_", [list, added]) if is_accumulator(list) => {
                    if let Kind::List(elements) = &added.kind {
                        return Some(Next(self.append(elements, slot)));
                    }
                }
                ("cel.@mapInsert", [map, rest @ ..]) if is_accumulator(map) => {
                    return Some(Next(self.insert(rest, slot)));
                }
                _ => {}
            }
        }
        Some(Next(self.expression(step)))
    }

    fn take(&mut self, slot: usize) -> Evaluated<'a> {
        std::mem::replace(&mut self.scopes[slot].1, Ok(Value::Null))
    }

    fn append(&mut self, elements: &'a [Element], slot: usize) -> Evaluated<'a> {
        // The accumulator, the sum.
        self.charge(2)?;
        let added = self.list(elements)?;
        match (self.take(slot)?, added) {
            (Value::List(List::Values(mut all)), Value::List(List::Values(more))) => {
                Arc::make_mut(&mut all).extend(more.iter().cloned());
                Ok(Value::List(List::Values(all)))
            }
            _ => Err(Error::NoSuchOverload),
        }
    }

    fn insert(&mut self, rest: &'a [Expr], slot: usize) -> Evaluated<'a> {
        self.charge(2)?;
        let mut values = Vec::with_capacity(rest.len());
        for expr in rest {
            values.push(self.expression(expr)?);
        }
        match self.take(slot)? {
            Value::Map(Map::Values(mut entries)) => {
                insert_into(Arc::make_mut(&mut entries), &values)?;
                Ok(Value::Map(Map::Values(entries)))
            }
            _ => Err(Error::NoSuchOverload),
        }
    }
}

/// What an accumulator becomes.
struct Next<'a>(Evaluated<'a>);

impl PartialEq<Result<(), Error>> for Next<'_> {
    fn eq(&self, other: &Result<(), Error>) -> bool {
        matches!((&self.0, other), (Err(a), Err(b)) if a == b)
    }
}

fn constant<'a>(literal: &'a Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// Looks into a value that may be absent; what is not there is an optional without a value.
fn optional<'a>(value: Value<'a>, look: impl Fn(&Value<'a>) -> Result<Option<Evaluated<'a>>, Error>) -> Evaluated<'a> {
    let inner = match value {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => (*inner).clone(),
        other => other,
    };
    match look(&inner)? {
        Some(found) => found.map(Value::some),
        None => Ok(Value::Optional(None)),
    }
}

/// The item or entry at an index.
fn at<'a>(container: &Value<'a>, index: &Value<'a>) -> Result<Option<Evaluated<'a>>, Error> {
    match container {
        Value::List(list) => {
            let number = match index {
                Value::Int(number) => *number,
                Value::Uint(number) => i64::try_from(*number).unwrap_or(i64::MAX),
                Value::Double(number) if number.fract() == 0.0 => *number as i64,
                other => {
                    return Err(Error::of(format!(
                        "unsupported index type '{}' in list",
                        other.type_name()
                    )));
                }
            };
            Ok(usize::try_from(number).ok().and_then(|number| list.get(number)))
        }
        Value::Map(map) => Ok(map.get(index)),
        _ => Err(Error::NoSuchOverload),
    }
}
