//! Parity with upstream: every path, verb and definition of Kubernetes 1.36 is served and described as there.
//!
//! The facts stand in `tests/parity/*.tsv`, whose heads explain them. What 1.37 has changed since is named in
//! `tests/parity/since.tsv`; nothing else may differ.

use crate::harness::Server;
use poem::http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const PATHS: &str = include_str!("../parity/paths.tsv");
const PARAMETERS: &str = include_str!("../parity/parameters.tsv");
const DEFINITIONS: &str = include_str!("../parity/definitions.tsv");
const SINCE: &str = include_str!("../parity/since.tsv");

/// Parameters of features that are off by default.
const OFF_BY_DEFAULT: [&str; 1] = ["shardSelector"];

fn lines(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
}

/// The lists and types of parameters.
fn parameter_table() -> BTreeMap<&'static str, &'static str> {
    lines(PARAMETERS).map(|columns| (columns[0], columns[1])).collect()
}

/// `!name`, `limit/integer`, …, sorted.
fn expected_parameters(column: &str) -> BTreeSet<String> {
    let table = parameter_table();
    let list = if column.starts_with('&') { table[column] } else { column };
    list.split(',')
        .filter(|name| *name != "-" && !OFF_BY_DEFAULT.contains(name))
        .map(|name| match table.get(name) {
            Some(kind) => format!("{name}/{kind}"),
            None => name.to_owned(),
        })
        .collect()
}

/// The media types that an operation reads and writes, and the codes of its answers.
fn expected_media(action: &str, path: &str) -> (Value, Value, Vec<&'static str>) {
    let json = "application/json";
    let objects = [json, "application/yaml", "application/vnd.kubernetes.protobuf"];
    let anything = json!(["*/*"]);
    let (reads, writes, codes): (Value, Value, &[&str]) = match (action, path) {
        ("-", "/version/") => (json!([json]), json!([json]), &["200", "401"]),
        ("-", "/.well-known/openid-configuration/") => (Value::Null, json!([json]), &["200", "401"]),
        ("-", "/openid/v1/jwks/") => (Value::Null, json!(["application/jwk-set+json"]), &["200", "401"]),
        ("-", path) if path.starts_with("/logs/") => (Value::Null, Value::Null, &["401"]),
        ("-", _) => (json!(objects), json!(objects), &["200", "401"]),
        ("connect", _) => (anything.clone(), anything, &["200", "401"]),
        ("list" | "watch" | "watchlist", _) => {
            let mut writes = objects.to_vec();
            writes.extend([
                "application/json;stream=watch",
                "application/vnd.kubernetes.protobuf;stream=watch",
            ]);
            (anything, json!(writes), &["200", "401"])
        }
        ("get", path) if path.ends_with("/log") => {
            let mut writes = vec!["text/plain"];
            writes.extend(objects);
            (anything, json!(writes), &["200", "401"])
        }
        ("patch", _) => {
            let reads = [
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml",
            ];
            (json!(reads), json!(objects), &["200", "201", "401"])
        }
        ("put", _) => (anything, json!(objects), &["200", "201", "401"]),
        ("post", _) => (anything, json!(objects), &["200", "201", "202", "401"]),
        ("delete", _) => (anything, json!(objects), &["200", "202", "401"]),
        _ => (anything, json!(objects), &["200", "401"]),
    };
    (reads, writes, codes.to_vec())
}

fn definition_of(schema: &Value) -> &str {
    match schema["$ref"].as_str() {
        Some(reference) => reference.rsplit('/').next().unwrap(),
        None => schema["type"].as_str().unwrap_or("-"),
    }
}

/// The operation of the document in the columns of the table.
fn described(item: &Value, operation: &Value) -> (Vec<String>, BTreeSet<String>) {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let kind = &operation["x-kubernetes-group-version-kind"];
    let kind = match kind {
        Value::Null => "-".to_owned(),
        kind => ["group", "version", "kind"].map(|field| text(&kind[field])).join("/"),
    };
    let (mut parameters, mut body) = (BTreeSet::new(), "-".to_owned());
    let lists = [&item["parameters"], &operation["parameters"]];
    for parameter in lists.into_iter().filter_map(Value::as_array).flatten() {
        let name = text(&parameter["name"]);
        match text(&parameter["in"]).as_str() {
            "body" => {
                let required = if parameter["required"] == true { "!" } else { "" };
                body = format!("{}{required}", definition_of(&parameter["schema"]));
            }
            "path" => {
                assert_eq!(parameter["required"], true, "{name}");
                parameters.insert(format!("!{name}"));
            }
            _ => {
                parameters.insert(format!("{name}/{}", text(&parameter["type"])));
            }
        }
    }
    let columns = vec![
        text(&operation["operationId"]),
        operation["tags"]
            .as_array()
            .map_or("-".to_owned(), |tags| text(&tags[0])),
        text(&operation["x-kubernetes-action"]),
        kind,
        body,
        operation["responses"]
            .get("200")
            .map_or("-", |answer| definition_of(&answer["schema"]))
            .to_owned(),
    ];
    (columns, parameters)
}

/// What is said to differ: (what, where), by the sign in front.
fn since(sign: &str) -> BTreeSet<(String, String)> {
    lines(SINCE)
        .filter(|columns| columns[0] == sign)
        .map(|columns| (columns[1].to_owned(), columns.get(2).unwrap_or(&"").to_string()))
        .collect()
}

#[tokio::test]
async fn every_path_is_described_as_upstream_does() {
    let server = Server::start().await;
    let document = server.get("/openapi/v2").await.expect(200);
    let (mut equal, mut all, mut wrong) = (0, 0, Vec::new());
    let mut known = BTreeSet::new();
    for columns in lines(PATHS) {
        let [path, method, rest @ ..] = columns.as_slice() else {
            panic!("{columns:?}")
        };
        all += 1;
        known.insert((path.to_string(), method.to_string()));
        let item = &document["paths"][path];
        let operation = &item[method];
        let (found, parameters) = described(item, operation);
        let [id, tag, action, kind, listed, body, answer] = rest else {
            panic!("{columns:?}")
        };
        let expected = [id, tag, action, kind, body, answer].map(|text| text.to_string());
        let (reads, writes, codes) = expected_media(action, path);
        let found_codes: Vec<&str> = operation["responses"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(code, _)| code.as_str())
            .collect();
        let expected_parameters = expected_parameters(listed);
        if found != expected {
            wrong.push(format!("{method} {path}: {found:?} instead of {expected:?}"));
        } else if parameters != expected_parameters {
            let more: Vec<_> = parameters.difference(&expected_parameters).collect();
            let less: Vec<_> = expected_parameters.difference(&parameters).collect();
            wrong.push(format!(
                "{method} {path}: parameters, too many {more:?}, missing {less:?}"
            ));
        } else if (&operation["consumes"], &operation["produces"]) != (&reads, &writes) {
            let (reads, writes) = (&operation["consumes"], &operation["produces"]);
            wrong.push(format!("{method} {path}: consumes {reads}, produces {writes}"));
        } else if found_codes != codes {
            wrong.push(format!("{method} {path}: answers {found_codes:?}"));
        } else {
            equal += 1;
        }
    }
    println!("parity: {equal} of {all} operations");
    assert!(all > 800, "{all}");
    let added = since("+path");
    let mut seen = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, _) in methods.as_object().unwrap() {
            let operation = (path.clone(), method.clone());
            if !known.contains(&operation) && !added.contains(&operation) {
                wrong.push(format!("{method} {path}: upstream has it not"));
            }
            seen.insert(operation);
        }
    }
    wrong.extend(
        added
            .difference(&seen)
            .map(|(path, method)| format!("{method} {path}: said to be there")),
    );
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The type of a property in the table's words.
fn shape(schema: &Value) -> String {
    let kind = schema["type"].as_str().unwrap_or_default();
    if schema.get("$ref").is_some() {
        return definition_of(schema).to_owned();
    }
    match kind {
        "array" => format!("[]{}", shape(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("{{}}{}", shape(&schema["additionalProperties"]))
        }
        "" => "any".to_owned(),
        kind => match schema["format"].as_str() {
            Some(format) => format!("{kind}/{format}"),
            None => kind.to_owned(),
        },
    }
}

/// The extensions of a property in the table's words.
fn facts(schema: &Value, required: bool) -> String {
    let mut facts = Vec::new();
    if required {
        facts.push("required".to_owned());
    }
    for (extension, name) in [
        ("x-kubernetes-list-type", "list"),
        ("x-kubernetes-list-map-keys", "keys"),
        ("x-kubernetes-patch-strategy", "patch"),
        ("x-kubernetes-patch-merge-key", "merge"),
        ("x-kubernetes-map-type", "map"),
    ] {
        match &schema[extension] {
            Value::String(text) => facts.push(format!("{name}={text}")),
            Value::Array(keys) => {
                let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
                facts.push(format!("{name}={}", keys.join(",")));
            }
            _ => {}
        }
    }
    facts.join(" ")
}

/// The head of a definition in the table's words: type, map type and unions, kinds.
fn head(schema: &Value) -> [String; 3] {
    let mut flags = Vec::new();
    if let Some(map_type) = schema["x-kubernetes-map-type"].as_str() {
        flags.push(format!("map={map_type}"));
    }
    for union in schema["x-kubernetes-unions"].as_array().into_iter().flatten() {
        let fields: Vec<String> = union["fields-to-discriminateBy"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, value)| format!("{field}={}", value.as_str().unwrap_or_default()))
            .collect();
        let discriminator = union["discriminator"].as_str().unwrap_or_default();
        flags.push(format!("union={discriminator}:{}", fields.join(",")));
    }
    let kinds: Vec<String> = schema["x-kubernetes-group-version-kind"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|kind| {
            ["group", "version", "kind"]
                .map(|field| kind[field].as_str().unwrap_or_default())
                .join("/")
        })
        .collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    [shape(schema), or_dash(flags.join(" ")), or_dash(kinds.join(","))]
}

/// What is known of each property of a definition.
type Properties<'a> = BTreeMap<&'a str, Vec<&'a str>>;

#[tokio::test]
async fn every_definition_is_upstreams() {
    let server = Server::start().await;
    let document = server.get("/openapi/v2").await.expect(200);
    let served = document["definitions"].as_object().unwrap();
    let mut definitions: BTreeMap<&str, (Vec<&str>, Properties<'_>)> = BTreeMap::new();
    let mut open = "";
    for columns in lines(DEFINITIONS) {
        if columns[0].starts_with("io.k8s.") {
            open = columns[0];
            definitions.insert(open, (columns[1..].to_vec(), BTreeMap::new()));
        } else if let Some((_, properties)) = definitions.get_mut(open) {
            properties.insert(columns[0], columns[1..].to_vec());
        }
    }
    let (added, removed, changed) = (since("+"), since("-"), since("~"));
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut equal = 0;
    for (name, (expected, properties)) in &definitions {
        let Some(schema) = served.get(*name) else {
            let entry = (name.to_string(), String::new());
            if removed.contains(&entry) {
                used.insert(("-", entry));
                equal += 1;
            } else {
                wrong.push(format!("{name} is not served"));
            }
            continue;
        };
        let before = wrong.len();
        let found = head(schema);
        let of_all_groups = name.ends_with("DeleteOptions") || name.ends_with("WatchEvent");
        let kinds_agree = match of_all_groups {
            // Those of 1.36 and some that came since.
            true => expected[2]
                .split(',')
                .all(|kind| found[2].split(',').any(|other| other == kind)),
            false => found[2] == expected[2],
        };
        if found[..2] != expected[..2] || !kinds_agree {
            wrong.push(format!("{name}: {found:?} instead of {expected:?}"));
        }
        let none = serde_json::Map::new();
        let served = schema["properties"].as_object().unwrap_or(&none);
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let names: BTreeSet<&str> = properties
            .keys()
            .copied()
            .chain(served.keys().map(String::as_str))
            .collect();
        for property in names {
            let entry = (name.to_string(), property.to_owned());
            let (sign, problem) = match (properties.get(property), served.get(property)) {
                (Some(_), None) => ("-", format!("{name}.{property} is missing")),
                (None, Some(_)) => ("+", format!("{name}.{property}: upstream has it not")),
                (Some(expected), Some(schema)) => {
                    let found = [shape(schema), facts(schema, required.contains(&property))];
                    if found[0] == expected[0] && found[1] == *expected.get(1).unwrap_or(&"") {
                        continue;
                    }
                    ("~", format!("{name}.{property}: {found:?} instead of {expected:?}"))
                }
                (None, None) => continue,
            };
            let named = match sign {
                "+" => &added,
                "-" => &removed,
                _ => &changed,
            };
            if named.contains(&entry) {
                used.insert((sign, entry));
            } else {
                wrong.push(problem);
            }
        }
        if wrong.len() == before {
            equal += 1;
        }
    }
    println!("parity: {equal} of {} definitions", definitions.len());
    assert!(definitions.len() > 550);
    for name in served.keys().filter(|name| !definitions.contains_key(name.as_str())) {
        let entry = (name.clone(), String::new());
        if added.contains(&entry) {
            used.insert(("+", entry));
        } else {
            wrong.push(format!("{name}: upstream has it not"));
        }
    }
    for (sign, named) in [("+", added), ("-", removed), ("~", changed)] {
        let stale = named.into_iter().filter(|entry| !used.contains(&(sign, entry.clone())));
        wrong.extend(stale.map(|(name, property)| format!("{sign} {name} {property}: there is no such difference")));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// A request to the path with names put in. Watches end at once.
fn address(path: &str) -> String {
    let path = path
        .replace("{namespace}", "default")
        .replace("{name}", "absent")
        .replace("{path}", "x")
        .replace("{logpath}", "absent");
    let watches = path.contains("/watch/");
    if watches {
        format!("{path}?timeoutSeconds=1&resourceVersion=0")
    } else {
        path
    }
}

#[tokio::test]
async fn every_path_is_served() {
    let server = Server::start().await;
    let (mut served, mut all, mut wrong) = (0, 0, Vec::new());
    for columns in lines(PATHS) {
        let (path, method, action) = (columns[0], columns[1], columns[4]);
        all += 1;
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let headers: &[(&str, &str)] = match action {
            "patch" => &[("content-type", "application/merge-patch+json")],
            _ => &[("content-type", "application/json")],
        };
        let body = match action {
            // Deleting all of a kind may take what the next request needs; nothing may really go.
            "deletecollection" | "delete" => r#"{"dryRun": ["All"]}"#,
            "put" | "post" | "patch" => "{}",
            _ => "",
        };
        let uri = address(path);
        let response = server.open(method.clone(), &uri, headers, body.to_owned()).await;
        let code = response.status().as_u16();
        let plain = response
            .content_type()
            .is_some_and(|kind| kind.starts_with("text/plain"));
        let known = match (code, action) {
            // What is not there is said to be so by name; an unknown path is not.
            (404, _) => {
                let body = response.into_body().into_bytes().await.unwrap();
                let status: Value = serde_json::from_slice(&body).unwrap_or_default();
                status["details"]["name"].is_string() || path == "/logs/{logpath}"
            }
            (405, _) => false,
            (_, "-") => true,
            (code, _) => !(plain && code >= 400),
        };
        if known {
            served += 1;
        } else {
            wrong.push(format!("{method} {uri}: {code}"));
        }
    }
    println!("parity: {served} of {all} operations are served");
    assert!(
        wrong.is_empty(),
        "{} are not served:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
