//! What containers may do and see: only real kernels can show it.

use super::SERVICE;
use crate::subject::*;
use krust::runtime::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub async fn seccomp_profiles(subject: &Subject) {
    let config = subject.pod("seccomp");
    let sandbox = subject.sandbox(&config).await;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let rule = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#;
    let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
    std::fs::write(path("no-mkdir.json"), profile).unwrap();
    std::fs::write(path("broken.json"), "{").unwrap();
    let script =
        "grep Seccomp: /proc/self/status; mkdir /made 2>&1 && echo made; unshare -U true 2>&1 && echo unshared";
    let container = |name: &str, seccomp| ContainerConfig {
        security: SecurityContext {
            seccomp,
            ..Default::default()
        },
        ..subject.script(name, script)
    };
    let local = |name: &str| SecurityProfile::Localhost(path(name));
    for (name, profile, filtered, made, unshared) in [
        ("unconfined", SecurityProfile::Unconfined, "0", true, true),
        ("default", SecurityProfile::RuntimeDefault, "2", true, false),
        ("local", local("no-mkdir.json"), "2", false, true),
    ] {
        let id = subject.start_in(&sandbox, &config, &container(name, profile)).await;
        subject.exited(&id).await;
        let text = texts(&subject.log(&id, LogOptions::default()).await).concat();
        assert!(text.starts_with(&format!("Seccomp:\t{filtered}\n")), "{name}: {text}");
        assert_eq!(text.contains("\nmade\n"), made, "{name}: {text}");
        assert_eq!(text.contains("unshared\n"), unshared, "{name}: {text}");
    }
    for (name, part) in [
        ("absent.json", "no such file or directory"),
        ("broken.json", "decoding seccomp profile failed"),
    ] {
        let refused = container("refused", local(name));
        let error = subject.runtime.create_container(&sandbox, &refused, &config).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("cannot load seccomp profile") && error.contains(part),
            "{error}"
        );
    }
}

pub async fn what_is_hidden_in_proc(subject: &Subject) {
    let config = subject.pod("masked");
    let sandbox = subject.sandbox(&config).await;
    let script = "grep -q ' /proc/sys ' /proc/mounts && echo read-only; \
                  grep -qE ' /proc/(keys|kcore|timer_list|scsi|interrupts) ' /proc/mounts && echo hidden; true";
    for (name, unmasked_proc, expected) in [("masked", false, "read-only\nhidden\n"), ("unmasked", true, "")] {
        let container = ContainerConfig {
            security: SecurityContext {
                unmasked_proc,
                ..Default::default()
            },
            ..subject.script(name, script)
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        let text = texts(&subject.log(&id, LogOptions::default()).await).concat();
        assert_eq!(text, expected, "{name}");
    }
}

/// A directory with mounts of its own that goes with them.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Self(directory);
        let path = mounted.path();
        mount(Some(path), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        mount(None::<&str>, path, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        std::fs::create_dir(path.join("sub")).unwrap();
        std::fs::create_dir(path.join("back")).unwrap();
        mounted
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn tmpfs(&self, name: &str) {
        let path = self.path().join(name);
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(path.join("file"), "seen\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for path in [
            self.path().join("sub"),
            self.path().join("back"),
            self.path().to_owned(),
        ] {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
        }
    }
}

pub async fn mounts_propagate(subject: &Subject) {
    let shared = Mounted::new();
    let config = subject.pod("propagates");
    let sandbox = subject.sandbox(&config).await;
    let mut ids = Vec::new();
    let none: &[&str] = &[];
    for (name, propagation, capabilities) in [
        ("none", Propagation::None, none),
        ("slave", Propagation::HostToContainer, none),
        ("shared", Propagation::Bidirectional, &["SYS_ADMIN"]),
    ] {
        let container = ContainerConfig {
            mounts: vec![Mount {
                container_path: "/data".to_string(),
                host_path: shared.path().display().to_string(),
                propagation,
                ..Default::default()
            }],
            security: SecurityContext {
                // What a privileged container has of it; not every engine of tests can give all.
                add_capabilities: capabilities.iter().map(|name| name.to_string()).collect(),
                ..Default::default()
            },
            ..subject.script(name, SERVICE)
        };
        ids.push(subject.start_in(&sandbox, &config, &container).await);
    }
    shared.tmpfs("sub");
    let mut seen = Vec::new();
    for id in &ids {
        let (out, ..) = subject
            .exec(id, &["sh", "-c", "cat /data/sub/file 2>/dev/null || echo nothing"])
            .await;
        seen.push(out);
    }
    assert_eq!(seen, ["nothing\n", "seen\n", "seen\n"]);
    let script = "mount -t tmpfs none /data/back && echo from inside > /data/back/file";
    let (_, error, code) = subject.exec(&ids[2], &["sh", "-c", script]).await;
    assert_eq!(code, 0, "{error}");
    let back = std::fs::read_to_string(shared.path().join("back/file"));
    assert_eq!(back.unwrap(), "from inside\n");
    let (out, ..) = subject.exec(&ids[1], &["cat", "/data/back/file"]).await;
    assert_eq!(out, "from inside\n");
}

pub async fn read_only_all_the_way_down(subject: &Subject) {
    let features = subject.runtime.features().await.unwrap();
    let nested = Mounted::new();
    nested.tmpfs("sub");
    let config = subject.pod("readonly");
    let sandbox = subject.sandbox(&config).await;
    let container = |name: &str, recursive_readonly| ContainerConfig {
        mounts: vec![Mount {
            container_path: "/data".to_string(),
            host_path: nested.path().display().to_string(),
            readonly: true,
            recursive_readonly,
            ..Default::default()
        }],
        ..subject.script(
            name,
            "touch /data/x 2>/dev/null && echo wrote; touch /data/sub/x 2>/dev/null && echo wrote below; true",
        )
    };
    let written = async |container: ContainerConfig| {
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        texts(&subject.log(&id, LogOptions::default()).await).concat()
    };
    assert_eq!(written(container("flat", false)).await, "wrote below\n");
    // Where the engine cannot, the kubelet does not ask for it.
    if features.recursive_readonly_mounts {
        assert_eq!(written(container("deep", true)).await, "");
    }
}

pub async fn runtimes_by_name(subject: &Subject) {
    let features = subject.runtime.features().await.unwrap();
    assert!(
        features.handlers.iter().any(|handler| handler == "runc"),
        "{features:?}"
    );
    // Those that are called the same everywhere.
    let known = ["runc", "crun"].into_iter();
    for handler in known.filter(|known| features.handlers.iter().any(|handler| handler == known)) {
        let mut config = subject.pod("handled");
        config.runtime_handler = handler.to_string();
        let sandbox = match subject.runtime.run_pod_sandbox(&config).await {
            // It was crun that said it: it does not take version 1 of control groups beside controllers of version 2.
            Err(error) if handler == "crun" && error.to_string().contains("hybrid mode not supported") => continue,
            sandbox => sandbox.unwrap(),
        };
        let app = subject.script("app", "trap 'exit 3' TERM; echo ready; sleep 3600 & wait");
        let id = subject.start_in(&sandbox, &config, &app).await;
        subject.logged(&id, 1).await;
        let (out, error, code) = subject.exec(&id, &["sh", "-c", "echo in; exit 5"]).await;
        assert_eq!((out.as_str(), code), ("in\n", 5), "{handler}: {error}");
        subject.runtime.stop_container(&id, 30).await.unwrap();
        assert_eq!(subject.exited(&id).await.exit_code, 3, "{handler}");
        subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    let mut config = subject.pod("unhandled");
    config.runtime_handler = "absent".to_string();
    let error = subject.runtime.run_pod_sandbox(&config).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to get sandbox runtime: no runtime for \"absent\" is configured"
    );
    let listed = subject.runtime.list_pod_sandboxes().await.unwrap();
    assert!(listed.iter().all(|sandbox| sandbox.pod != config.pod));
}

pub async fn one_container_sees_anothers_processes(subject: &Subject) {
    let (sandbox, id) = subject.start("targeted", SERVICE).await;
    let config = subject.pod("targeted");
    let mut debugger = subject.script("debugger", "tr '\\0' ' ' < /proc/1/cmdline; sleep 3600 & wait");
    let processes = async |container: &ContainerConfig| {
        let id = subject.start_in(&sandbox, &config, container).await;
        let (out, ..) = subject.exec(&id, &["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"]).await;
        out
    };
    debugger.target = Some(id.clone());
    let seen = processes(&debugger).await;
    assert!(seen.contains("echo ready"), "{seen}");
    let alone = ContainerConfig {
        target: None,
        name: "alone".to_string(),
        ..debugger
    };
    let seen = processes(&alone).await;
    assert!(!seen.contains("echo ready"), "{seen}");
}

pub async fn logs_do_not_grow_without_bound(subject: &Subject) {
    let config = subject.pod("talks");
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        logs: LogLimits {
            file_bytes_max: 64 << 10,
            files_max: 3,
        },
        ..subject.script("app", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")
    };
    let id = subject.start_in(&sandbox, &config, &container).await;
    subject.exited(&id).await;
    let lines = texts(&subject.log(&id, LogOptions::default()).await);
    assert_eq!(lines.last().map(String::as_str), Some("line 19999\n"));
    // Of more than a megabyte with its times: what fits, and without a gap.
    assert!(lines.len() > 500 && lines.len() < 10_000, "{}", lines.len());
    let first = 20_000 - lines.len();
    for (number, line) in (first..).zip(&lines) {
        assert_eq!(*line, format!("line {number}\n"));
    }
}

/// What belongs to root in the image and in a volume belongs to the pod's root, who is nobody on the host.
pub async fn users_of_its_own(subject: &Subject) {
    let features = subject.runtime.features().await.unwrap();
    let mut config = subject.pod("users");
    config.user_namespace = true;
    if !features.user_namespace_handlers.contains(&String::new()) {
        let refused = subject.runtime.run_pod_sandbox(&config).await.unwrap_err().to_string();
        assert_eq!(refused, "a user namespace of a pod is not supported by this runtime");
        return;
    }
    // Nobody but the host's root gets to what is mounted otherwise.
    let (outer, mode) = (tempfile::tempdir().unwrap(), std::fs::Permissions::from_mode);
    std::fs::set_permissions(outer.path(), mode(0o700)).unwrap();
    let state = crate::containerd::shared().state_dir();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::set_permissions(&state, mode(0o700)).unwrap();
    let volume = outer.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::set_permissions(&volume, mode(0o755)).unwrap();
    std::fs::write(volume.join("roots"), "x").unwrap();
    std::fs::set_permissions(volume.join("roots"), mode(0o600)).unwrap();
    let mut first_ids = Vec::new();
    for _ in 0..2 {
        let sandbox = subject.sandbox(&config).await;
        let mut container = subject.script(
            "app",
            "cat /proc/self/uid_map; stat -c %u /bin/busybox /etc/hosts /v /v/roots; cat /v/roots; echo; \
             echo new > /v/made; echo h >> /etc/hosts; echo m > /dev/termination-log; echo s > /dev/shm/s; \
             touch /in-image && stat -c %u /in-image; echo done; exit 4",
        );
        container.mounts.push(Mount {
            container_path: "/v".to_string(),
            host_path: volume.display().to_string(),
            ..Mount::default()
        });
        container.termination_message_path = "/dev/termination-log".to_string();
        let id = subject.start_in(&sandbox, &config, &container).await;
        let status = subject.exited(&id).await;
        let log = texts(&subject.log(&id, LogOptions::default()).await);
        let lines: Vec<_> = log
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect();
        assert_eq!(status.exit_code, 4, "{log:?}");
        assert_eq!((lines[0][0], lines[0][2]), ("0", "65536"), "{log:?}");
        first_ids.push(lines[0][1].parse::<u32>().unwrap());
        let rest: Vec<_> = lines[1..].iter().map(|words| words.join(" ")).collect();
        assert_eq!(rest, ["0", "0", "0", "0", "x", "0", "done"], "{log:?}");
        let message = subject.runtime.read_termination_message(&id).await.unwrap();
        assert_eq!(message, b"m\n");
        let made = std::fs::metadata(volume.join("made")).unwrap();
        assert_eq!(made.uid(), 0, "as the pod sees it, so it is on the volume");
        std::fs::remove_file(volume.join("made")).unwrap();
        config.pod.attempt += 1;
    }
    assert!(first_ids[0] >= 65536 && first_ids[0] != first_ids[1], "{first_ids:?}");
    // Those who join it later, as well.
    let sandbox = subject.runtime.list_pod_sandboxes().await.unwrap();
    let sandbox = sandbox.iter().find(|found| {
        found.pod
            == PodIdentity {
                attempt: 1,
                ..config.pod.clone()
            }
    });
    let sandbox = &sandbox.expect("the second sandbox").id;
    let id = subject
        .start_in(sandbox, &config, &subject.script("later", SERVICE))
        .await;
    let (out, error, code) = subject.exec(&id, &["cat", "/proc/self/uid_map"]).await;
    assert_eq!(code, 0, "{error}");
    assert!(out.contains(&first_ids[1].to_string()), "{out}");
}

pub async fn huge_pages_have_limits(subject: &Subject) {
    let config = subject.pod("pages");
    let sandbox = subject.sandbox(&config).await;
    let mut container = subject.script("app", SERVICE);
    container.resources.huge_pages = [(2 << 20, 4 << 20)].into();
    let id = subject.start_in(&sandbox, &config, &container).await;
    subject.logged(&id, 1).await;
    // Where nothing can be limited, or there is nothing, it runs without.
    let limited = cgroups::Abilities::read(Path::new(cgroups::ROOT)).huge_pages && cgroups::has_huge_pages();
    let read = "cat /sys/fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes /sys/fs/cgroup/hugetlb.2MB.max 2>/dev/null";
    let (out, ..) = subject.exec(&id, &["sh", "-c", read]).await;
    if limited {
        assert_eq!(out, "4194304\n");
    }
}
