//! What Kubernetes' Go structs say and its OpenAPI schemas do not: protobuf numbers, Go types, which empty values
//! are left out, and how lists and maps are merged (upstream: struct tags and `+listType` markers in `types.go`).
//!
//! The facts stand in `facts.tsv`, whose head explains the columns. The text is split into definitions on first
//! use; rows are read when a definition is compiled.

use super::ListType;
use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("facts.tsv");
/// What a line that opens a definition starts with; no property is called so.
const DEFINITION_PREFIX: &str = "io.k8s.";

/// The facts about one definition.
#[derive(Clone, Copy, Default)]
pub(crate) struct Facts {
    /// `x-kubernetes-map-type: atomic` on the type.
    pub atomic: bool,
    rows: &'static str,
}

/// The facts about one property.
#[derive(Default)]
pub(crate) struct Row {
    pub wire: Vec<u32>,
    pub go_type: &'static str,
    /// An empty value is written out all the same.
    pub keep_empty: bool,
    pub required: bool,
    pub merge: bool,
    pub retain_keys: bool,
    pub replace: bool,
    pub merge_key: Option<String>,
    pub list_type: Option<ListType>,
    pub list_map_keys: Vec<String>,
    /// `atomic` or `granular`.
    pub map_type: Option<&'static str>,
    /// Of fields that are keys of list items.
    pub default: Option<&'static str>,
}

static DEFINITIONS: LazyLock<HashMap<&'static str, Facts, ahash::RandomState>> = LazyLock::new(|| {
    let mut definitions = HashMap::default();
    // Blocks are cut at the line breaks before their first lines; what is before the first block is the comment.
    let separator = format!("\n{DEFINITION_PREFIX}");
    let starts: Vec<usize> = TABLE.match_indices(&separator).map(|(at, _)| at + 1).collect();
    let ends = starts.iter().skip(1).copied().chain([TABLE.len()]);
    for (&start, end) in starts.iter().zip(ends) {
        let block = &TABLE[start..end];
        let (head, rows) = block.split_once('\n').unwrap_or((block, ""));
        let (name, flags) = head.split_once('\t').unwrap_or((head, ""));
        definitions.insert(
            name,
            Facts {
                atomic: flags == "map=atomic",
                rows,
            },
        );
    }
    definitions
});

/// The facts about the definition of this name; empty if nothing is known.
pub(crate) fn of(definition: &str) -> Facts {
    DEFINITIONS.get(definition).copied().unwrap_or_default()
}

impl Facts {
    /// The facts about each property.
    pub fn rows(self) -> impl Iterator<Item = (&'static str, Row)> {
        self.rows.lines().filter_map(|line| {
            let mut columns = line.split('\t');
            let name = columns.next()?;
            let numbers = columns.next()?;
            let go_type = columns.next()?;
            let mut row = Row {
                wire: numbers.split('.').filter_map(|number| number.parse().ok()).collect(),
                go_type: go_type.trim_start_matches('!'),
                keep_empty: go_type.starts_with('!'),
                ..Row::default()
            };
            for token in columns.next().unwrap_or_default().split(' ') {
                row.set(token);
            }
            Some((name, row))
        })
    }
}

impl Row {
    fn set(&mut self, token: &'static str) {
        match token.split_once('=').unwrap_or((token, "")) {
            ("required", _) => self.required = true,
            ("merge", _) => self.merge = true,
            ("retainKeys", _) => self.retain_keys = true,
            ("replace", _) => self.replace = true,
            ("key", key) => self.merge_key = Some(key.to_owned()),
            ("list", "map") => self.list_type = Some(ListType::Map),
            ("list", "set") => self.list_type = Some(ListType::Set),
            ("list", "atomic") => self.list_type = Some(ListType::Atomic),
            ("keys", keys) => self.list_map_keys = keys.split(',').map(str::to_owned).collect(),
            ("map", map_type) => self.map_type = Some(map_type),
            ("default", text) => self.default = Some(text),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let mut open = false;
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with(DEFINITION_PREFIX) {
                open = true;
                continue;
            }
            let columns: Vec<&str> = line.split('\t').collect();
            assert!(open && (3..=4).contains(&columns.len()), "{line:?}");
            let number = columns[1];
            assert!(
                number == "-" || number.split('.').all(|n| n.parse::<u32>().is_ok()),
                "{line:?}"
            );
            for token in columns
                .get(3)
                .unwrap_or(&"")
                .split(' ')
                .filter(|token| !token.is_empty())
            {
                let name = token.split('=').next().unwrap_or_default();
                assert!(
                    [
                        "required",
                        "merge",
                        "retainKeys",
                        "replace",
                        "key",
                        "list",
                        "keys",
                        "map",
                        "default"
                    ]
                    .contains(&name),
                    "{line:?}"
                );
            }
        }
        assert!(DEFINITIONS.len() > 700);
    }

    #[test]
    fn volumes_are_inlined_and_merged() {
        let rows: HashMap<_, _> = of("io.k8s.api.core.v1.Volume").rows().collect();
        assert_eq!(rows["hostPath"].wire, [2, 1]);
        let rows: HashMap<_, _> = of("io.k8s.api.core.v1.PodSpec").rows().collect();
        let volumes = &rows["volumes"];
        assert!(volumes.merge && volumes.retain_keys);
        assert_eq!(volumes.merge_key.as_deref(), Some("name"));
        assert_eq!(volumes.list_type, Some(ListType::Map));
    }
}
