//! Merging one kubeconfig into another without touching what is not ours: comments, order and spelling of other
//! entries stay. Lines are edited where the file has the usual block form; the result is read again and compared
//! with what it should say, and written anew from its data only where that fails (upstream: `clientcmd.ModifyConfig`).

use anyhow::{Context, bail};
use serde_yaml_ng::{Mapping, Value};

/// The lists of a kubeconfig, each of items with a name.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Puts `addition`'s entries into `existing`, in place of entries of the same name. The current context changes only
/// if there is none.
pub(super) fn merge(existing: &str, addition: &str) -> anyhow::Result<String> {
    let addition: Mapping = serde_yaml_ng::from_str(addition).context("the server's kubeconfig cannot be read")?;
    let before: Value = serde_yaml_ng::from_str(existing).context("it is no YAML")?;
    let before = match before {
        Value::Null => Mapping::new(),
        Value::Mapping(before) => before,
        _ => bail!("it is no kubeconfig"),
    };
    let wanted = merge_data(before, &addition)?;
    if let Some(text) = merge_lines(existing, &addition)
        && serde_yaml_ng::from_str::<Mapping>(&text).is_ok_and(|merged| same(&merged, &wanted))
    {
        return Ok(text);
    }
    Ok(serde_yaml_ng::to_string(&wanted)?)
}

/// Whether a kubeconfig has the context.
pub(super) fn has_context(text: &str, name: &str) -> bool {
    let Ok(config) = serde_yaml_ng::from_str::<Mapping>(text) else {
        return false;
    };
    let contexts = config.get("contexts").and_then(Value::as_sequence);
    contexts.is_some_and(|contexts| contexts.iter().any(|item| item_name(item) == Some(name)))
}

fn item_name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

fn merge_data(mut config: Mapping, addition: &Mapping) -> anyhow::Result<Mapping> {
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        config.entry(key.into()).or_insert_with(|| value.into());
    }
    for list in LISTS {
        let ours = addition
            .get(list)
            .and_then(Value::as_sequence)
            .with_context(|| format!("no {list} to add"))?;
        let entry = config.entry(list.into()).or_insert(Value::Null);
        if entry.is_null() {
            *entry = Value::Sequence(Vec::new());
        }
        let items = entry
            .as_sequence_mut()
            .with_context(|| format!("its {list} are no list"))?;
        items.retain(|item| !ours.iter().any(|our| item_name(our) == item_name(item)));
        items.extend(ours.iter().cloned());
    }
    let none = |value: &Value| value.as_str().is_none_or(str::is_empty);
    if config.get("current-context").is_none_or(none) {
        config.insert(
            "current-context".into(),
            addition.get("current-context").cloned().unwrap_or_default(),
        );
    }
    Ok(config)
}

/// Equal as kubectl reads them: the order of keys does not count.
fn same(one: &Mapping, other: &Mapping) -> bool {
    Value::Mapping(one.clone()) == Value::Mapping(other.clone())
}

/// The same by editing lines; `None` where the file does not have the form that this understands.
fn merge_lines(existing: &str, addition: &Mapping) -> Option<String> {
    let mut lines: Vec<String> = existing.lines().map(str::to_owned).collect();
    for list in LISTS {
        for item in addition.get(list)?.as_sequence()? {
            put_item(&mut lines, list, item)?;
        }
    }
    let current = addition.get("current-context")?.as_str()?;
    let current = format!("current-context: {current}");
    match lines.iter().position(|line| line.starts_with("current-context:")) {
        Some(at)
            if matches!(
                lines[at]["current-context:".len()..].trim(),
                "" | "\"\"" | "''" | "null"
            ) =>
        {
            lines[at] = current
        }
        Some(_) => {}
        None => lines.push(current),
    }
    for key in ["kind: Config", "apiVersion: v1"] {
        let name = key.split_once(' ')?.0;
        if !lines.iter().any(|line| line.starts_with(name)) {
            lines.insert(0, key.to_owned());
        }
    }
    lines.push(String::new());
    Some(lines.join("\n"))
}

/// Replaces or appends one item of a top-level list.
fn put_item(lines: &mut Vec<String>, list: &str, item: &Value) -> Option<()> {
    let header = format!("{list}:");
    let start = match lines.iter().position(|line| line.starts_with(&header)) {
        Some(at) => {
            match lines[at][header.len()..].trim() {
                "" => {}
                "[]" | "null" => lines[at] = header,
                _ => return None,
            }
            at
        }
        None => {
            lines.push(header);
            lines.len() - 1
        }
    };
    let is_top_level = |line: &String| !line.is_empty() && !line.starts_with([' ', '-', '#']);
    let end = lines
        .iter()
        .skip(start + 1)
        .position(is_top_level)
        .map_or(lines.len(), |count| start + 1 + count);
    let first = lines[start + 1..end]
        .iter()
        .find(|line| line.trim_start().starts_with('-'));
    let indent = first
        .map_or("", |line| &line[..line.len() - line.trim_start().len()])
        .to_owned();
    let starts_item = |line: &String| line.starts_with(&indent) && line[indent.len()..].starts_with('-');
    let starts: Vec<usize> = (start + 1..end).filter(|at| starts_item(&lines[*at])).collect();
    let rendered = render_item(item, &indent)?;
    for (number, from) in starts.iter().enumerate() {
        let mut to = starts.get(number + 1).copied().unwrap_or(end);
        // Blank lines and comments after an item belong to what follows.
        while to > from + 1 && is_comment_or_blank(&lines[to - 1]) {
            to -= 1;
        }
        let parsed: Value = serde_yaml_ng::from_str(&lines[*from..to].join("\n")).ok()?;
        if parsed.as_sequence().and_then(|items| item_name(items.first()?)) == item_name(item) {
            lines.splice(*from..to, rendered);
            return Some(());
        }
    }
    let mut at = end;
    while at > start + 1 && is_comment_or_blank(&lines[at - 1]) {
        at -= 1;
    }
    lines.splice(at..at, rendered);
    Some(())
}

fn is_comment_or_blank(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

fn render_item(item: &Value, indent: &str) -> Option<Vec<String>> {
    let text = serde_yaml_ng::to_string(&[item]).ok()?;
    Some(text.lines().map(|line| format!("{indent}{line}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: krust\n  cluster:\n    server: https://127.0.0.1:6443\ncontexts:\n- name: krust\n  context:\n    cluster: krust\n    user: krust\ncurrent-context: krust\nusers:\n- name: krust\n  user:\n    client-key-data: a2V5\n";

    const THEIRS: &str = "# work clusters\napiVersion: v1\nclusters:\n# production!\n- cluster:\n    server: https://prod   # do not touch\n  name: prod\n- name: krust\n  cluster:\n    server: https://old\n\n# contexts below\ncontexts:\n  - name: prod\n    context: {cluster: prod, user: \"prod\"}\ncurrent-context: prod\nkind: Config\npreferences: {}\nusers:\n- name: prod\n  user:\n    token: 'abc'\n";

    #[test]
    fn an_empty_file_becomes_ours() {
        for nothing in [
            "",
            "\n",
            "---\n",
            "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: null\nusers:\ncurrent-context: \"\"\n",
        ] {
            let merged: Value = serde_yaml_ng::from_str(&merge(nothing, OURS).unwrap()).unwrap();
            assert_eq!(merged, serde_yaml_ng::from_str::<Value>(OURS).unwrap(), "{nothing:?}");
        }
    }

    #[test]
    fn other_entries_and_comments_stay_as_they_are() {
        let merged = merge(THEIRS, OURS).unwrap();
        for line in THEIRS.lines().filter(|line| !line.contains("https://old")) {
            assert!(
                merged.lines().any(|other| other == line),
                "{line:?} is missing in\n{merged}"
            );
        }
        assert!(!merged.contains("https://old") && merged.contains("https://127.0.0.1:6443"));
        let config: Value = serde_yaml_ng::from_str(&merged).unwrap();
        assert_eq!(
            config["current-context"], "prod",
            "the current context is the user's business"
        );
        assert_eq!(config["contexts"].as_sequence().unwrap().len(), 2);
        assert!(has_context(&merged, "krust") && has_context(&merged, "prod") && !has_context(THEIRS, "krust"));
    }

    #[test]
    fn merging_twice_changes_nothing() {
        let once = merge(THEIRS, OURS).unwrap();
        assert_eq!(merge(&once, OURS).unwrap(), once);
        assert_eq!(merge(OURS, OURS).unwrap(), OURS);
    }

    #[test]
    fn unusual_forms_are_written_anew_with_the_same_data() {
        let json = r#"{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}], "users": [], "contexts": []}"#;
        let merged: Value = serde_yaml_ng::from_str(&merge(json, OURS).unwrap()).unwrap();
        assert_eq!(merged["clusters"][0]["cluster"]["server"], "https://prod");
        assert_eq!(
            (
                merged["clusters"][1]["name"].as_str(),
                merged["current-context"].as_str()
            ),
            (Some("krust"), Some("krust"))
        );
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused() {
        for bad in ["[1, 2]", "just text", "clusters: 5", "a: b: c", "users: {}"] {
            assert!(merge(bad, OURS).is_err(), "{bad}");
        }
    }
}
