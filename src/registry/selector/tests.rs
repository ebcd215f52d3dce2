//! Tables of cases for selectors, with upstream's error texts.

use super::{FieldSelector, LabelSelector};
use crate::registry::Registry;
use crate::storage::Index;

fn labels(pairs: &[(&str, &str)]) -> Index {
    let mut labels: Vec<(String, String)> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    labels.sort_unstable();
    Index {
        labels,
        ..Index::default()
    }
}

#[test]
fn label_selectors_select() {
    let index = labels(&[("app", "web"), ("tier", "front"), ("size", "7"), ("empty", "")]);
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("missing!=x", true),
        ("missing=x", false),
        ("app in (web,db)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("missing notin (db)", true),
        ("app", true),
        ("!app", false),
        ("! missing", true),
        ("missing", false),
        ("size>6", true),
        ("size>7", false),
        ("size<8", true),
        ("app>1", false),
        ("empty=", true),
        ("empty in (,a)", true),
        ("app=web,", false),
        ("in in (in)", false),
    ];
    for (text, expected) in cases {
        let selected = LabelSelector::parse(text).is_ok_and(|selector| selector.matches(&index));
        assert_eq!(selected, expected, "{text:?}");
    }
}

#[test]
fn bad_label_selectors_say_why() {
    let label = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
        must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
        for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
    let cases = [
        ("app=web,", "found '', expected: identifier after ','".to_owned()),
        (
            "=web",
            "found '=', expected: !, identifier, or 'end of string'".to_owned(),
        ),
        ("app web", {
            "unable to parse requirement: found 'web', expected: in, notin, =, ==, !=, gt, lt".to_owned()
        }),
        (
            "app in web",
            "unable to parse requirement: found 'web' expected: '('".to_owned(),
        ),
        (
            "app in (web",
            "unable to parse requirement: found '', expected: ',' or ')'".to_owned(),
        ),
        ("app in ()", {
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't \
             be empty"
                .to_owned()
        }),
        ("size>x", {
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must \
             be an integer"
                .to_owned()
        }),
        (
            "app=-x",
            format!("unable to parse requirement: values[0][app]: Invalid value: \"-x\": {label}"),
        ),
        ("a=b)", "found ')', expected: ',' or 'end of string'".to_owned()),
        (
            "!",
            "unable to parse requirement: found '', expected: identifier".to_owned(),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(LabelSelector::parse(text), Err(expected), "{text:?}");
    }
    let key = LabelSelector::parse("a/b/c=d").expect_err("not a key");
    assert!(
        key.starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key"),
        "{key}"
    );
}

#[test]
fn field_selectors_select() {
    let pods = Registry::builtin().lookup("", "v1", "pods").expect("pods");
    let index = Index {
        fields: vec![("spec.nodeName", "n1".into()), ("status.phase", "Running".into())],
        ..Index::default()
    };
    let cases = [
        ("", true),
        ("status.phase=Running", true),
        ("status.phase==Running,spec.nodeName!=n2", true),
        ("spec.host=n1", true),
        ("status.phase!=Running", false),
        ("metadata.name=a", true),
        ("metadata.name!=a", false),
        ("metadata.namespace=default", true),
        ("status.podIP=", true),
        ("status.podIPs=10.0.0.1", false),
    ];
    for (text, expected) in cases {
        let selector = FieldSelector::parse(text).and_then(|selector| selector.for_kind(&pods));
        let selector = selector.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(selector.matches(&index, "default", "a"), expected, "{text:?}");
    }
    let exact = FieldSelector::parse("metadata.name=a,status.phase!=x").expect("a selector");
    assert_eq!(exact.exact("metadata.name"), Some("a"));
    assert_eq!(exact.exact("status.phase"), None);
}

#[test]
fn bad_field_selectors_say_why() {
    let parse = |text: &str| FieldSelector::parse(text).map(|_| ());
    assert_eq!(
        parse("a"),
        Err("invalid selector: 'a'; can't understand 'a'".to_owned())
    );
    assert_eq!(
        parse(r"a=\x"),
        Err(r"invalid field selector: invalid escape sequence: \x".to_owned())
    );
    assert_eq!(
        parse(r"a=b\"),
        Err(r"invalid field selector: invalid escape sequence: \".to_owned())
    );
    assert_eq!(
        parse("a=b=c"),
        Err("invalid field selector: unescaped character in value: 61".to_owned())
    );
    assert_eq!(parse(r"a=b\=c\,d\\"), Ok(()));
    let unsupported = |group: &str, resource: &str, text: &str| {
        let kind = Registry::builtin().lookup(group, "v1", resource).expect("a kind");
        FieldSelector::parse(text)
            .and_then(|selector| selector.for_kind(&kind))
            .map(|_| ())
    };
    let expected = Err("field label not supported: spec.foo".to_owned());
    assert_eq!(unsupported("", "pods", "spec.foo=a"), expected);
    let expected = Err("field label \"spec.foo\" not supported for Job".to_owned());
    assert_eq!(unsupported("batch", "jobs", "spec.foo=a"), expected);
    let expected =
        Err("\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".to_owned());
    assert_eq!(unsupported("", "configmaps", "data=a"), expected);
    assert!(unsupported("", "namespaces", "metadata.namespace=a").is_err());
    assert_eq!(unsupported("events.k8s.io", "events", "regarding.kind=Pod"), Ok(()));
}
