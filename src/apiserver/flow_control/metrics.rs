//! Flow control in figures, under upstream's names (upstream: `flowcontrol/metrics`).

use prometheus::{
    GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, register_gauge_vec,
    register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};
use std::sync::LazyLock;

const LEVEL: &str = "priority_level";
const SCHEMA: &str = "flow_schema";
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// Why a request was refused, as a label.
pub const REASONS: [&str; 3] = ["queue-full", "concurrency-limit", "time-out"];
const EXECUTED: [&str; 2] = ["true", "false"];
const TYPES: [&str; 2] = ["regular", "watch"];

// Names and labels are constants, and registering them twice is a bug that the first test of this module finds.
macro_rules! family {
    ($name:ident, $kind:ident, $register:ident, $metric:literal, $help:literal, $labels:expr $(, $more:expr)?) => {
        static $name: LazyLock<$kind> = LazyLock::new(|| {
            $register!(concat!("apiserver_flowcontrol_", $metric), $help, &$labels $(, $more)?)
                .expect("the metric is registered once")
        });
    };
}

family!(
    DISPATCHED,
    IntCounterVec,
    register_int_counter_vec,
    "dispatched_requests_total",
    "Requests that were served.",
    [LEVEL, SCHEMA]
);
family!(
    REJECTED,
    IntCounterVec,
    register_int_counter_vec,
    "rejected_requests_total",
    "Requests that were refused.",
    [LEVEL, SCHEMA, "reason"]
);
family!(
    EXECUTING,
    IntGaugeVec,
    register_int_gauge_vec,
    "current_executing_requests",
    "Requests being served (watches: until they have begun).",
    [LEVEL, SCHEMA]
);
family!(
    EXECUTING_SEATS,
    IntGaugeVec,
    register_int_gauge_vec,
    "current_executing_seats",
    "Seats of the requests being served.",
    [LEVEL, SCHEMA]
);
family!(
    WAITING,
    IntGaugeVec,
    register_int_gauge_vec,
    "current_inqueue_requests",
    "Requests that wait.",
    [LEVEL, SCHEMA]
);
family!(
    WAITING_SEATS,
    IntGaugeVec,
    register_int_gauge_vec,
    "current_inqueue_seats",
    "Seats of the requests that wait.",
    [LEVEL, SCHEMA]
);
family!(
    WAITED,
    HistogramVec,
    register_histogram_vec,
    "request_wait_duration_seconds",
    "How long requests waited.",
    [LEVEL, SCHEMA, "execute"],
    SECONDS.to_vec()
);
family!(
    EXECUTED_FOR,
    HistogramVec,
    register_histogram_vec,
    "request_execution_seconds",
    "How long requests were served (watches: until they have begun).",
    [LEVEL, SCHEMA, "type"],
    SECONDS.to_vec()
);
family!(
    ESTIMATED,
    HistogramVec,
    register_histogram_vec,
    "work_estimated_seats",
    "Seats that requests take.",
    [LEVEL, SCHEMA],
    vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0]
);
family!(
    WATCHED,
    HistogramVec,
    register_histogram_vec,
    "watch_count_samples",
    "How many watch what writes change.",
    [LEVEL, SCHEMA],
    vec![0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0]
);
family!(
    NOMINAL,
    IntGaugeVec,
    register_int_gauge_vec,
    "nominal_limit_seats",
    "Seats of each priority level's own.",
    [LEVEL]
);
family!(
    LOWER,
    IntGaugeVec,
    register_int_gauge_vec,
    "lower_limit_seats",
    "Seats that each priority level never lends.",
    [LEVEL]
);
family!(
    UPPER,
    IntGaugeVec,
    register_int_gauge_vec,
    "upper_limit_seats",
    "Seats that each priority level has at most.",
    [LEVEL]
);
family!(
    CURRENT,
    IntGaugeVec,
    register_int_gauge_vec,
    "current_limit_seats",
    "Seats that each priority level has now.",
    [LEVEL]
);
family!(
    DEMAND_MOST,
    GaugeVec,
    register_gauge_vec,
    "demand_seats_high_watermark",
    "The most seats that each priority level could have used in the last period.",
    [LEVEL]
);
family!(
    DEMAND_AVERAGE,
    GaugeVec,
    register_gauge_vec,
    "demand_seats_average",
    "Seats that each priority level could have used in the last period, on average.",
    [LEVEL]
);
family!(
    DEMAND_DEVIATION,
    GaugeVec,
    register_gauge_vec,
    "demand_seats_stdev",
    "Standard deviation of the seats that each priority level could have used in the last period.",
    [LEVEL]
);
family!(
    DEMAND_SMOOTHED,
    GaugeVec,
    register_gauge_vec,
    "demand_seats_smoothed",
    "Seats that each priority level is reckoned to need.",
    [LEVEL]
);

/// The figures of one schema at one level; looked up once, so that counting needs no look-up.
#[derive(Debug)]
pub struct FlowMetrics {
    dispatched: IntCounter,
    rejected: [IntCounter; 3],
    executing: IntGauge,
    executing_seats: IntGauge,
    waiting: IntGauge,
    waiting_seats: IntGauge,
    /// Of those that were served, and of those that were not.
    waited: [Histogram; 2],
    executed_for: [Histogram; 2],
    estimated: Histogram,
    watched: Histogram,
}

impl FlowMetrics {
    pub fn new(level: &str, schema: &str) -> Self {
        let labels = [level, schema];
        Self {
            dispatched: DISPATCHED.with_label_values(&labels),
            rejected: REASONS.map(|reason| REJECTED.with_label_values(&[level, schema, reason])),
            executing: EXECUTING.with_label_values(&labels),
            executing_seats: EXECUTING_SEATS.with_label_values(&labels),
            waiting: WAITING.with_label_values(&labels),
            waiting_seats: WAITING_SEATS.with_label_values(&labels),
            waited: EXECUTED.map(|executed| WAITED.with_label_values(&[level, schema, executed])),
            executed_for: TYPES.map(|kind| EXECUTED_FOR.with_label_values(&[level, schema, kind])),
            estimated: ESTIMATED.with_label_values(&labels),
            watched: WATCHED.with_label_values(&labels),
        }
    }

    /// Somebody came.
    pub fn estimated(&self, seats: u32) {
        self.estimated.observe(f64::from(seats));
    }

    /// So many watch what a write changes.
    pub fn watched(&self, watchers: u32) {
        self.watched.observe(f64::from(watchers));
    }

    pub fn queued(&self, seats: u32) {
        self.waiting.inc();
        self.waiting_seats.add(i64::from(seats));
    }

    pub fn unqueued(&self, seats: u32) {
        self.waiting.dec();
        self.waiting_seats.sub(i64::from(seats));
    }

    pub fn begun(&self, seats: u32) {
        self.dispatched.inc();
        self.executing.inc();
        self.executing_seats.add(i64::from(seats));
    }

    pub fn answered(&self, seconds: f64, watch: bool) {
        self.executing.dec();
        self.executed_for[usize::from(watch)].observe(seconds);
    }

    /// The seats were given back.
    pub fn left(&self, seats: u32) {
        self.executing_seats.sub(i64::from(seats));
    }

    pub fn waited(&self, seconds: f64, executed: bool) {
        self.waited[usize::from(!executed)].observe(seconds);
    }

    /// `reason` is one of [`REASONS`].
    pub fn rejected(&self, reason: &str) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.rejected[at].inc();
        }
    }
}

/// The schema does not belong to the level any more: labels must not pile up.
pub fn forget_flow(level: &str, schema: &str) {
    let labels = [level, schema];
    // What was never counted is not there to be removed.
    let _ = DISPATCHED.remove_label_values(&labels);
    for vec in [&*EXECUTING, &EXECUTING_SEATS, &WAITING, &WAITING_SEATS] {
        let _ = vec.remove_label_values(&labels);
    }
    for vec in [&*ESTIMATED, &WATCHED] {
        let _ = vec.remove_label_values(&labels);
    }
    for reason in REASONS {
        let _ = REJECTED.remove_label_values(&[level, schema, reason]);
    }
    for executed in EXECUTED {
        let _ = WAITED.remove_label_values(&[level, schema, executed]);
    }
    for kind in TYPES {
        let _ = EXECUTED_FOR.remove_label_values(&[level, schema, kind]);
    }
}

pub fn forget_level(level: &str) {
    for vec in [&*NOMINAL, &LOWER, &UPPER, &CURRENT] {
        let _ = vec.remove_label_values(&[level]);
    }
    for vec in [&*DEMAND_MOST, &DEMAND_AVERAGE, &DEMAND_DEVIATION, &DEMAND_SMOOTHED] {
        let _ = vec.remove_label_values(&[level]);
    }
}

pub fn bounds(level: &str, bounds: super::shares::Bounds) {
    for (vec, seats) in [
        (&*NOMINAL, bounds.nominal),
        (&LOWER, bounds.least),
        (&UPPER, bounds.most),
    ] {
        vec.with_label_values(&[level]).set(i64::from(seats));
    }
}

pub fn lent(level: &str, seen: super::demand::Seen, smoothed: f64, limit: u32) {
    CURRENT.with_label_values(&[level]).set(i64::from(limit));
    for (vec, value) in [
        (&*DEMAND_MOST, seen.most),
        (&DEMAND_AVERAGE, seen.average),
        (&DEMAND_DEVIATION, seen.deviation),
        (&DEMAND_SMOOTHED, smoothed),
    ] {
        vec.with_label_values(&[level]).set(value);
    }
}
