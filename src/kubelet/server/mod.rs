//! The kubelet's HTTPS API: logs, exec, attach, port-forward, stats (upstream: `pkg/kubelet/server`).
