//! What the scheduler and its extenders say to one another (upstream: `k8s.io/kube-scheduler/extender/v1`). Members have
//! the names that Go gives them, and in answers they are found whatever the case of their letters, as by Go.

use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::transport::go_json::mismatch;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The body of an answer, or why there is none.
pub type Answer = Result<Bytes, String>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Args<'a> {
    pod: &'a Pod,
    nodes: Option<Nodes<'a>>,
    node_names: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
struct Nodes<'a> {
    metadata: Map<String, Value>,
    items: Vec<&'a Node>,
}

/// What is to be filtered or scored.
pub fn args(pod: &PodInfo, nodes: &[&NodeInfo], by_name: bool) -> Vec<u8> {
    let args = Args {
        pod: &pod.pod,
        nodes: (!by_name).then(|| Nodes {
            metadata: Map::new(),
            items: nodes.iter().filter_map(|node| node.node.as_deref()).collect(),
        }),
        node_names: by_name.then(|| nodes.iter().map(|node| node.name.as_str()).collect()),
    };
    serde_json::to_vec(&args).unwrap_or_default()
}

pub fn binding(pod: &PodInfo, node: &str) -> Vec<u8> {
    let args = json!({"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node});
    args.to_string().into_bytes()
}

/// Who would have to go from a node, and how many budgets that would break.
#[derive(Debug, PartialEq)]
pub struct Victims {
    pub node: String,
    pub uids: Vec<String>,
    pub violations: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PreemptionArgs<'a> {
    pod: &'a Pod,
    node_name_to_victims: Option<Value>,
    node_name_to_meta_victims: Option<Value>,
}

/// `nodes`: each with who would have to go there, and how many budgets that breaks.
pub fn preemption<'a>(
    pod: &PodInfo,
    nodes: impl Iterator<Item = (&'a str, Vec<&'a PodInfo>, usize)>,
    by_uid: bool,
) -> Vec<u8> {
    let victims = nodes.map(|(node, pods, violations)| {
        let shown = |pod: &&PodInfo| {
            if by_uid {
                json!({"UID": pod.uid})
            } else {
                json!(pod.pod)
            }
        };
        let pods: Vec<Value> = pods.iter().map(shown).collect();
        (node.to_owned(), json!({"Pods": pods, "NumPDBViolations": violations}))
    });
    let victims = Value::Object(victims.collect());
    let (whole, meta) = if by_uid {
        (None, Some(victims))
    } else {
        (Some(victims), None)
    };
    let args = PreemptionArgs {
        pod: &pod.pod,
        node_name_to_victims: whole,
        node_name_to_meta_victims: meta,
    };
    serde_json::to_vec(&args).unwrap_or_default()
}

/// What is left of the nodes, and why the others are not.
#[derive(Debug, PartialEq)]
pub struct Filtered {
    pub nodes: Vec<String>,
    /// Taking pods away might help.
    pub failed: Vec<(String, String)>,
    pub unresolvable: Vec<(String, String)>,
}

pub fn filtered(answer: &[u8], by_name: bool) -> Result<Filtered, String> {
    let answer = Members::of(&value(answer)?, "ExtenderFilterResult")?;
    answer.no_error()?;
    let names = match answer.list("NodeNames")? {
        Some(names) if by_name => Some(names.iter().map(|name| answer.text("NodeNames", name)).collect()),
        _ => None,
    };
    let nodes = match (names, answer.object("Nodes")?) {
        (Some(names), _) => names,
        (None, Some(nodes)) => nodes.list("items")?.unwrap_or_default().iter().map(name_of).collect(),
        (None, None) => Ok(Vec::new()),
    };
    Ok(Filtered {
        nodes: nodes?,
        failed: answer.texts("FailedNodes")?,
        unresolvable: answer.texts("FailedAndUnresolvableNodes")?,
    })
}

fn name_of(node: &Value) -> Result<String, String> {
    let name = node.pointer("/metadata/name").and_then(Value::as_str);
    Ok(name.unwrap_or_default().to_owned())
}

pub fn scores(answer: &[u8]) -> Result<Vec<(String, i64)>, String> {
    let answer = value(answer)?;
    let list = match &answer {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        other => return Err(mismatch(other, "value", "v1.HostPriorityList")),
    };
    let score = |entry: &Value| {
        let entry = Members::of(entry, "HostPriority")?;
        let host = entry.get("Host").map(|host| entry.text("Host", host)).transpose()?;
        Ok((host.unwrap_or_default(), entry.number("Score")?))
    };
    list.iter().map(score).collect()
}

pub fn preempted(answer: &[u8]) -> Result<Vec<Victims>, String> {
    let answer = Members::of(&value(answer)?, "ExtenderPreemptionResult")?;
    let nodes = answer.object("NodeNameToMetaVictims")?;
    let victims = nodes
        .into_iter()
        .flat_map(|nodes| nodes.members)
        .map(|(node, victims)| {
            let victims = Members::of(&victims, "MetaVictims")?;
            let uid = |pod: &Value| {
                let pod = Members::of(pod, "MetaPod")?;
                let uid = pod.get("UID").map(|uid| pod.text("UID", uid)).transpose()?;
                Ok::<_, String>(uid.unwrap_or_default())
            };
            let pods = victims.list("Pods")?.unwrap_or_default();
            Ok(Victims {
                node,
                uids: pods.iter().map(uid).collect::<Result<_, _>>()?,
                violations: victims.number("NumPDBViolations")?,
            })
        });
    victims.collect()
}

pub fn bound(answer: &[u8]) -> Result<(), String> {
    Members::of(&value(answer)?, "ExtenderBindingResult")?.no_error()
}

/// The first value of the text; what follows is not looked at.
fn value(text: &[u8]) -> Result<Value, String> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    match values.next() {
        None => Err("EOF".to_owned()),
        Some(value) => value.map_err(|error| error.to_string()),
    }
}

/// The members of an object of the type `of`; null and what is missing are the same.
struct Members {
    of: &'static str,
    members: Map<String, Value>,
}

impl Members {
    fn of(value: &Value, of: &'static str) -> Result<Self, String> {
        match value {
            Value::Null => Ok(Self {
                of,
                members: Map::new(),
            }),
            Value::Object(members) => Ok(Self {
                of,
                members: members.clone(),
            }),
            other => Err(mismatch(other, "value", &format!("v1.{of}"))),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        let folded = || self.members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        let member = self.members.get(name).or_else(|| folded().map(|(_, value)| value));
        member.filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, wanted: &str) -> String {
        mismatch(value, &format!("struct field {}.{name}", self.of), wanted)
    }

    fn text(&self, name: &str, value: &Value) -> Result<String, String> {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| self.wrong(name, value, "string"))
    }

    fn list(&self, name: &str) -> Result<Option<Vec<Value>>, String> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list.clone())),
            Some(other) => Err(self.wrong(name, other, "[]string")),
        }
    }

    fn object(&self, name: &str) -> Result<Option<Members>, String> {
        self.get(name).map(|value| Members::of(value, self.of)).transpose()
    }

    fn texts(&self, name: &str) -> Result<Vec<(String, String)>, String> {
        let members = self.object(name)?.map(|object| object.members).unwrap_or_default();
        let texts = members
            .into_iter()
            .map(|(key, value)| Ok((key, self.text(name, &value)?)));
        texts.collect()
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        let number = |value: &Value| value.as_i64().ok_or_else(|| self.wrong(name, value, "int64"));
        self.get(name).map_or(Ok(0), number)
    }

    fn no_error(&self) -> Result<(), String> {
        match self.get("Error") {
            None => Ok(()),
            Some(error) => match self.text("Error", error)? {
                error if error.is_empty() => Ok(()),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_by_go() {
        let read = |text: &str, by_name| filtered(text.as_bytes(), by_name);
        let pair = |name: &str, why: &str| (name.to_owned(), why.to_owned());
        let full = r#"{"Nodes":null,"NodeNames":["a","b"],"FailedNodes":{"c":"full"},"FailedAndUnresolvableNodes":{"d":"no"},"Error":""} and more"#;
        let expected = Filtered {
            nodes: vec!["a".into(), "b".into()],
            failed: vec![pair("c", "full")],
            unresolvable: vec![pair("d", "no")],
        };
        assert_eq!(read(full, true), Ok(expected));
        let names = |text: &str, by_name| read(text, by_name).map(|filtered| filtered.nodes);
        let nodes = r#"{"nodes":{"items":[{"metadata":{"name":"n"}}]},"nodenames":["m"]}"#;
        assert_eq!(
            names(nodes, false),
            Ok(vec!["n".into()]),
            "who gets nodes answers with nodes"
        );
        assert_eq!(names(nodes, true), Ok(vec!["m".into()]));
        assert_eq!(names("{}", true), Ok(Vec::new()), "nothing is left");
        assert_eq!(names(r#"{"error":"broken"}"#, true), Err("broken".into()));
        assert_eq!(names("", true), Err("EOF".into()));
        assert_eq!(
            names(r#"{"NodeNames":[1]}"#, true),
            Err(
                "json: cannot unmarshal number into Go struct field ExtenderFilterResult.NodeNames of type string"
                    .into()
            )
        );
        assert_eq!(
            scores(br#"[{"Host":"a","Score":7},{"host":"b","score":3},{}]"#),
            Ok(vec![("a".into(), 7), ("b".into(), 3), (String::new(), 0)])
        );
        assert_eq!(scores(b"null"), Ok(Vec::new()));
        assert!(scores(b"{}").is_err());
        let victims = br#"{"nodeNameToMetaVictims":{"n":{"pods":[{"uid":"u"}],"numPDBViolations":2},"m":null}}"#;
        let expected = |node: &str, uids: &[&str], violations| Victims {
            node: node.into(),
            uids: uids.iter().map(ToString::to_string).collect(),
            violations,
        };
        assert_eq!(
            preempted(victims),
            Ok(vec![expected("n", &["u"], 2), expected("m", &[], 0)])
        );
        assert_eq!(bound(b"{}"), Ok(()));
        assert_eq!(bound(br#"{"Error":"taken"}"#), Err("taken".into()));
    }
}
