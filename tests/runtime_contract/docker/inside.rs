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
        let mount = |container_path: &str, host_path: &str| Mount {
            container_path: container_path.to_string(),
            host_path: host_path.to_string(),
            ..Default::default()
        };
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
        subject.clean().await;
    });
}
