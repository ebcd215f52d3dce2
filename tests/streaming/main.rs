//! Exec, attach, port-forward and logs, through the API server's part and the kubelet's server, both over TLS,
//! driven by real kubectl binaries and by WebSocket and SPDY written by hand. Processes are local ones.

mod cluster;
mod crowd;
mod forward;
mod hostile;
mod local_runtime;
mod logs;
mod proxy;
mod session;
#[path = "../support/mod.rs"]
mod support;
mod websocket;
