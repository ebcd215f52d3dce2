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
            expect(".name: Required value"),
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
