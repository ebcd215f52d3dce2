//! Jobs by hand and by the clock, as far as no pod must run, and what an autoscaler says without metrics.

use super::{Session, each};

const CRON_JOB: &str = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: NAME}
spec:
  schedule: 'SCHEDULE'
  timeZone: ZONE
  suspend: SUSPEND
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: 'registry.example/app:1'}]
";

/// A Job with more fields.
fn job(name: &str, more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{{more}, template: {{spec: {{restartPolicy: \
         Never, containers: [{{name: main, image: 'registry.example/app:1'}}]}}}}}}\n"
    )
}

fn cron_job(name: &str, schedule: &str, zone: &str, suspend: bool) -> String {
    CRON_JOB
        .replace("NAME", name)
        .replace("SCHEDULE", schedule)
        .replace("ZONE", zone)
        .replace("SUSPEND", &suspend.to_string())
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn schedules_and_zones() {
    each(|s| {
        let apply = "apply -f -";
        let berlin = cron_job("berlin", "0 8 * * *", "Europe/Berlin", false);
        s.prints_with(&berlin, apply, "cronjob.batch/berlin created");
        assert_eq!(s.at("cronjob/berlin", ".spec.timeZone"), "Europe/Berlin");
        for (schedule, zone, expected) in [
            (
                "0 8 * * *",
                "Mars/Base",
                r#"spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base"#,
            ),
            (
                "0 8 * * *",
                "Local",
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
                 https://www.iana.org/time-zones",
            ),
            (
                "61 8 * * *",
                "UTC",
                r#"spec.schedule: Invalid value: "61 8 * * *": end of range (61) above maximum (59): 61"#,
            ),
        ] {
            let expected = format!("The CronJob \"wrong\" is invalid: {expected}");
            s.fails_with(&cron_job("wrong", schedule, zone, false), apply, &expected);
        }
    });
}

/// The last start is long ago: of many that were missed only the last is made up for.
#[test]
#[ignore = "needs the kubectl binaries"]
fn missed_starts() {
    each(|s| {
        s.out_with(&cron_job("late", "0 * * * *", "Asia/Tokyo", true), "apply -f -");
        let long_ago = r#"{"status":{"lastScheduleTime":"2026-01-01T00:00:00Z"}}"#;
        s.out(&format!(
            "patch cronjob late --subresource=status --type=merge -p '{long_ago}'"
        ));
        s.out("patch cronjob late -p '{\"spec\":{\"suspend\":false}}'");
        s.out("wait cronjob/late --for=jsonpath='{.status.active[0].kind}'=Job --timeout=60s");
        let job = s.at("cronjob/late", ".status.active[0].name");
        let scheduled = r".metadata.annotations.batch\.kubernetes\.io/cronjob-scheduled-timestamp";
        let scheduled = s.at(&format!("job/{job}"), scheduled);
        assert!(scheduled.ends_with("00:00+09:00"), "{scheduled}");
        s.until(
            "describe cronjob late",
            &[
                "Warning TooManyMissedTimes",
                "cronjob-controller too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check \
                 clock skew",
                &format!("cronjob-controller Created job {job}"),
            ],
        );
        s.out("delete cronjob late --cascade=foreground --timeout=60s");
        s.out(&format!("wait job/{job} --for=delete --timeout=60s"));
    });
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn suspended_jobs() {
    each(|s| {
        s.out_with(&job("still", "suspend: true"), "create -f -");
        s.out("wait job/still --for=condition=Suspended --timeout=60s");
        s.until(
            "describe job still",
            &[
                "Pods Statuses: 0 Active (0 Ready) / 0 Succeeded / 0 Failed",
                "job-controller Job suspended",
            ],
        );
        assert_eq!(s.at("job/still", ".status.startTime"), "");
        s.out("patch job still -p '{\"spec\":{\"suspend\":false}}'");
        s.out("wait job/still --for=jsonpath='{.status.active}'=1 --timeout=60s");
        s.until(
            "describe job still",
            &[
                "Pods Statuses: 1 Active (0 Ready) / 0 Succeeded / 0 Failed",
                "job-controller Created pod: still-",
                "job-controller Job resumed",
            ],
        );
        s.out("delete job still --cascade=foreground --timeout=60s");
        s.prints("get pods -l job-name=still -o name", "");
    });
}

/// What finished is deleted with all that is its own, once its time is over.
#[test]
#[ignore = "needs the kubectl binaries"]
fn finished_jobs_live_on_for_a_time() {
    each(|s| {
        let brief = job("brief", "ttlSecondsAfterFinished: 1, activeDeadlineSeconds: 1");
        s.out_with(&brief, "create -f -");
        s.out("wait job/brief --for=delete --timeout=60s");
        s.prints("get pods -l job-name=brief -o name", "");
        let events = s.out("get events --field-selector involvedObject.name=brief -o jsonpath='{.items[*].reason}'");
        assert!(events.contains("DeadlineExceeded"), "{events}");
    });
}

fn without_metrics(s: &Session) {
    s.out("create deployment busy --image=registry.example/app:1 --replicas=2");
    s.out("autoscale deployment busy --min=2 --max=6 --cpu-percent=50");
    s.out("wait hpa/busy --for=condition=ScalingActive=false --timeout=60s");
    let problem = "failed to get cpu utilization: unable to get metrics for resource cpu: ";
    s.until(
        "describe hpa busy",
        &[
            "AbleToScale True SucceededGetScale the HPA controller was able to get the target's current scale",
            &format!(
                "ScalingActive False FailedGetResourceMetric the HPA was unable to compute the replica count: {problem}"
            ),
            &format!("horizontal-pod-autoscaler {problem}"),
            "Warning FailedComputeMetricsReplicas",
            "horizontal-pod-autoscaler invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource \
             metric value: failed to get cpu utilization",
        ],
    );
    assert_eq!(s.at("deployment/busy", ".spec.replicas"), "2");
}

#[test]
#[ignore = "needs the kubectl binaries"]
fn autoscalers_say_what_they_lack() {
    each(without_metrics);
}

/// Pods of a node that never was are failed and deleted, after a time in which it may come.
#[test]
#[ignore = "needs the kubectl binaries"]
fn pods_of_lost_nodes_are_collected() {
    super::sessions(&["1.37"], |s| {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: lost, finalizers: [example.com/stay]}\nspec: {nodeName: \
                   nowhere, containers: [{name: main, image: 'registry.example/app:1'}]}\n";
        s.out_with(pod, "create -f -");
        s.out("wait pod/lost --for=jsonpath='{.status.phase}'=Failed --timeout=120s");
        for (field, expected) in [
            ("reason", "DeletionByPodGC"),
            ("message", "PodGC: node no longer exists"),
        ] {
            let path = format!(".status.conditions[?(@.type==\"DisruptionTarget\")].{field}");
            assert_eq!(s.at("pod/lost", &path), expected);
        }
        s.out("wait pod/lost --for=jsonpath='{.metadata.deletionGracePeriodSeconds}'=0 --timeout=60s");
        s.out("patch pod lost --type=merge -p '{\"metadata\":{\"finalizers\":null}}'");
        s.out("wait pod/lost --for=delete --timeout=60s");
    });
}
