//! The FlowSchemas and PriorityLevelConfigurations that every cluster has (upstream:
//! `apiserver/pkg/apis/flowcontrol/bootstrap`).
//!
//! Mandatory ones are kept as they are here; of the suggested ones users may have their own way.

use super::strategy::Object;
use serde_json::{Value, json};

/// On every object of the tables: "true" while the server looks after its spec.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";
pub const GROUP: &str = "flowcontrol.apiserver.k8s.io";
pub const FLOW_SCHEMA: &str = "FlowSchema";
pub const PRIORITY_LEVEL: &str = "PriorityLevelConfiguration";
const QUEUE_LENGTH_MAX: u32 = 50;

struct Level {
    name: &'static str,
    shares: u32,
    lendable_percent: u32,
    /// How many queues, and how many of them a flow is dealt; None: what finds no seat is refused.
    queues: Option<(u32, u32)>,
}

const fn level(name: &'static str, shares: u32, lendable_percent: u32, queues: Option<(u32, u32)>) -> Level {
    Level {
        name,
        shares,
        lendable_percent,
        queues,
    }
}

const LEVELS: [Level; 8] = [
    level(EXEMPT, 0, 0, None),
    level(CATCH_ALL, 5, 0, None),
    level("system", 30, 33, Some((64, 6))),
    level("node-high", 40, 25, Some((64, 6))),
    level("leader-election", 10, 0, Some((16, 4))),
    level("workload-high", 40, 50, Some((128, 6))),
    level("workload-low", 100, 90, Some((128, 6))),
    level("global-default", 20, 50, Some((128, 6))),
];

enum Who {
    Group(&'static str),
    User(&'static str),
    /// All service accounts of a namespace.
    Accounts(&'static str),
}

enum What {
    Everything,
    /// Verbs, API group, resources, whether outside of namespaces, too.
    Resources(&'static [(&'static [&'static str], &'static str, &'static [&'static str], bool)]),
    /// Verb and paths.
    Paths(&'static str, &'static [&'static str]),
}

struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: u32,
    /// Empty: all requests are one flow.
    flows: &'static str,
    who: &'static [Who],
    what: What,
}

const fn schema(
    name: &'static str,
    level: &'static str,
    precedence: u32,
    flows: &'static str,
    who: &'static [Who],
    what: What,
) -> Schema {
    Schema {
        name,
        level,
        precedence,
        flows,
        who,
        what,
    }
}

const BY_USER: &str = "ByUser";
const BY_NAMESPACE: &str = "ByNamespace";
const EVERYBODY: &[Who] = &[Who::Group("system:unauthenticated"), Who::Group("system:authenticated")];
const NODES: &[Who] = &[Who::Group("system:nodes")];
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const LEASES: &str = "coordination.k8s.io";

const SCHEMAS: [Schema; 11] = [
    schema(EXEMPT, EXEMPT, 1, "", &[Who::Group("system:masters")], What::Everything),
    schema(
        "probes",
        EXEMPT,
        2,
        "",
        EVERYBODY,
        What::Paths("get", &["/healthz", "/readyz", "/livez"]),
    ),
    schema(
        "system-leader-election",
        "leader-election",
        100,
        BY_USER,
        &[Who::User(MANAGER), Who::User(SCHEDULER), Who::Accounts("kube-system")],
        What::Resources(&[(&["get", "create", "update"], LEASES, &["leases"], false)]),
    ),
    schema(
        "system-node-high",
        "node-high",
        400,
        BY_USER,
        NODES,
        What::Resources(&[
            (&["*"], "", &["nodes", "nodes/status"], true),
            (&["*"], LEASES, &["leases"], false),
        ]),
    ),
    schema("system-nodes", "system", 500, BY_USER, NODES, What::Everything),
    schema(
        "kube-controller-manager",
        "workload-high",
        800,
        BY_NAMESPACE,
        &[Who::User(MANAGER)],
        What::Everything,
    ),
    schema(
        "kube-scheduler",
        "workload-high",
        800,
        BY_NAMESPACE,
        &[Who::User(SCHEDULER)],
        What::Everything,
    ),
    schema(
        "kube-system-service-accounts",
        "workload-high",
        900,
        BY_NAMESPACE,
        &[Who::Accounts("kube-system")],
        What::Everything,
    ),
    schema(
        "service-accounts",
        "workload-low",
        9000,
        BY_USER,
        &[Who::Group("system:serviceaccounts")],
        What::Everything,
    ),
    schema(
        "global-default",
        "global-default",
        9900,
        BY_USER,
        EVERYBODY,
        What::Everything,
    ),
    schema(CATCH_ALL, CATCH_ALL, 10_000, BY_USER, EVERYBODY, What::Everything),
];

/// An object that every cluster has.
pub struct Standard {
    pub kind: &'static str,
    pub name: &'static str,
    /// Nobody changes its spec.
    pub mandatory: bool,
    pub object: Object,
}

/// All of them, levels before the schemas that name them.
pub fn standard() -> impl Iterator<Item = Standard> {
    let levels = LEVELS
        .iter()
        .map(|level| made(PRIORITY_LEVEL, level.name, level_spec(level)));
    let schemas = SCHEMAS
        .iter()
        .map(|schema| made(FLOW_SCHEMA, schema.name, schema_spec(schema)));
    levels.chain(schemas)
}

/// The spec that an object of this name must have; None if users decide.
pub fn fixed_spec(kind: &str, name: &str) -> Option<Value> {
    if ![EXEMPT, CATCH_ALL].contains(&name) {
        return None;
    }
    let mut found = standard().find(|standard| (standard.kind, standard.name) == (kind, name))?;
    found.object.remove("spec")
}

fn made(kind: &'static str, name: &'static str, spec: Value) -> Standard {
    let object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    });
    Standard {
        kind,
        name,
        mandatory: [EXEMPT, CATCH_ALL].contains(&name),
        object: object.as_object().cloned().unwrap_or_default(),
    }
}

fn level_spec(level: &Level) -> Value {
    let mut limits = json!({
        "nominalConcurrencyShares": level.shares,
        "lendablePercent": level.lendable_percent,
    });
    if level.name == EXEMPT {
        return json!({"type": "Exempt", "exempt": limits});
    }
    limits["limitResponse"] = match level.queues {
        None => json!({"type": "Reject"}),
        Some((queues, hand)) => json!({
            "type": "Queue",
            "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH_MAX},
        }),
    };
    json!({"type": "Limited", "limited": limits})
}

fn schema_spec(schema: &Schema) -> Value {
    let subjects: Vec<Value> = schema.who.iter().map(subject).collect();
    let mut rule = json!({"subjects": subjects});
    let resources = |verbs: &[&str], group: &str, resources: &[&str], outside: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if outside {
            rule["clusterScope"] = json!(true);
        }
        rule
    };
    match &schema.what {
        What::Everything => {
            rule["resourceRules"] = json!([resources(&["*"], "*", &["*"], true)]);
            rule["nonResourceRules"] = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        }
        What::Resources(rows) => {
            rule["resourceRules"] = rows
                .iter()
                .map(|(verbs, group, names, outside)| resources(verbs, group, names, *outside))
                .collect();
        }
        What::Paths(verb, paths) => rule["nonResourceRules"] = json!([{"verbs": [verb], "nonResourceURLs": paths}]),
    }
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": schema.level},
        "matchingPrecedence": schema.precedence,
        "rules": [rule],
    });
    if !schema.flows.is_empty() {
        spec["distinguisherMethod"] = json!({"type": schema.flows});
    }
    spec
}

fn subject(who: &Who) -> Value {
    match who {
        Who::Group(name) => json!({"kind": "Group", "group": {"name": name}}),
        Who::User(name) => json!({"kind": "User", "user": {"name": name}}),
        Who::Accounts(namespace) => json!({
            "kind": "ServiceAccount",
            "serviceAccount": {"name": "*", "namespace": namespace},
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn the_tables_are_what_the_kinds_allow_and_leave_nothing_to_defaults() {
        let registry = Registry::builtin();
        let mut levels = Vec::new();
        for standard in standard() {
            let kind = registry.lookup_kind(GROUP, "v1", standard.kind).unwrap();
            let mut defaulted = standard.object.clone();
            kind.strategy.default(&mut defaulted);
            assert_eq!(defaulted["spec"], standard.object["spec"], "{}", standard.name);
            let errors = kind.strategy.validate(&defaulted);
            assert!(errors.is_empty(), "{}: {errors:?}", standard.name);
            match standard.kind {
                PRIORITY_LEVEL => levels.push(standard.name),
                _ => assert!(
                    levels
                        .iter()
                        .any(|level| { standard.object["spec"]["priorityLevelConfiguration"]["name"] == **level }),
                    "{}",
                    standard.name
                ),
            }
        }
    }
}
