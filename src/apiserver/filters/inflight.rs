//! How many requests are served at once (upstream: `server/filters/maxinflight.go`).

use super::metrics;
use crate::apiserver::authorization::PRIVILEGED_GROUP;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests in flight that read, or that write.
#[derive(Debug)]
pub struct Lane {
    gauge: prometheus::IntGauge,
    requests_max: usize,
    requests: AtomicUsize,
}

/// Counts the requests in flight, reading and writing apart.
#[derive(Debug)]
pub struct InFlight {
    reading: Arc<Lane>,
    writing: Arc<Lane>,
}

impl InFlight {
    pub fn new(reading_max: usize, writing_max: usize) -> Self {
        let lane = |kind, requests_max| {
            Arc::new(Lane {
                gauge: metrics::in_flight(kind),
                requests_max,
                requests: AtomicUsize::new(0),
            })
        };
        Self {
            reading: lane("readOnly", reading_max),
            writing: lane("mutating", writing_max),
        }
    }

    /// A place in the lane, unless it is full and the request is not `privileged`.
    fn enter(&self, writes: bool, privileged: bool) -> Option<Place> {
        let lane = if writes { &self.writing } else { &self.reading };
        let before = lane.requests.fetch_add(1, Ordering::Relaxed);
        let place = Place(lane.clone());
        lane.gauge.inc();
        (privileged || before < lane.requests_max).then_some(place)
    }
}

/// A request's place; given back when dropped.
pub struct Place(Arc<Lane>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

/// Takes a place. Long-running requests need none; administrators always get one, so that an overloaded server
/// can be looked at.
pub fn enter(ctx: &Context) -> Result<Option<Place>, ApiError> {
    if ctx.info.is_long_running() {
        return Ok(None);
    }
    let writes = !matches!(ctx.info.verb.as_str(), "get" | "list" | "watch" | "head");
    let privileged = ctx.user.groups.iter().any(|group| group == PRIVILEGED_GROUP);
    ctx.server
        .in_flight
        .enter(writes, privileged)
        .map(Some)
        .ok_or_else(ApiError::overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_fill_and_empty() {
        let in_flight = InFlight::new(1, 1);
        let first = in_flight.enter(false, false);
        assert!(first.is_some());
        assert!(in_flight.enter(false, false).is_none());
        assert!(in_flight.enter(false, true).is_some(), "the privileged always get in");
        assert!(in_flight.enter(true, false).is_some(), "writing has a lane of its own");
        drop(first);
        assert!(in_flight.enter(false, false).is_some());
    }
}
