//! What operators stand between: literals, names, calls, lists and maps.

use super::{PRIMARY, Parse, Parser};
use crate::registry::cel::ast::{Element, Entry, Expr, Id, Kind, Literal};
use crate::registry::cel::lexer::Token;
use crate::registry::cel::macros;
use crate::registry::cel::source::Problem;
use crate::registry::cel::words;
use std::sync::Arc;

impl Parser {
    /// A name; after a dot some words are names that are none elsewhere.
    pub(super) fn name(&mut self, is_member: bool) -> Parse<Arc<str>> {
        match self.peek().clone() {
            Token::Ident(word) => {
                let never = words::OPERANDS.contains(&&*word);
                if never {
                    return Err(self.unexpected("IDENTIFIER"));
                }
                if !is_member && words::RESERVED.contains(&&*word) {
                    return Err(Problem {
                        offset: self.offset(),
                        message: format!("reserved identifier: {word}"),
                    });
                }
                self.next();
                Ok(word)
            }
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    pub(super) fn arguments(&mut self) -> Parse<Vec<Expr>> {
        let mut arguments = Vec::new();
        if !self.is(")") {
            loop {
                arguments.push(self.expression()?);
                if self.take(",").is_none() {
                    break;
                }
            }
        }
        self.expect(")")?;
        Ok(arguments)
    }

    pub(super) fn invoke(&mut self, id: Id, name: Arc<str>, target: Option<Expr>, arguments: Vec<Expr>) -> Parse<Expr> {
        let offset = self.offsets[id as usize];
        match macros::expand(self, offset, &name, target, arguments)? {
            macros::Expanded::Macro(expr) => Ok(expr),
            macros::Expanded::Call(target, arguments) => {
                let target = target.map(Box::new);
                Ok(self.make(
                    id,
                    Kind::Call {
                        function: name,
                        target,
                        arguments,
                    },
                ))
            }
        }
    }

    pub(super) fn primary(&mut self) -> Parse<Expr> {
        let offset = self.offset();
        match self.peek().clone() {
            Token::Symbol("(") => {
                self.next();
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => self.list(),
            Token::Symbol("{") => self.map(),
            Token::Symbol(".") => {
                self.next();
                self.named(offset)
            }
            Token::Int(_) | Token::Uint(_) | Token::Double(_) => self.number(offset, false),
            Token::String(text) => {
                self.next();
                Ok(self.node(offset, Kind::Literal(Literal::String(text))))
            }
            Token::Bytes(bytes) => {
                self.next();
                Ok(self.node(offset, Kind::Literal(Literal::Bytes(bytes))))
            }
            Token::Ident(word) => {
                let literal = match &*word {
                    "true" => Literal::Bool(true),
                    "false" => Literal::Bool(false),
                    "null" => Literal::Null,
                    _ => return self.named(offset),
                };
                self.next();
                Ok(self.node(offset, Kind::Literal(literal)))
            }
            _ => Err(self.unexpected(PRIMARY)),
        }
    }

    fn named(&mut self, offset: usize) -> Parse<Expr> {
        let name = self.name(false)?;
        match self.take("(") {
            None => Ok(self.node(offset, Kind::Ident(name))),
            Some(open) => {
                let id = self.id(open);
                let arguments = self.arguments()?;
                self.invoke(id, name, None, arguments)
            }
        }
    }

    pub(super) fn number(&mut self, offset: usize, negative: bool) -> Parse<Expr> {
        let token = self.next();
        let sign = if negative { "-" } else { "" };
        let integer = |digits: &str| {
            let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
            match hex {
                Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
                None => format!("{sign}{digits}").parse(),
            }
        };
        let problem = |what: &str| Problem {
            offset,
            message: format!("invalid {what} literal"),
        };
        let literal = match &token.token {
            Token::Int(digits) => Literal::Int(integer(digits).map_err(|_| problem("int"))?),
            Token::Uint(digits) => {
                let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
                let value = hex.map_or_else(|| digits.parse(), |hex| u64::from_str_radix(hex, 16));
                Literal::Uint(value.map_err(|_| problem("uint"))?)
            }
            Token::Double(digits) => {
                let value = format!("{sign}{digits}").parse().map_err(|_| problem("double"))?;
                Literal::Double(value)
            }
            _ => return Err(self.unexpected(PRIMARY)),
        };
        Ok(self.node(offset, Kind::Literal(literal)))
    }

    fn list(&mut self) -> Parse<Expr> {
        let open = self.expect("[")?;
        let id = self.id(open);
        let mut elements = Vec::new();
        while !self.is("]") {
            let optional = self.take("?").is_some();
            elements.push(Element {
                value: self.expression()?,
                optional,
            });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        Ok(self.make(id, Kind::List(elements)))
    }

    fn map(&mut self) -> Parse<Expr> {
        let open = self.expect("{")?;
        let id = self.id(open);
        let mut entries = Vec::new();
        while !self.is("}") {
            let optional = self.take("?").is_some();
            let key = self.expression()?;
            self.expect(":")?;
            entries.push(Entry {
                key,
                value: self.expression()?,
                optional,
            });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(self.make(id, Kind::Map(entries)))
    }
}
