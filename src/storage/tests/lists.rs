//! Lists: order, scopes, past revisions, shared bodies.

use super::*;

#[tokio::test]
async fn lists_are_in_the_order_of_upstreams_keys() {
    let storage = in_memory().await;
    for name in ["a/z", "a-b/x", "b/1", "a/B", "a/a.b", "a/a-b"] {
        write(&storage, create(name, "x")).await;
    }
    let names = |namespace| {
        let list = storage.list("configmaps", namespace, None).unwrap();
        assert!(list.entries.is_sorted_by(|left, right| left.key < right.key));
        let names = list
            .entries
            .iter()
            .map(|e| format!("{}/{}", e.key.namespace, e.key.name));
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(None), ["a-b/x", "a/B", "a/a-b", "a/a.b", "a/z", "b/1"]);
    assert_eq!(names(Some("a")), ["a/B", "a/a-b", "a/a.b", "a/z"]);
    assert!(names(Some("nowhere")).is_empty());
    assert!(storage.list("secrets", None, None).unwrap().entries.is_empty());

    let list = storage.list("configmaps", None, None).unwrap();
    assert_eq!(list.position("", ""), 0);
    assert_eq!(list.position("a", "a-b"), 2);
    assert_eq!(list.position("a", "a-b\0"), 3);
    assert_eq!(list.position("c", ""), 6);
}

#[tokio::test]
async fn past_revisions_can_be_listed() {
    let storage = in_memory().await;
    write(&storage, create("x/b", "1")).await; // 2
    write(&storage, create("x/a", "1")).await; // 3
    write(&storage, update("x/b", 2, "2")).await; // 4
    write(&storage, create("y/c", "1")).await; // 5
    write(&storage, delete("x/a", 3)).await; // 6
    write(&storage, create("x/a", "2")).await; // 7
    let at = |revision, namespace| {
        let list = storage.list("configmaps", namespace, Some(revision)).unwrap();
        assert_eq!(list.revision, revision);
        shown(&list.entries)
    };
    assert!(at(1, None).is_empty());
    assert_eq!(at(2, None), ["x/b=1"]);
    assert_eq!(at(3, None), ["x/a=1", "x/b=1"]);
    assert_eq!(at(4, None), ["x/a=1", "x/b=2"]);
    assert_eq!(at(5, None), ["x/a=1", "x/b=2", "y/c=1"]);
    assert_eq!(at(5, Some("x")), ["x/a=1", "x/b=2"]);
    assert_eq!(at(6, None), ["x/b=2", "y/c=1"]);
    assert_eq!(at(7, None), ["x/a=2", "x/b=2", "y/c=1"]);
    let future = storage.list("configmaps", None, Some(8)).unwrap_err();
    assert!(matches!(
        future,
        StorageError::Future {
            requested: 8,
            current: 7
        }
    ));
}

#[tokio::test]
async fn a_window_is_a_part_of_the_list() {
    let storage = in_memory().await;
    let mut revisions = std::collections::HashMap::new();
    for (round, name) in ["a/z", "a-b/x", "b/1", "a/B", "a/a.b", "a/a-b", "a/B", "b/1", "a/m"]
        .into_iter()
        .enumerate()
    {
        let content = round.to_string();
        let written = match revisions.get(name) {
            Some(revision) => write(&storage, update(name, *revision, &content)).await,
            None => write(&storage, create(name, &content)).await,
        };
        revisions.insert(name, written);
    }
    write(&storage, delete("a/z", revisions["a/z"])).await;
    write(&storage, delete("a-b/x", revisions["a-b/x"])).await;
    let starts = [
        ("", ""),
        ("a-b", "x\0"),
        ("a", ""),
        ("a", "a.b"),
        ("a", "a.b\0"),
        ("b", "1"),
        ("c", ""),
    ];
    let mut compared = 0;
    for at in (1..=storage.revision()).map(Some).chain([None]) {
        for namespace in [None, Some("a"), Some("a-b"), Some("nowhere")] {
            let list = storage.list("configmaps", namespace, at).unwrap();
            for start in starts {
                let from = list.position(start.0, start.1);
                for limit in 0..=list.entries.len() {
                    let window = storage.window("configmaps", namespace, at, start, limit).unwrap();
                    let expected: Vec<_> = list.entries[from..].iter().take(limit).cloned().collect();
                    assert_eq!(
                        shown(&window.entries),
                        shown(&expected),
                        "{at:?} {namespace:?} {start:?} {limit}"
                    );
                    assert_eq!(window.rest, list.entries.len() - from - expected.len());
                    assert_eq!(window.revision, list.revision);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 500, "{compared}");
    let future = storage.window("configmaps", None, Some(99), ("", ""), 1);
    assert!(matches!(future, Err(StorageError::Future { .. })));
}
