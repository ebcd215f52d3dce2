//! Watches: selectors, resumption, order.

use crate::cluster::Cluster;
use crate::resource::{Resource, Watch, name, revision};
use crate::runner::{Test, test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch",
            resume,
        ),
        test(
            "[sig-api-machinery] Watchers should be able to start watching from a specific resource version",
            from_a_revision,
        ),
        test(
            "[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps",
            selected,
        ),
        test(
            "[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector",
            leaving_the_selector,
        ),
        test(
            "[sig-api-machinery] Watchers should receive events on concurrent watches in same order",
            one_order,
        ),
    ]
}

async fn maps(cluster: &Cluster) -> Resource {
    let namespace = cluster.namespace("watch").await;
    cluster.core("configmaps", Some(&namespace))
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watched": label}}, "data": {}})
}

fn step(number: u32) -> Value {
    json!({"data": {"step": number.to_string()}})
}

async fn selected(cluster: Cluster) {
    let maps = maps(&cluster).await;
    let mut a = maps.watch("watched=a", "").await;
    let mut b = maps.watch("watched=b", "").await;
    let mut both = maps.watch("watched in (a,b)", "").await;
    let check = async |watches: [&mut Watch; 2], kind: &str, object: &Value| {
        for watch in watches {
            assert_eq!(watch.expect(kind).await, *object);
        }
    };
    let created = maps.create(&map("of-a", "a")).await.unwrap();
    check([&mut a, &mut both], "ADDED", &created).await;
    for number in 1..=2 {
        let changed = maps.merge("of-a", step(number)).await.unwrap();
        check([&mut a, &mut both], "MODIFIED", &changed).await;
    }
    maps.delete("of-a").await.unwrap();
    for watch in [&mut a, &mut both] {
        assert_eq!(watch.expect("DELETED").await["data"]["step"], "2");
    }
    let created = maps.create(&map("of-b", "b")).await.unwrap();
    check([&mut b, &mut both], "ADDED", &created).await;
    maps.delete("of-b").await.unwrap();
    for watch in [&mut b, &mut both] {
        watch.expect("DELETED").await;
    }
    maps.create(&map("of-nobody", "c")).await.unwrap();
    for watch in [&mut a, &mut b, &mut both] {
        watch.expect_silence().await;
    }
}

async fn from_a_revision(cluster: Cluster) {
    let maps = maps(&cluster).await;
    maps.create(&map("one", "x")).await.unwrap();
    let first = maps.merge("one", step(1)).await.unwrap();
    let second = maps.merge("one", step(2)).await.unwrap();
    maps.delete("one").await.unwrap();
    let mut watch = maps.watch("watched=x", &revision(&first)).await;
    assert_eq!(watch.expect("MODIFIED").await, second);
    let gone = watch.expect("DELETED").await;
    assert_eq!(gone["data"]["step"], "2");
    assert!(revision(&gone).parse::<u64>().unwrap() > revision(&second).parse().unwrap());
}

async fn resume(cluster: Cluster) {
    let maps = maps(&cluster).await;
    let mut first = maps.watch("watched=x", "").await;
    maps.create(&map("one", "x")).await.unwrap();
    first.expect("ADDED").await;
    maps.merge("one", step(1)).await.unwrap();
    let seen = revision(&first.expect("MODIFIED").await);
    drop(first);
    let missed = maps.merge("one", step(2)).await.unwrap();
    maps.delete("one").await.unwrap();
    let mut second = maps.watch("watched=x", &seen).await;
    assert_eq!(second.expect("MODIFIED").await, missed);
    second.expect("DELETED").await;
}

async fn leaving_the_selector(cluster: Cluster) {
    let maps = maps(&cluster).await;
    let mut watch = maps.watch("watched=first", "").await;
    let label = |value: &str| json!({"metadata": {"labels": {"watched": value}}});
    maps.create(&map("one", "first")).await.unwrap();
    watch.expect("ADDED").await;
    maps.merge("one", step(1)).await.unwrap();
    watch.expect("MODIFIED").await;
    maps.merge("one", label("second")).await.unwrap();
    let left = watch.expect("DELETED").await;
    assert_eq!(left["metadata"]["labels"]["watched"], "first", "as it was before");
    maps.merge("one", step(2)).await.unwrap();
    watch.expect_silence().await;
    maps.merge("one", label("first")).await.unwrap();
    assert_eq!(
        watch.expect("ADDED").await["data"]["step"],
        "2",
        "with what happened meanwhile"
    );
    maps.merge("one", step(3)).await.unwrap();
    watch.expect("MODIFIED").await;
    maps.delete("one").await.unwrap();
    assert_eq!(watch.expect("DELETED").await["data"]["step"], "3");
}

/// Watches opened at every revision that a busy writer makes see the same events in the same order.
async fn one_order(cluster: Cluster) {
    const WRITES: u32 = 60;
    let maps = maps(&cluster).await;
    let begin = revision(&maps.create(&map("start", "x")).await.unwrap());
    let writer = {
        let maps = maps.clone();
        tokio::spawn(async move {
            for number in 0..WRITES {
                let name = format!("m{}", number % 5);
                match number % 3 {
                    0 => drop(maps.create(&map(&name, "x")).await),
                    1 => drop(maps.merge(&format!("m{}", (number - 1) % 5), step(number)).await),
                    _ => drop(maps.delete(&format!("m{}", (number - 2) % 5)).await),
                }
            }
            maps.create(&map("end", "x")).await.unwrap();
        })
    };
    let mut sequences: Vec<Vec<(String, u64)>> = Vec::new();
    let mut from = begin.clone();
    for _ in 0..8 {
        let mut watch = maps.watch("", &from).await;
        let mut seen: Vec<(String, u64)> = Vec::new();
        loop {
            let (kind, object) = watch.next().await;
            seen.push((format!("{kind} {}", name(&object)), revision(&object).parse().unwrap()));
            if name(&object) == "end" {
                break;
            }
        }
        from = seen[seen.len() / 3].1.to_string();
        sequences.push(seen);
    }
    writer.await.unwrap();
    let first = &sequences[0];
    assert!(
        first.windows(2).all(|pair| pair[0].1 < pair[1].1),
        "revisions rise: {first:?}"
    );
    assert_eq!(first.iter().filter(|(what, _)| what.starts_with("ADDED m")).count(), 20);
    for sequence in &sequences[1..] {
        let begin = first
            .iter()
            .position(|event| event == &sequence[0])
            .expect("an event that the first saw");
        assert_eq!(&first[begin..], &sequence[..]);
    }
}
