//! The time that a request may take (upstream: `filters/request_deadline.go`, `server/filters/timeout.go`).

use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use crate::apiserver::request::RequestInfo;
use std::time::Duration;

/// Of all requests that are not long-running.
const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Of the work of requests that write.
const WRITE_MAX: Duration = Duration::from_secs(34);

/// How long a request waits for its turn at most.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// The same, shortened to a quarter of what its `timeout` parameter allows.
pub fn of_waiting(query: &Query) -> Duration {
    let asked = query.get("timeout").and_then(parse).filter(|asked| !asked.is_zero());
    asked.map_or(WAIT_MAX, |asked| (asked / 4).min(WAIT_MAX))
}

/// The limit of a request, shortened by its `timeout` parameter; None if it is long-running.
pub fn of(info: &RequestInfo, query: &Query) -> Result<Option<Duration>, ApiError> {
    if info.is_long_running() {
        return Ok(None);
    }
    let writes = matches!(info.verb.as_str(), "create" | "update" | "patch" | "delete");
    let most = if info.is_resource_request && writes {
        WRITE_MAX
    } else {
        REQUEST_MAX
    };
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else {
        return Ok(Some(most));
    };
    let asked = parse(text).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))
    })?;
    Ok(Some(if asked.is_zero() || asked > most { most } else { asked }))
}

/// A Go duration (`1m30s`) that is not negative.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| duration.try_into().ok())
}

pub async fn apply<T>(limit: Option<Duration>, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let Some(limit) = limit else {
        return work.await;
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(ApiError::timeout(
            "request did not complete within the allotted timeout",
            0,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(verb: &str, query: &str) -> Result<Option<u64>, u16> {
        let info = RequestInfo {
            verb: verb.into(),
            is_resource_request: true,
            ..RequestInfo::default()
        };
        of(&info, &Query::parse(query))
            .map(|d| d.map(|d| d.as_secs()))
            .map_err(|e| e.code().as_u16())
    }

    #[test]
    fn limits() {
        assert_eq!(limit("get", ""), Ok(Some(60)));
        assert_eq!(limit("create", ""), Ok(Some(34)));
        assert_eq!(limit("watch", ""), Ok(None));
        assert_eq!(limit("get", "timeout=1m30s"), Ok(Some(60)));
        assert_eq!(limit("get", "timeout=5s"), Ok(Some(5)));
        assert_eq!(limit("get", "timeout=0s"), Ok(Some(60)));
        assert_eq!(limit("get", "timeout=soon"), Err(400));
        assert_eq!(limit("get", "timeout=-5s"), Err(400));
    }
}
