//! Workloads with pods that run on a real Docker engine, as users of every kubectl drive them: Jobs and CronJobs by
//! hand, roll-outs and their way back, nodes that are emptied.

use crate::SLEEPER;
use crate::support::dockerd;
use crate::support::krust::Krust;
use crate::support::kubectl::{Kubectl, VERSIONS};
use std::time::{Duration, Instant};

/// Runs `test` with each of the versions, in a namespace that goes with all that is in it.
fn each(versions: &[&str], test: impl Fn(&User)) {
    let docker = dockerd::shared();
    let settings = [("KRUST_RUNTIME__DOCKER_HOST", docker.endpoint.as_str())];
    let krust = Krust::start_with(&["--runtime", "docker"], &settings);
    for version in versions {
        let user = User {
            kubectl: krust.kubectl(version),
            namespace: format!("v{}", version.replace('.', "-")),
        };
        user.kubectl.wait_for_node();
        user.kubectl.ok(&["create", "namespace", &user.namespace]);
        test(&user);
        user.kubectl
            .ok(&["delete", "namespace", &user.namespace, "--timeout=90s"]);
    }
}

struct User {
    kubectl: Kubectl,
    namespace: String,
}

impl User {
    fn all<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        ["-n", self.namespace.as_str()]
            .iter()
            .chain(arguments)
            .copied()
            .collect()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        self.kubectl.ok(&self.all(arguments))
    }

    /// The words of a command that must succeed.
    fn says(&self, command: &str) -> String {
        self.ok(&command.split_whitespace().collect::<Vec<_>>())
    }

    fn apply(&self, manifest: &str) {
        self.kubectl.ok_with(&self.all(&["apply", "-f", "-"]), manifest);
    }

    /// stderr of a command that must fail.
    fn fails(&self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        self.kubectl.fails_with(&self.all(&words), "")
    }

    /// Waits until the command prints lines with all of this, words apart by one space.
    fn until(&self, command: &str, wanted: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let printed = self.says(command);
            let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let lines: Vec<String> = printed.lines().map(squeezed).collect();
            let missing = wanted
                .iter()
                .find(|part| !lines.iter().any(|line| line.contains(**part)));
            let Some(missing) = missing else { return };
            assert!(Instant::now() < deadline, "{command}: no {missing:?} in {printed}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `kubectl create KIND` of what runs a script.
    fn create(&self, what: &str, script: &str) {
        let mut words: Vec<&str> = vec!["create"];
        words.extend(what.split_whitespace());
        words.extend(["--image=busybox:test", "--", "sh", "-c", script]);
        self.ok(&words);
    }
}

fn job(name: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  template:\n    spec:\n      restartPolicy: \
         Never\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: main, image: 'busybox:test', command: \
         [sh, -c, '{script}']}}]\n{more}"
    )
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn jobs_end_as_they_should() {
    each(VERSIONS, |user| {
        user.create("job one", "echo hello");
        user.says("wait job/one --for=condition=complete --timeout=60s");
        assert_eq!(user.says("logs job/one"), "hello\n");
        user.until(
            "describe job one",
            &[
                "Pods Statuses: 0 Active (0 Ready) / 1 Succeeded / 0 Failed",
                "Completed At: ",
                "Normal SuccessfulCreate",
                "job-controller Created pod: one-",
                "Normal Completed",
                "job-controller Job completed",
            ],
        );
        let indexed = "  completionMode: Indexed\n  completions: 4\n  parallelism: 2\n  backoffLimitPerIndex: 0\n  \
                       podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [42]}}]}\n";
        user.apply(&job("idx", "exit $((JOB_COMPLETION_INDEX == 1 ? 42 : 0))", indexed));
        user.apply(&job("fails", "exit 3", "  backoffLimit: 0\n"));
        user.apply(&job("late", "sleep 1000", "  activeDeadlineSeconds: 2\n"));
        let enough = "  completionMode: Indexed\n  completions: 2\n  parallelism: 2\n  successPolicy: {rules: \
                      [{succeededIndexes: \"0\"}]}\n";
        let script = "if [ $JOB_COMPLETION_INDEX = 1 ]; then sleep 1000; fi";
        user.apply(&job("enough", script, enough));
        for (name, condition, expected) in [
            (
                "idx",
                "failed",
                [
                    "Completed Indexes: 0,2,3",
                    "Warning FailedIndexes",
                    "Job has failed indexes",
                ],
            ),
            (
                "fails",
                "failed",
                [
                    "0 Succeeded / 1 Failed",
                    "Warning BackoffLimitExceeded",
                    "Job has reached the specified backoff limit",
                ],
            ),
            (
                "late",
                "failed",
                [
                    "Normal SuccessfulDelete",
                    "Warning DeadlineExceeded",
                    "Job was active longer than specified deadline",
                ],
            ),
            (
                "enough",
                "complete",
                ["Completed Indexes: 0", "Normal SuccessfulDelete", "Job completed"],
            ),
        ] {
            user.says(&format!("wait job/{name} --for=condition={condition} --timeout=60s"));
            user.until(&format!("describe job {name}"), &expected);
        }
    });
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn old_jobs_of_a_cron_job_go() {
    // Those that older ones make by hand are not controlled by the CronJob.
    each(&["1.30", "1.37"], |user| {
        user.apply(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: cron}\nspec:\n  schedule: '0 0 1 1 *'\n  suspend: \
             true\n  successfulJobsHistoryLimit: 1\n  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, \
             containers: [{name: main, image: 'busybox:test', command: [sh, -c, 'echo by hand']}]}}}}\n",
        );
        for name in ["first", "second"] {
            user.says(&format!("create job {name} --from=cronjob/cron"));
            user.says(&format!("wait job/{name} --for=condition=complete --timeout=60s"));
        }
        user.says("wait job/first --for=delete --timeout=60s");
        assert_eq!(user.says("get jobs -o name"), "job.batch/second\n");
        user.until(
            "describe cronjob cron",
            &[
                "Successful Job History Limit: 1",
                "Warning UnexpectedJob",
                "cronjob-controller Saw a job that the controller did not create or forgot: second",
                "Normal SuccessfulDelete",
                "cronjob-controller Deleted job first",
            ],
        );
    });
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn roll_outs_and_back() {
    each(VERSIONS, |user| {
        user.create("deployment web --replicas=2", SLEEPER);
        let rolled_out = || {
            let status = user.says("rollout status deployment/web --timeout=90s");
            assert!(
                status.ends_with("deployment \"web\" successfully rolled out\n"),
                "{status}"
            );
        };
        rolled_out();
        user.says("set image deployment/web busybox=registry.invalid/nothing:1");
        let error = user.fails("rollout status deployment/web --timeout=1s");
        assert!(error.contains("timed out"), "{error}");
        // What runs is left alone, as the new ones do not come.
        let available = user.says("get deployment web -o jsonpath={.status.availableReplicas}");
        assert_eq!(available, "2");
        user.says("rollout undo deployment/web");
        rolled_out();
        user.until("rollout history deployment/web", &["2 <none>", "3 <none>"]);
        user.says("rollout restart deployment/web");
        rolled_out();
        user.says("scale deployment web --replicas=3");
        user.says("wait deployment/web --for=jsonpath={.status.readyReplicas}=3 --timeout=60s");
        user.until(
            "describe deployment web",
            &[
                "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
                "Progressing True NewReplicaSetAvailable",
                "Available True MinimumReplicasAvailable",
                "deployment-controller Scaled up replica set web-",
            ],
        );
        user.says("delete deployment web --cascade=orphan");
        let left = user.says("get pods -l app=web -o name");
        assert_eq!(left.lines().count(), 3, "{left}");
        user.says("delete replicaset -l app=web --cascade=foreground --timeout=60s");
        assert_eq!(user.says("get pods -l app=web -o name"), "");
    });
}

#[test]
#[ignore = "needs kubectl and dockerd"]
fn a_node_is_drained() {
    each(&["1.27", "1.37"], |user| {
        let node = user.says("get nodes -o jsonpath={.items[0].metadata.name}");
        user.create("deployment web --replicas=2", SLEEPER);
        user.ok(&["run", "alone", "--image=busybox:test", "--", "sh", "-c", SLEEPER]);
        user.apply(&format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: agent}}\nspec:\n  selector: {{matchLabels: {{app: \
             agent}}}}\n  template:\n    metadata: {{labels: {{app: agent}}}}\n    spec:\n      containers: [{{name: \
             main, image: 'busybox:test', command: [sh, -c, {SLEEPER:?}]}}]\n"
        ));
        user.says("create poddisruptionbudget web --selector=app=web --min-available=2");
        user.says("rollout status deployment/web --timeout=90s");
        user.says("rollout status daemonset/agent --timeout=90s");
        user.says("wait pod/alone --for=condition=Ready --timeout=60s");
        user.says("wait pdb/web --for=jsonpath={.status.currentHealthy}=2 --timeout=60s");
        let error = user.fails(&format!("drain {node}"));
        for part in [
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): ",
            " declare no controller (use --force to override): ",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let error = user.fails(&format!("drain {node} --ignore-daemonsets --force --timeout=4s"));
        assert!(
            error.contains("Cannot evict pod as it would violate the pod's disruption budget."),
            "{error}"
        );
        user.says("wait pod/alone --for=delete --timeout=60s");
        assert_eq!(
            user.says("get pods -l app=web --field-selector=status.phase=Running -o name")
                .lines()
                .count(),
            2
        );
        user.says("delete pdb web");
        let said = user.says(&format!("drain {node} --ignore-daemonsets --force --timeout=90s"));
        assert!(said.ends_with(&format!("node/{node} drained\n")), "{said}");
        // The new ones find no node, and the daemon stays.
        user.says("wait pod -l app=web --for=condition=PodScheduled=false --timeout=60s");
        assert_eq!(
            user.says("get pods -l app=agent --field-selector=status.phase=Running -o name")
                .lines()
                .count(),
            1
        );
        user.says(&format!("uncordon {node}"));
        user.says("rollout status deployment/web --timeout=90s");
    });
}
