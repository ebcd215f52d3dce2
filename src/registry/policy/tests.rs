//! Policies and what they say: tables of situations.

use super::criteria::{Criteria, Match, Request, Surroundings};
use super::evaluate::{Denial, Evaluation, Inputs};
use super::type_check::warnings;
use super::*;
use crate::registry::cel::{self, Access, Account, Authorizer, Check};
use crate::registry::{Kind, Registry};
use serde_json::{Value, json};
use std::sync::Arc;

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

struct World;

impl Surroundings for World {
    fn namespace_labels(&self, name: &str) -> Option<Vec<(String, String)>> {
        (name == "team").then(|| vec![("env".to_owned(), "prod".to_owned())])
    }

    fn versions(&self, kind: &Kind) -> Vec<Arc<Kind>> {
        let kinds = Registry::builtin().kinds();
        kinds
            .filter(|other| other.storage_resource == kind.storage_resource)
            .collect()
    }
}

/// `CREATE apps/v1/deployments/scale team/web`
fn matched(criteria: &Value, request: &str) -> String {
    let words: Vec<&str> = request.split(' ').collect();
    let (operation, path, place) = (words[0], words[1], words[2]);
    let parts: Vec<&str> = path.split('/').collect();
    let group = if parts[0] == "core" { "" } else { parts[0] };
    let kind = Registry::builtin().lookup(group, parts[1], parts[2]).unwrap();
    let (namespace, name) = place.split_once('/').unwrap_or(("", place));
    let new = object(json!({"metadata": {"name": name, "labels": {"app": "new"}}}));
    let old = object(json!({"metadata": {"name": name, "labels": {"app": "old"}}}));
    let request = Request {
        kind: &kind,
        subresource: parts.get(3).unwrap_or(&""),
        operation,
        name,
        namespace: if kind.resource == "namespaces" { name } else { namespace },
        object: (operation != "DELETE").then_some(&new),
        old: (operation != "CREATE").then_some(&old),
    };
    match Criteria::of_policy(&object(criteria.clone())).matches(&request, &World) {
        Ok(Match::No) => "no".to_owned(),
        Ok(Match::Exactly) => "yes".to_owned(),
        Ok(Match::As(kind)) => format!("as {}", kind.group_version()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn rules_select_requests() {
    let rule = |groups: &str, versions: &str, resources: &str, more: Value| {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut rule = json!({
            "apiGroups": list(groups), "apiVersions": list(versions), "resources": list(resources),
            "operations": ["CREATE", "UPDATE"], "scope": "*",
        });
        for (field, value) in more.as_object().unwrap() {
            rule[field] = value.clone();
        }
        rule
    };
    let only = |rule: Value| json!({"resourceRules": [rule], "matchPolicy": "Exact"});
    let deployments = only(rule("apps", "v1", "deployments", json!({})));
    let rows = [
        (&deployments, "CREATE apps/v1/deployments team/web", "yes"),
        (&deployments, "DELETE apps/v1/deployments team/web", "no"),
        (&deployments, "CREATE apps/v1/replicasets team/web", "no"),
        (&deployments, "UPDATE apps/v1/deployments/status team/web", "no"),
        (
            &only(rule("apps", "v1", "deployments/*", json!({}))),
            "UPDATE apps/v1/deployments/status team/web",
            "yes",
        ),
        (
            &only(rule("apps", "v1", "deployments/*", json!({}))),
            "UPDATE apps/v1/deployments team/web",
            "yes",
        ),
        (
            &only(rule("*", "*", "*", json!({}))),
            "UPDATE apps/v1/deployments/status team/web",
            "no",
        ),
        (
            &only(rule("*", "*", "*/status", json!({}))),
            "UPDATE apps/v1/deployments/status team/web",
            "yes",
        ),
        (
            &only(rule("*", "*", "*/*", json!({"operations": ["*"]}))),
            "DELETE core/v1/nodes one",
            "yes",
        ),
        (
            &only(rule("*", "*", "*", json!({"scope": "Namespaced"}))),
            "CREATE core/v1/nodes one",
            "no",
        ),
        (
            &only(rule("*", "*", "*", json!({"scope": "Cluster"}))),
            "CREATE core/v1/nodes one",
            "yes",
        ),
        (
            &only(rule("*", "*", "*", json!({"scope": "Cluster"}))),
            "CREATE core/v1/namespaces one",
            "yes",
        ),
        (
            &only(rule("*", "*", "*", json!({"scope": "Cluster"}))),
            "CREATE core/v1/pods team/p",
            "no",
        ),
        (
            &only(rule("", "v1", "pods", json!({"resourceNames": ["a"]}))),
            "CREATE core/v1/pods team/a",
            "yes",
        ),
        (
            &only(rule("", "v1", "pods", json!({"resourceNames": ["a"]}))),
            "CREATE core/v1/pods team/b",
            "no",
        ),
    ];
    for (criteria, request, expected) in rows {
        assert_eq!(matched(criteria, request), expected, "{request}: {criteria}");
    }
    // Another version of the same objects is meant, too, unless only this one is.
    let scalers = rule("autoscaling", "v1", "horizontalpodautoscalers", json!({}));
    let request = "CREATE autoscaling/v2/horizontalpodautoscalers team/a";
    assert_eq!(matched(&only(scalers.clone()), request), "no");
    let equivalent = json!({"resourceRules": [scalers], "matchPolicy": "Equivalent"});
    assert_eq!(matched(&equivalent, request), "as autoscaling/v1");
    let excluded = json!({
        "resourceRules": [rule("*", "*", "*", json!({}))],
        "excludeResourceRules": [rule("", "v1", "pods", json!({}))],
    });
    assert_eq!(matched(&excluded, "CREATE core/v1/pods team/a"), "no");
    assert_eq!(matched(&excluded, "CREATE core/v1/services team/a"), "yes");
}

#[test]
fn selectors_look_at_the_namespace_and_at_both_objects() {
    let every = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]});
    let namespaced = |labels: Value| json!({"resourceRules": [every], "namespaceSelector": {"matchLabels": labels}});
    let labelled = |app: &str| {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": [app]}]});
        json!({"resourceRules": [every], "objectSelector": selector})
    };
    let rows = [
        (namespaced(json!({"env": "prod"})), "CREATE core/v1/pods team/a", "yes"),
        (namespaced(json!({"env": "test"})), "CREATE core/v1/pods team/a", "no"),
        (namespaced(json!({"env": "test"})), "CREATE core/v1/nodes one", "yes"),
        (
            namespaced(json!({"app": "new"})),
            "CREATE core/v1/namespaces one",
            "yes",
        ),
        (
            namespaced(json!({"env": "prod"})),
            "DELETE core/v1/namespaces team",
            "yes",
        ),
        (
            namespaced(json!({"env": "prod"})),
            "CREATE core/v1/pods lost/a",
            "namespaces \"lost\" not found",
        ),
        (namespaced(json!({})), "CREATE core/v1/pods lost/a", "yes"),
        (labelled("new"), "CREATE core/v1/pods team/a", "yes"),
        (labelled("old"), "CREATE core/v1/pods team/a", "no"),
        (labelled("old"), "UPDATE core/v1/pods team/a", "yes"),
        (labelled("new"), "DELETE core/v1/pods team/a", "no"),
    ];
    for (criteria, request, expected) in rows {
        assert_eq!(matched(&criteria, request), expected, "{request}: {criteria}");
    }
}

/// Whoever is asked: the user may get pods; `a:robot` may do everything.
struct Rules;

impl Authorizer for Rules {
    fn decide(&self, account: Option<&Account>, check: &Check) -> Access {
        let allowed = match (account, check) {
            (Some(account), _) => account.name == "robot",
            (None, Check::Resource { subject, verb }) => subject.resource == "pods" && verb == "get",
            (None, Check::Path { path, .. }) => path == "/healthz",
        };
        Access {
            allowed,
            reason: if allowed { "a rule" } else { "" }.to_owned(),
        }
    }
}

fn with<T>(policy: &Policy, act: impl for<'a> Fn(&Evaluation<'a>, &'a Policy) -> T) -> T {
    let new = object(json!({
        "metadata": {"name": "web", "labels": {"app": "x"}},
        "spec": {"replicas": 3, "containers": [{"name": "a"}], "image": "nginx:1"},
    }));
    let old = object(json!({"metadata": {"name": "web"}, "spec": {"replicas": 1}}));
    let params = object(json!({"metadata": {"name": "limits"}, "data": {"max": "2"}}));
    let namespace = object(json!({"metadata": {"name": "team", "labels": {"env": "prod"}}}));
    let request = object(json!({
        "operation": "UPDATE", "name": "web", "namespace": "team", "dryRun": false,
        "userInfo": {"username": "jane", "groups": ["dev"]},
        "resource": {"group": "apps", "version": "v1", "resource": "deployments"},
    }));
    let subject = cel::Subject {
        resource: "pods".to_owned(),
        ..cel::Subject::default()
    };
    let inputs = Inputs {
        object: Some(&new),
        old: Some(&old),
        params: policy.param_kind.as_ref().map(|_| &params),
        namespace: Some(&namespace),
        request: &request,
        authorizer: &Rules,
        subject: &subject,
    };
    act(&Evaluation::new(inputs, &policy.variables), policy)
}

fn policy(spec: Value) -> Policy {
    Policy::compile(&object(json!({"metadata": {"name": "p"}, "spec": spec})))
}

/// The messages of a policy with these validations.
fn said(spec: Value) -> Vec<String> {
    let policy = policy(spec);
    let denials = with(&policy, |evaluation, policy| evaluation.validate(policy));
    denials.into_iter().map(|denial| denial.message).collect()
}

#[test]
fn expressions_see_the_request_and_all_around_it() {
    for expression in [
        "object.spec.replicas == 3 && oldObject.spec.replicas == 1",
        "object.metadata.name.startsWith('w') && has(object.spec.image) && !has(object.spec.paused)",
        "object.spec.containers.all(c, c.name != 'b')",
        "request.operation == 'UPDATE' && request.userInfo.username == 'jane' && 'dev' in request.userInfo.groups",
        "request.resource.resource == 'deployments' && !request.dryRun && !has(request.subResource)",
        "namespaceObject.metadata.labels['env'] == 'prod'",
        "authorizer.group('').resource('pods').namespace('team').check('get').allowed()",
        "!authorizer.group('').resource('pods').check('list').allowed()",
        "authorizer.requestResource.check('get').reason() == 'a rule'",
        "authorizer.path('/healthz').check('get').allowed() && !authorizer.path('/x').check('get').errored()",
        "authorizer.serviceAccount('a', 'robot').group('apps').resource('x').subresource('y').name('z').check('*').allowed()",
        "variables.big && variables.image == 'nginx' && has(variables.big)",
        "quantity('1Gi').isGreaterThan(quantity('1Mi')) && ip('10.0.0.1').family() == 4",
        "int(params.data.max) < object.spec.replicas",
    ] {
        let spec = json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "variables": [
                {"name": "image", "expression": "object.spec.image.split(':')[0]"},
                {"name": "big", "expression": "object.spec.replicas > 2 && variables.image != ''"},
            ],
            "validations": [{"expression": expression}],
        });
        assert_eq!(said(spec), Vec::<String>::new(), "{expression}");
    }
}

#[test]
fn messages_are_made_or_stand_there() {
    let rows = [
        (
            json!({"expression": " object.spec.replicas > 5 "}),
            "failed expression: object.spec.replicas > 5",
        ),
        (json!({"expression": "false", "message": " no "}), "no"),
        (
            json!({"expression": "false", "message": "no", "messageExpression": "'got ' + string(object.spec.replicas)"}),
            "got 3",
        ),
        (
            json!({"expression": "false", "message": "no", "messageExpression": "object.lost"}),
            "no",
        ),
        (
            json!({"expression": "false", "messageExpression": "'  '"}),
            "failed expression: false",
        ),
        (
            json!({"expression": "object.lost > 1"}),
            "expression 'object.lost > 1' resulted in error: no such key: lost",
        ),
        (
            json!({"expression": "object.spec.image > 1"}),
            "expression 'object.spec.image > 1' resulted in error: no such overload",
        ),
        (
            json!({"expression": "variables.lost > 1"}),
            "expression 'variables.lost > 1' resulted in error: composited variable \"lost\" fails to evaluate: no such key: lost",
        ),
    ];
    for (validation, message) in rows {
        let variables = json!([{"name": "lost", "expression": "object.lost"}]);
        let spec = json!({"variables": variables, "validations": [validation]});
        assert_eq!(said(spec), [message], "{validation}");
    }
}

#[test]
fn conditions_and_the_failure_policy_decide_whether_anything_is_said() {
    let refuse = json!([{"expression": "false", "reason": "Forbidden"}]);
    let condition = |expression: &str| json!([{"name": "c", "expression": expression}]);
    let rows = [
        (condition("true"), "Fail", vec!["failed expression: false"]),
        (condition("false"), "Fail", vec![]),
        (
            condition("object.lost == 1"),
            "Fail",
            vec!["expression 'object.lost == 1' resulted in error: no such key: lost"],
        ),
        (condition("object.lost == 1"), "Ignore", vec![]),
    ];
    for (conditions, fails, expected) in rows {
        let spec = json!({"failurePolicy": fails, "matchConditions": conditions, "validations": refuse});
        assert_eq!(said(spec), expected, "{conditions} {fails}");
    }
    let two = json!([{"name": "a", "expression": "object.lost == 1"}, {"name": "b", "expression": "false"}]);
    assert_eq!(
        said(json!({"matchConditions": two, "validations": refuse})),
        Vec::<String>::new()
    );
    // An error of a validation is no refusal of a policy that does not fail; a validation that does not hold is.
    let mixed = json!([{"expression": "object.lost == 1"}, {"expression": "false"}]);
    assert_eq!(
        said(json!({"failurePolicy": "Ignore", "validations": mixed})),
        ["failed expression: false"]
    );
    let policy = policy(json!({"validations": refuse}));
    let denials = with(&policy, |evaluation, policy| evaluation.validate(policy));
    let expected = Denial {
        message: "failed expression: false".to_owned(),
        reason: Some("Forbidden".to_owned()),
        always: false,
    };
    assert_eq!(denials, [expected]);
}

#[test]
fn the_budget_is_bounded() {
    let heavy = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, \
                 [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, a + b + c + d + e > 0)))))";
    let one = json!({"validations": [{"expression": heavy}]});
    let message = said(one).remove(0);
    assert!(
        message.ends_with("operation cancelled: actual cost limit exceeded"),
        "{message}"
    );
    let checks = "authorizer.path('/healthz').check('get').allowed()";
    let many: Vec<Value> = (0..40).map(|_| json!({"expression": checks})).collect();
    assert_eq!(
        said(json!({"validations": many})),
        ["validation failed due to running out of cost budget, no further validation rules will be run"]
    );
    // A variable is paid for once.
    let cheap: Vec<Value> = (0..40).map(|_| json!({"expression": "variables.ok"})).collect();
    let variables = json!([{"name": "ok", "expression": checks}]);
    assert_eq!(
        said(json!({"variables": variables, "validations": cheap})),
        Vec::<String>::new()
    );
}

fn made(mutation: Value) -> Result<Value, String> {
    let policy = policy(json!({"mutations": [mutation]}));
    with(&policy, |evaluation, policy| evaluation.mutation(&policy.mutations[0]))
}

#[test]
fn mutations_make_objects_and_patches() {
    let apply = |expression: &str| {
        made(json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}))
    };
    let patch = |expression: &str| made(json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}));
    assert_eq!(
        apply("Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?image: optional.none()}}"),
        Ok(json!({"spec": {"replicas": 4}}))
    );
    assert_eq!(
        apply(
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{containers: [Object.spec.containers{name: 'a', image: 'x'}]}}"
        ),
        Ok(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}))
    );
    assert_eq!(
        apply("Object{spec: Object.metadata{replicas: 1}}"),
        Err("type mismatch: unexpected type name \"Object.metadata\", expected \"Object.spec\", which matches field name \
             path from root Object type"
            .to_owned())
    );
    assert_eq!(
        patch("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~'), value: 'x'}]"),
        Ok(json!([{"op": "add", "path": "/metadata/labels/a~1b~0", "value": "x"}]))
    );
    assert_eq!(
        patch("[JSONPatch{op: 'add', path: '/spec/x', value: Object.spec.x{a: [1, 2]}}]")
            .map_err(|error| { error.starts_with("type mismatch: unexpected type name \"Object.spec.x\"") }),
        Ok(json!([{"op": "add", "path": "/spec/x", "value": {"a": [1, 2]}}]))
    );
    assert_eq!(
        patch("has(object.spec.lost) ? [JSONPatch{op: 'remove', path: '/spec/lost'}] : []"),
        Ok(json!([]))
    );
}

#[test]
fn what_does_not_compile_is_said_at_its_path() {
    let rows = [
        (
            json!({"validations": [{"expression": "object.x +"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>' expecting",
        ),
        (
            json!({"validations": [{"expression": "1"}]}),
            "spec.validations[0].expression",
            "must evaluate to bool but got int",
        ),
        (
            json!({"validations": [{"expression": "params.x == 1"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]}),
            "spec.validations[0].messageExpression",
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')",
        ),
        (
            json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]}),
            "spec.variables[0].expression",
            "compilation failed: ERROR: <input>:1:10: undefined field 'b'",
        ),
        (
            json!({"validations": [{"expression": "request.lost == ''"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:8: undefined field 'lost'",
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "1"}]}),
            "spec.auditAnnotations[0].valueExpression",
            "must evaluate to one of [string null_type] but got int",
        ),
        (
            json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "{'a': 1}"}}]}),
            "spec.mutations[0].applyConfiguration.expression",
            "must evaluate to Object but got map(string, int)",
        ),
        (
            json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 1}]"}}]}),
            "spec.mutations[0].jsonPatch.expression",
            "compilation failed: ERROR: <input>:1:16: expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        (
            json!({"validations": [{"expression": "Object{} == Object{}"}]}),
            "spec.validations[0].expression",
            "compilation failed: ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')",
        ),
    ];
    for (spec, path, detail) in rows {
        let problem = policy(spec.clone())
            .problem_at(path)
            .unwrap_or_else(|| panic!("{spec}"));
        assert!(problem.body.contains(detail), "{spec}: {}", problem.body);
    }
}

#[test]
fn schemas_have_something_against_expressions() {
    let check = |rule: Value, validation: Value| {
        let policy = object(json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [rule]}, "validations": [validation],
            "variables": [{"name": "spec", "expression": "object.spec"}],
        }}));
        warnings(&Registry::builtin(), &policy)
    };
    let rule = |resource: &str| json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resource]});
    for good in [
        "object.spec.replicas > 1",
        "object.spec.template.spec.containers.all(c, c.image != '' && quantity(c.resources.limits['cpu']).isInteger())",
        "object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z') || oldObject == null",
        "variables.spec.anything",
    ] {
        assert_eq!(check(rule("deployments"), json!({"expression": good})), [], "{good}");
    }
    let found = check(
        rule("deployments"),
        json!({"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"}),
    );
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].field, "spec.validations[0].expression");
    assert_eq!(
        found[0].warning,
        "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
         | object.spec.replicas > '1'\n | .....................^\n"
    );
    assert_eq!(found[1].field, "spec.validations[0].messageExpression");
    let lost = check(rule("deployments"), json!({"expression": "object.spec.lost"}));
    assert!(lost[0].warning.contains("undefined field 'lost'"), "{lost:?}");
    assert_eq!(check(rule("*"), json!({"expression": "object.spec.lost"})), []);
}
