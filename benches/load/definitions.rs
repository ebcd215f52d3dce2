//! Many custom resources: how soon they are served, and what a thousand of them cost.

use crate::Options;
use crate::connection::{Connection, Error, Target};
use crate::krust::Server;
use crate::stats::{Latencies, show};
use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Definitions share groups, as those of one operator do.
const PER_GROUP: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// `server` is the process if it is ours, for its memory.
pub async fn run(target: &Target, options: &Options, server: Option<&Server>) -> Result<(), Error> {
    println!(
        "\nCustom resources, {} definitions of about 30 fields",
        options.definitions
    );
    let mut connection = target.connect().await?;
    let report = |when: &str| {
        if let Some(server) = server {
            server.report_memory(when);
        }
    };
    report("before the definitions");
    let tenth = (options.definitions / 10).max(1);
    let (mut created, mut usable) = (Latencies::default(), Latencies::default());
    let mut step = Instant::now();
    for number in 0..options.definitions {
        let started = Instant::now();
        connection
            .call(Method::POST, DEFINITIONS, definition(number).to_string().into())
            .await?;
        created.add(started.elapsed());
        use_it(&mut connection, number, started).await?;
        usable.add(started.elapsed());
        if number + 1 == tenth || number + 1 == options.definitions {
            let rate = tenth as f64 / step.elapsed().as_secs_f64();
            println!("{:<36} {rate:>9.0}/s", format!("made and used, up to {}", number + 1));
        }
        if (number + 1) % tenth == 0 {
            step = Instant::now();
        }
    }
    created.print_tail("create a definition");
    usable.print_tail("create to its first object");
    report("with an object of each");
    for path in ["/apis", "/openapi/v3"] {
        let started = Instant::now();
        let bytes = connection.call(Method::GET, path, Bytes::new()).await?.len();
        println!(
            "{:<36} {:>9}   {} KiB",
            format!("GET {path}"),
            show(started.elapsed()),
            bytes / 1024
        );
    }
    let started = Instant::now();
    let groups = options.definitions.div_ceil(PER_GROUP);
    for group in 0..groups {
        let path = format!("/openapi/v3/apis/{}/v1", group_name(group));
        connection.call(Method::GET, &path, Bytes::new()).await?;
    }
    println!(
        "{:<36} {:>9}",
        format!("GET all {groups} documents"),
        show(started.elapsed())
    );
    report("after all documents");
    Ok(())
}

/// Creates an object of the definition as soon as it is served.
async fn use_it(connection: &mut Connection, number: usize, started: Instant) -> Result<(), Error> {
    let (group, kind) = (group_name(number / PER_GROUP), kind_name(number));
    let path = format!("/apis/{group}/v1/namespaces/default/{}s", kind.to_lowercase());
    let object = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "one"},
        "spec": {"size": 1, "text0": "a", "list": [{"name": "x", "port": 80}]},
    });
    loop {
        match connection.call(Method::POST, &path, object.to_string().into()).await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > PATIENCE => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn group_name(group: usize) -> String {
    format!("group{group}.bench.example.com")
}

fn kind_name(number: usize) -> String {
    format!("Kind{number}")
}

/// Thirty fields of the usual types, with descriptions, defaults, formats, lists and a rule.
fn schema() -> Value {
    let text = |what: &str| json!({"type": "string", "description": format!("The {what} of the thing, as its owner wants it."), "maxLength": 253});
    let mut spec = Map::new();
    for number in 0..10 {
        spec.insert(format!("text{number}"), text("text"));
    }
    for number in 0..5 {
        let field = json!({"type": "integer", "format": "int32", "minimum": 0, "default": number});
        spec.insert(format!("number{number}"), field);
    }
    for number in 0..4 {
        spec.insert(
            format!("flag{number}"),
            json!({"type": "boolean", "description": "Whether it is so."}),
        );
    }
    spec.insert("size".into(), json!({"type": "integer", "minimum": 1}));
    spec.insert(
        "mode".into(),
        json!({"type": "string", "enum": ["Fast", "Slow"], "default": "Fast"}),
    );
    spec.insert("port".into(), json!({"x-kubernetes-int-or-string": true}));
    spec.insert(
        "labels".into(),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
    );
    spec.insert(
        "list".into(),
        json!({"type": "array", "maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": text("name"), "port": {"type": "integer"}}}}),
    );
    let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
        "type": text("type"), "status": text("status"), "reason": text("reason"), "message": text("message"),
    }});
    json!({"type": "object", "description": "A thing of the bench.", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": spec,
            "x-kubernetes-validations": [{"rule": "self.size > 0", "message": "size must be positive"}]},
        "status": {"type": "object", "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": {"type": "array", "items": condition},
        }},
    }})
}

fn definition(number: usize) -> Value {
    let (group, kind) = (group_name(number / PER_GROUP), kind_name(number));
    let plural = format!("{}s", kind.to_lowercase());
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema()},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    })
}
