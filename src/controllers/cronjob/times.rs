//! When a CronJob was last due and when it is due next (upstream: `pkg/controller/cronjob/utils.go`). Pure.

use crate::schedule::{Schedule, time_zone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;

/// Clocks differ a little: one comes so much after its time, and not before.
const LATER: SignedDuration = SignedDuration::from_millis(100);
/// More missed starts than this are worth a warning.
const MISSED_MAX: i64 = 100;

/// What was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// What it is counted from: the last start, or when the CronJob was made.
    pub since: Timestamp,
    pub latest: Option<Timestamp>,
    pub missed: Missed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    None,
    Few,
    Many,
}

/// The schedule comes round at no time that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub struct Never;

/// The schedule of `cron_job` in its zone; Err if it does not read.
pub fn schedule(cron_job: &CronJob) -> Result<Schedule, String> {
    let spec = &cron_job.spec;
    let own = !spec.schedule.contains("TZ");
    let zone = spec.time_zone.as_deref().filter(|_| own).and_then(time_zone);
    Schedule::parse(&spec.schedule, zone.unwrap_or_else(TimeZone::system))
}

/// What was due until `now`; starts before the deadline do not count if `within_deadline`.
pub fn due(cron_job: &CronJob, schedule: &Schedule, now: Timestamp, within_deadline: bool) -> Result<Due, Never> {
    let created = cron_job.metadata.creation_timestamp.as_ref();
    let last = cron_job
        .status
        .as_ref()
        .and_then(|status| status.last_schedule_time.as_ref());
    let mut since = last.or(created).map_or(now, |time| time.0);
    let deadline = cron_job.spec.starting_deadline_seconds;
    if let Some(deadline) = deadline.filter(|_| within_deadline) {
        let begin = now.checked_sub(SignedDuration::from_secs(deadline)).unwrap_or(now);
        since = since.max(begin);
    }
    let first = schedule.next(since).ok_or(Never)?;
    let nothing = |latest| Due {
        since,
        latest,
        missed: Missed::None,
    };
    if now < first {
        return Ok(nothing(None));
    }
    let second = schedule.next(first).ok_or(Never)?;
    if now < second {
        return Ok(nothing(Some(first)));
    }
    let between = second.duration_since(first).as_secs();
    if between < 1 {
        return Err(Never);
    }
    // About as many as were missed, if the first distance is that of all; from shortly before the last of them the
    // schedule itself is followed.
    let passed = now.duration_since(first).as_secs() / between + 1;
    let near = first.checked_add(SignedDuration::from_secs(between.saturating_mul(passed - 2)));
    let mut latest = None;
    let mut time = schedule.next(near.unwrap_or(first));
    while let Some(at) = time.filter(|at| *at <= now) {
        latest = Some(at);
        time = schedule.next(at);
    }
    let missed = if passed > MISSED_MAX { Missed::Many } else { Missed::Few };
    Ok(Due { since, latest, missed })
}

/// How long from `now` to the next start.
pub fn until_next(cron_job: &CronJob, schedule: &Schedule, now: Timestamp) -> Option<SignedDuration> {
    let from = match due(cron_job, schedule, now, false) {
        Err(Never) => now,
        Ok(Due {
            latest: Some(latest), ..
        }) => latest,
        Ok(Due {
            missed: Missed::None,
            since,
            ..
        }) => since,
        Ok(_) => now,
    };
    let next = schedule.next(from)?;
    Some((next.duration_since(now) + LATER).max(SignedDuration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron_job(schedule: &str, created: &str, last: &str, deadline: Option<i64>) -> CronJob {
        let mut value = json!({"metadata": {"creationTimestamp": created},
            "spec": {"schedule": schedule, "jobTemplate": {}, "timeZone": "UTC"}, "status": {}});
        if !last.is_empty() {
            value["status"]["lastScheduleTime"] = json!(last);
        }
        if let Some(deadline) = deadline {
            value["spec"]["startingDeadlineSeconds"] = json!(deadline);
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_due() {
        let day = |time: &str| format!("2024-05-01T{time}Z");
        // Schedule, created, last start, deadline, now; latest due and missed, seconds to the next. Of a schedule with
        // long gaps the last start is not found again in the gap, as upstream.
        let cases = [
            ("0 * * * *", "09:30:00", "", None, "09:59:59", "", Missed::None, 1),
            (
                "0 * * * *",
                "09:30:00",
                "",
                None,
                "10:00:10",
                "10:00:00",
                Missed::None,
                3590,
            ),
            (
                "0 * * * *",
                "05:30:00",
                "09:00:00",
                None,
                "10:00:10",
                "10:00:00",
                Missed::None,
                3590,
            ),
            (
                "0 * * * *",
                "05:30:00",
                "10:00:00",
                None,
                "10:00:10",
                "",
                Missed::None,
                3590,
            ),
            (
                "0 * * * *",
                "05:30:00",
                "",
                None,
                "10:00:10",
                "10:00:00",
                Missed::Few,
                3590,
            ),
            ("0 * * * *", "05:30:00", "", Some(5), "10:00:10", "", Missed::None, 3590),
            (
                "0 * * * *",
                "05:30:00",
                "",
                Some(60),
                "10:00:10",
                "10:00:00",
                Missed::None,
                3590,
            ),
            (
                "* * * * *",
                "05:30:00",
                "",
                None,
                "10:00:10",
                "10:00:00",
                Missed::Many,
                50,
            ),
            (
                "* * * * *",
                "05:30:00",
                "",
                Some(300),
                "10:00:10",
                "10:00:00",
                Missed::Few,
                50,
            ),
            (
                "*/7 8-9 * * *",
                "07:59:00",
                "",
                None,
                "12:00:00",
                "",
                Missed::Few,
                72_000,
            ),
            (
                "@every 90m",
                "05:30:00",
                "",
                None,
                "10:10:00",
                "10:00:00",
                Missed::Few,
                4800,
            ),
        ];
        for (schedule, created, last, deadline, now, latest, missed, next) in cases {
            let last = if last.is_empty() { String::new() } else { day(last) };
            let cron_job = cron_job(schedule, &day(created), &last, deadline);
            let (rule, now): (_, Timestamp) = (super::schedule(&cron_job).unwrap(), day(now).parse().unwrap());
            let due = due(&cron_job, &rule, now, true).unwrap();
            let shown = due.latest.map_or(String::new(), |latest| latest.to_string());
            let latest = if latest.is_empty() { String::new() } else { day(latest) };
            assert_eq!((shown, due.missed), (latest, missed), "{schedule} {deadline:?} {now}");
            let until = until_next(&cron_job, &rule, now).unwrap();
            assert_eq!(until.as_millis(), next * 1000 + 100, "{schedule} {now}");
        }
        let never = cron_job("59 23 31 2 *", &day("01:00:00"), "", None);
        let rule = schedule(&never).unwrap();
        assert_eq!(due(&never, &rule, day("02:00:00").parse().unwrap(), true), Err(Never));
    }
}
