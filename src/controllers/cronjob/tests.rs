//! Situations of CronJobs and what is done about them, and a long run of one.

use super::plan::{Observed, Plan, add_active, outdated, plan};
use crate::client::events::Level;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

fn at(time: &str) -> String {
    format!("2024-05-01T{time}Z")
}

fn cron_job(spec: Value, status: Value) -> CronJob {
    let template = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"backoffLimit": 3, "template": {}}});
    let mut whole = json!({"schedule": "0 * * * *", "jobTemplate": template, "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let meta = json!({"name": "cj", "namespace": "n", "uid": "cj", "creationTimestamp": at("05:30:00")});
    serde_json::from_value(json!({"metadata": meta, "spec": whole, "status": status})).unwrap()
}

/// `a running`, `b complete 09:00:00`, `c failed 09:00:00`: with the time of its start.
fn job(text: &str) -> Arc<Job> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut status = json!({});
    if let Some(start) = words.get(2) {
        status["startTime"] = json!(at(start));
    }
    let condition = match words[1] {
        "complete" => {
            status["completionTime"] = status["startTime"].clone();
            Some("Complete")
        }
        "failed" => Some("Failed"),
        _ => None,
    };
    if let Some(condition) = condition {
        status["conditions"] = json!([{"type": condition, "status": "True"}]);
    }
    let meta = json!({"name": words[0], "uid": words[0], "namespace": "n"});
    Arc::new(serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap())
}

fn active(names: &[&str]) -> Value {
    json!(
        names
            .iter()
            .map(|name| json!({"name": name, "uid": name}))
            .collect::<Vec<_>>()
    )
}

fn shown(plan: &Plan) -> String {
    let mut text: Vec<String> = plan.notices.iter().map(|(_, reason, _)| (*reason).to_owned()).collect();
    if let Some(start) = &plan.start {
        let replaced: Vec<&str> = start.replaces.iter().filter_map(|job| job.name.as_deref()).collect();
        text.push(format!(
            "start {} {}",
            start.job.metadata.name.as_deref().unwrap(),
            replaced.join(" ")
        ));
    }
    let running: Vec<&str> = plan
        .status
        .active
        .iter()
        .flatten()
        .filter_map(|job| job.name.as_deref())
        .collect();
    text.push(format!("active {}", running.join(" ")));
    text.push(
        plan.again
            .map_or("never".to_owned(), |again| format!("again {}", again.as_secs())),
    );
    text.join("; ")
}

#[test]
fn starts() {
    let recent = json!({"lastScheduleTime": at("09:00:00"), "active": active(&["x"])});
    let name = "cj-28575960";
    let late = json!({"startingDeadlineSeconds": 5});
    // 10:00 of that day is 28575960 minutes after the epoch.
    #[allow(clippy::type_complexity)] // a table
    let cases: Vec<(&str, Value, Value, Vec<&str>, Vec<&str>, &str, String)> = vec![
        (
            "not yet",
            json!({}),
            json!({}),
            vec![],
            vec![],
            "05:45:00",
            "active ; again 900".to_owned(),
        ),
        (
            "due",
            json!({}),
            json!({"lastScheduleTime": at("09:00:00")}),
            vec![],
            vec![],
            "10:00:01",
            format!("start {name} ; active ; again 3599"),
        ),
        (
            "started before",
            json!({}),
            json!({"lastScheduleTime": at("10:00:00")}),
            vec![],
            vec![],
            "10:00:01",
            "active ; again 3599".to_owned(),
        ),
        (
            "missed some",
            json!({}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            format!("start {name} ; active ; again 3599"),
        ),
        (
            "suspended",
            json!({"suspend": true}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            "active ; never".to_owned(),
        ),
        (
            "too late",
            late,
            json!({}),
            vec![],
            vec![],
            "10:00:09",
            "active ; again 3591".to_owned(),
        ),
        (
            "beside another",
            json!({}),
            recent.clone(),
            vec!["x running"],
            vec![],
            "10:00:01",
            format!("start {name} ; active x; again 3599"),
        ),
        (
            "not beside another",
            json!({"concurrencyPolicy": "Forbid"}),
            recent.clone(),
            vec!["x running"],
            vec![],
            "10:00:01",
            "JobAlreadyActive; active x; again 3599".to_owned(),
        ),
        (
            "instead of another",
            json!({"concurrencyPolicy": "Replace"}),
            recent.clone(),
            vec!["x running"],
            vec![],
            "10:00:01",
            format!("start {name} x; active x; again 3599"),
        ),
        (
            "after another",
            json!({"concurrencyPolicy": "Forbid"}),
            recent.clone(),
            vec!["x complete 09:00:00"],
            vec![],
            "10:00:01",
            format!("SawCompletedJob; start {name} ; active ; again 3599"),
        ),
        (
            "one went missing",
            json!({}),
            recent.clone(),
            vec![],
            vec!["x"],
            "09:30:00",
            "MissingJob; active ; again 1800".to_owned(),
        ),
        (
            "one that nobody started",
            json!({}),
            json!({"lastScheduleTime": at("09:00:00")}),
            vec!["y running"],
            vec![],
            "09:30:00",
            "UnexpectedJob; active ; again 1800".to_owned(),
        ),
        (
            "no such zone",
            json!({"timeZone": "Nowhere/None"}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            "UnknownTimeZone; active ; never".to_owned(),
        ),
        (
            "no such day",
            json!({"schedule": "0 0 31 2 *"}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            "InvalidSchedule; active ; never".to_owned(),
        ),
        (
            "no schedule",
            json!({"schedule": "soon"}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            "UnparseableSchedule; active ; never".to_owned(),
        ),
        (
            "many missed",
            json!({"schedule": "* * * * *"}),
            json!({}),
            vec![],
            vec![],
            "10:00:01",
            format!("TooManyMissedTimes; start {name} ; active ; again 59"),
        ),
    ];
    for (situation, spec, status, jobs, gone, now, expected) in cases {
        let jobs: Vec<Arc<Job>> = jobs.into_iter().map(job).collect();
        let gone: HashSet<String> = gone.into_iter().map(str::to_owned).collect();
        let mut spec = spec;
        spec.as_object_mut().unwrap().entry("timeZone").or_insert(json!("UTC"));
        let observed = Observed {
            cron_job: &cron_job(spec, status),
            jobs: &jobs,
            gone: &gone,
            now: at(now).parse().unwrap(),
        };
        assert_eq!(shown(&plan(observed)), expected, "{situation}");
    }
}

#[test]
fn the_job_of_a_start_and_the_texts() {
    let zoned = cron_job(
        json!({"timeZone": "Europe/Berlin"}),
        json!({"lastScheduleTime": at("09:00:00")}),
    );
    let observed = Observed {
        cron_job: &zoned,
        jobs: &[],
        gone: &HashSet::new(),
        now: at("10:00:01").parse().unwrap(),
    };
    let job = plan(observed).start.unwrap().job;
    let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "cj", "uid": "cj", "controller": true, "blockOwnerDeletion": true}]);
    let expected = json!({"name": "cj-28575960", "namespace": "n", "labels": {"a": "b"}, "ownerReferences": owner,
        "annotations": {"c": "d", "batch.kubernetes.io/cronjob-scheduled-timestamp": "2024-05-01T12:00:00+02:00"}});
    assert_eq!(serde_json::to_value(&job.metadata).unwrap(), expected);
    assert_eq!(job.spec.unwrap().backoff_limit, Some(3));

    let ended = cron_job(
        json!({"suspend": true}),
        json!({"active": active(&["x"]), "lastSuccessfulTime": at("08:00:00")}),
    );
    let jobs = [self::job("x complete 09:00:00"), self::job("w complete 07:00:00")];
    let plan = plan(Observed {
        cron_job: &ended,
        jobs: &jobs,
        ..observed
    });
    let message = "Saw completed job: x, condition: Complete".to_owned();
    assert_eq!(plan.notices, [(Level::Normal, "SawCompletedJob", message)]);
    assert_eq!(
        serde_json::to_value(&plan.status).unwrap(),
        json!({"lastSuccessfulTime": at("09:00:00")})
    );
}

#[test]
fn the_oldest_go() {
    let jobs: Vec<Arc<Job>> = [
        "a complete 03:00:00",
        "b complete 01:00:00",
        "c complete 02:00:00",
        "d failed 01:00:00",
        "e failed",
        "f running 00:00:00",
        "g complete 04:00:00",
        "h complete 01:00:00",
    ]
    .into_iter()
    .map(job)
    .collect();
    let outdated = outdated(&cron_job(json!({}), json!({})), &jobs);
    let names: Vec<&str> = outdated.iter().filter_map(|job| job.metadata.name.as_deref()).collect();
    assert_eq!(names, ["b", "h", "d"]);
}

/// A day of a CronJob, in which Jobs take their time, views lag, the controller stops between a start and its note, and
/// is away for hours (but not right after it stopped there): no start happens twice, none while another runs if that is forbidden, and none is left out that
/// was due when the controller was there.
#[test]
fn a_day_with_trouble() {
    for seed in 1_u64..=200 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |sides: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % sides
        };
        let policy = ["Allow", "Forbid", "Replace"][roll(3) as usize];
        let mut cron_job = cron_job(
            json!({"schedule": "*/10 * * * *", "timeZone": "UTC", "concurrencyPolicy": policy}),
            json!({}),
        );
        let mut now: Timestamp = at("05:30:00").parse().unwrap();
        let (mut jobs, mut started): (Vec<Arc<Job>>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
        let mut view: Vec<Arc<Job>> = Vec::new();
        for _ in 0..300 {
            let outcome = plan(Observed {
                cron_job: &cron_job,
                jobs: &view,
                gone: &HashSet::new(),
                now,
            });
            let mut status = outcome.status;
            let mut crashed = false;
            if let Some(start) = outcome.start {
                jobs.retain(|job| !start.replaces.iter().any(|replaced| replaced.name == job.metadata.name));
                start
                    .replaces
                    .iter()
                    .for_each(|replaced| super::plan::drop_active(&mut status, replaced.uid.as_ref()));
                let name = start.job.metadata.name.clone().unwrap();
                let mut made = start.job.clone();
                made.metadata.uid = Some(name.clone());
                // The name is the lock: one that exists is taken over.
                if started.insert(name.clone()) {
                    jobs.push(Arc::new(made.clone()));
                }
                crashed = roll(5) == 0;
                let runs = jobs.iter().any(|job| job.metadata.name.as_ref() == Some(&name));
                if runs {
                    add_active(&mut status, &made, start.at);
                }
                let running = jobs
                    .iter()
                    .filter(|job| super::super::job::conditions::finished(job).is_none())
                    .count();
                assert!(
                    policy == "Allow" || running <= 1,
                    "seed {seed}: {running} run with {policy}"
                );
            }
            if !crashed {
                cron_job.status = Some(status);
            }
            for job in &mut jobs {
                if roll(4) == 0 {
                    let mut ended = (**job).clone();
                    let done = json!({"conditions": [{"type": "Complete", "status": "True"}], "completionTime": now.to_string()});
                    ended.status = Some(serde_json::from_value(done).unwrap());
                    *job = Arc::new(ended);
                }
            }
            view = jobs.clone();
            let away = if !crashed && roll(20) == 0 { 4 * 3600 } else { 0 };
            let wait = if crashed {
                1
            } else {
                outcome.again.map_or(60, |again| again.as_secs() + 1)
            };
            now += SignedDuration::from_secs(wait + away);
        }
        assert!(
            started.len() > 30,
            "seed {seed}: only {} starts with {policy}",
            started.len()
        );
    }
}
