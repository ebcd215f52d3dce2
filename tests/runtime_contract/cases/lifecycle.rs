//! Sandboxes and containers from start to end, images, events.

use super::SERVICE;
use crate::subject::*;
use futures_util::StreamExt;
use krust::runtime::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

pub async fn a_pod_from_start_to_end(subject: &Subject) {
    let runtime = &subject.runtime;
    let config = subject.pod("whole");
    let before = SystemTime::now() - Duration::from_secs(2);
    let sandbox = subject.sandbox(&config).await;
    let status = runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((status.state, &status.pod), (SandboxState::Ready, &config.pod));
    assert!(status.created_at > before);
    assert!(status.ips[0].parse::<std::net::IpAddr>().is_ok(), "{:?}", status.ips);
    let listed = runtime.list_pod_sandboxes().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == sandbox).unwrap();
    assert_eq!(
        (listed.state, &listed.pod, &listed.ips),
        (status.state, &status.pod, &status.ips)
    );

    let container = subject.script("app", SERVICE);
    let id = runtime.create_container(&sandbox, &container, &config).await.unwrap();
    let status = subject.status(&id).await;
    assert_eq!(status.state, ContainerState::Created);
    assert_eq!((status.started_at, status.finished_at), (None, None));
    runtime.start_container(&id).await.unwrap();
    subject.logged(&id, 1).await;
    let status = subject.status(&id).await;
    assert_eq!(status.state, ContainerState::Running);
    assert_eq!((status.name.as_str(), &status.sandbox_id), ("app", &sandbox));
    assert_eq!(
        (&status.pod_uid, status.image.as_str()),
        (&config.pod.uid, subject.image)
    );
    assert!(status.image_ref.contains("sha256:"), "{}", status.image_ref);
    let (running_since, finished_at) = (status.started_at.unwrap(), status.finished_at);
    assert_eq!(finished_at, None);

    runtime.stop_container(&id, 30).await.unwrap();
    let status = subject.status(&id).await;
    assert_eq!((status.state, status.exit_code), (ContainerState::Exited, 0));
    assert_eq!(status.reason, "Completed");
    assert!(status.finished_at.unwrap() >= running_since);
    let listed = runtime.list_containers().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == id).unwrap();
    assert_eq!((listed.state, listed.finished_at), (status.state, status.finished_at));

    runtime.remove_container(&id).await.unwrap();
    assert!(is_not_found(runtime.container_status(&id).await));
    runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    let status = runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!((status.state, status.ips.len()), (SandboxState::NotReady, 0));
    runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(is_not_found(runtime.pod_sandbox_status(&sandbox).await));
    assert!(
        runtime
            .list_pod_sandboxes()
            .await
            .unwrap()
            .iter()
            .all(|listed| listed.id != sandbox)
    );
}

pub async fn repeated_and_unknown_ids(subject: &Subject) {
    let runtime = &subject.runtime;
    let (sandbox, id) = subject.start("again", SERVICE).await;
    subject.logged(&id, 1).await;
    for _ in 0..2 {
        runtime.stop_container(&id, 10).await.unwrap();
    }
    for _ in 0..2 {
        runtime.remove_container(&id).await.unwrap();
        runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    }
    for _ in 0..2 {
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    runtime.stop_container(&id, 10).await.unwrap();
    runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    assert!(is_not_found(runtime.container_status(&id).await));
    assert!(is_not_found(runtime.start_container(&id).await));
    assert!(is_not_found(runtime.logs(&id, &LogOptions::default()).await));
    assert!(is_not_found(runtime.exec(&id, &exec_request(&["true"])).await));
    assert!(is_not_found(runtime.port_forward(&sandbox, 80).await));
    let config = subject.pod("again");
    let created = runtime
        .create_container(&sandbox, &subject.script("app", SERVICE), &config)
        .await;
    assert!(created.is_err());
}

pub async fn exit_codes_reasons_and_times(subject: &Subject) {
    let config = subject.pod("codes");
    let sandbox = subject.sandbox(&config).await;
    for (name, script, code, reason) in [
        ("zero", "true", 0, "Completed"),
        ("three", "sleep 0.2; exit 3", 3, "Error"),
        ("two-five-five", "exit 255", 255, "Error"),
    ] {
        let before = SystemTime::now() - Duration::from_secs(1);
        let id = subject.start_in(&sandbox, &config, &subject.script(name, script)).await;
        let status = subject.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason));
        let (started_at, finished_at) = (status.started_at.unwrap(), status.finished_at.unwrap());
        assert!(
            status.created_at <= started_at && started_at <= finished_at,
            "{status:?}"
        );
        assert!(before < started_at && finished_at < SystemTime::now() + Duration::from_secs(1));
    }
}

pub async fn what_cannot_start(subject: &Subject) {
    let config = subject.pod("broken");
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        command: vec!["/no/such/program".to_string()],
        ..subject.script("app", "")
    };
    let id = subject
        .runtime
        .create_container(&sandbox, &container, &config)
        .await
        .unwrap();
    let error = subject.runtime.start_container(&id).await.unwrap_err();
    assert!(error.to_string().contains("no such"), "{error}");
    let listed = subject.runtime.list_containers().await.unwrap();
    let listed = listed.into_iter().find(|listed| listed.id == id).unwrap();
    for status in [listed, subject.status(&id).await] {
        assert_eq!(status.state, ContainerState::Exited);
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains("/no/such/program"), "{}", status.message);
        assert!(status.finished_at.is_some());
    }
    // The pod's sandbox is none the worse.
    let retry = ContainerConfig {
        attempt: 1,
        ..subject.script("app", "exit 4")
    };
    let id = subject.start_in(&sandbox, &config, &retry).await;
    assert_eq!(subject.exited(&id).await.exit_code, 4);

    let absent = ContainerConfig {
        image: "example.com/absent:1".to_string(),
        ..subject.script("other", "true")
    };
    let created = subject.runtime.create_container(&sandbox, &absent, &config).await;
    assert!(is_not_found(created));
}

pub async fn stop_signal_then_kill(subject: &Subject) {
    let config = subject.pod("stop");
    let sandbox = subject.sandbox(&config).await;
    let polite = subject.script("polite", "trap 'exit 7' TERM; echo ready; sleep 3600 & wait");
    let polite = subject.start_in(&sandbox, &config, &polite).await;
    let deaf = subject.script("deaf", "trap '' TERM; echo ready; sleep 3600");
    let deaf = subject.start_in(&sandbox, &config, &deaf).await;
    subject.logged(&polite, 1).await;
    subject.logged(&deaf, 1).await;

    let started = Instant::now();
    subject.runtime.stop_container(&polite, 30).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(subject.status(&polite).await.exit_code, 7);

    let started = Instant::now();
    subject.runtime.stop_container(&deaf, 1).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(subject.status(&deaf).await.exit_code, 137);

    // Stopping the sandbox does not wait for anybody.
    let deaf = ContainerConfig {
        attempt: 1,
        ..subject.script("deaf", "trap '' TERM; echo ready; sleep 3600")
    };
    let deaf = subject.start_in(&sandbox, &config, &deaf).await;
    subject.logged(&deaf, 1).await;
    let started = Instant::now();
    subject.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert_eq!(subject.exited(&deaf).await.exit_code, 137);
}

pub async fn labels_annotations_and_attempts(subject: &Subject) {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect()
    };
    let mut config = subject.pod("labels");
    config.pod.attempt = 2;
    config.labels = map(&[("app", "web")]);
    config.annotations = map(&[("note", "with spaces, and \"quotes\"\n")]);
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        attempt: 5,
        labels: map(&[("io.kubernetes.container.name", "app"), ("x", "y")]),
        annotations: map(&[("io.kubernetes.container.hash", "abc")]),
        ..subject.script("app", "true")
    };
    let id = subject.start_in(&sandbox, &config, &container).await;
    subject.exited(&id).await;
    let sandboxes = subject.runtime.list_pod_sandboxes().await.unwrap();
    let listed = sandboxes.into_iter().find(|listed| listed.id == sandbox).unwrap();
    for found in [listed, subject.runtime.pod_sandbox_status(&sandbox).await.unwrap()] {
        assert_eq!(found.pod, config.pod);
        assert_eq!(found.labels.get("app").map(String::as_str), Some("web"));
        assert_eq!(found.annotations, config.annotations);
    }
    let containers = subject.runtime.list_containers().await.unwrap();
    let listed = containers.into_iter().find(|listed| listed.id == id).unwrap();
    for found in [listed, subject.status(&id).await] {
        assert_eq!(found.attempt, 5);
        assert_eq!(found.labels.get("x").map(String::as_str), Some("y"));
        assert_eq!(found.annotations, container.annotations);
    }
}

pub async fn pods_do_not_mix(subject: &Subject) {
    let (one, first) = subject.start("one", SERVICE).await;
    let (two, second) = subject.start("two", SERVICE).await;
    let address = |status: Sandbox| status.ips.first().cloned().unwrap();
    let of_one = address(subject.runtime.pod_sandbox_status(&one).await.unwrap());
    let of_two = address(subject.runtime.pod_sandbox_status(&two).await.unwrap());
    assert_ne!(of_one, of_two);
    subject.runtime.remove_pod_sandbox(&one).await.unwrap();
    assert!(is_not_found(subject.runtime.container_status(&first).await));
    assert_eq!(subject.status(&second).await.state, ContainerState::Running);
    assert_eq!(
        subject.runtime.pod_sandbox_status(&two).await.unwrap().state,
        SandboxState::Ready
    );
}

pub async fn twenty_pods_at_once(subject: &Subject) {
    let names: Vec<String> = (0..20).map(|number| format!("crowd-{number}")).collect();
    let pods = futures_util::future::join_all(names.iter().map(|name| subject.start(name, SERVICE))).await;
    let listed = subject.runtime.list_containers().await.unwrap();
    let mut addresses = std::collections::HashSet::new();
    for (sandbox, id) in &pods {
        let found = listed.iter().find(|listed| listed.id == *id).unwrap();
        assert_eq!(found.state, ContainerState::Running);
        let status = subject.runtime.pod_sandbox_status(sandbox).await.unwrap();
        assert!(addresses.insert(status.ips[0].clone()), "{:?} twice", status.ips);
    }
    let removals = pods
        .iter()
        .map(|(sandbox, _)| subject.runtime.remove_pod_sandbox(sandbox));
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
}

pub async fn termination_messages(subject: &Subject) {
    let config = subject.pod("message");
    let sandbox = subject.sandbox(&config).await;
    let message = |name: &str, path: &str, script: &str| ContainerConfig {
        termination_message_path: path.to_string(),
        ..subject.script(name, script)
    };
    for (container, expected) in [
        (
            message(
                "usual",
                "/dev/termination-log",
                "printf bye > /dev/termination-log; exit 1",
            ),
            "bye",
        ),
        (message("other", "/tmp/message", "printf other > /tmp/message"), "other"),
        (message("silent", "/dev/termination-log", "true"), ""),
        (message("none", "", "true"), ""),
    ] {
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        let found = subject.runtime.read_termination_message(&id).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&found), expected, "{}", container.name);
    }
    assert!(is_not_found(
        subject.runtime.read_termination_message(&"0".repeat(64)).await
    ));
}

pub async fn images(subject: &Subject) {
    let runtime = &subject.runtime;
    let image = runtime
        .image_status(subject.image)
        .await
        .unwrap()
        .expect("the test's image");
    assert!(image.id.starts_with("sha256:"), "{}", image.id);
    assert!(image.size_bytes > 0);
    assert_eq!(
        runtime.image_status(&image.id).await.unwrap().expect("by id").id,
        image.id
    );
    assert!(runtime.image_status("example.com/absent:1").await.unwrap().is_none());
    let listed = runtime.list_images().await.unwrap();
    let found = listed.iter().find(|listed| listed.id == image.id).unwrap();
    assert_eq!(found.repo_tags, image.repo_tags);
    assert!(found.repo_tags.iter().any(|tag| tag.ends_with(subject.image)));
    assert!(
        listed
            .iter()
            .all(|listed| !listed.repo_tags.iter().any(|tag| tag.contains("pause")))
    );
}

pub async fn events_tell_of_changes(subject: &Subject) {
    let mut events = subject.runtime.events();
    let config = subject.pod("events");
    let sandbox = subject.sandbox(&config).await;
    let id = subject
        .start_in(&sandbox, &config, &subject.script("app", "exit 0"))
        .await;
    subject.exited(&id).await;
    subject.runtime.remove_container(&id).await.unwrap();
    subject.runtime.stop_pod_sandbox(&sandbox).await.unwrap();
    use RuntimeEventKind as Kind;
    for (kind, object) in [
        (Kind::SandboxStarted, &sandbox),
        (Kind::ContainerStarted, &id),
        (Kind::ContainerExited, &id),
        (Kind::ContainerRemoved, &id),
        (Kind::SandboxStopped, &sandbox),
    ] {
        let expected = RuntimeEvent {
            kind,
            pod_uid: config.pod.uid.clone(),
            container_id: object.clone(),
        };
        let next = async { while events.next().await.expect("events never end") != expected {} };
        let seen = tokio::time::timeout(PATIENCE, next).await;
        assert!(seen.is_ok(), "{expected:?} does not come");
    }
}

pub async fn removing_a_sandbox_removes_its_containers(subject: &Subject) {
    let config = subject.pod("removal");
    let sandbox = subject.sandbox(&config).await;
    let running = subject
        .start_in(&sandbox, &config, &subject.script("running", SERVICE))
        .await;
    let ended = subject
        .start_in(&sandbox, &config, &subject.script("ended", "true"))
        .await;
    let fresh = subject.script("fresh", "true");
    let fresh = subject
        .runtime
        .create_container(&sandbox, &fresh, &config)
        .await
        .unwrap();
    subject.exited(&ended).await;
    let started = Instant::now();
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let listed = subject.runtime.list_containers().await.unwrap();
    for id in [running, ended, fresh] {
        assert!(listed.iter().all(|listed| listed.id != id));
        assert!(is_not_found(subject.runtime.container_status(&id).await));
    }
}

pub async fn usage_grows(subject: &Subject) {
    let runtime = &subject.runtime;
    let (sandbox, id) = subject.start("used", SERVICE).await;
    subject.logged(&id, 1).await;
    let ids = [id.clone(), sandbox.clone(), "unknown".to_owned()];
    let first = runtime.usage(&ids).await.unwrap();
    let of = |all: &[Usage], id: &str| all.iter().find(|usage| usage.id == id).cloned();
    let before = of(&first, &id).expect("the container runs");
    assert!(
        of(&first, &sandbox).is_some() && of(&first, "unknown").is_none(),
        "{first:?}"
    );
    assert!(before.memory_bytes >= before.working_set_bytes);
    let again = runtime.usage(&ids).await.unwrap();
    assert!(of(&again, &id).unwrap().cpu_nanos >= before.cpu_nanos);
    runtime.written(&id).await.unwrap();
    runtime.stop_container(&id, 30).await.unwrap();
    let ended = runtime.usage(std::slice::from_ref(&id)).await.unwrap();
    assert!(ended.is_empty(), "what has ended uses nothing: {ended:?}");
    assert!(is_not_found(runtime.written("unknown").await));
}
