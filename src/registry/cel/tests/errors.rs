//! What is said of expressions that do not compile.

use super::*;

#[test]
fn problems_are_shown_with_their_place() {
    for (source, expected) in [
        (
            "self.nope",
            "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^",
        ),
        (
            "nope",
            "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^",
        ),
        (
            "nope(1)",
            "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^",
        ),
        (
            "self.int == 'a'",
            "ERROR: <input>:1:10: found no matching overload for '_==_' applied to '(int, string)'\n | self.int == 'a'\n | .........^",
        ),
        (
            "self.int.startsWith('a')",
            "ERROR: <input>:1:20: found no matching overload for 'startsWith' applied to 'int.(string)'\n | self.int.startsWith('a')\n | ...................^",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        (
            "1 2",
            "ERROR: <input>:1:3: Syntax error: extraneous input '2' expecting <EOF>\n | 1 2\n | ..^",
        ),
        (
            "[1, 'a']",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^",
        ),
        (
            "true &&\nself.nope",
            "ERROR: <input>:2:5: undefined field 'nope'\n | self.nope\n | ....^",
        ),
        (
            "self.texts.all(1, true)",
            "ERROR: <input>:1:16: argument must be a simple name\n | self.texts.all(1, true)\n | ...............^",
        ),
        (
            "has(self)",
            "ERROR: <input>:1:4: invalid argument to has() macro\n | has(self)\n | ...^",
        ),
        (
            "self.int.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.int.all(x, true)\n | ....^",
        ),
        (
            "duration('x') == duration('1s')",
            "ERROR: <input>:1:10: invalid duration argument\n | duration('x') == duration('1s')\n | .........^",
        ),
        (
            "self.text.matches('[')",
            "ERROR: <input>:1:19: invalid matches argument\n | self.text.matches('[')\n | ..................^",
        ),
        (
            "self.text.size",
            "ERROR: <input>:1:10: type 'string' does not support field selection\n | self.text.size\n | .........^",
        ),
        (
            "Foo{a: 1}",
            "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{a: 1}\n | ...^",
        ),
    ] {
        let error = compile(source, &environment()).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(expected), "{source}");
    }
}

#[test]
fn expressions_without_end_are_refused() {
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let long = vec!["1"; 20_000].join(" + ");
    let members = format!("self.any{}", ".x".repeat(20_000));
    let calls = format!("self.any{}", ".f()".repeat(5_000));
    let negations = format!("{}true", "!(".repeat(20_000));
    for source in [deep, long, members, calls, negations] {
        let error = compile(&source, &environment()).expect_err("an error").to_string();
        assert!(
            error.contains("expression recursion limit exceeded"),
            "{}",
            &error[..200]
        );
    }
    // Many terms of `&&` make no deep tree.
    let wide = vec!["true"; 5_000].join(" && ");
    assert!(compile(&wide, &environment()).is_ok());
    let huge = " ".repeat(200_000);
    assert!(
        compile(&huge, &environment()).is_err_and(|error| error.to_string().contains("code point size exceeds limit"))
    );
}
