//! A list at a revision equals the replay of the log up to it: random writes, seen through lists of several forms
//! and through watches, with and without selectors.

use crate::harness::{CONFIG_MAPS, Server, as_item, revision};
use krust::apiserver::codec::protobuf;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const WRITES: usize = 300;
const NAMES: usize = 12;

type State = BTreeMap<String, Value>;

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Applies an event of a watch to what it saw so far.
fn replay(state: &mut State, event: &Value) {
    let object = &event["object"];
    match event["type"].as_str().unwrap() {
        "ADDED" => assert!(
            state.insert(name(object), object.clone()).is_none(),
            "added twice: {object}"
        ),
        "MODIFIED" => assert!(
            state.insert(name(object), object.clone()).is_some(),
            "was not there: {object}"
        ),
        "DELETED" => assert!(state.remove(&name(object)).is_some(), "was not there: {object}"),
        other => panic!("{other}"),
    }
}

async fn write(server: &Server, random: &mut StdRng, exists: &mut State) -> u64 {
    let name = format!("m{}", random.random_range(0..NAMES));
    let uri = format!("{CONFIG_MAPS}/{name}");
    let app = ["x", "y"][random.random_range(0..2)];
    let content = json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "data": {"k": random.random::<u32>().to_string()},
    });
    match (exists.contains_key(&name), random.random_range(0..4)) {
        (false, _) => {
            let object = server.post(CONFIG_MAPS, content).await.expect(201);
            exists.insert(name, object.clone());
            revision(&object)
        }
        (true, 0) => {
            server.delete(&uri).await.expect(200);
            exists.remove(&name);
            server.api.storage.revision()
        }
        (true, _) => {
            let object = server.put(&uri, content).await.expect(200);
            exists.insert(name, object.clone());
            revision(&object)
        }
    }
}

/// The objects of a list, read in pages.
async fn pages(server: &Server, query: &str, limit: usize) -> State {
    let mut found = State::new();
    let mut uri = format!("{CONFIG_MAPS}?{query}&limit={limit}");
    loop {
        let page = server.get(&uri).await.expect(200);
        for object in page["items"].as_array().unwrap() {
            assert!(found.insert(name(object), object.clone()).is_none());
        }
        let Some(token) = page["metadata"]["continue"].as_str() else {
            return found;
        };
        let selector = query
            .split('&')
            .find(|part| part.starts_with("labelSelector"))
            .unwrap_or_default();
        uri = format!("{CONFIG_MAPS}?{selector}&continue={token}&limit={limit}");
    }
}

#[tokio::test]
async fn a_list_at_a_revision_is_the_replay_of_the_log() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let server = Server::start().await;
        let start = server.api.storage.revision();
        let query = format!("watch=1&resourceVersion={start}");
        let mut all = server.watch(&format!("{CONFIG_MAPS}?{query}"), "").await;
        let mut some = server
            .watch(&format!("{CONFIG_MAPS}?{query}&labelSelector=app%3Dx"), "")
            .await;
        let mut exists = State::new();
        // What the watches say there is after each revision.
        let mut log: Vec<(u64, State)> = vec![(start, State::new())];
        for _ in 0..WRITES {
            let at = write(&server, &mut random, &mut exists).await;
            let mut state = log.last().unwrap().1.clone();
            let event = all.next().await.unwrap();
            assert_eq!(revision(&event["object"]), at);
            replay(&mut state, &event);
            assert_eq!(state, exists);
            log.push((at, state));
        }
        for _ in 0..40 {
            let (at, expected) = &log[random.random_range(0..log.len())];
            let expected: &State = &expected
                .iter()
                .map(|(name, object)| (name.clone(), as_item(object)))
                .collect();
            let exact = format!("resourceVersion={at}&resourceVersionMatch=Exact");
            let list = server.get(&format!("{CONFIG_MAPS}?{exact}")).await.expect(200);
            assert_eq!(revision(&list), *at);
            let found: State = list["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|o| (name(o), o.clone()))
                .collect();
            assert_eq!(&found, expected, "at {at}");
            let raw = server
                .get_as(&format!("{CONFIG_MAPS}?{exact}"), "application/vnd.kubernetes.protobuf")
                .await;
            let (_, _, message) = protobuf::decode(&raw.body).unwrap();
            let items = message.get("items").and_then(Value::as_array).map_or(0, Vec::len);
            assert_eq!(items, expected.len());
            let limit = random.random_range(1..5);
            assert_eq!(&pages(&server, &exact, limit).await, expected, "in pages at {at}");
            let selected: State = expected
                .iter()
                .filter(|(_, object)| object["metadata"]["labels"]["app"] == "x")
                .map(|(name, object)| (name.clone(), object.clone()))
                .collect();
            let query = format!("{exact}&labelSelector=app%3Dx");
            assert_eq!(pages(&server, &query, limit).await, selected, "selected at {at}");
        }
        // Who sees a part of it only sees the same part in the end.
        let mut state = State::new();
        let (last, expected) = log.last().unwrap();
        server.config_map("end", json!({"app": "x"})).await;
        loop {
            let event = some.next().await.unwrap();
            if name(&event["object"]) == "end" {
                break;
            }
            assert!(revision(&event["object"]) <= *last);
            replay(&mut state, &event);
        }
        let selected: State = expected
            .iter()
            .filter(|(_, object)| object["metadata"]["labels"]["app"] == "x")
            .map(|(name, object)| (name.clone(), object.clone()))
            .collect();
        assert_eq!(state, selected);
    }
}
