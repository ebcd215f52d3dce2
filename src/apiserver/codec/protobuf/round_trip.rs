//! JSON to protobuf and back is the identity, for made-up objects of every kind.

use super::{decode, encode_body};
use crate::registry::Registry;
use crate::registry::schema::made_up::Maker;
use crate::registry::schema::{self, Definition, Node};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Objects made of each kind.
const ROUNDS: u64 = 40;
#[test]
fn json_to_protobuf_and_back_is_the_identity() {
    let registry = Registry::builtin();
    let mut maker = Maker::new(7);
    let (mut kinds, mut objects) = (0, 0);
    for kind in registry.kinds() {
        let definition = schema::definition(&kind);
        kinds += 1;
        for _ in 0..ROUNDS {
            let mut object = maker.object(&definition, 0);
            object.insert("apiVersion".into(), json!(kind.group_version()));
            object.insert("kind".into(), json!(kind.kind));
            let read = schema::prune(&definition, Value::Object(object.clone())).expect("made along its schema");
            assert_eq!((read.strict, &read.object), (Vec::new(), &object), "{}", kind.kind);
            let body = encode_body(&object).expect("it fits its schema").expect("a known kind");
            let (api_version, name, back) = decode(&body).unwrap_or_else(|error| panic!("{error}: {object:?}"));
            assert_eq!((api_version, name.as_str()), (kind.group_version(), kind.kind));
            assert_eq!(Value::Object(back), Value::Object(object));
            objects += 1;
        }
    }
    println!(
        "{objects} objects of {kinds} kinds with {} different fields",
        maker.met.len()
    );
    assert!(kinds > 50 && maker.met.len() > 1500, "{kinds} {}", maker.met.len());
}

/// Fields of the newest version whose numbers are not known here, and durations, which are text in JSON and a message in
/// protobuf: they are left out of protobuf.
const WITHOUT_NUMBER: [&str; 8] = [
    "io.k8s.api.core.v1.NodeSystemInfo.runningInUserNamespace",
    "io.k8s.api.resource.v1.DeviceCounterConsumption.compatibilityGroups",
    "io.k8s.api.resource.v1.DeviceDerivedAttribute.expression",
    "io.k8s.api.resource.v1.DeviceDerivedAttribute.name",
    "io.k8s.api.resource.v1.DeviceSubRequest.derivedAttributes",
    "io.k8s.api.resource.v1.ExactDeviceRequest.derivedAttributes",
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics.window",
    "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics.window",
];

/// All other properties have one, so that nothing is lost on the way.
#[test]
fn every_property_has_a_number() {
    let mut lost = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut next: Vec<Arc<Definition>> = Registry::builtin()
        .kinds()
        .map(|kind| schema::definition(&kind))
        .collect();
    while let Some(definition) = next.pop() {
        if !seen.insert(definition.name.clone()) {
            continue;
        }
        for (name, property) in &definition.object().properties {
            let mut node = &property.node;
            while let Node::List(item) | Node::Map(item) = node {
                node = item;
            }
            next.extend(node.as_object().cloned());
            if property.wire.is_empty() && !matches!(name.as_str(), "apiVersion" | "kind") {
                lost.insert(format!("{}.{name}", definition.name));
            }
        }
    }
    assert!(seen.len() > 300, "{}", seen.len());
    assert_eq!(lost, WITHOUT_NUMBER.map(str::to_owned).into());
}
