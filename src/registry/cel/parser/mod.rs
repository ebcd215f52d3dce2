//! From tokens to the tree (upstream: `cel-go/parser/parser.go`).

mod operands;

use super::ast::{Expr, Field, Id, Kind, Literal};
use super::lexer::{Spanned, Token, tokens};
use super::source::{CompileError, Problem};
use std::sync::Arc;

/// Levels of a tree, whatever makes them.
const HEIGHT_MAX: u16 = 250;
/// Levels of brackets in one another, each of which costs the parser a dozen calls.
const DEPTH_MAX: usize = 100;
const CODE_POINTS_MAX: usize = 100_000;

const PRIMARY: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// A parsed expression and the place of every node.
pub(super) struct Parsed {
    pub root: Expr,
    pub offsets: Vec<usize>,
}

pub(super) struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    /// Where each node stands, by its id.
    pub(super) offsets: Vec<usize>,
    /// The levels below each node, by its id.
    heights: Vec<u16>,
    too_high: bool,
}

type Parse<T> = Result<T, Problem>;

pub(super) fn parse(source: &str) -> Result<Parsed, CompileError> {
    let points = source.chars().count();
    if points > CODE_POINTS_MAX {
        return Err(CompileError::new(
            source,
            vec![Problem {
                offset: 0,
                message: format!("expression code point size exceeds limit: size: {points}, limit {CODE_POINTS_MAX}"),
            }],
        ));
    }
    let parsed = || {
        let mut parser = Parser {
            tokens: tokens(source)?,
            at: 0,
            depth: 0,
            offsets: Vec::new(),
            heights: Vec::new(),
            too_high: false,
        };
        let root = parser.expression()?;
        match parser.peek() {
            Token::End => Ok(Parsed {
                root,
                offsets: parser.offsets,
            }),
            _ => {
                let token = &parser.tokens[parser.at];
                Err(Problem {
                    offset: token.offset,
                    message: format!("Syntax error: extraneous input '{}' expecting <EOF>", token.text),
                })
            }
        }
    };
    parsed().map_err(|problem| CompileError::new(source, vec![problem]))
}

impl Parser {
    /// A new id for a node at a place.
    pub(super) fn id(&mut self, offset: usize) -> Id {
        self.offsets.push(offset);
        self.heights.push(0);
        Id::try_from(self.offsets.len() - 1).unwrap_or(Id::MAX)
    }

    fn node(&mut self, offset: usize, kind: Kind) -> Expr {
        let id = self.id(offset);
        self.make(id, kind)
    }

    /// Completes a node; too many levels are noted and end the parsing at its next step.
    pub(super) fn make(&mut self, id: Id, kind: Kind) -> Expr {
        let height = |expr: &Expr| self.heights[expr.id as usize] + 1;
        let highest = match &kind {
            Kind::Literal(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => height(operand),
            Kind::Call { target, arguments, .. } => {
                let target = target.as_deref().map_or(0, height);
                arguments.iter().map(height).max().unwrap_or(0).max(target)
            }
            Kind::List(elements) => elements.iter().map(|element| height(&element.value)).max().unwrap_or(0),
            Kind::Map(entries) => entries
                .iter()
                .map(|entry| height(&entry.key).max(height(&entry.value)))
                .max()
                .unwrap_or(0),
            Kind::Struct { fields, .. } => fields.iter().map(|field| height(&field.value)).max().unwrap_or(0),
            Kind::Comprehension(parts) => [&parts.range, &parts.init, &parts.condition, &parts.step, &parts.result]
                .into_iter()
                .map(height)
                .max()
                .unwrap_or(0),
        };
        self.heights[id as usize] = highest;
        self.too_high |= highest >= HEIGHT_MAX;
        Expr { id, kind }
    }

    fn check_height(&self) -> Parse<()> {
        if self.too_high || self.depth > DEPTH_MAX {
            return Err(Problem {
                offset: self.offset(),
                message: format!("expression recursion limit exceeded: {HEIGHT_MAX}"),
            });
        }
        Ok(())
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn offset(&self) -> usize {
        self.tokens[self.at].offset
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn next(&mut self) -> Spanned {
        let token = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    fn take(&mut self, symbol: &str) -> Option<usize> {
        self.is(symbol).then(|| self.next().offset)
    }

    fn expect(&mut self, symbol: &str) -> Parse<usize> {
        self.take(symbol).ok_or_else(|| self.unexpected(&format!("'{symbol}'")))
    }

    fn unexpected(&self, expected: &str) -> Problem {
        let token = &self.tokens[self.at];
        Problem {
            offset: token.offset,
            message: format!("Syntax error: mismatched input '{}' expecting {expected}", token.text),
        }
    }

    fn expression(&mut self) -> Parse<Expr> {
        self.depth += 1;
        self.check_height()?;
        let condition = self.or()?;
        let expression = match self.take("?") {
            None => condition,
            Some(offset) => {
                let id = self.id(offset);
                let truthy = self.or()?;
                self.expect(":")?;
                let falsy = self.expression()?;
                self.make(id, call("_?_:_", vec![condition, truthy, falsy]))
            }
        };
        self.depth -= 1;
        self.check_height()?;
        Ok(expression)
    }

    /// Terms joined by one operator, which may stand in a tree of any shape: it is kept flat.
    fn logical(&mut self, symbol: &str, function: &str, term: fn(&mut Self) -> Parse<Expr>) -> Parse<Expr> {
        let mut terms = vec![term(self)?];
        let mut ids = Vec::new();
        while let Some(offset) = self.take(symbol) {
            ids.push(self.id(offset));
            terms.push(term(self)?);
        }
        let mut terms = terms.into_iter();
        self.balanced(function, &mut terms, &ids)
    }

    /// A tree of small height over many terms.
    fn balanced(&mut self, function: &str, terms: &mut std::vec::IntoIter<Expr>, ids: &[Id]) -> Parse<Expr> {
        if ids.is_empty() {
            return terms.next().ok_or_else(|| self.unexpected(PRIMARY));
        }
        let middle = ids.len() / 2;
        let left = self.balanced(function, terms, &ids[..middle])?;
        let right = self.balanced(function, terms, &ids[middle + 1..])?;
        Ok(self.make(ids[middle], call(function, vec![left, right])))
    }

    fn or(&mut self) -> Parse<Expr> {
        self.logical("||", "_||_", Self::and)
    }

    fn and(&mut self) -> Parse<Expr> {
        self.logical("&&", "_&&_", Self::relation)
    }

    fn binary(&mut self, operators: &[(&str, &str)], term: fn(&mut Self) -> Parse<Expr>) -> Parse<Expr> {
        let mut left = term(self)?;
        loop {
            let is_in = matches!(self.peek(), Token::Ident(word) if &**word == "in");
            let found = operators
                .iter()
                .find(|(symbol, _)| self.is(symbol) || (*symbol == "in" && is_in));
            let Some((_, function)) = found else { return Ok(left) };
            let offset = self.next().offset;
            let id = self.id(offset);
            let right = term(self)?;
            left = self.make(id, call(function, vec![left, right]));
            self.check_height()?;
        }
    }

    fn relation(&mut self) -> Parse<Expr> {
        self.binary(
            &[
                ("==", "_==_"),
                ("!=", "_!=_"),
                ("<=", "_<=_"),
                (">=", "_>=_"),
                ("<", "_<_"),
                (">", "_>_"),
                ("in", "@in"),
            ],
            Self::sum,
        )
    }

    fn sum(&mut self) -> Parse<Expr> {
        self.binary(&[("+", "_+_"), ("-", "_-_")], Self::product)
    }

    fn product(&mut self) -> Parse<Expr> {
        self.binary(&[("*", "_*_"), ("/", "_/_"), ("%", "_%_")], Self::unary)
    }

    fn unary(&mut self) -> Parse<Expr> {
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            if !self.is(symbol) {
                continue;
            }
            let offset = self.offset();
            let mut count = 0;
            while self.take(symbol).is_some() {
                count += 1;
            }
            let is_number = matches!(self.peek(), Token::Int(_) | Token::Double(_));
            if symbol == "-" && count == 1 && is_number {
                let number = self.number(offset, true)?;
                return self.members(number);
            }
            let id = self.id(offset);
            let primary = self.primary()?;
            let operand = self.members(primary)?;
            // Two of the same take each other back.
            return Ok(if count % 2 == 0 {
                operand
            } else {
                self.make(id, call(function, vec![operand]))
            });
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut operand: Expr) -> Parse<Expr> {
        loop {
            if let Some(dot) = self.take(".") {
                let optional = self.take("?").is_some();
                let name = self.name(true)?;
                if !optional && let Some(open) = self.take("(") {
                    let id = self.id(open);
                    let arguments = self.arguments()?;
                    operand = self.invoke(id, name, Some(operand), arguments)?;
                } else if optional {
                    let id = self.id(dot);
                    let field = self.node(dot, Kind::Literal(Literal::String(name)));
                    operand = self.make(id, call("_?._", vec![operand, field]));
                } else {
                    operand = self.node(
                        dot,
                        Kind::Select {
                            operand: Box::new(operand),
                            field: name,
                            test: false,
                        },
                    );
                }
            } else if let Some(open) = self.take("[") {
                let id = self.id(open);
                let optional = self.take("?").is_some();
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                operand = self.make(id, call(function, vec![operand, index]));
            } else if self.is("{") && operand.qualified_name().is_some() {
                operand = self.structure(operand)?;
            } else {
                return Ok(operand);
            }
            self.check_height()?;
        }
    }

    fn structure(&mut self, name: Expr) -> Parse<Expr> {
        let open = self.expect("{")?;
        let id = self.id(open);
        let name: Arc<str> = name.qualified_name().unwrap_or_default().into();
        let mut fields = Vec::new();
        while !self.is("}") {
            let optional = self.take("?").is_some();
            let name = self.name(true)?;
            self.expect(":")?;
            fields.push(Field {
                name,
                value: self.expression()?,
                optional,
            });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(self.make(id, Kind::Struct { name, fields }))
    }
}

pub(super) fn call(function: &str, arguments: Vec<Expr>) -> Kind {
    Kind::Call {
        function: function.into(),
        target: None,
        arguments,
    }
}
