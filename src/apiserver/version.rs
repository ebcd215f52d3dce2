//! `/version` (upstream: `apiserver/pkg/server/routes/version.go`, `component-base/version`).

use super::codec::accept::Shape;
use super::codec::respond::respond_value;
use super::context::Context;
use super::error::ApiError;
use poem::Response;
use poem::http::StatusCode;
use serde_json::{Value, json};

/// The version of Kubernetes whose API is served.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "37";
/// The oldest version that this one can stand in for: the one before.
const MINOR_COMPATIBLE: &str = "36";

/// A semantic version with a leading `v`: Kubernetes' version, and our own as build information.
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.0+krust{}", env!("CARGO_PKG_VERSION"))
}

pub fn value() -> Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": MINOR_COMPATIBLE,
        "gitVersion": git_version(),
        "gitCommit": option_env!("KRUST_GIT_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("KRUST_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        // Clients show these; no Go is involved.
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", go_architecture()),
    })
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub async fn handle(ctx: &Context) -> Result<Response, ApiError> {
    let negotiated = ctx.negotiate(Shape::Plain)?;
    respond_value(&ctx.query, &ctx.headers, &negotiated, StatusCode::OK, &value()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_semantic() {
        let version = git_version();
        let (core, build) = version.strip_prefix('v').unwrap().split_once('+').unwrap();
        assert!(core.split('.').all(|part| part.parse::<u32>().is_ok()));
        assert!(build.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    }
}
