//! The language itself.

use super::*;

#[test]
fn expressions_come_to_values() {
    for (source, expected) in [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 % 3", "-1"),
        ("7.0 / 2.0", "3.5"),
        ("1u + 2u", "3"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0xff", "255"),
        ("1e3", "1000"),
        ("'a' + \"b\"", "\"ab\""),
        (r#"'\x41\u00e9\101\n' + r'\n'"#, r#""AéA\n\\n""#),
        ("'''a\nb'''", r#""a\nb""#),
        ("b'a' == bytes('a')", "true"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("{'a': 1, 'b': 2}['b']", "2"),
        ("true ? 1 : 2", "1"),
        ("!!true", "true"),
        ("--1", "1"),
        ("1 in [1, 2]", "true"),
        ("'x' in {'x': 1}", "true"),
        ("self.text", "\"hello\""),
        ("self['text']", "found no matching overload"),
        ("self.map['a.b']", "\"w\""),
        ("self.map.k", "\"v\""),
        ("self.texts[1]", "\"a\""),
        ("self.__namespace__", "\"ns\""),
        ("self.a__dash__b__dot__c", "\"dashed\""),
        ("size(self.other)", "5"),
        ("self.port", "\"80%\""),
        ("type(self.port) == string", "true"),
        ("type(1)", "int"),
        ("type(self.time) == google.protobuf.Timestamp", "true"),
        ("self.any.x[1]", "\"two\""),
        ("self.any.y > 2", "true"),
        ("1 < 1.5 && 2u > 1", "true"),
        ("dyn(1) == 1.0", "true"),
        ("dyn(1) == 'a'", "false"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[1, 2, 3].filter(x, x != 2)", "[1, 3]"),
        ("self.map.map(k, k)", "[\"k\", \"a.b\"]"),
        ("[1, 2, 2].exists_one(x, x == 2)", "false"),
        ("self.pairs.map(p, p.name).join('-')", "\"a-b\""),
        ("[[1, 2], [3]].map(x, x.map(y, y + 1))", "[[2, 3], [4]]"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\": 2}"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v * 10)", "{\"b\": 20}"),
        ("{'a': 'x'}.transformMapEntry(k, v, {v: k})", "{\"x\": \"a\"}"),
        ("[5, 6].transformList(i, v, i + v)", "[5, 7]"),
        ("[5, 6].transformList(i, v, i > 0, v)", "[6]"),
        ("[1, 2].all(i, v, v == i + 1)", "true"),
        ("[1, 2].exists(i, v, i == 1 && v == 2)", "true"),
        ("[1, 2].existsOne(i, v, v > 1)", "true"),
        ("self.?text", "some(\"hello\")"),
        ("self.?absent", "none"),
        ("self.?absent.orValue('x')", "\"x\""),
        ("self.?absent.?more", "type 'string' does not support"),
        ("self.map[?'k']", "some(\"v\")"),
        ("self.map[?'z'].hasValue()", "false"),
        ("self.texts[?5].or(optional.of('z')).value()", "\"z\""),
        ("[1, ?optional.none(), ?optional.of(2)]", "[1, 2]"),
        ("{?'a': optional.of(1), ?'b': optional.none()}", "{\"a\": 1}"),
        ("optional.of(1).optMap(x, x + 1)", "some(2)"),
        ("optional.of(1).optFlatMap(x, optional.of(x + 1))", "some(2)"),
        ("self.?absent.optMap(x, x + '!').orValue('none')", "\"none\""),
        ("optional.ofNonZeroValue(0)", "none"),
        ("has(self.text) && !has(self.absent)", "true"),
        ("has(self.map.k) && !has(self.map.z)", "true"),
        ("has(self.any.x) && !has(self.any.z)", "true"),
    ] {
        match evaluated(source) {
            Ok(value) => assert_eq!(value, expected, "{source}"),
            Err(error) => assert!(error.contains(expected), "{source}: {error}"),
        }
    }
}

#[test]
fn errors_pass_where_something_else_decides() {
    holds(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(x, 1 / x == 1)",
        "![0, 1].all(x, 1 / x == 2)",
        "true ? true : 1 / 0 == 1",
    ]);
    for (source, error) in [
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("[1][3]", "index out of bounds: 3"),
        ("{'a': 1}['b']", "no such key: b"),
        ("self.absent", "no such key: absent"),
        ("self.port < 3", "no such overload"),
        ("optional.none().value()", "optional.none() dereference"),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("[1, 0].all(x, 1 / x == 1)", "division by zero"),
        ("self.any.x.all(y, y > 0)", "no such overload"),
    ] {
        assert_eq!(evaluated(source), Err(error.to_owned()), "{source}");
    }
}

#[test]
fn lists_of_sets_and_maps_are_compared_and_joined_as_such() {
    holds(&[
        "self.set == self.same",
        "self.set + self.same == self.set",
        "self.set + ['z'] == ['z', 'y', 'x'] || size(self.set + ['z']) == 3",
        "self.texts != ['a', 'b']",
        "size(self.pairs + self.pairs) == 2",
        "self.pairs.exists(p, p.name == 'b' && p.value == 2)",
        "self.nested != null",
    ]);
}

#[test]
fn what_takes_too_long_is_ended() {
    let many: Json = (0..2000).map(Json::from).collect::<Vec<_>>().into();
    let list = decl(Shape::List {
        item: decl(Shape::Int),
        kind: ListKind::Atomic,
    });
    let environment = Environment::default().with_data("self", &list);
    let program = compile("self.all(x, self.all(y, x + y >= 0))", &environment).expect("an expression");
    let lookup = |name: &str| (name == "self").then(|| Value::of(&many, &list));
    let (result, cost) = program.evaluate(&lookup, CALL_COST_MAX);
    assert_eq!(result.err(), Some(Error::CostLimit));
    assert!((CALL_COST_MAX..CALL_COST_MAX + 1000).contains(&cost), "{cost}");

    // Lists that grow are not copied each time.
    let program = compile("self.map(x, x + 1).filter(x, x > 0).size() == 2000", &environment).expect("an expression");
    let (result, cost) = program.evaluate(&lookup, CALL_COST_MAX);
    assert!(matches!(result, Ok(Value::Bool(true))), "{result:?}");
    assert!(cost < 100_000, "{cost}");
}

#[test]
fn costs_are_counted_as_upstream_counts_them() {
    let cost = |source: &str| {
        let program = compile(source, &environment()).unwrap_or_else(|error| panic!("{source}: {error}"));
        let (json, decl) = (data(), everything());
        let lookup = |name: &str| (name == "self").then(|| Value::of(&json, &decl));
        let (result, cost) = program.evaluate(&lookup, CALL_COST_MAX);
        assert!(result.is_ok(), "{source}: {result:?}");
        cost
    };
    for (source, expected) in [
        ("self.int == self.int", 5),
        ("type(self.int) == int", 4),
        ("size(self.text) == 12", 4),
        ("self.text.startsWith('Rook')", 3),
        ("!self.text.startsWith('knight')", 4),
        ("self.text.indexOf('o') == 1", 3),
        ("has(self.text)", 1),
    ] {
        assert_eq!(cost(source), expected, "{source}");
    }
}
