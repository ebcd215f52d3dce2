//! What functions of libraries cost (upstream: `apiserver/pkg/cel/library/cost.go`, `cel-go/ext/lists.go`, `ext/sets.go`).

use super::{Call, Coster, LIST_CREATE, REGEX_LENGTH, costs, sized};
use crate::registry::cel::ast::{ACCUMULATOR, Expr, Kind, Literal};
use crate::registry::cel::library::authz::CHECK;
use crate::registry::cel::range::{Range, TRAVERSAL, exactly};
use crate::registry::cel::signatures::opaque_names;
use crate::registry::cel::types::Type;

/// The length that the expression of any named format has at most.
const FORMAT_REGEX_MAX: f64 = 128.0;

impl Coster<'_> {
    /// Lists and sets of cel-go's own extension.
    pub(super) fn of_lists(&mut self, overload: &str, target: Option<&Expr>, arguments: &[Expr]) -> Option<Call> {
        let allocating = |factor: f64, size: Range| sized(size.by(factor).plus(exactly(1 + LIST_CREATE)), size);
        let constant = |expr: &Expr, other: u64| match &expr.kind {
            Kind::Literal(Literal::Int(number)) => u64::try_from(*number).unwrap_or(other),
            Kind::Literal(Literal::Uint(number)) => *number,
            _ => other,
        };
        match (overload, target, arguments) {
            ("list_slice", Some(list), [start, end]) => {
                let size = self.size_or_any(list);
                let length = constant(end, size.max).wrapping_sub(constant(start, 0));
                allocating(1.0, exactly(length))
            }
            ("lists_range", None, [count]) => allocating(1.0, exactly(constant(count, u64::MAX))),
            ("list_reverse", Some(list), []) => allocating(1.0, self.size_or_any(list)),
            ("list_flatten" | "list_flatten_int", Some(list), rest) => {
                let depth = rest.first().map_or(1, |depth| constant(depth, u64::MAX));
                allocating(depth as f64, self.size_or_any(list))
            }
            ("list_distinct", Some(list), []) => {
                let size = self.size_or_any(list);
                allocating(2.0, size.times(size))
            }
            (name, Some(list), rest) if name.ends_with("_sort") || name.ends_with("_sortByAssociatedKeys") => {
                let size = self.size_or_any(rest.first().unwrap_or(list));
                let texts = name.starts_with("list_string") || name.starts_with("list_bytes");
                allocating(if texts { 2.0 + TRAVERSAL } else { 2.0 }, size.times(size))
            }
            (name, None, [a, b]) if name.starts_with("list_sets_") => {
                let factor = if name == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let both = self.size_or_any(a).times(self.size_or_any(b));
                costs(both.by(factor).plus(exactly(1)))
            }
            _ => None,
        }
    }

    /// The size of items of a list, and whether they are texts.
    fn items(&mut self, list: &Expr) -> Option<(Range, bool)> {
        let Type::List(item) = self.kind(list) else {
            return None;
        };
        let texts = matches!(**item, Type::String | Type::Bytes);
        let scalar = item.is_scalar();
        let path = self.path(list);
        let declared = if path.first().is_some_and(|root| &**root != ACCUMULATOR) {
            self.declared(&self.extended(list, "@items"))
        } else {
            None
        };
        let size = declared.unwrap_or(if scalar { exactly(1) } else { Range::ANY });
        Some((size, texts))
    }

    /// Kubernetes' libraries.
    pub(super) fn of_kubernetes(
        &mut self,
        function: &str,
        overload: &str,
        target: Option<&Expr>,
        arguments: &[Expr],
    ) -> Option<Call> {
        let first = arguments.first();
        match function {
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
                let target = target?;
                let size = self.size_or_any(target);
                match self.items(target) {
                    Some((item, true)) => costs(size.times(exactly(1).plus(item.by(TRAVERSAL)))),
                    Some(_) => costs(size),
                    None if function == "includes" => costs(size),
                    None => costs(size.by(TRAVERSAL)),
                }
            }
            "url" => {
                let size = self.size_or_any(first?);
                sized(size.by(TRAVERSAL), size)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.size_or_any(target?);
                sized(size.by(TRAVERSAL), size)
            }
            "replace" => {
                let [from, to, ..] = arguments else { return None };
                let size = self.size_or_any(target?);
                let (from, to) = (self.size_or_any(from), self.size_or_any(to));
                sized(size.by(2.0 * TRAVERSAL), replaced(size, from, to))
            }
            "split" => {
                let size = self.size_or_any(target?);
                let most = match arguments.get(1).map(|count| &count.kind) {
                    Some(Kind::Literal(Literal::Int(count))) => *count as u64,
                    _ => size.max,
                };
                sized(size.by(2.0 * TRAVERSAL), Range::new(0, most))
            }
            "join" => {
                let list = target?;
                let count = self.size_or_any(list);
                let mut size = exactly(0);
                if let Some((item, _)) = self.items(list) {
                    size = count.times(item);
                }
                if let Some(between) = first {
                    let gaps = Range::new(count.min.saturating_sub(1), count.max.saturating_sub(1));
                    size = size.plus(self.size_or_any(between).times(gaps));
                }
                sized(size.by(TRAVERSAL), size)
            }
            "find" | "findAll" => {
                let size = self.size_or_any(target?);
                let text = size.plus(exactly(1)).by(TRAVERSAL);
                let regex = self.size_or_any(first?).by(REGEX_LENGTH);
                sized(text.times(regex), Range::new(0, size.max))
            }
            "ip" if overload == "cidr_ip" => costs(exactly(1)),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
                costs(self.size_or_any(first?).by(TRAVERSAL))
            }
            "ip.isCanonical" => costs(self.size_or_any(first?).by(2.0 * TRAVERSAL)),
            "containsIP" => {
                let mut cost = Range::new(8, 32).by(TRAVERSAL);
                if overload == "cidr_contains_ip_string" {
                    cost = cost.plus(self.size_or_any(first?).by(TRAVERSAL));
                }
                costs(cost)
            }
            "containsCIDR" => {
                let mut cost = Range::new(8, 32).by(TRAVERSAL);
                cost = cost.plus(Range::new(4, 16).by(TRAVERSAL)).plus(exactly(1));
                if overload == "cidr_contains_cidr_string" {
                    cost = cost.plus(self.size_or_any(first?).by(TRAVERSAL));
                }
                costs(cost)
            }
            "validate" => {
                let text = self.size_or_any(first?).by(TRAVERSAL);
                costs(text.by(FORMAT_REGEX_MAX * REGEX_LENGTH))
            }
            "check" => costs(exactly(CHECK)),
            "masked"
            | "prefixLength"
            | "family"
            | "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
            | "format.named"
            | "sign"
            | "asInteger"
            | "isInteger"
            | "asApproximateFloat"
            | "isGreaterThan"
            | "isLessThan"
            | "compareTo"
            | "add"
            | "sub"
            | "major"
            | "minor"
            | "patch"
            | "getScheme"
            | "getHostname"
            | "getHost"
            | "getPort"
            | "getEscapedPath"
            | "getQuery" => costs(exactly(1)),
            "_==_" => match (self.kind(first?), self.kind(arguments.get(1)?)) {
                (Type::Opaque(a), Type::Opaque(b)) if a == b && *a != opaque_names::URL => costs(exactly(1)),
                _ => None,
            },
            _ => None,
        }
    }
}

fn replaced(size: Range, from: Range, to: Range) -> Range {
    let ceil = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
    let (most, kept_most) = if from.min == 0 {
        (size.max.saturating_add(1), size.max)
    } else if to.max <= from.min {
        (0, size.max)
    } else {
        (ceil(size.max, from.min), 0)
    };
    let (least, kept_least) = if from.max == 0 {
        (size.min.saturating_add(1), size.min)
    } else if from.max <= to.min {
        (0, size.min)
    } else {
        (ceil(size.min, from.max), 0)
    };
    Range::new(least, most)
        .times(to)
        .plus(Range::new(kept_least, kept_most))
}
