//! `krust version` (upstream: `kubectl version --client`).

use crate::app;

pub(super) fn run() -> anyhow::Result<()> {
    super::print(&format!(
        "krust {}\nKubernetes API {}\n",
        env!("CARGO_PKG_VERSION"),
        app::KUBERNETES_VERSION
    ))
}
