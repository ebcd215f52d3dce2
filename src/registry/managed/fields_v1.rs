//! FieldsV1: a set of paths as nested JSON objects (upstream: `fieldpath/serialize.go`).

use super::element::Element;
use super::set::{Node, Set};
use serde_json::{Map, Value};

/// The key that says that the node itself is a member.
const SELF: &str = ".";

/// Reads a set; None if it is none.
pub fn parse(fields: &Value) -> Option<Set<'_>> {
    parse_node(fields).map(|(_, set)| set)
}

/// Whether the node is a member, and what is below it.
fn parse_node(fields: &Value) -> Option<(bool, Set<'_>)> {
    let fields = fields.as_object()?;
    let mut nodes = Vec::with_capacity(fields.len());
    // A leaf is a member; what has children is one only if it says so.
    let mut member = fields.is_empty();
    for (key, value) in fields {
        if key == SELF {
            member = true;
            continue;
        }
        let element = Element::parse(key)?;
        let (member, children) = parse_node(value)?;
        nodes.push(Node {
            element,
            member,
            children,
        });
    }
    Some((member, Set::of(nodes)))
}

/// Writes a set.
pub fn write(set: &Set<'_>) -> Value {
    Value::Object(children(set, false))
}

fn children(set: &Set<'_>, member: bool) -> Map<String, Value> {
    let mut map = Map::with_capacity(set.nodes().len() + usize::from(member));
    if member {
        map.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
    for node in set.nodes() {
        let below = if node.children.nodes().is_empty() {
            Map::new()
        } else {
            children(&node.children, node.member)
        };
        map.insert(node.element.serialized(), Value::Object(below));
    }
    map
}
