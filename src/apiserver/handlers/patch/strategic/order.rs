//! The order of merged lists: items of the patch in the patch's order, the others where they stood relative to
//! their neighbours, as far as both can be had.

use serde_json::Value;

/// Where `item` stands in `list`: by the value of `key`, or by itself where there is no key.
fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    match key {
        Some(key) => {
            let wanted = item.get(key)?;
            list.iter().position(|other| other.get(key) == Some(wanted))
        }
        None => list.iter().position(|other| other == item),
    }
}

/// Arranges `items` by `order`; those that it does not list keep their place relative to `before`.
pub fn arrange(items: Vec<Value>, order: &[Value], before: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut listed, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| position(order, item, key).is_some());
    listed.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(before, item, key));
    // Two sorted lists become one: an item that was there and is not listed goes before the first listed item
    // that it preceded.
    let mut arranged = Vec::with_capacity(listed.len() + others.len());
    let (mut listed, mut others) = (listed.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(other), Some(next)) = (others.peek(), listed.peek()) {
        let places = (position(before, other, key), position(before, next, key));
        let first = matches!(places, (Some(other), Some(next)) if other < next);
        arranged.extend(if first { others.next() } else { listed.next() });
    }
    arranged.extend(others);
    arranged.extend(listed);
    arranged
}
