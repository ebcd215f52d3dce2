//! API priority and fairness: which requests are served at once, and who waits for whom (upstream:
//! `apiserver/pkg/util/flowcontrol`).
//!
//! A request is of the first FlowSchema that it matches, which names a priority level. Each level has seats of its own, so a
//! flood at one takes nothing from the others, and queues in which the flows of a level take turns.
//!
//! - this file: what the stored objects come to, for all requests until they change.
//! - [`schema`]: which requests a FlowSchema is for. [`width`]: how many seats a request takes; [`watchers`]: how many watch
//!   what it changes.
//! - [`level`]: the seats of a level; [`queues`]: whose turn it is; [`retry_after`]: when who was refused comes back.
//! - [`shares`]: how many seats each level has; [`demand`]: and how many it needs.
//! - [`upkeep`]: the objects that every cluster has, and what their status says.
//! - [`metrics`]: all of it in figures.

mod demand;
mod level;
mod metrics;
mod queues;
mod retry_after;
pub mod schema;
mod shares;
pub mod upkeep;
mod watchers;
mod width;

use super::context::Context;
use super::request::{RequestInfo, User};
use crate::registry::priority_and_fairness::{self, CATCH_ALL, EXEMPT, FLOW_SCHEMA, PRIORITY_LEVEL};
use crate::storage::{Entry, Storage};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema as StoredSchema, PriorityLevelConfiguration};
use level::{Asked, HAND_MAX, Level, Shape};
pub use level::{Refusal, Seat};
use parking_lot::{Mutex, RwLock};
use poem::http::HeaderValue;
use schema::{FlowSchema, uid};
use shares::{Bounds, Share, Wanted};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
pub use watchers::{Watcher, Watchers};
use width::Width;

pub const FLOW_SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
pub const PRIORITY_LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";

/// Who gets how many seats.
pub struct FlowControl {
    requests_max: u32,
    /// In the order in which requests are matched.
    schemas: RwLock<Arc<[Arc<FlowSchema>]>>,
    levels: Mutex<BTreeMap<String, Known>>,
    /// Who is sent what writes change.
    pub watchers: Arc<Watchers>,
}

/// A level that the objects name.
struct Known {
    level: Arc<Level>,
    uid: HeaderValue,
    share: Share,
    bounds: Bounds,
    smoothed: f64,
}

impl FlowControl {
    /// `requests_max` seats for all levels together. Until there are objects, there are the two schemas that always are.
    pub fn new(requests_max: usize, storage: &Storage) -> Self {
        let made = Self {
            requests_max: u32::try_from(requests_max).unwrap_or(u32::MAX),
            schemas: RwLock::new(Arc::new([])),
            levels: Mutex::default(),
            watchers: Arc::default(),
        };
        made.refresh(storage);
        made
    }

    /// The schema that the request is of.
    pub fn classify(&self, user: &User, info: &RequestInfo) -> Option<Arc<FlowSchema>> {
        let schemas = self.schemas.read().clone();
        // Everybody is authenticated or not, so that the last one matches whatever is left.
        let found = schemas.iter().find(|schema| schema.matches(user, info));
        found.or(schemas.last()).cloned()
    }

    /// Seats for the request, as soon as it is its turn.
    pub async fn enter(&self, ctx: &Context, schema: &Arc<FlowSchema>, wait_max: Duration) -> Result<Seat, Refusal> {
        let level = &schema.level;
        let width = match level.exempt {
            true => Width::ONE,
            false => width::of(ctx, schema, &self.watchers),
        };
        let asked = Asked {
            hash: schema.hash(&ctx.user, &ctx.info),
            width,
            watch: ctx.info.verb == "watch",
            wait_max,
        };
        level.enter(schema, asked).await
    }

    /// Takes in what is stored. Requests that wait keep their places.
    pub fn refresh(&self, storage: &Storage) {
        let mut stored_levels: Vec<PriorityLevelConfiguration> = read(storage, PRIORITY_LEVELS);
        let mut stored_schemas: Vec<StoredSchema> = read(storage, FLOW_SCHEMAS);
        add_missing(&mut stored_levels, PRIORITY_LEVEL, |level| &level.metadata);
        add_missing(&mut stored_schemas, FLOW_SCHEMA, |schema| &schema.metadata);
        let mut levels = self.levels.lock();
        take_in_levels(&mut levels, stored_levels);
        let known: Vec<&mut Known> = levels.values_mut().collect();
        let divided = shares::divide(
            self.requests_max,
            &known.iter().map(|level| level.share).collect::<Vec<_>>(),
        );
        for (level, bounds) in known.into_iter().zip(divided) {
            level.bounds = bounds;
            level.level.set_nominal(bounds.nominal);
            metrics::bounds(&level.level.name, bounds);
        }
        let mut schemas: Vec<Arc<FlowSchema>> = Vec::new();
        for schema in stored_schemas {
            // One that names no level is as if it were not there; its status says so.
            if let Some(known) = levels.get(&schema.spec.priority_level_configuration.name) {
                let schema = FlowSchema::new(schema, known.level.clone(), known.uid.clone());
                schemas.push(Arc::new(schema));
            }
        }
        schemas.sort_by(|a, b| (order(a), &a.name).cmp(&(order(b), &b.name)));
        self.swap_in(schemas.into());
        lend(&mut levels);
    }

    fn swap_in(&self, schemas: Arc<[Arc<FlowSchema>]>) {
        let before = std::mem::replace(&mut *self.schemas.write(), schemas.clone());
        for old in before.iter() {
            let same = |new: &&Arc<FlowSchema>| new.name == old.name && new.level.name == old.level.name;
            if !schemas.iter().any(|new| same(&new)) {
                metrics::forget_flow(&old.level.name, &old.name);
            }
        }
    }

    /// Gives the levels their limits for the next while, by what they needed.
    pub fn lend(&self) {
        lend(&mut self.levels.lock());
    }

    /// Whether there is a level of this name.
    fn has_level(&self, name: &str) -> bool {
        self.levels.lock().contains_key(name)
    }
}

/// The exempt first and what catches all last, wherever users put theirs.
fn order(schema: &FlowSchema) -> (u8, i32) {
    match schema.name.as_str() {
        EXEMPT => (0, 0),
        CATCH_ALL => (2, 0),
        _ => (1, schema.precedence),
    }
}

fn read<K: serde::de::DeserializeOwned>(storage: &Storage, resource: &str) -> Vec<K> {
    let parse = |entry: &Arc<Entry>| {
        let parsed = serde_json::from_slice(&entry.bytes);
        parsed
            .inspect_err(
                |error| tracing::error!(%error, key = %entry.key, "a stored object of flow control is unreadable"),
            )
            .ok()
    };
    match storage.list(resource, None, None) {
        Ok(snapshot) => snapshot.entries.iter().filter_map(parse).collect(),
        // The store is closing: nobody is served any more.
        Err(_) => Vec::new(),
    }
}

/// What must be there is reckoned with even where it is not stored.
fn add_missing<K: serde::de::DeserializeOwned>(
    stored: &mut Vec<K>,
    kind: &str,
    metadata: fn(&K) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) {
    for standard in priority_and_fairness::standard().filter(|standard| standard.mandatory && standard.kind == kind) {
        let is_it = |known: &K| metadata(known).name.as_deref() == Some(standard.name);
        if !stored.iter().any(is_it)
            && let Ok(object) = serde_json::from_value(standard.object.into())
        {
            stored.push(object);
        }
    }
}

/// Levels that are gone serve who is there, and are forgotten then.
fn take_in_levels(levels: &mut BTreeMap<String, Known>, stored: Vec<PriorityLevelConfiguration>) {
    let mut before = std::mem::take(levels);
    for object in stored {
        let Some((shape, share)) = meaning(&object) else {
            continue;
        };
        let name = object.metadata.name.unwrap_or_default();
        let uid = uid(object.metadata.uid.as_deref());
        let known = match before.remove(&name) {
            Some(known) => {
                known.level.reshape(shape);
                Known { uid, share, ..known }
            }
            None => Known {
                level: Level::new(&name, shape, 0),
                uid,
                share,
                bounds: Bounds::default(),
                smoothed: 0.0,
            },
        };
        levels.insert(name, known);
    }
    for name in before.keys() {
        metrics::forget_level(name);
    }
}

/// What a level's object says; None if it contradicts itself, which validation lets nobody write.
fn meaning(object: &PriorityLevelConfiguration) -> Option<(Shape, Share)> {
    let count = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    let spec = &object.spec;
    if let Some(exempt) = &spec.exempt {
        let share = Share {
            shares: count(exempt.nominal_concurrency_shares).unwrap_or_default(),
            lendable_percent: count(exempt.lendable_percent).unwrap_or_default(),
            borrowing_percent: None,
        };
        return Some((Shape::Exempt, share));
    }
    let limited = spec.limited.as_ref()?;
    let share = Share {
        shares: count(limited.nominal_concurrency_shares).unwrap_or(30),
        lendable_percent: count(limited.lendable_percent).unwrap_or_default(),
        borrowing_percent: count(limited.borrowing_limit_percent),
    };
    let shape = match &limited.limit_response.queuing {
        None => Shape::Reject,
        Some(queuing) => Shape::Queue {
            queues: count(queuing.queues)?.max(1),
            hand: (count(queuing.hand_size)? as usize).clamp(1, HAND_MAX),
            length_max: count(queuing.queue_length_limit)? as usize,
        },
    };
    Some((shape, share))
}

fn lend(levels: &mut BTreeMap<String, Known>) {
    let mut wanted = Vec::with_capacity(levels.len());
    let mut seen = Vec::with_capacity(levels.len());
    for known in levels.values_mut() {
        let demand = known.level.take_demand();
        known.smoothed = demand::smoothed(known.smoothed, demand);
        wanted.push(Wanted {
            exempt: known.level.exempt,
            bounds: known.bounds,
            most: demand.most.round() as u32,
            smoothed: known.smoothed,
        });
        seen.push(demand);
    }
    let limits = shares::lend(&wanted);
    for ((known, limit), demand) in levels.values().zip(limits).zip(seen) {
        metrics::lent(&known.level.name, demand, known.smoothed, limit);
        known.level.set_limit(limit);
    }
}
