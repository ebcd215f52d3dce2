//! Macros: calls that become comprehensions while parsing
//! (upstream: `cel-go/parser/macro.go`, `ext/comprehensions.go`, `ext/lists.go`, `cel/library.go`).

use super::ast::{ACCUMULATOR, Comprehension, Element, Expr, Kind, Literal};
use super::parser::{Parser, call};
use super::source::Problem;
use std::sync::Arc;

pub(super) enum Expanded {
    Macro(Expr),
    /// No macro: a call of this target and these arguments.
    Call(Option<Expr>, Vec<Expr>),
}

/// Makes nodes at the place of the macro.
struct Maker<'p> {
    parser: &'p mut Parser,
    offset: usize,
}

impl Maker<'_> {
    fn node(&mut self, kind: Kind) -> Expr {
        let id = self.parser.id(self.offset);
        self.parser.make(id, kind)
    }
    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.into()))
    }
    fn accumulator(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }
    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }
    fn bool(&mut self, value: bool) -> Expr {
        self.literal(Literal::Bool(value))
    }
    fn call(&mut self, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(call(function, arguments))
    }
    fn member(&mut self, target: Expr, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(Kind::Call {
            function: function.into(),
            target: Some(Box::new(target)),
            arguments,
        })
    }
    fn list(&mut self, values: Vec<Expr>) -> Expr {
        let elements = values.into_iter().map(|value| Element { value, optional: false });
        let elements = elements.collect();
        self.node(Kind::List(elements))
    }
    fn loop_over(&mut self, parts: Comprehension) -> Expr {
        self.node(Kind::Comprehension(Box::new(parts)))
    }
    /// `value` under a name within `result`.
    fn bind(&mut self, name: &str, value: Expr, result: Expr) -> Expr {
        let parts = Comprehension {
            range: self.list(Vec::new()),
            variable: "#unused".into(),
            second: None,
            accumulator: name.into(),
            init: value,
            condition: self.bool(false),
            step: self.ident(name),
            result,
        };
        self.loop_over(parts)
    }
}

/// The name of a loop's variable.
fn variable(maker: &Maker<'_>, expr: &Expr) -> Result<Arc<str>, Problem> {
    let offset = maker.parser.offsets[expr.id as usize];
    match &expr.kind {
        Kind::Ident(name) if &**name == ACCUMULATOR => Err(Problem {
            offset,
            message: "iteration variable overwrites accumulator variable".to_owned(),
        }),
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(Problem {
            offset,
            message: "argument must be a simple name".to_owned(),
        }),
    }
}

/// Replaces a call by what it stands for, if it is one of a macro.
pub(super) fn expand(
    parser: &mut Parser,
    offset: usize,
    name: &str,
    target: Option<Expr>,
    arguments: Vec<Expr>,
) -> Result<Expanded, Problem> {
    let mut maker = Maker { parser, offset };
    let Some(target) = target else {
        return match (name, arguments.len()) {
            ("has", 1) => has(&mut maker, arguments),
            _ => Ok(Expanded::Call(None, arguments)),
        };
    };
    let expanded = match (name, arguments.len()) {
        ("all", 2 | 3) => every(&mut maker, target, arguments, true)?,
        ("exists", 2 | 3) => every(&mut maker, target, arguments, false)?,
        ("exists_one" | "existsOne", 2 | 3) => exists_one(&mut maker, target, arguments)?,
        ("map", 2 | 3) => map(&mut maker, target, arguments)?,
        ("filter", 2) => filter(&mut maker, target, arguments)?,
        ("transformList", 3 | 4) => transform(&mut maker, target, arguments, Into::List)?,
        ("transformMap", 3 | 4) => transform(&mut maker, target, arguments, Into::Map)?,
        ("transformMapEntry", 3 | 4) => transform(&mut maker, target, arguments, Into::Entries)?,
        ("optMap" | "optFlatMap", 2) => optional(&mut maker, target, arguments, name == "optMap")?,
        ("sortBy", 2) => sort_by(&mut maker, target, arguments)?,
        ("bind", 3) if matches!(&target.kind, Kind::Ident(name) if &**name == "cel") => bind(&mut maker, arguments)?,
        _ => return Ok(Expanded::Call(Some(target), arguments)),
    };
    Ok(Expanded::Macro(expanded))
}

/// `cel.bind(name, value, result)`.
fn bind(maker: &mut Maker<'_>, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    let offset = maker.offset;
    let [name, value, result] = <[Expr; 3]>::try_from(arguments).map_err(|_| Problem {
        offset,
        message: "cel.bind() takes a name, a value and a result".to_owned(),
    })?;
    let name = variable(maker, &name)?;
    Ok(maker.bind(&name, value, result))
}

fn has(maker: &mut Maker<'_>, mut arguments: Vec<Expr>) -> Result<Expanded, Problem> {
    match arguments.pop().map(|argument| argument.kind) {
        Some(Kind::Select {
            operand,
            field,
            test: false,
        }) => Ok(Expanded::Macro(maker.node(Kind::Select {
            operand,
            field,
            test: true,
        }))),
        _ => Err(Problem {
            offset: maker.offset,
            message: "invalid argument to has() macro".to_owned(),
        }),
    }
}

type Variables = (Arc<str>, Option<Arc<str>>, Vec<Expr>);

/// One or two variables, and what follows them.
fn variables(maker: &Maker<'_>, arguments: Vec<Expr>, count: usize) -> Result<Variables, Problem> {
    let first = variable(maker, &arguments[0])?;
    let second = if count == 2 {
        Some(variable(maker, &arguments[1])?)
    } else {
        None
    };
    if second.as_ref() == Some(&first) {
        return Err(Problem {
            offset: maker.parser.offsets[arguments[1].id as usize],
            message: format!("duplicate variable name: {first}"),
        });
    }
    Ok((first, second, arguments.into_iter().skip(count).collect()))
}

fn pop(rest: &mut Vec<Expr>, maker: &mut Maker<'_>) -> Expr {
    rest.pop().unwrap_or_else(|| maker.literal(Literal::Null))
}

/// `all` and `exists`: stops as soon as the result is certain.
fn every(maker: &mut Maker<'_>, range: Expr, arguments: Vec<Expr>, all: bool) -> Result<Expr, Problem> {
    let count = arguments.len() - 1;
    let (variable, second, mut rest) = variables(maker, arguments, count)?;
    let predicate = pop(&mut rest, maker);
    let accumulator = maker.accumulator();
    let going_on = if all {
        accumulator
    } else {
        maker.call("!_", vec![accumulator])
    };
    let parts = Comprehension {
        range,
        variable,
        second,
        accumulator: ACCUMULATOR.into(),
        init: maker.bool(all),
        condition: maker.call("@not_strictly_false", vec![going_on]),
        step: {
            let accumulator = maker.accumulator();
            maker.call(if all { "_&&_" } else { "_||_" }, vec![accumulator, predicate])
        },
        result: maker.accumulator(),
    };
    Ok(maker.loop_over(parts))
}

fn exists_one(maker: &mut Maker<'_>, range: Expr, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    let count = arguments.len() - 1;
    let (variable, second, mut rest) = variables(maker, arguments, count)?;
    let predicate = pop(&mut rest, maker);
    let one = |maker: &mut Maker<'_>| maker.literal(Literal::Int(1));
    let parts = Comprehension {
        range,
        variable,
        second,
        accumulator: ACCUMULATOR.into(),
        init: maker.literal(Literal::Int(0)),
        condition: maker.bool(true),
        step: {
            let addends = vec![maker.accumulator(), one(maker)];
            let sum = maker.call("_+_", addends);
            let same = maker.accumulator();
            maker.call("_?_:_", vec![predicate, sum, same])
        },
        result: {
            let sides = vec![maker.accumulator(), one(maker)];
            maker.call("_==_", sides)
        },
    };
    Ok(maker.loop_over(parts))
}

/// A loop that gathers: `step` is taken where `condition` (if there is one) holds.
fn gather(
    maker: &mut Maker<'_>,
    range: Expr,
    (variable, second): (Arc<str>, Option<Arc<str>>),
    init: Expr,
    step: Expr,
    condition: Option<Expr>,
) -> Expr {
    let step = match condition {
        None => step,
        Some(condition) => {
            let same = maker.accumulator();
            maker.call("_?_:_", vec![condition, step, same])
        }
    };
    let parts = Comprehension {
        range,
        variable,
        second,
        accumulator: ACCUMULATOR.into(),
        init,
        condition: maker.bool(true),
        step,
        result: maker.accumulator(),
    };
    maker.loop_over(parts)
}

/// `@result + [value]`
fn append(maker: &mut Maker<'_>, value: Expr) -> Expr {
    let accumulator = maker.accumulator();
    let list = maker.list(vec![value]);
    maker.call("_+_", vec![accumulator, list])
}

fn map(maker: &mut Maker<'_>, range: Expr, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    let (variable, _, mut rest) = variables(maker, arguments, 1)?;
    let value = pop(&mut rest, maker);
    let condition = rest.pop();
    let init = maker.list(Vec::new());
    let step = append(maker, value);
    Ok(gather(maker, range, (variable, None), init, step, condition))
}

fn filter(maker: &mut Maker<'_>, range: Expr, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    let (variable, _, rest) = variables(maker, arguments, 1)?;
    let value = maker.ident(&variable);
    let init = maker.list(Vec::new());
    let step = append(maker, value);
    Ok(gather(
        maker,
        range,
        (variable, None),
        init,
        step,
        rest.into_iter().next(),
    ))
}

enum Into {
    List,
    Map,
    Entries,
}

fn transform(maker: &mut Maker<'_>, range: Expr, arguments: Vec<Expr>, into: Into) -> Result<Expr, Problem> {
    let (variable, second, mut rest) = variables(maker, arguments, 2)?;
    let value = pop(&mut rest, maker);
    let condition = rest.pop();
    let (init, step) = match into {
        Into::List => (maker.list(Vec::new()), append(maker, value)),
        Into::Map => {
            let key = maker.ident(&variable);
            let arguments = vec![maker.accumulator(), key, value];
            (
                maker.node(Kind::Map(Vec::new())),
                maker.call("cel.@mapInsert", arguments),
            )
        }
        Into::Entries => {
            let arguments = vec![maker.accumulator(), value];
            (
                maker.node(Kind::Map(Vec::new())),
                maker.call("cel.@mapInsert", arguments),
            )
        }
    };
    Ok(gather(maker, range, (variable, second), init, step, condition))
}

/// `optMap` and `optFlatMap`: the expression over the value, if there is one.
fn optional(maker: &mut Maker<'_>, target: Expr, arguments: Vec<Expr>, wrap: bool) -> Result<Expr, Problem> {
    let (variable, _, mut rest) = variables(maker, arguments, 1)?;
    let body = pop(&mut rest, maker);
    const TARGET: &str = "@target";
    let (name, outer) = match &target.kind {
        Kind::Ident(name) => (name.clone(), None),
        _ => (TARGET.into(), Some(target)),
    };
    let held = maker.ident(&name);
    let value = maker.member(held, "value", Vec::new());
    let bound = maker.bind(&variable, value, body);
    let some = if wrap {
        maker.call("optional.of", vec![bound])
    } else {
        bound
    };
    let none = maker.call("optional.none", Vec::new());
    let held = maker.ident(&name);
    let has_value = maker.member(held, "hasValue", Vec::new());
    let choice = maker.call("_?_:_", vec![has_value, some, none]);
    Ok(match outer {
        None => choice,
        Some(target) => maker.bind(TARGET, target, choice),
    })
}

/// `list.sortBy(v, key)`: sorts along the list of keys.
fn sort_by(maker: &mut Maker<'_>, target: Expr, arguments: Vec<Expr>) -> Result<Expr, Problem> {
    const INPUT: &str = "@__sortBy_input__";
    let range = maker.ident(INPUT);
    let keys = map(maker, range, arguments)?;
    let list = maker.ident(INPUT);
    let sorted = maker.member(list, "@sortByAssociatedKeys", vec![keys]);
    Ok(maker.bind(INPUT, target, sorted))
}
