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
