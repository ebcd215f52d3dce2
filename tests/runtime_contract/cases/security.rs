//! What containers may do and see: only real kernels can show it.

use super::SERVICE;
use crate::subject::*;
use krust::runtime::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::os::unix::fs::PermissionsExt;
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
    let mut config = subject.pod("handled");
    config.runtime_handler = "runc".to_string();
    let sandbox = subject.sandbox(&config).await;
    let id = subject
        .start_in(&sandbox, &config, &subject.script("app", "exit 3"))
        .await;
    assert_eq!(subject.exited(&id).await.exit_code, 3);
    config = subject.pod("unhandled");
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
