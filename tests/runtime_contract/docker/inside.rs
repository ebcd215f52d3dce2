//! krust in a container that has the engine's socket and a volume, and nothing else of the engine's host.

use super::on_engine;
use crate::dockerd::shared;
use crate::images::BUSYBOX;
use crate::subject::*;
use bollard::models::{ContainerCreateBody, HostConfig, Mount as EngineMount, MountType};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions};
use futures_util::StreamExt;
use krust::runtime::docker::DockerRuntime;
use krust::runtime::*;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const OWN_DIRECTORY: &str = "/var/lib/own";

/// This test binary is static, so it runs the other half of the test in a container.
#[test]
fn a_krust_in_a_container_runs_pods_beside_itself() {
    on_engine(async |_| {
        let docker = bollard::Docker::connect_with_host(&shared().endpoint).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        let bind = |source: &Path, target: &str| EngineMount {
            typ: Some(MountType::BIND),
            source: Some(source.display().to_string()),
            target: Some(target.to_string()),
            ..Default::default()
        };
        let volume = EngineMount {
            typ: Some(MountType::VOLUME),
            target: Some(OWN_DIRECTORY.to_string()),
            ..Default::default()
        };
        let words = [
            "/test",
            "--ignored",
            "--exact",
            "docker::inside::the_half_in_the_container",
            "--nocapture",
        ];
        let body = ContainerCreateBody {
            image: Some(BUSYBOX.to_string()),
            entrypoint: Some(words.map(str::to_string).to_vec()),
            host_config: Some(HostConfig {
                mounts: Some(vec![
                    bind(&std::env::current_exe().unwrap(), "/test"),
                    bind(&shared().socket(), "/var/run/docker.sock"),
                    volume,
                ]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let id = docker
            .create_container(None::<CreateContainerOptions>, body)
            .await
            .unwrap()
            .id;
        docker
            .start_container(&id, None::<StartContainerOptions>)
            .await
            .unwrap();
        let options = bollard::query_parameters::LogsOptionsBuilder::default()
            .follow(true)
            .stdout(true)
            .stderr(true);
        let log: Vec<String> = docker
            .logs(&id, Some(options.build()))
            .map(|line| line.map(|line| line.to_string()).unwrap_or_default())
            .collect()
            .await;
        let ended = docker
            .wait_container(&id, None::<bollard::query_parameters::WaitContainerOptions>)
            .next()
            .await
            .unwrap();
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        docker.remove_container(&id, Some(options)).await.unwrap();
        assert!(ended.is_ok(), "{}", log.concat());
        assert!(log.concat().contains("1 passed"), "{}", log.concat());
    });
}

#[test]
#[ignore = "is run in a container by the test above"]
fn the_half_in_the_container() {
    run(async {
        let runtime = DockerRuntime::connect("unix:///var/run/docker.sock", "inside")
            .await
            .unwrap();
        assert!(!runtime.share_directory(Path::new("/elsewhere")).await.unwrap());
        assert!(runtime.share_directory(Path::new(OWN_DIRECTORY)).await.unwrap());
        let subject = Subject::new(runtime, BUSYBOX);
        std::fs::create_dir_all(format!("{OWN_DIRECTORY}/pods/1")).unwrap();
        std::fs::write(format!("{OWN_DIRECTORY}/pods/1/file"), "from krust\n").unwrap();
        let config = subject.pod("beside");
        let sandbox = subject.sandbox(&config).await;
        let script = "cat /volume/file; echo back > /volume/new; ls -d /host/proc; \
                      httpd -p 8080 -h /volume && echo ready; trap 'exit 0' TERM; sleep 3600 & wait";
        let container = ContainerConfig {
            mounts: vec![
                mount("/volume", &format!("{OWN_DIRECTORY}/pods/1")),
                // A path of the engine's host stays what it is.
                mount("/host", "/"),
            ],
            ..subject.script("app", script)
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        let log = texts(&subject.logged(&id, 3).await);
        assert_eq!(log, ["from krust\n", "/host/proc\n", "ready\n"]);
        let back = std::fs::read_to_string(format!("{OWN_DIRECTORY}/pods/1/new")).unwrap();
        assert_eq!(back, "back\n");
        // Through the pod's address: its namespaces are out of reach.
        let mut stream = subject.runtime.port_forward(&sandbox, 8080).await.unwrap();
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("from krust\n"), "{answer}");
        crate::cases::termination_messages(&subject).await;
        files_of_the_host(&subject).await;
        memory(&subject).await;
        subject.clean().await;
    });
}

fn mount(container_path: &str, host_path: &str) -> Mount {
    Mount {
        container_path: container_path.to_string(),
        host_path: host_path.to_string(),
        ..Default::default()
    }
}

/// What krust does not see is looked at, and made, by the engine.
async fn files_of_the_host(subject: &Subject) {
    let look = async |path: &str| subject.runtime.look_at(Path::new(path)).await.unwrap();
    for (path, kind) in [
        ("/", Some(FileKind::Directory)),
        ("/etc/passwd", Some(FileKind::File)),
        ("/dev/null", Some(FileKind::CharDevice)),
        // A link to a directory.
        ("/proc/self/root", Some(FileKind::Directory)),
        ("/none", None),
    ] {
        assert_eq!(look(path).await, kind, "{path}");
    }
    let made = format!("/tmp/krust-inside-{}", std::process::id());
    let runtime = &subject.runtime;
    let directory = format!("{made}/above/below");
    runtime
        .make_at(Path::new(&directory), FileKind::Directory)
        .await
        .unwrap();
    assert_eq!(look(&directory).await, Some(FileKind::Directory));
    let file = format!("{directory}/file");
    runtime.make_at(Path::new(&file), FileKind::File).await.unwrap();
    assert_eq!(look(&file).await, Some(FileKind::File));
    let nowhere = format!("{made}/none/file");
    assert!(runtime.make_at(Path::new(&nowhere), FileKind::File).await.is_err());
    for path in ["a/b", "a/b/c", "./a"] {
        runtime
            .make_below(Path::new(&directory), Path::new(path))
            .await
            .unwrap();
        let path = format!("{directory}/{path}");
        assert_eq!(look(&path).await, Some(FileKind::Directory), "{path}");
    }
    assert!(
        runtime
            .make_below(Path::new(&directory), Path::new("../x"))
            .await
            .is_err()
    );
    let config = subject.pod("host-files");
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        mounts: vec![mount("/host", "/tmp")],
        ..subject.script(
            "app",
            &format!(
                "cd /host/krust-inside-*/above/below; stat -c '%a %u' . file a; ln -s /etc out; cd /; \
                 echo linked; while [ -e /host/krust-inside-{}/above ]; do sleep 0.1; done",
                std::process::id()
            ),
        )
    };
    let id = subject.start_in(&sandbox, &config, &container).await;
    let log = texts(&subject.logged(&id, 4).await);
    assert_eq!(log, ["755 0\n", "644 0\n", "755 0\n", "linked\n"]);
    let refused = runtime.make_below(Path::new(&directory), Path::new("out/new")).await;
    assert!(refused.unwrap_err().to_string().contains("symbolic link"));
    let exec = subject
        .exec(
            &id,
            &["sh", "-c", &format!("rm -r /host/krust-inside-{}", std::process::id())],
        )
        .await;
    assert_eq!(exec.2, 0, "{exec:?}");
    subject.exited(&id).await;
}

/// A file system in memory outlives containers and krust, and goes when it is given back.
async fn memory(subject: &Subject) {
    let path = format!("{OWN_DIRECTORY}/pods/2/memory");
    let wanted = Memory {
        size_bytes: Some(1 << 20),
        mode: 0o2777,
        group: Some(77),
    };
    for _ in 0..2 {
        subject.runtime.mount_memory(Path::new(&path), wanted).await.unwrap();
    }
    subject
        .runtime
        .make_below(Path::new(&path), Path::new("sub/below"))
        .await
        .unwrap();
    let config = subject.pod("memory");
    let sandbox = subject.sandbox(&config).await;
    let scripts = [
        "grep ' /m ' /proc/mounts | cut -d' ' -f3; stat -c '%a %g' /m /m/sub; echo kept > /m/sub/file; \
         head -c 2000000 /dev/zero > /m/big || echo full; rm /m/big; echo done",
        "cat /m/sub/file; echo done",
    ];
    let logs = [
        vec!["tmpfs\n", "2777 77\n", "2777 77\n", "full\n", "done\n"],
        vec!["kept\n", "done\n"],
    ];
    for (script, log) in scripts.iter().zip(logs) {
        let container = ContainerConfig {
            mounts: vec![mount("/m", &path)],
            ..subject.script(if log.len() > 2 { "first" } else { "second" }, script)
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        let seen = subject.log(&id, LogOptions::default()).await;
        let seen: Vec<String> = seen
            .iter()
            .filter(|line| line.stream == LogStream::Stdout)
            .map(|line| String::from_utf8_lossy(&line.text).into_owned())
            .collect();
        assert_eq!(seen, log);
        // As after a restart of krust.
        let again = DockerRuntime::connect("unix:///var/run/docker.sock", "inside")
            .await
            .unwrap();
        assert!(again.share_directory(Path::new(OWN_DIRECTORY)).await.unwrap());
        again
            .make_below(Path::new(&path), Path::new("sub/below"))
            .await
            .unwrap();
    }
    subject.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    for _ in 0..2 {
        subject.runtime.unmount_memory(Path::new(&path)).await.unwrap();
    }
    let docker = bollard::Docker::connect_with_host("unix:///var/run/docker.sock").unwrap();
    let volumes = docker
        .list_volumes(None::<bollard::query_parameters::ListVolumesOptions>)
        .await
        .unwrap();
    let left: Vec<String> = volumes
        .volumes
        .into_iter()
        .flatten()
        .map(|volume| volume.name)
        .collect();
    assert!(!left.iter().any(|name| name.contains("memory")), "{left:?}");
}
