//! Situations of deployments, and what is done about them.

use super::plan::{self, Observed, Plan, plan};
use super::replica_sets::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, ROLLBACK_TO, replicas};
use super::status;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

pub fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    })
}

/// One with 10 replicas, surge 3, unavailability 2, on image `b`; `more` is merged over its spec.
fn deployment(more: Value) -> Deployment {
    let mut spec = json!({
        "replicas": 10, "selector": {"matchLabels": {"app": "web"}}, "template": template("b"),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}},
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let meta = json!({"namespace": "n", "name": "web", "uid": "d", "generation": 2, "annotations": {"team": "a"}});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

/// A set of image `image`, whose name that is, too: wanted, existing and available pods.
fn set(image: &str, revision: i64, counts: (i32, i32, i32)) -> ReplicaSet {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(image);
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "n", "name": image, "uid": image, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
            "annotations": {REVISION: revision.to_string(), DESIRED_REPLICAS: "10", MAX_REPLICAS: "13", "team": "a"},
        },
        "spec": {"replicas": counts.0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        "status": {
            "replicas": counts.1, "readyReplicas": counts.2, "availableReplicas": counts.2,
            "observedGeneration": 1, "terminatingReplicas": 0,
        },
    }))
    .unwrap()
}

fn decide(deployment: &Deployment, sets: Vec<ReplicaSet>) -> Plan {
    decide_at(deployment, sets, now())
}

fn decide_at(deployment: &Deployment, sets: Vec<ReplicaSet>, now: Timestamp) -> Plan {
    let sets: Vec<Arc<ReplicaSet>> = sets.into_iter().map(Arc::new).collect();
    let with_pods = BTreeSet::new();
    let observed = Observed {
        deployment,
        sets: &sets,
        with_pods,
    };
    plan(&observed, now)
}

/// What is done with sets, as text.
fn actions(plan: &Plan) -> Vec<String> {
    let updates = plan
        .update
        .iter()
        .map(|update| format!("{} {}>{}", update.set.name_any(), update.from, replicas(&update.set)));
    let creation = plan.create.iter().map(|set| format!("create {}", replicas(set)));
    let deletions = plan.delete.iter().map(|set| format!("delete {}", set.name_any()));
    updates.chain(creation).chain(deletions).collect()
}

fn status_of(plan: &Plan) -> DeploymentStatus {
    plan.status.clone().expect("a new status").status.unwrap()
}

fn progress(plan: &Plan) -> (String, String, String) {
    let status = status_of(plan);
    let condition = status::condition(&status, status::PROGRESSING)
        .expect("the condition")
        .clone();
    let text = |text: Option<String>| text.unwrap_or_default();
    (text(condition.status), text(condition.reason), text(condition.message))
}

#[test]
fn sizes_in_the_course_of_an_update() {
    let rolling = json!({});
    let recreate = json!({"strategy": {"type": "Recreate"}});
    let paused = json!({"paused": true});
    for (name, more, sets, expected) in [
        ("nothing is there", &rolling, vec![], vec!["create 10"]),
        (
            "a new template",
            &rolling,
            vec![set("a", 1, (10, 10, 10))],
            vec!["create 3"],
        ),
        (
            "old pods make room",
            &rolling,
            vec![set("a", 1, (10, 10, 10)), set("b", 2, (3, 3, 0))],
            vec!["a 10>8"],
        ),
        (
            "room is used",
            &rolling,
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (3, 3, 0))],
            vec!["b 3>5"],
        ),
        (
            "new pods do not serve",
            &rolling,
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (5, 5, 0))],
            vec![],
        ),
        (
            "new pods serve",
            &rolling,
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (5, 5, 5))],
            vec!["a 8>3"],
        ),
        (
            "the last step",
            &rolling,
            vec![set("a", 1, (3, 3, 3)), set("b", 2, (10, 10, 10))],
            vec!["a 3>0"],
        ),
        (
            "the end",
            &rolling,
            vec![set("a", 1, (0, 0, 0)), set("b", 2, (10, 10, 10))],
            vec![],
        ),
        (
            "another template in the middle",
            &rolling,
            vec![set("a", 1, (8, 8, 8)), set("c", 2, (5, 5, 0))],
            vec!["create 0"],
        ),
        (
            "broken pods of the middle go first",
            &rolling,
            vec![set("a", 1, (8, 8, 8)), set("c", 2, (5, 5, 0)), set("b", 3, (0, 0, 0))],
            vec!["c 5>0"],
        ),
        ("recreate: nothing", &recreate, vec![], vec!["create 10"]),
        (
            "recreate: old pods go",
            &recreate,
            vec![set("a", 1, (10, 10, 10))],
            vec!["a 10>0"],
        ),
        (
            "recreate: they are not gone yet",
            &recreate,
            vec![set("a", 1, (0, 4, 4))],
            vec![],
        ),
        (
            "recreate: they are gone",
            &recreate,
            vec![set("a", 1, (0, 0, 0))],
            vec!["create 10"],
        ),
        ("paused: nothing new", &paused, vec![set("a", 1, (10, 10, 10))], vec![]),
        ("paused: nothing at all", &paused, vec![], vec![]),
    ] {
        assert_eq!(actions(&decide(&deployment(more.clone()), sets)), expected, "{name}");
    }
}

#[test]
fn a_change_of_scale_is_no_step_of_an_update() {
    let scaled = |replicas: i32| deployment(json!({"replicas": replicas}));
    let paused = deployment(json!({"replicas": 15, "paused": true}));
    for (name, deployment, sets, expected) in [
        ("one set", scaled(5), vec![set("b", 1, (10, 10, 10))], vec!["b 10>5"]),
        (
            "one old set",
            scaled(12),
            vec![set("a", 1, (10, 10, 10))],
            vec!["a 10>12"],
        ),
        (
            "several",
            scaled(15),
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (5, 5, 0))],
            vec!["b 5>7", "a 8>11"],
        ),
        (
            "several, paused",
            paused,
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (5, 5, 0))],
            vec!["b 5>7", "a 8>11"],
        ),
        (
            "to nothing",
            scaled(0),
            vec![set("a", 1, (8, 8, 8)), set("b", 2, (5, 5, 0))],
            vec!["b 5>0", "a 8>0"],
        ),
    ] {
        let plan = decide(&deployment, sets);
        assert_eq!(actions(&plan), expected, "{name}");
        for update in &plan.update {
            let wanted = deployment.spec.replicas.unwrap().to_string();
            assert_eq!(update.set.annotations()[DESIRED_REPLICAS], wanted, "{name}");
        }
    }
    // An old set with pods turns up beside a new one that has all.
    let adopted = vec![set("a", 1, (2, 2, 2)), set("b", 2, (10, 10, 10))];
    let paused = deployment(json!({"paused": true}));
    assert_eq!(actions(&decide(&paused, adopted)), ["a 2>0"]);
}

#[test]
fn the_new_set() {
    let settled = deployment(json!({"minReadySeconds": 5}));
    let settled = after(decide(&settled, vec![set("a", 4, (10, 10, 10))]), &settled);
    let plan = decide(&settled, vec![set("a", 4, (10, 10, 10))]);
    let new = plan.create.as_ref().unwrap();
    let hash = new.labels()["pod-template-hash"].clone();
    assert_eq!(new.name_any(), format!("web-{hash}"));
    let labels = json!({"app": "web", "pod-template-hash": hash});
    let text = serde_json::to_value(new).unwrap();
    assert_eq!(text["metadata"]["labels"], labels);
    assert_eq!(text["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(text["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(text["spec"]["minReadySeconds"], 5);
    assert_eq!(
        text["metadata"]["annotations"],
        json!({"team": "a", REVISION: "5", DESIRED_REPLICAS: "10", MAX_REPLICAS: "13"})
    );
    assert_eq!(
        text["metadata"]["ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d",
                "controller": true, "blockOwnerDeletion": true}])
    );
    let written = plan.status.as_ref().unwrap();
    assert_eq!(written.annotations()[REVISION], "5");
    let created = format!("Created new replica set \"web-{hash}\"");
    assert_eq!(
        progress(&plan),
        ("True".to_owned(), "NewReplicaSetCreated".to_owned(), created)
    );
    assert_eq!(plan.check_after.unwrap().as_secs(), 601);

    // What is small already, but has not been counted since, does not grow.
    let sets = vec![set("a", 4, (5, 5, 5)), set("b", 5, (3, 8, 8))];
    assert!(actions(&decide(&deployment(json!({})), sets)).is_empty());

    // What comes of the attempt.
    let deployment = deployment(json!({}));
    let mut theirs = new.clone();
    assert!(plan::is_wanted(&deployment, &theirs));
    theirs
        .spec
        .template
        .as_mut()
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .host_network = Some(true);
    assert!(
        !plan::is_wanted(&deployment, &theirs),
        "the same name, another template"
    );
    theirs = new.clone();
    theirs.metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
    assert!(!plan::is_wanted(&deployment, &theirs), "the same name, another's");
    let collided = plan::collided(&deployment);
    assert_eq!(collided.status.as_ref().unwrap().collision_count, Some(1));
    let next = decide(&collided, vec![set("a", 4, (10, 10, 10))]).create.unwrap();
    assert_ne!(next.name_any(), new.name_any());
    let observed = Observed {
        deployment: &deployment,
        sets: &[],
        with_pods: BTreeSet::new(),
    };
    let (event, status) = plan::create_failed(&plan, &observed, "no room", now());
    assert_eq!((event.warning, event.reason), (true, "ReplicaSetCreateError"));
    assert_eq!(
        event.message,
        format!("Failed to create new replica set \"{}\": no room", new.name_any())
    );
    let failed = status.unwrap().status.unwrap();
    assert_eq!(status::reason(&failed, "Progressing"), Some("ReplicaSetCreateError"));
}

#[test]
fn a_name_that_is_too_long_is_cut() {
    let mut deployment = deployment(json!({}));
    deployment.metadata.name = Some("x".repeat(253));
    let new = decide(&deployment, vec![]).create.unwrap();
    assert_eq!(new.name_any().len(), 253);
    assert!(new.name_any().ends_with(&new.labels()["pod-template-hash"]));
}

/// The deployment as it is after what was planned for it.
fn after(plan: Plan, before: &Deployment) -> Deployment {
    plan.status.unwrap_or_else(|| before.clone())
}

#[test]
fn conditions_in_the_course_of_an_update() {
    let first = deployment(json!({}));
    let running = after(decide(&first, vec![set("b", 1, (10, 3, 0))]), &first);
    let status = running.status.as_ref().unwrap();
    assert_eq!(status::reason(status, "Progressing"), Some("ReplicaSetUpdated"));
    assert_eq!(status::reason(status, "Available"), Some("MinimumReplicasUnavailable"));
    assert_eq!((status.replicas, status.updated_replicas), (Some(3), Some(3)));
    assert_eq!(
        (status.unavailable_replicas, status.available_replicas),
        (Some(10), None)
    );
    assert_eq!(status.terminating_replicas, Some(0));
    assert_eq!(status.observed_generation, Some(2));

    // Nothing new: nothing to write, and another look at the deadline.
    let same = decide(&running, vec![set("b", 1, (10, 3, 0))]);
    assert!(same.status.is_none() && same.update.is_empty());
    let later = now() + SignedDuration::from_secs(599);
    let wait = decide_at(&running, vec![set("b", 1, (10, 3, 0))], later);
    assert!(wait.status.is_none());
    assert_eq!(wait.check_after.unwrap().as_secs(), 2);
    let late = now() + SignedDuration::from_secs(601);
    let late = decide_at(&running, vec![set("b", 1, (10, 3, 0))], late);
    let message = "ReplicaSet \"b\" has timed out progressing.".to_owned();
    let expected = ("False".to_owned(), "ProgressDeadlineExceeded".to_owned(), message);
    assert_eq!(progress(&late), expected);
    assert!(late.check_after.is_none());

    // It gets on after all.
    let late = after(late, &running);
    let more = decide(&late, vec![set("b", 1, (10, 10, 8))]);
    assert_eq!(progress(&more).1, "ReplicaSetUpdated");
    assert_eq!(
        status::reason(&status_of(&more), "Available"),
        Some("MinimumReplicasAvailable")
    );
    let more = after(more, &late);
    let done = decide(&more, vec![set("b", 1, (10, 10, 10))]);
    let message = "ReplicaSet \"b\" has successfully progressed.".to_owned();
    assert_eq!(
        progress(&done),
        ("True".to_owned(), "NewReplicaSetAvailable".to_owned(), message)
    );
    assert!(done.check_after.is_none());

    // A pod that fails later is no update that fails.
    let done = after(done, &more);
    let far = now() + SignedDuration::from_hours(3);
    let broken = decide_at(&done, vec![set("b", 1, (10, 10, 7))], far);
    assert_eq!(progress(&broken).1, "NewReplicaSetAvailable");
    assert_eq!(
        status::reason(&status_of(&broken), "Available"),
        Some("MinimumReplicasUnavailable")
    );
}

#[test]
fn the_clock_stops_in_a_pause() {
    let plain = deployment(json!({}));
    let started = after(decide(&plain, vec![set("b", 1, (10, 3, 0))]), &plain);
    let mut paused = started.clone();
    paused.spec.paused = Some(true);
    let plan = decide(&paused, vec![set("b", 1, (10, 3, 0))]);
    let expected = ("Unknown", "DeploymentPaused", "Deployment is paused");
    let (value, reason, message) = progress(&plan);
    assert_eq!((value.as_str(), reason.as_str(), message.as_str()), expected);
    let mut resumed = after(plan, &paused);
    let far = now() + SignedDuration::from_hours(3);
    assert!(decide_at(&resumed, vec![set("b", 1, (10, 3, 0))], far).status.is_none());
    resumed.spec.paused = None;
    let plan = decide_at(&resumed, vec![set("b", 1, (10, 3, 0))], far);
    assert_eq!(progress(&plan).1, "DeploymentResumed");
    assert_eq!(plan.check_after.unwrap().as_secs(), 601);
    // Nobody asked for a deadline.
    let careless = deployment(json!({"progressDeadlineSeconds": i32::MAX}));
    let plan = decide(&careless, vec![set("b", 1, (10, 3, 0))]);
    assert!(status::condition(&status_of(&plan), "Progressing").is_none());
    assert!(plan.check_after.is_none());
}

#[test]
fn trouble_of_sets_is_told() {
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let mut trouble = set("b", 1, (10, 3, 3));
    trouble.status.as_mut().unwrap().conditions = serde_json::from_value(failure).unwrap();
    let first = deployment(json!({}));
    let plan = decide(&first, vec![trouble]);
    let status = status_of(&plan);
    let told = status::condition(&status, "ReplicaFailure").unwrap();
    assert_eq!(
        (told.reason.as_deref(), told.message.as_deref()),
        (Some("FailedCreate"), Some("quota"))
    );
    let first = after(plan, &first);
    let plan = decide(&first, vec![set("b", 1, (10, 4, 4))]);
    assert!(status::condition(&status_of(&plan), "ReplicaFailure").is_none());
}

#[test]
fn old_sets_beyond_the_limit_go() {
    let mut deployment = deployment(json!({}));
    let all = |last: (i32, i32, i32)| {
        let mut sets: Vec<ReplicaSet> = ["e", "f", "g", "h"]
            .iter()
            .zip(1..)
            .map(|(name, revision)| set(name, revision, (0, 0, 0)))
            .collect();
        sets.push(set("b", 9, last));
        sets
    };
    // Not in the middle of an update.
    assert_eq!(actions(&decide(&deployment, all((10, 10, 9)))), [""; 0]);
    deployment = after(decide(&deployment, all((10, 10, 10))), &deployment);
    assert_eq!(
        actions(&decide(&deployment, all((10, 10, 10)))),
        ["delete e", "delete f"]
    );
    // One that its controller has not looked at yet stays, and so does one with pods.
    let mut sets = all((10, 10, 10));
    sets[0].metadata.generation = Some(7);
    sets[1].status.as_mut().unwrap().replicas = 1;
    assert_eq!(actions(&decide(&deployment, sets)), [""; 0]);
    deployment.spec.revision_history_limit = Some(0);
    assert_eq!(actions(&decide(&deployment, all((10, 10, 10)))).len(), 4);
}

#[test]
fn the_way_back() {
    // By its template: the set of old comes to a new revision.
    let back = deployment(json!({}));
    let plan = decide(&back, vec![set("b", 1, (0, 0, 0)), set("a", 2, (10, 10, 10))]);
    assert_eq!(actions(&plan), ["b 0>3"]);
    let annotations = plan.update[0].set.annotations();
    assert_eq!(annotations[REVISION], "3");
    assert_eq!(annotations["deployment.kubernetes.io/revision-history"], "1");
    assert_eq!(plan.status.as_ref().unwrap().annotations()[REVISION], "3");

    // By the annotation of old clients.
    for (to, sets, image, reason, message) in [
        (
            "0",
            vec![set("a", 1, (0, 0, 0)), set("b", 2, (10, 10, 10))],
            "a",
            "DeploymentRollback",
            "Rolled back deployment \"web\" to revision 1",
        ),
        (
            "2",
            vec![set("a", 1, (0, 0, 0)), set("b", 2, (10, 10, 10))],
            "b",
            "DeploymentRollbackTemplateUnchanged",
            "The rollback revision contains the same template as current deployment \"web\"",
        ),
        (
            "7",
            vec![set("b", 2, (10, 10, 10))],
            "b",
            "DeploymentRollbackRevisionNotFound",
            "Unable to find the revision to rollback to.",
        ),
        (
            "0",
            vec![set("b", 2, (10, 10, 10))],
            "b",
            "DeploymentRollbackRevisionNotFound",
            "Unable to find last revision.",
        ),
    ] {
        let mut asked = deployment(json!({}));
        asked.annotations_mut().insert(ROLLBACK_TO.to_owned(), to.to_owned());
        let plan = decide(&asked, sets);
        let target = plan.rollback.unwrap();
        let found = serde_json::to_value(&target.spec.template).unwrap();
        assert_eq!(found, template(image), "{message}");
        assert!(!target.annotations().contains_key(ROLLBACK_TO));
        assert_eq!(
            (plan.events[0].reason, plan.events[0].message.as_str()),
            (reason, message)
        );
    }
}

#[test]
fn one_that_goes_only_counts() {
    let mut going = deployment(json!({}));
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let plan = decide(&going, vec![set("a", 1, (10, 10, 10))]);
    assert!(actions(&plan).is_empty());
    assert_eq!(status_of(&plan).replicas, Some(10));
}

#[test]
fn one_that_selects_all_does_nothing() {
    let plan = decide(&deployment(json!({"selector": {}})), vec![]);
    assert_eq!(plan.events[0].reason, "SelectingAll");
    assert_eq!(status_of(&plan).observed_generation, Some(2));
    assert!(actions(&plan).is_empty());
}
