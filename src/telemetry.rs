//! Logs and metrics (upstream: component-base).
