//! `/healthz`, `/livez`, `/readyz` (upstream: `apiserver/pkg/server/healthz`).

use super::context::Context;
use super::error::ApiError;
use poem::Response;
use poem::http::StatusCode;

/// A check by name; Err is what the log says, clients are not told.
struct Check {
    name: &'static str,
    /// Only a part of readiness.
    ready_only: bool,
    run: fn(&Context) -> Result<(), &'static str>,
}

const CHECKS: [Check; 3] = [
    // Answering is the check.
    Check {
        name: "ping",
        ready_only: false,
        run: |_| Ok(()),
    },
    Check {
        name: "storage",
        ready_only: false,
        run: storage,
    },
    Check {
        name: "shutdown",
        ready_only: true,
        run: shutdown,
    },
];

fn storage(ctx: &Context) -> Result<(), &'static str> {
    if ctx.storage().is_open() {
        Ok(())
    } else {
        Err("the store takes no writes")
    }
}

fn shutdown(ctx: &Context) -> Result<(), &'static str> {
    if ctx.server.shutdown.is_cancelled() {
        Err("the server is shutting down")
    } else {
        Ok(())
    }
}

/// Runs all checks of an endpoint, or one of them.
pub fn handle(ctx: &Context, endpoint: &str, only: Option<&str>) -> Result<Response, ApiError> {
    let mut checks = CHECKS.iter().filter(|check| endpoint == "readyz" || !check.ready_only);
    if let Some(name) = only {
        let check = checks
            .find(|check| check.name == name)
            .ok_or_else(ApiError::unknown_path)?;
        return Ok(match (check.run)(ctx) {
            Ok(()) => text(StatusCode::OK, "ok".into()),
            Err(why) => {
                tracing::warn!(check = name, why, "a health check failed");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal server error: reason withheld\n".into(),
                )
            }
        });
    }
    let mut lines = String::new();
    let mut healthy = true;
    for Check { name, run, .. } in checks {
        if ctx.query.all("exclude").any(|excluded| excluded == *name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if let Err(why) = run(ctx) {
            tracing::warn!(check = name, why, "a health check failed");
            lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            healthy = false;
        } else {
            lines.push_str(&format!("[+]{name} ok\n"));
        }
    }
    Ok(match healthy {
        false => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{lines}{endpoint} check failed\n"),
        ),
        true if ctx.query.get("verbose").is_some() => text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        true => text(StatusCode::OK, "ok".into()),
    })
}

fn text(status: StatusCode, body: String) -> Response {
    Response::builder()
        .status(status)
        .content_type("text/plain; charset=utf-8")
        .header("X-Content-Type-Options", "nosniff")
        .body(body)
}
