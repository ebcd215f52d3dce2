//! Krust: Kubernetes in one Rust program. This file is the map of the house.
//!
//! | module | what it is | upstream's counterpart |
//! |---|---|---|
//! | [`cli`] | the commands | `cmd/` |
//! | [`config`] | typed settings | component configs |
//! | [`telemetry`] | logs and metrics | `component-base` |
//! | [`transport`] | PKI, the TLS/plain accept loop, dialling with upgrades | `apiserver/pkg/server` |
//! | [`app`] | builds the parts, starts and drains their tasks | `cmd/kube-apiserver/app` and friends |
//! | [`declared_features`] | what nodes declare and pods need | `component-helpers/nodedeclaredfeatures` |
//! | [`managed_by`] | who keeps Endpoints and their slices | `pkg/controller/endpoint` and friends |
//! | [`netfilter`] | rules of nftables, tracked connections | `knftables` |
//! | [`quantity`] | resource quantities | `apimachinery/pkg/api/resource` |
//! | [`schedule`] | schedules in cron's notation | `robfig/cron` |
//! | [`usage`] | what objects use of quotas | `apiserver/pkg/quota/v1` |
//! | [`storage`] | revisions, watch cache, database | `etcd3`, `cacher` |
//! | [`registry`] | the table of kinds and what each kind does | `pkg/registry`, `pkg/apis` |
//! | [`apiserver`] | the request path | `kubernetes/apiserver` |
//! | [`client`] | builds `kube::Client`s | `client-go` |
//! | [`scheduler`], [`controllers`] | make objects act | `pkg/scheduler`, `pkg/controller` |
//! | [`kubelet`] | the node agent | `pkg/kubelet` |
//! | [`network`] | Services and their names | kube-proxy, CoreDNS |
//! | [`runtime`] | container runtimes behind one trait | CRI |
//!
//! Who may import whom is in `tests/tidy.rs`.

pub mod apiserver;
pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod controllers;
pub mod declared_features;
pub mod kubelet;
pub mod managed_by;
pub mod netfilter;
pub mod network;
pub mod quantity;
pub mod registry;
pub mod runtime;
pub mod schedule;
pub mod scheduler;
pub mod storage;
pub mod telemetry;
pub mod transport;
pub mod usage;
