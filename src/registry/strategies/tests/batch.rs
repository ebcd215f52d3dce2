//! Jobs, CronJobs, StatefulSets and autoscalers.

use super::{create, kind, table, update, workload};
use serde_json::{Value, json};

/// A Job's spec that is fine, with `more`.
fn job(more: &Value) -> Value {
    let mut job = workload(|spec| {
        spec["selector"].take();
        spec["template"]["spec"]["restartPolicy"] = json!("Never");
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        job["spec"][field] = value.clone();
    }
    job
}

fn failure(rule: Value) -> Value {
    job(&json!({"podFailurePolicy": {"rules": [rule]}}))
}

#[test]
fn jobs_are_checked() {
    let indexed = |more: Value| {
        let mut all = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 2});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        job(&all)
    };
    table(
        &kind("batch", "v1", "jobs"),
        vec![
            (job(&json!({})), ""),
            (
                job(&json!({"parallelism": -1})),
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            ),
            (job(&json!({"completionMode": "Indexed"})), ""),
            (job(&json!({"completionMode": "Other"})), {
                "spec.completionMode: Unsupported value: \"Other\": supported values: \"NonIndexed\", \"Indexed\""
            }),
            (job(&json!({"backoffLimitPerIndex": 1})), {
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"
            }),
            (indexed(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 4})), {
                "spec.maxFailedIndexes: Invalid value: 4: must be less than or equal to completions"
            }),
            (indexed(json!({"maxFailedIndexes": 1})), {
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"
            }),
            (job(&json!({"managedBy": "kueue"})), {
                "spec.managedBy: Invalid value: \"kueue\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            }),
            (failure(json!({"action": "Count"})), {
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
            }),
            (
                failure(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}})),
                {
                    "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"
                },
            ),
            (
                failure(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}})),
                { "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,1]: must be ordered" },
            ),
            (
                failure(json!({"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget"}]})),
                {
                    "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set"
                },
            ),
            (
                failure(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})),
                "",
            ),
            (job(&json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})), {
                "spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed completion mode"
            }),
            (
                indexed(json!({"successPolicy": {"rules": [{"succeededIndexes": "0-2"}]}})),
                "",
            ),
            (indexed(json!({"successPolicy": {"rules": [{}]}})), {
                "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be \
             specified"
            }),
        ],
    );
}

#[test]
fn jobs_stay_what_they_are() {
    let jobs = kind("batch", "v1", "jobs");
    let (created, errors) = create(&jobs, &job(&json!({})));
    assert_eq!(errors, Vec::<String>::new());
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut new = created.clone();
        edit(&mut new);
        update(&jobs, &new, &created)
    };
    assert_eq!(
        edited(&|job| job["spec"]["parallelism"] = json!(4)),
        Vec::<String>::new()
    );
    assert_eq!(
        edited(&|job| job["spec"]["suspend"] = json!(true)),
        Vec::<String>::new()
    );
    let errors = edited(&|job| job["spec"]["completions"] = json!(4));
    assert_eq!(errors, ["spec.completions: Invalid value: 4: field is immutable"]);
    let errors = edited(&|job| job["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other"));
    assert!(
        errors.len() == 1
            && errors[0].starts_with("spec.template: Invalid value: {")
            && errors[0].ends_with("}: field is immutable"),
        "{errors:?}"
    );
}

#[test]
fn cron_jobs_are_checked() {
    let cron = |schedule: &str, zone: Option<&str>| {
        let mut cron = json!({"metadata": {"name": "a"}, "spec": {"schedule": schedule, "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}},
        }}}});
        if let Some(zone) = zone {
            cron["spec"]["timeZone"] = json!(zone);
        }
        cron
    };
    let zoned = "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone \
        field instead";
    table(
        &kind("batch", "v1", "cronjobs"),
        vec![
            (cron("*/5 0-4,8 1 jan-MAR ?", Some("Europe/Berlin")), ""),
            (cron("@every 1h30m", None), ""),
            (cron("", None), "spec.schedule: Required value"),
            (cron("* * * *", None), {
                "spec.schedule: Invalid value: \"* * * *\": expected exactly 5 fields, found 4: [* * * *]"
            }),
            (cron("60 * * * *", None), {
                "spec.schedule: Invalid value: \"60 * * * *\": end of range (60) above maximum (59): 60"
            }),
            (cron("a * * * *", None), {
                "spec.schedule: Invalid value: \"a * * * *\": failed to parse int from a: strconv.Atoi: parsing \"a\": invalid \
             syntax"
            }),
            (cron("5-1 * * * *", None), {
                "spec.schedule: Invalid value: \"5-1 * * * *\": beginning of range (5) beyond end of range (1): 5-1"
            }),
            (cron("*/0 * * * *", None), {
                "spec.schedule: Invalid value: \"*/0 * * * *\": step of range should be a positive number: */0"
            }),
            (
                cron("@often", None),
                "spec.schedule: Invalid value: \"@often\": unrecognized descriptor: @often",
            ),
            (cron("TZ=UTC 0 * * * *", None), zoned),
            (cron("@daily", Some("Mars/Olympus")), {
                "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"
            }),
            (cron("@daily", Some("")), {
                "spec.timeZone: Invalid value: \"\": timeZone must be nil or non-empty string"
            }),
            (cron("@daily", Some("Local")), {
                "spec.timeZone: Invalid value: \"Local\": timeZone must be an explicit time zone as defined in \
             https://www.iana.org/time-zones"
            }),
        ],
    );
    let cron_jobs = kind("batch", "v1", "cronjobs");
    assert_eq!(
        cron_jobs.strategy.validate_name(&"a".repeat(53), false),
        ["must be no more than 52 characters"]
    );
}

#[test]
fn stateful_and_daemon_sets_are_checked() {
    let sets = kind("apps", "v1", "statefulsets");
    let claims = workload(|spec| {
        spec["serviceName"] = json!("s");
        spec["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        spec["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}]);
    });
    table(
        &sets,
        vec![
            (claims.clone(), ""),
            (workload(|spec| spec["podManagementPolicy"] = json!("Other")), {
                "spec.podManagementPolicy: Invalid value: \"Other\": must be 'OrderedReady' or 'Parallel'"
            }),
            (workload(|spec| spec["ordinals"] = json!({"start": -1})), {
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"
            }),
            (
                workload(|spec| spec["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": 0}})),
                { "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0" },
            ),
        ],
    );
    let (created, _) = create(&sets, &claims);
    let claim = &created["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    assert_eq!(claim["status"]["phase"], "Pending");
    table(
        &kind("apps", "v1", "daemonsets"),
        vec![
            (workload(|_| {}), ""),
            (
                workload(|spec| {
                    spec["updateStrategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}})
                }),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
        ],
    );
}

#[test]
fn autoscalers_are_checked() {
    let scaler = |more: Value| {
        let mut spec =
            json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}, "maxReplicas": 3});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"metadata": {"name": "a"}, "spec": spec})
    };
    let cpu = |target: Value| {
        scaler(json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}))
    };
    let scalers = kind("autoscaling", "v2", "horizontalpodautoscalers");
    table(
        &scalers,
        vec![
            (scaler(json!({})), ""),
            (scaler(json!({"minReplicas": 4})), {
                "spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"
            }),
            (scaler(json!({"maxReplicas": 0})), {
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`\nspec.maxReplicas: Required \
             value"
            }),
            (scaler(json!({"minReplicas": 0})), {
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero \
             replicas"
            }),
            (scaler(json!({"minReplicas": -1})), {
                "spec.minReplicas: Invalid value: -1: must be greater than or equal to 0"
            }),
            (
                scaler(json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "Deployment", "name": "a"}})),
                "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API group",
            ),
            (
                scaler(json!({"scaleTargetRef": {"apiVersion": "v1", "kind": "ReplicationController", "name": "a"}})),
                "",
            ),
            (cpu(json!({"type": "Utilization", "averageUtilization": 50})), ""),
            (cpu(json!({"type": "Utilization"})), {
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a \
             target utilization"
            }),
            (cpu(json!({"type": "AverageValue", "averageValue": "-1"})), {
                "spec.metrics[0].resource.target.averageValue: Invalid value: \"-1\": must be positive"
            }),
            (
                scaler(json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000}}})),
                {
                    "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600"
                },
            ),
            (
                scaler(
                    json!({"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}}),
                ),
                {
                    "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero\n\
             spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
                },
            ),
        ],
    );
    let (created, _) = create(&scalers, &scaler(json!({})));
    assert_eq!(created["spec"]["minReplicas"], 1);
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
    assert_eq!(created["spec"]["metrics"], json!([metric]));
}

#[test]
fn statuses_of_jobs_are_checked() {
    let jobs = kind("batch", "v1", "jobs");
    let (created, _) = create(
        &jobs,
        &json!({
            "metadata": {"name": "j", "uid": "u"},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
        }),
    );
    let with = |status: &Value| {
        let mut job = created.clone();
        job["status"] = status.clone();
        super::object(&job)
    };
    let check = |new: &Value, old: &Value| -> String {
        let target = crate::registry::strategy::Target::Status;
        let errors = jobs.strategy.validate_update(&with(new), &with(old), target);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        errors.join("\n")
    };
    let conditions = |kinds: &[&str]| -> Value {
        kinds
            .iter()
            .map(|kind| json!({"type": kind, "status": "True"}))
            .collect()
    };
    let started = json!({"startTime": "2026-01-01T00:00:00Z"});
    let and = |more: Value| {
        let mut status = started.clone();
        status
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap());
        status
    };
    let complete = and(json!({
        "conditions": conditions(&["SuccessCriteriaMet", "Complete"]), "completionTime": "2026-01-01T00:01:00Z", "succeeded": 1,
    }));
    let failed = and(json!({"conditions": conditions(&["FailureTarget", "Failed"])}));
    for good in [&started, &complete, &failed] {
        assert_eq!(check(good, &started), "");
        assert_eq!(check(good, good), "");
    }
    let cases = [
        (
            and(json!({"conditions": conditions(&["Failed"])})),
            started.clone(),
            "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            and(json!({"conditions": conditions(&["Complete", "SuccessCriteriaMet"])})),
            started.clone(),
            "status.completionTime: Required value: completionTime is required for Complete jobs",
        ),
        (
            and(json!({"completionTime": "2026-01-01T00:01:00Z"})),
            started.clone(),
            "status.completionTime: Invalid value: \"2026-01-01T00:01:00Z\": cannot set completionTime when there is no \
             Complete=True condition",
        ),
        (
            and(json!({"active": 1, "ready": 2})),
            started.clone(),
            "status.ready: Invalid value: 2: cannot set more ready pods than active",
        ),
        (
            and(json!({"failed": 1})),
            and(json!({"failed": 2})),
            "status.failed: Invalid value: 1: cannot decrease the failed counter",
        ),
        (
            and(json!({"completedIndexes": "1"})),
            started.clone(),
            "status.completedIndexes: Invalid value: \"1\": error parsing completedIndexes: too large index: \"1\"\n\
             status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed \
             completion mode",
        ),
        (
            json!({}),
            started.clone(),
            "status.startTime: Required value: startTime cannot be removed for unsuspended job",
        ),
        (
            and(json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}})),
            started.clone(),
            "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
        ),
    ];
    for (new, old, expected) in &cases {
        assert_eq!(check(new, old), *expected);
    }
}
