//! One rule of a role: what it allows, and whether rules cover one another
//! (upstream: `pkg/apis/rbac/v1/evaluation_helpers.go`, `component-helpers/auth/rbac/validation`).

use crate::apiserver::request::RequestInfo;
use serde::{Deserialize, Deserializer, Serialize};

const ALL: &str = "*";

/// A `PolicyRule`. Either resources or paths, as validation sees to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(
        rename = "nonResourceURLs",
        deserialize_with = "list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub non_resource_urls: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<String>,
}

/// A list that may be null.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn has(entries: &[String], wanted: &str) -> bool {
    entries.iter().any(|entry| entry == wanted)
}

fn has_or_all(entries: &[String], wanted: &str) -> bool {
    entries.iter().any(|entry| entry == ALL || entry == wanted)
}

/// Whether an entry like `*/scale` names the subresource of any resource.
fn is_any_with(entry: &str, subresource: &str) -> bool {
    entry.strip_prefix("*/").is_some_and(|rest| rest == subresource)
}

/// Whether a path of a rule, which may end in `*`, takes in `path`.
fn path_covers(entry: &str, path: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(start) => path.starts_with(start.trim_end_matches('*')),
        None => entry == path,
    }
}

impl Rule {
    /// Everything there is.
    pub fn full_authority() -> [Rule; 2] {
        let all = || vec![ALL.to_owned()];
        [
            Rule {
                verbs: all(),
                api_groups: all(),
                resources: all(),
                ..Rule::default()
            },
            Rule {
                verbs: all(),
                non_resource_urls: all(),
                ..Rule::default()
            },
        ]
    }

    /// Whether the rule allows what `info` asks for.
    pub fn allows(&self, info: &RequestInfo) -> bool {
        if !has_or_all(&self.verbs, &info.verb) {
            return false;
        }
        if !info.is_resource_request {
            return self
                .non_resource_urls
                .iter()
                .any(|entry| path_covers(entry, &info.path));
        }
        has_or_all(&self.api_groups, &info.api_group)
            && self.names_resource(&info.resource, &info.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, &info.name))
    }

    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|entry| {
            if entry == ALL {
                return true;
            }
            if subresource.is_empty() {
                return entry == resource;
            }
            is_any_with(entry, subresource)
                || entry
                    .strip_prefix(resource)
                    .and_then(|rest| rest.strip_prefix('/'))
                    .is_some_and(|rest| rest == subresource)
        })
    }

    /// Whether whoever holds this rule holds all of `other`, which names one of everything.
    fn covers(&self, other: &Rule) -> bool {
        let all = |held: &[String], wanted: &[String]| has(held, ALL) || wanted.iter().all(|entry| has(held, entry));
        all(&self.verbs, &other.verbs)
            && all(&self.api_groups, &other.api_groups)
            && other.resources.iter().all(|entry| self.covers_resource(entry))
            && other
                .non_resource_urls
                .iter()
                .all(|path| self.non_resource_urls.iter().any(|entry| path_covers(entry, path)))
            && (self.resource_names.is_empty()
                || (!other.resource_names.is_empty()
                    && other.resource_names.iter().all(|name| has(&self.resource_names, name))))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        has_or_all(&self.resources, wanted)
            || wanted
                .split_once('/')
                .is_some_and(|(_, subresource)| self.resources.iter().any(|entry| is_any_with(entry, subresource)))
    }

    /// The rule as rules with one group, resource, name or path, and verb each.
    fn break_down(&self) -> Vec<Rule> {
        let mut single = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let rule = Rule {
                        api_groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        single.push(rule);
                        continue;
                    }
                    single.extend(self.resource_names.iter().map(|name| Rule {
                        resource_names: one(name),
                        ..rule.clone()
                    }));
                }
            }
        }
        for path in &self.non_resource_urls {
            single.extend(self.verbs.iter().map(|verb| Rule {
                non_resource_urls: one(path),
                verbs: one(verb),
                ..Rule::default()
            }));
        }
        single
    }

    /// How refusals show a rule.
    fn describe(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .into_iter()
            .filter(|(_, entries)| !entries.is_empty())
            .map(|(name, entries)| format!("{name}:{}", quoted_list(entries)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// Go's `%q` of a list of strings.
pub(super) fn quoted_list(entries: &[String]) -> String {
    let quoted: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// What of `wanted` is not covered by `held`, in rules of one resource or path each.
pub fn missing(held: &[&Rule], wanted: &[Rule]) -> Vec<Rule> {
    let single = wanted.iter().flat_map(Rule::break_down);
    single
        .filter(|rule| !held.iter().any(|held| held.covers(rule)))
        .collect()
}

/// Texts for missing rules, sorted; the verbs of one resource are put together.
pub fn describe_missing(missing: &[Rule]) -> Vec<String> {
    let mut compact: Vec<Rule> = Vec::new();
    for rule in missing {
        let known = compact.iter_mut().find(|known| {
            rule.non_resource_urls.is_empty()
                && known.api_groups == rule.api_groups
                && known.resources == rule.resources
                && known.resource_names == rule.resource_names
                && known.non_resource_urls.is_empty()
        });
        match known {
            Some(known) => known.verbs.extend(rule.verbs.iter().cloned()),
            None => compact.push(rule.clone()),
        }
    }
    let mut texts: Vec<String> = compact.iter().map(Rule::describe).collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace()
            .map(|word| if word == "core" { String::new() } else { word.to_owned() })
            .collect()
    }

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        Rule {
            verbs: words(verbs),
            api_groups: words(groups),
            resources: words(resources),
            resource_names: words(names),
            ..Rule::default()
        }
    }

    fn paths(verbs: &str, urls: &str) -> Rule {
        Rule {
            verbs: words(verbs),
            non_resource_urls: words(urls),
            ..Rule::default()
        }
    }

    /// `verb group resource[/sub] [name]`
    fn asked(text: &str) -> RequestInfo {
        let parts = words(text);
        let (resource, subresource) = parts[2].split_once('/').unwrap_or((&parts[2], ""));
        RequestInfo {
            is_resource_request: true,
            verb: parts[0].clone(),
            api_group: parts[1].clone(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            name: parts.get(3).cloned().unwrap_or_default(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn resources_match_to_the_letter() {
        let situations = [
            (rule("get", "core", "pods", ""), "get core pods", true),
            (rule("get", "core", "pods", ""), "get core pods web", true),
            (rule("get", "core", "pods", ""), "get core pods/log web", false),
            (rule("get", "core", "pods", ""), "list core pods", false),
            (rule("get", "core", "pods", ""), "get apps pods", false),
            (rule("get", "core", "pods/log", ""), "get core pods/log", true),
            (rule("get", "core", "pods/log", ""), "get core pods", false),
            (rule("get", "core", "pods/*", ""), "get core pods/log", false),
            (rule("get", "core", "*", ""), "get core pods/log", true),
            (rule("get", "*", "*/scale", ""), "get apps deployments/scale", true),
            (rule("get", "*", "*/scale", ""), "get apps deployments", false),
            (rule("get", "*", "*/scale", ""), "get apps deployments/status", false),
            (rule("*", "*", "*", ""), "frobnicate x.example.com widgets", true),
            (rule("get", "core", "configmaps", "a b"), "get core configmaps b", true),
            (rule("get", "core", "configmaps", "a b"), "get core configmaps c", false),
            (rule("list", "core", "configmaps", "a"), "list core configmaps", false),
            (rule("list", "core", "configmaps", "a"), "list core configmaps a", true),
            (paths("get", "*"), "get core pods", false),
        ];
        for (rule, request, expected) in situations {
            assert_eq!(rule.allows(&asked(request)), expected, "{rule:?} {request}");
        }
    }

    #[test]
    fn paths_match_whole_or_by_their_start() {
        let situations = [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("/api*", "/apis/apps", true),
            ("*", "/anything", true),
        ];
        for (entry, path, expected) in situations {
            let info = RequestInfo {
                verb: "get".into(),
                path: path.into(),
                ..RequestInfo::default()
            };
            assert_eq!(paths("get", entry).allows(&info), expected, "{entry} {path}");
            assert!(!paths("post", entry).allows(&info));
            assert!(!rule("*", "*", "*", "").allows(&info));
        }
    }

    #[test]
    fn what_is_missing_is_told_resource_by_resource() {
        let held = [rule("get list", "core", "pods", ""), rule("get", "*", "*/scale", "")];
        let held: Vec<&Rule> = held.iter().collect();
        let tell = |wanted: &[Rule]| describe_missing(&missing(&held, wanted));
        assert!(tell(&[rule("get list", "core", "pods", "")]).is_empty());
        assert!(tell(&[rule("get", "core", "pods", "web")]).is_empty());
        assert!(tell(&[rule("get", "apps", "deployments/scale", "")]).is_empty());
        assert_eq!(
            tell(&[rule("get watch delete", "core apps", "pods", "")]),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
                r#"{APIGroups:["apps"], Resources:["pods"], Verbs:["get" "watch" "delete"]}"#,
            ]
        );
        assert_eq!(
            tell(&[rule("get", "core", "secrets", "a b"), paths("get post", "/x/*")]),
            [
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
                r#"{NonResourceURLs:["/x/*"], Verbs:["get"]}"#,
                r#"{NonResourceURLs:["/x/*"], Verbs:["post"]}"#,
            ]
        );
    }

    #[test]
    fn a_rule_for_some_names_does_not_cover_all_of_them() {
        let held = rule("get", "core", "secrets", "a");
        assert!(!missing(&[&held], &[rule("get", "core", "secrets", "")]).is_empty());
        assert!(missing(&[&held], &[rule("get", "core", "secrets", "a")]).is_empty());
        let everything = Rule::full_authority();
        let held: Vec<&Rule> = everything.iter().collect();
        assert!(missing(&held, &everything).is_empty());
        assert!(missing(&held, &[rule("x", "y", "z/a", "n"), paths("get", "/q")]).is_empty());
    }

    #[test]
    fn rules_read_and_write_as_json() {
        let text = r#"{"apiGroups":[""],"resources":["pods"],"verbs":["get"]}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
        let null: Rule = serde_json::from_str(r#"{"apiGroups":null,"nonResourceURLs":["/x"]}"#).unwrap();
        assert_eq!(null.non_resource_urls, ["/x"]);
    }
}
