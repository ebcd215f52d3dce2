//! The API server in this process, verb by verb, on a SQLite file (no socket, no node).

#[path = "support/flunders.rs"]
mod flunders;
#[path = "api/harness.rs"]
mod harness;

#[path = "api/access.rs"]
mod access;
#[path = "api/aggregation.rs"]
mod aggregation;
#[path = "api/apply.rs"]
mod apply;
#[path = "api/bad_requests.rs"]
mod bad_requests;
#[path = "api/conversion.rs"]
mod conversion;
#[path = "api/create.rs"]
mod create;
#[path = "api/custom_resources.rs"]
mod custom_resources;
#[path = "api/custom_rules.rs"]
mod custom_rules;
#[path = "api/delete.rs"]
mod delete;
#[path = "api/discovery.rs"]
mod discovery;
#[path = "api/flow_control.rs"]
mod flow_control;
#[path = "api/kinds.rs"]
mod kinds;
#[path = "api/list.rs"]
mod list;
#[path = "api/negotiation.rs"]
mod negotiation;
#[path = "api/options.rs"]
mod options;
#[path = "api/owner_references.rs"]
mod owner_references;
#[path = "api/parity.rs"]
mod parity;
#[path = "api/patch.rs"]
mod patch;
#[path = "api/pod_security.rs"]
mod pod_security;
#[path = "api/policies.rs"]
mod policies;
#[path = "api/protobuf.rs"]
mod protobuf;
#[path = "api/quota.rs"]
mod quota;
#[path = "api/rbac.rs"]
mod rbac;
#[path = "api/replay.rs"]
mod replay;
#[path = "api/reviews.rs"]
mod reviews;
#[path = "api/scale.rs"]
mod scale;
#[path = "api/services.rs"]
mod services;
#[path = "api/subresources.rs"]
mod subresources;
#[path = "api/tokens.rs"]
mod tokens;
#[path = "api/update.rs"]
mod update;
#[path = "api/watch.rs"]
mod watch;
#[path = "api/webhooks.rs"]
mod webhooks;
#[path = "api/websocket.rs"]
mod websocket;
