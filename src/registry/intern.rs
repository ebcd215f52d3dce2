//! Texts that come at run time and live as long as the program: names of custom resources, of their columns and of
//! their selectable fields. No counterpart upstream, where strings are collected.
//!
//! The leak is bounded: the same text always has the same address, and only what is in definitions of custom
//! resources, which few may write, comes here.

use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::LazyLock;

static TEXTS: LazyLock<RwLock<HashSet<&'static str, ahash::RandomState>>> = LazyLock::new(RwLock::default);
static LISTS: LazyLock<RwLock<HashSet<&'static [&'static str], ahash::RandomState>>> = LazyLock::new(RwLock::default);

/// The one text of this content.
pub fn intern(text: &str) -> &'static str {
    if let Some(known) = TEXTS.read().get(text) {
        return known;
    }
    let mut texts = TEXTS.write();
    if let Some(known) = texts.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(text);
    text
}

/// The one list of this content.
pub fn intern_list<T: AsRef<str>>(list: &[T]) -> &'static [&'static str] {
    let list: Vec<&'static str> = list.iter().map(|text| intern(text.as_ref())).collect();
    let mut lists = LISTS.write();
    if let Some(known) = lists.get(list.as_slice()) {
        return known;
    }
    let list: &'static [&'static str] = Box::leak(list.into_boxed_slice());
    lists.insert(list);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_the_same_address() {
        let (one, other) = (intern("krust.test/a"), intern(&["krust.test", "a"].join("/")));
        assert!(std::ptr::eq(one, other));
        let (one, other) = (
            intern_list(&["x", "y"]),
            intern_list(&[String::from("x"), String::from("y")]),
        );
        assert!(std::ptr::eq(one, other));
        assert_eq!(intern_list::<&str>(&[]), &[] as &[&str]);
    }
}
