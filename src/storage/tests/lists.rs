//! Lists: order, scopes, past revisions, shared bodies.

use super::*;
use std::sync::atomic::Ordering;

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
async fn a_body_is_joined_once_per_change_of_its_scope() {
    let storage = in_memory().await;
    write(&storage, create("x/a", "1")).await;
    write(&storage, create("x/b", "1")).await;
    let items = |namespace| {
        let body = storage.list_bytes("configmaps", namespace);
        let json = [b"[".as_slice(), &body.chunks.concat(), b"]"].concat();
        let items: Vec<Value> = serde_json::from_slice(&json).unwrap();
        assert_eq!(items.len(), body.count);
        (body, items.len())
    };
    let joined = || storage.metrics().lists_joined.load(Ordering::Relaxed);
    let (first, count) = items(Some("x"));
    assert_eq!((first.revision, count), (3, 2));
    // A change elsewhere moves the list's revision, not its bytes.
    write(&storage, create("y/a", "1")).await;
    let (second, _) = items(Some("x"));
    assert_eq!((second.revision, second.changed), (4, first.changed));
    assert!(Arc::ptr_eq(&first.chunks, &second.chunks));
    assert_eq!(joined(), 1);
    assert_eq!(items(None).1, 3);
    assert_eq!(joined(), 2);
    write(&storage, delete("x/a", 2)).await;
    assert_eq!(items(Some("x")).1, 1);
    assert_eq!(items(None).1, 2);
    assert_eq!(items(Some("nowhere")).1, 0);
    assert_eq!(joined(), 5);
}

#[tokio::test]
async fn large_bodies_come_in_pieces() {
    let storage = in_memory().await;
    let content = "x".repeat(100_000);
    for n in 0..7 {
        write(&storage, create(&format!("n{n}"), &content)).await;
    }
    let body = storage.list_bytes("configmaps", None);
    assert_eq!(body.chunks.len(), 3);
    let json = [b"[".as_slice(), &body.chunks.concat(), b"]"].concat();
    let items: Vec<Value> = serde_json::from_slice(&json).unwrap();
    assert_eq!(items.len(), 7);
}

#[tokio::test]
async fn unused_and_stale_bodies_are_freed() {
    let storage = in_memory().await;
    write(&storage, create("a", "1")).await;
    let body = Arc::downgrade(&storage.list_bytes("configmaps", None).chunks);
    let resource = storage.cache().resource("configmaps");
    resource.sweep();
    assert!(body.upgrade().is_some(), "it was used since");
    resource.sweep();
    assert!(body.upgrade().is_none(), "nobody asked again");
    let body = Arc::downgrade(&storage.list_bytes("configmaps", None).chunks);
    write(&storage, create("b", "1")).await;
    resource.sweep();
    assert!(body.upgrade().is_none(), "it is stale");
}
