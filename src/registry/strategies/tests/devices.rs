//! Claims for devices and what drivers offer.

use super::{create, kind, table, update};
use serde_json::{Value, json};

const GROUP: &str = "resource.k8s.io";

fn claim(request: Value) -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"devices": {"requests": [request]}}})
}

#[test]
fn claims_are_checked() {
    let claims = kind(GROUP, "v1", "resourceclaims");
    let exact = json!({"name": "one", "exactly": {"deviceClassName": "gpu.example.com"}});
    let (created, errors) = create(&claims, &claim(exact.clone()));
    assert_eq!(errors, Vec::<String>::new());
    let request = &created["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(
        *request,
        json!({"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1})
    );
    let mut other = created.clone();
    other["spec"]["devices"]["requests"] = json!([]);
    assert_eq!(
        update(&claims, &other, &created),
        ["spec: Invalid value: {\"devices\":{\"requests\":[]}}: field is immutable"]
    );
    let path = "spec.devices.requests[0]";
    let expect = |text: &str| format!("{path}{text}");
    let cases = [
        (json!({"name": "one"}), {
            expect(": Required value: exactly one of `exactly` or `firstAvailable` is required")
        }),
        (
            json!({"name": "one", "exactly": {}}),
            expect(".exactly.deviceClassName: Required value"),
        ),
        (
            json!({"exactly": {"deviceClassName": "c"}}),
            expect(
                ".name: Invalid value: \"\": a lowercase RFC 1123 label must consist of lower case alphanumeric \
                 characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
                 '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
        ),
        (
            json!({"name": "one", "exactly": {"deviceClassName": "c", "allocationMode": "All", "count": 2}}),
            expect(".exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"),
        ),
        (
            json!({"name": "one", "exactly": {"deviceClassName": "c", "allocationMode": "Some"}}),
            expect(".exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\""),
        ),
    ];
    for (request, expected) in &cases {
        table(&claims, vec![(claim(request.clone()), expected)]);
    }
}

#[test]
fn slices_are_checked() {
    let slice = |more: Value| {
        let mut spec = json!({
            "driver": "d.example.com", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "one"}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"metadata": {"name": "a"}, "spec": spec})
    };
    let slices = kind(GROUP, "v1", "resourceslices");
    table(
        &slices,
        vec![
            (slice(json!({"nodeName": "n"})), ""),
            (
                slice(json!({})),
                "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is \
                 required",
            ),
            (
                slice(json!({"nodeName": "n", "allNodes": true})),
                "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, \
                 `perDeviceNodeSelection` is required, but multiple fields are set",
            ),
            (
                slice(json!({"allNodes": true, "devices": [{"name": "a"}, {"name": "a"}]})),
                "spec.devices[1]: Duplicate value: \"a\"",
            ),
        ],
    );
    let (old, _) = create(&slices, &slice(json!({"nodeName": "n"})));
    let errors = update(&slices, &slice(json!({"nodeName": "m"})), &old);
    assert_eq!(errors, ["spec.nodeName: Invalid value: \"m\": field is immutable"]);
}

#[test]
fn expressions_of_selectors_are_compiled() {
    let claims = kind(GROUP, "v1", "resourceclaims");
    let path = "spec.devices.requests[0].exactly.selectors[0].cel";
    let select = |cel: Value| claim(json!({"name": "one", "exactly": {"deviceClassName": "c", "selectors": [cel]}}));
    let of = |expression: &str| select(json!({"cel": {"expression": expression}}));
    let bound = "cel.bind(gpu, device.attributes['gpu.example'], gpu.healthy && gpu.model == 'a100')";
    let good = [
        "device.driver == 'gpu.example'",
        "device.attributes['gpu.example'].healthy",
        "device.capacity['gpu.example'].memory.compareTo(quantity('10Gi')) >= 0",
        bound,
    ];
    for expression in good {
        assert_eq!(create(&claims, &of(expression)).1, Vec::<String>::new(), "{expression}");
    }
    assert_eq!(
        create(&claims, &select(json!({}))).1,
        [format!("{path}: Required value")]
    );
    let first = |expression: &str| create(&claims, &of(expression)).1.join("; ");
    assert_eq!(
        first("device.driver"),
        format!(
            "{path}.expression: Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string"
        )
    );
    let unknown = first("device.colour == 'red'");
    assert!(
        unknown.starts_with(&format!("{path}.expression: Invalid value: ")),
        "{unknown}"
    );
    assert!(
        unknown.contains("compilation failed: ERROR: <input>:1:7: undefined field 'colour'"),
        "{unknown}"
    );
    let long = "x".repeat(10 * 1024 + 1);
    assert_eq!(
        first(&long),
        format!("{path}.expression: Too long: may not be more than 10240 bytes")
    );
}

#[test]
fn constraints_and_configurations_name_requests() {
    let claims = kind(GROUP, "v1", "resourceclaims");
    let with = |more: Value| {
        let mut devices = json!({"requests": [
            {"name": "one", "exactly": {"deviceClassName": "c"}},
            {"name": "two", "firstAvailable": [{"name": "big", "deviceClassName": "c"}]},
        ]});
        devices
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        json!({"metadata": {"name": "a"}, "spec": {"devices": devices}})
    };
    let constraint = |requests: Value, attribute: &str| {
        with(json!({"constraints": [{"requests": requests, "matchAttribute": attribute}]}))
    };
    let config = |config: Value| with(json!({"config": [config]}));
    let no_request =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let at = "spec.devices.constraints[0]";
    table(
        &claims,
        vec![
            (constraint(json!(["one", "two/big"]), "gpu.example/model"), ""),
            (
                constraint(json!(["three"]), "gpu.example/model"),
                &format!("{at}.requests[0]: Invalid value: \"three\": {no_request}"),
            ),
            (
                constraint(json!(["two/small"]), "gpu.example/model"),
                &format!("{at}.requests[0]: Invalid value: \"two/small\": {no_request}"),
            ),
            (
                constraint(json!(["one", "one"]), "gpu.example/model"),
                &format!("{at}.requests[1]: Duplicate value: \"one\""),
            ),
            (
                constraint(json!([]), "model"),
                &format!(
                    "{at}.matchAttribute: Invalid value: \"model\": a fully qualified name must be a domain and a name \
                     separated by a slash"
                ),
            ),
            (
                with(json!({"constraints": [{}]})),
                &format!(
                    "{at}: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but \
                     multiple fields are set"
                ),
            ),
            (config(json!({})), "spec.devices.config[0].opaque: Required value"),
            (
                config(json!({"opaque": {"driver": "gpu.example", "parameters": {"a": 1}}})),
                "",
            ),
            (
                config(json!({"opaque": {"driver": "gpu.example"}})),
                "spec.devices.config[0].opaque.parameters: Required value",
            ),
        ],
    );
}

#[test]
fn devices_of_slices_are_checked() {
    let slices = kind(GROUP, "v1", "resourceslices");
    let path = "spec.devices[0]";
    let slice = |device: Value, more: Value| {
        let mut named = json!({"name": "one"});
        named
            .as_object_mut()
            .unwrap()
            .extend(device.as_object().cloned().unwrap());
        let mut spec = json!({
            "driver": "d.example.com", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
            "devices": [named],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"metadata": {"name": "a"}, "spec": spec})
    };
    let everywhere = |device: Value| slice(device, json!({"allNodes": true}));
    let attribute = |value: Value| everywhere(json!({"attributes": {"model": value}}));
    let policy = |policy: Value| {
        everywhere(json!({
            "allowMultipleAllocations": true, "capacity": {"memory": {"value": "10Gi", "requestPolicy": policy}},
        }))
    };
    let per_device = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
        set to true in the ResourceSlice spec";
    let of_policy = format!("{path}.capacity[memory].requestPolicy");
    table(
        &slices,
        vec![
            (attribute(json!({"string": "a"})), ""),
            (attribute(json!({"version": "1.2.3-rc.1+build"})), ""),
            (
                attribute(json!({})),
                &format!("{path}.attributes[model]: Invalid value: \"\": exactly one value must be specified"),
            ),
            (
                attribute(json!({"version": "1.2"})),
                &format!(
                    "{path}.attributes[model].version: Invalid value: \"1.2\": must be a string compatible with \
                     semver.org spec 2.0.0"
                ),
            ),
            (
                everywhere(json!({"taints": [{"key": "a", "effect": "Never"}]})),
                &format!(
                    "{path}.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \
                     \"NoSchedule\", \"None\""
                ),
            ),
            (
                everywhere(json!({"consumesCounters": [{"counterSet": "s"}]})),
                &format!("{path}.consumesCounters[0].counters: Required value"),
            ),
            (
                everywhere(json!({"bindingConditions": ["a"]})),
                &format!(
                    "{path}.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use \
                     bindingConditions"
                ),
            ),
            (
                slice(json!({}), json!({"perDeviceNodeSelection": true})),
                &format!("{path}: Required value: {per_device}"),
            ),
            (
                slice(json!({"nodeName": "n"}), json!({"perDeviceNodeSelection": true})),
                "",
            ),
            (
                policy(json!({"default": "1Gi", "validValues": ["1Gi", "20Gi"]})),
                &format!(
                    "{of_policy}.validValues[1]: Invalid value: \"20Gi\": option is larger than capacity value: 10Gi"
                ),
            ),
            (
                policy(json!({"default": "3Gi", "validRange": {"min": "1Gi", "step": "2Gi"}})),
                "",
            ),
            (
                policy(json!({"default": "2Gi", "validRange": {"min": "1Gi", "step": "2Gi"}})),
                &format!(
                    "{of_policy}.validRange.step: Invalid value: \"2Gi\": value is not a multiple of a given step (2Gi) \
                     from (1Gi)"
                ),
            ),
        ],
    );
}

#[test]
fn what_claims_got_is_checked() {
    let claims = kind(GROUP, "v1", "resourceclaims");
    let base = json!({"metadata": {"name": "a"}, "spec": {"devices": {"requests": [
        {"name": "one", "exactly": {"deviceClassName": "c"}},
    ]}}});
    let with = |status: Value| {
        let mut claim = base.clone();
        claim["status"] = status;
        super::object(&claim)
    };
    let check = |new: Value, old: Value| -> Vec<String> {
        let target = crate::registry::strategy::Target::Status;
        let errors = claims.strategy.validate_update(&with(new), &with(old), target);
        errors.iter().map(ToString::to_string).collect()
    };
    let result = |request: &str| json!({"request": request, "driver": "d.example", "pool": "p", "device": "gpu"});
    let allocated = |request: &str| json!({"allocation": {"devices": {"results": [result(request)]}}});
    let pod = json!({"resource": "pods", "name": "p", "uid": "u"});
    assert_eq!(check(allocated("one"), json!({})), Vec::<String>::new());
    assert_eq!(
        check(allocated("two"), json!({})),
        [
            "status.allocation.devices.results[0].request: Invalid value: \"two\": must be the name of a request in the \
             claim or the name of a request and a subrequest separated by '/'"
        ]
    );
    let changed = check(allocated("two"), allocated("one"));
    assert!(
        changed[0].starts_with("status.allocation: Invalid value: {") && changed[0].ends_with("field is immutable")
    );
    assert_eq!(
        check(json!({"reservedFor": [pod]}), json!({})),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    let mut used = allocated("one");
    used["reservedFor"] = json!([pod]);
    used["devices"] = json!([{
        "driver": "d.example", "pool": "p", "device": "gpu", "networkData": {"ips": ["10.9.8.7/24"]},
    }]);
    assert_eq!(check(used.clone(), allocated("one")), Vec::<String>::new());
    used["devices"][0]["device"] = json!("other");
    let other = check(used, allocated("one"));
    assert!(
        other[0].ends_with("must be an allocated device in the claim"),
        "{other:?}"
    );
}
