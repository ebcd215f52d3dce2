//! kube-rs and its runtime: reflectors in both forms, waiting, entries, events, server-side apply, discovery.

use crate::support::krust::Krust;
use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, store};
use kube::runtime::{WatchStreamExt, wait, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn map(name: &str, value: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": {"set": "reflected"}}, "data": {"value": value}});
    serde_json::from_value(object).expect("a ConfigMap")
}

async fn client(krust: &Krust) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(krust.kubeconfig()).expect("the admin kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
        .await
        .expect("a configuration");
    Client::try_from(config).expect("a client")
}

#[tokio::test]
#[ignore = "starts the server's binary"]
async fn reflectors_keep_up() {
    let krust = tokio::task::spawn_blocking(|| Krust::start(&["--runtime", "none"]))
        .await
        .expect("the server");
    let client = client(&krust).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for index in 0..40 {
        maps.create(&PostParams::default(), &map(&format!("m{index}"), "old"))
            .await
            .expect("created");
    }
    let config = watcher::Config::default().labels("set=reflected");
    let listing = config.clone().page_size(7);
    let streaming = config.streaming_lists();
    let mut stores = Vec::new();
    for config in [listing, streaming] {
        let (reader, writer) = store();
        let stream = watcher(maps.clone(), config).default_backoff().reflect(writer);
        tokio::spawn(stream.for_each(|event| async move { drop(event.expect("an event")) }));
        tokio::time::timeout(PATIENCE, reader.wait_until_ready())
            .await
            .expect("in time")
            .expect("a state");
        assert_eq!(reader.state().len(), 40);
        stores.push(reader);
    }
    for index in 0..40 {
        let name = format!("m{index}");
        match index % 3 {
            0 => drop(maps.delete(&name, &DeleteParams::default()).await.expect("deleted")),
            1 => {
                let patch = Patch::Merge(json!({"data": {"value": "new"}}));
                maps.patch(&name, &PatchParams::default(), &patch)
                    .await
                    .expect("patched");
            }
            _ => {}
        }
    }
    let list = maps
        .list(&ListParams::default().labels("set=reflected"))
        .await
        .expect("a list");
    let mut wanted: Vec<(String, Option<String>)> = list
        .items
        .iter()
        .map(|map| (map.name_any(), map.resource_version()))
        .collect();
    wanted.sort();
    assert_eq!(wanted.len(), 26);
    for reader in &stores {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut state: Vec<_> = reader
                .state()
                .iter()
                .map(|map| (map.name_any(), map.resource_version()))
                .collect();
            state.sort();
            if state == wanted {
                break;
            }
            assert!(Instant::now() < deadline, "{state:?}\n{wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let one = reader.get(&ObjectRef::new("m1").within("default")).expect("m1");
        assert_eq!(
            one.data.as_ref().and_then(|data| data.get("value")).map(String::as_str),
            Some("new")
        );
    }
}

#[tokio::test]
#[ignore = "starts the server's binary"]
async fn what_controllers_do() {
    let krust = tokio::task::spawn_blocking(|| Krust::start(&["--runtime", "none"]))
        .await
        .expect("the server");
    let client = client(&krust).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());

    // An entry: made if it is absent, changed if it is there, and a conflict if it changed meanwhile.
    let mut entry = maps
        .entry("counter")
        .await
        .expect("an entry")
        .or_insert(|| map("counter", "1"));
    entry.commit(&PostParams::default()).await.expect("committed");
    maps.patch(
        "counter",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"other": "x"}})),
    )
    .await
    .expect("patched");
    entry
        .get_mut()
        .data
        .get_or_insert_default()
        .insert("value".into(), "2".into());
    let conflict = entry.commit(&PostParams::default()).await.expect_err("a conflict");
    assert!(format!("{conflict:?}").contains("Conflict"), "{conflict:?}");

    // Server-side apply of two managers.
    let apply = async |manager: &str, data: serde_json::Value, force: bool| {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data});
        let mut parameters = PatchParams::apply(manager);
        parameters.force = force;
        maps.patch("applied", &parameters, &Patch::Apply(object)).await
    };
    apply("one", json!({"a": "1", "b": "2"}), false).await.expect("applied");
    let refused = apply("two", json!({"a": "3"}), false).await.expect_err("a conflict");
    assert!(
        matches!(&refused, kube::Error::Api(status) if status.is_conflict()),
        "{refused:?}"
    );
    let taken = apply("two", json!({"a": "3"}), true).await.expect("applied");
    let owners: Vec<_> = taken
        .managed_fields()
        .iter()
        .filter_map(|entry| entry.manager.clone())
        .collect();
    assert_eq!(owners, ["one", "two"]);

    // Events about an object, the second as a series of the first.
    let reporter = Reporter {
        controller: "tests.example.com/controller".into(),
        instance: Some("one".into()),
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let reference: ObjectReference = taken.object_ref(&());
    let event = Event {
        type_: EventType::Normal,
        reason: "Seen".into(),
        note: Some("it was seen".into()),
        action: "Looking".into(),
        secondary: None,
    };
    recorder.publish(&event, &reference).await.expect("published");
    recorder.publish(&event, &reference).await.expect("published again");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client.clone());
    let about = ListParams::default().fields("regarding.name=applied");
    let list = events.list(&about).await.expect("events");
    assert_eq!(list.items.len(), 1, "{list:?}");
    assert_eq!(list.items[0].series.as_ref().map(|series| series.count), Some(2));

    // Waiting for a condition, scale and status.
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]},
            },
        },
    }))
    .expect("a Deployment");
    let made = deployments
        .create(&PostParams::default(), &deployment)
        .await
        .expect("created");
    let scale = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scaled = deployments
        .patch_scale("web", &PatchParams::default(), &scale)
        .await
        .expect("scaled");
    assert_eq!(scaled.spec.and_then(|spec| spec.replicas), Some(3));
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.is_some_and(|status| status.available_replicas == Some(3))
    };
    let waiting = tokio::spawn(wait::await_condition(deployments.clone(), "web", available));
    let status = Patch::Merge(json!({"status": {"replicas": 3, "readyReplicas": 3, "availableReplicas": 3}}));
    deployments
        .patch_status("web", &PatchParams::default(), &status)
        .await
        .expect("a status");
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("the condition");
    let uid = made.uid().expect("a uid");
    let gone = tokio::spawn({
        let deployments = deployments.clone();
        async move {
            wait::await_condition(deployments, "web", wait::conditions::is_deleted(&uid))
                .await
                .map(drop)
        }
    });
    deployments
        .delete("web", &DeleteParams::default())
        .await
        .expect("deleted");
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("in time")
        .expect("no panic")
        .expect("the end");

    // Discovery, in both forms, comes to the same.
    let aggregated = kube::discovery::Discovery::new(client.clone())
        .run_aggregated()
        .await
        .expect("discovery");
    let plain = kube::discovery::Discovery::new(client).run().await.expect("discovery");
    let kinds = |discovery: &kube::discovery::Discovery| {
        let mut kinds: Vec<String> = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, capabilities)| {
                let mut verbs = capabilities.operations.clone();
                verbs.sort();
                format!(
                    "{}/{} {} {:?}",
                    resource.api_version, resource.plural, resource.kind, verbs
                )
            })
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&aggregated), kinds(&plain));
    assert!(kinds(&plain).len() > 50);
}
