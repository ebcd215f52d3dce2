//! What only real processes, cgroups and file systems can show: for the backends that have them.

use super::SERVICE;
use crate::subject::*;
use krust::runtime::*;
use std::time::Duration;

/// At whatever moment nobody wants it any more: while it is being started, right after that, while it runs.
pub async fn an_abandoned_exec_is_ended(subject: &Subject) {
    let (_, id) = subject.start("abandoned", SERVICE).await;
    let request = exec_request(&["sleep", "4321"]);
    let abandon = async |millis: u64| {
        let begun = subject.runtime.exec(&id, &request);
        drop(tokio::time::timeout(Duration::from_millis(millis), begun).await);
    };
    futures_util::future::join_all((0..24).map(|number| abandon(number * 8))).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let list = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"];
    // None is left, and none comes after that.
    let mut quiet = 0;
    while quiet < 5 {
        let (processes, ..) = subject.exec(&id, &list).await;
        quiet = if processes.contains("sleep 4321 ") {
            0
        } else {
            quiet + 1
        };
        assert!(tokio::time::Instant::now() < deadline, "{processes}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Quota and limit as the container's cgroup has them, of either version.
const CGROUP: &str = "cd /sys/fs/cgroup; if [ -f cpu.max ]; then cut -d' ' -f1 cpu.max; cat memory.max; \
    else cat cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes; fi";

pub async fn resources_change(subject: &Subject) {
    let config = subject.pod("resized");
    let sandbox = subject.sandbox(&config).await;
    let mut container = subject.script("app", SERVICE);
    let resources = |quota: i64, mebibytes: u64| Resources {
        cpu_shares: 100,
        cpu_quota: quota,
        cpu_period: 100_000,
        memory_limit_bytes: mebibytes << 20,
        oom_score_adj: 500,
        huge_pages: Default::default(),
    };
    container.resources = resources(20_000, 32);
    let id = subject.start_in(&sandbox, &config, &container).await;
    let cgroup = async || subject.exec(&id, &["sh", "-c", CGROUP]).await.0;
    assert_eq!(cgroup().await, "20000\n33554432\n");
    for (quota, mebibytes) in [(50_000, 64), (10_000, 16)] {
        let wanted = resources(quota, mebibytes);
        subject.runtime.update_container_resources(&id, &wanted).await.unwrap();
        assert_eq!(cgroup().await, format!("{quota}\n{}\n", mebibytes << 20));
    }
    assert_eq!(subject.status(&id).await.state, ContainerState::Running);
    let unknown = "f".repeat(64);
    let refused = subject
        .runtime
        .update_container_resources(&unknown, &resources(10_000, 16))
        .await;
    assert!(is_not_found(refused));
}

pub async fn images_as_directories(subject: &Subject) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("image");
    // Done twice it is the same.
    for _ in 0..2 {
        subject.runtime.mount_image(subject.image, &place).await.unwrap();
        assert!(place.join("bin/busybox").is_file());
    }
    let config = subject.pod("reads");
    let sandbox = subject.sandbox(&config).await;
    let mut container = subject.script("app", SERVICE);
    container.mounts = vec![Mount {
        container_path: "/image".to_string(),
        host_path: place.display().to_string(),
        readonly: true,
        ..Default::default()
    }];
    let id = subject.start_in(&sandbox, &config, &container).await;
    let (out, ..) = subject
        .exec(&id, &["/image/bin/busybox", "echo", "from the image"])
        .await;
    assert_eq!(out, "from the image\n");
    let (.., code) = subject.exec(&id, &["touch", "/image/new"]).await;
    assert_ne!(code, 0);
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    for _ in 0..2 {
        subject.runtime.unmount_image(&place).await.unwrap();
    }
    let absent = directory.path().join("absent");
    assert!(is_not_found(subject.runtime.mount_image("absent:1", &absent).await));
}

/// Processors, memory, networks and files: as the kernel counts them.
pub async fn usage_is_that_of_the_processes(subject: &Subject) {
    let runtime = &subject.runtime;
    let busy = "dd if=/dev/zero of=/big bs=1024 count=2000; echo ready; while true; do :; done";
    let (sandbox, id) = subject.start("busy", busy).await;
    subject.logged(&id, 1).await;
    let ids = [id.clone(), sandbox.clone()];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let used = loop {
        let all = runtime.usage(&ids).await.unwrap();
        let used = all
            .iter()
            .find(|usage| usage.id == id)
            .cloned()
            .expect("the container runs");
        if used.cpu_nanos > 100_000_000 {
            break used;
        }
        assert!(tokio::time::Instant::now() < deadline, "{used:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(used.working_set_bytes > 0 && used.processes > 0, "{used:?}");
    let all = runtime.usage(&ids).await.unwrap();
    let network = &all
        .iter()
        .find(|usage| usage.id == sandbox)
        .expect("the sandbox runs")
        .interfaces;
    assert!(network.iter().any(|interface| interface.name == "eth0"), "{network:?}");
    let written = runtime.written(&id).await.unwrap();
    assert!(written.bytes >= 2_000_000, "{written:?}");
}
