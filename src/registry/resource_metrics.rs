//! The kinds of metrics.k8s.io, which k8s-openapi does not have: what nodes and pods use at the moment
//! (upstream: `k8s.io/metrics/pkg/apis/metrics/v1beta1`, and the tables of metrics-server's `pkg/api/table.go`).

use super::columns::{Column, column, name_column};
use super::json::{objects, text};
use super::strategies::{Printer, Stored};
use super::strategy::Object;
use crate::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, ListableResource, NamespaceResourceScope, Resource};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;

pub const GROUP: &str = "metrics.k8s.io";
const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";
const VERSION: &str = "v1beta1";

/// What a node uses.
pub struct NodeMetrics;
/// What the containers of a pod use.
pub struct PodMetrics;
struct ContainerMetrics;

impl Resource for NodeMetrics {
    const API_VERSION: &'static str = GROUP_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl ListableResource for NodeMetrics {
    const LIST_KIND: &'static str = "NodeMetricsList";
}

impl Resource for PodMetrics {
    const API_VERSION: &'static str = GROUP_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl ListableResource for PodMetrics {
    const LIST_KIND: &'static str = "PodMetricsList";
}

/// A map of quantities by resource.
fn usage(generator: &mut SchemaGenerator) -> Value {
    json!({
        "description": "What is used, by resource: cpu in cores, and the working set of memory in bytes.",
        "type": "object",
        "additionalProperties": generator.subschema_for::<ApiQuantity>(),
    })
}

fn of_object(generator: &mut SchemaGenerator, description: &str, own: &str, schema: Value) -> Schema {
    json_schema!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of the schema of this object."},
            "kind": {"type": "string", "description": "The kind of this object."},
            "metadata": generator.subschema_for::<ObjectMeta>(),
            "timestamp": generator.subschema_for::<Time>(),
            "window": {"type": "string", "description": "The time before the timestamp over which usage was averaged."},
            own: schema,
        },
        "required": ["timestamp", "window", own],
    })
}

impl JsonSchema for NodeMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        of_object(generator, "NodeMetrics says what a node uses.", "usage", usage)
    }
}

impl JsonSchema for PodMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let containers = json!({
            "description": "What each container uses, all over the same time.",
            "type": "array",
            "items": generator.subschema_for::<ContainerMetrics>(),
        });
        of_object(
            generator,
            "PodMetrics says what the containers of a pod use.",
            "containers",
            containers,
        )
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> Cow<'static, str> {
        "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        json_schema!({
            "description": "ContainerMetrics says what a container uses.",
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "The container's name."},
                "usage": usage,
            },
            "required": ["name", "usage"],
        })
    }
}

fn columns() -> Vec<Column> {
    let quantity = |name| Column {
        format: "quantity",
        ..column(name, "string")
    };
    let window = Column {
        format: "duration",
        ..column("Window", "string")
    };
    vec![name_column(), quantity("cpu"), quantity("memory"), window]
}

/// The quantity in the words of the first one.
fn sum<'a>(quantities: impl Iterator<Item = &'a str>) -> String {
    let quantities = quantities.filter_map(|quantity| quantity.parse::<Quantity>().ok());
    quantities
        .reduce(Quantity::plus)
        .map_or("0".to_owned(), |sum| sum.to_string())
}

fn cells(object: &Object, cpu: String, memory: String) -> Vec<Value> {
    let name = text(object, &["metadata", "name"]);
    vec![json!(name), json!(cpu), json!(memory), json!(text(object, &["window"]))]
}

pub fn node_strategy() -> Stored {
    Stored::new(Printer {
        columns,
        cells: |node, _now| {
            let used = |resource| sum([text(node, &["usage", resource])].into_iter());
            cells(node, used("cpu"), used("memory"))
        },
    })
}

pub fn pod_strategy() -> Stored {
    Stored::new(Printer {
        columns,
        cells: |pod, _now| {
            let used = |resource| sum(objects(pod, &["containers"]).map(|(_, one)| text(one, &["usage", resource])));
            cells(pod, used("cpu"), used("memory"))
        },
    })
}
