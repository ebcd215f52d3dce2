//! What is particular to containerd: krust's own network, files and records, and that all of it outlives krust.

use super::subject::*;
use krust::runtime::containerd::ContainerdRuntime;
use krust::runtime::*;
use std::sync::Arc;

const SERVICE: &str = "trap 'exit 0' TERM; echo ready; sleep 3600 & wait";

fn test(case: impl AsyncFnOnce(&Subject)) {
    run(async {
        let subject = on_containerd().await;
        case(&subject).await;
        subject.clean().await;
    });
}

/// Another krust process after this one, as far as the daemon can tell.
async fn another() -> Arc<ContainerdRuntime> {
    ContainerdRuntime::connect(containerd_options().await).await.unwrap()
}

#[test]
fn an_abandoned_exec_is_ended() {
    test(async |subject: &Subject| crate::cases::real::an_abandoned_exec_is_ended(subject).await);
}

#[test]
fn usage_is_that_of_the_processes() {
    test(async |subject: &Subject| crate::cases::real::usage_is_that_of_the_processes(subject).await);
}

#[test]
fn resources_change_under_a_running_container() {
    test(async |subject: &Subject| crate::cases::real::resources_change(subject).await);
}

#[test]
fn pulls_with_a_password() {
    test(async |subject: &Subject| crate::cases::registry::pulls_with_a_password(subject).await);
}

#[test]
fn pulls_go_on_and_are_checked() {
    test(async |subject: &Subject| crate::cases::registry::pulls_go_on_and_are_checked(subject).await);
}

#[test]
fn images_as_directories() {
    test(async |subject: &Subject| crate::cases::real::images_as_directories(subject).await);
}

#[test]
fn a_bridge_keeps_the_host_ports_of_all() {
    use crate::cases::network::{answers, free_port, serve};
    test(async |subject: &Subject| {
        let mut options = containerd_options().await;
        // One that is not there yet; the rules for it go with those of the engine's own.
        options.pod_bridge += "p";
        options.pod_range = format!("10.215.{}.0/24", std::process::id() % 250);
        let (bridge, image) = (options.pod_bridge.clone(), subject.image);
        let connect = async || Subject::new(ContainerdRuntime::connect(options.clone()).await.unwrap(), image);
        let (one, two) = (connect().await, connect().await);
        let port = free_port();
        serve(&one, "one", "127.0.0.1", port).await;
        // The second's first pod finds a bridge that it did not make.
        two.start("two", SERVICE).await;
        assert_eq!(answers("127.0.0.1", port).await.as_deref(), Some("one"));
        one.clean().await;
        two.clean().await;
        for (program, arguments) in [
            ("ip", ["link", "delete", bridge.as_str()].as_slice()),
            ("nft", &["delete", "table", "ip", &bridge]),
        ] {
            let status = std::process::Command::new(program).args(arguments).status();
            assert!(status.unwrap().success(), "{program} {arguments:?}");
        }
    });
}

#[test]
fn everything_is_found_again() {
    test(async |subject: &Subject| {
        let config = subject.pod("found");
        let sandbox = subject.sandbox(&config).await;
        let running = subject
            .start_in(&sandbox, &config, &subject.script("running", SERVICE))
            .await;
        let ended = subject.script("ended", "echo one; printf two; exit 3");
        let ended = subject.start_in(&sandbox, &config, &ended).await;
        subject.exited(&ended).await;
        subject.logged(&running, 1).await;
        let before = (subject.status(&running).await, subject.status(&ended).await);
        let address = subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().ips;

        let later = another().await;
        let found = later.list_containers().await.unwrap();
        for known in [before.0, before.1] {
            let found = found.iter().find(|found| found.id == known.id).expect("the container");
            assert_eq!(format!("{found:?}"), format!("{known:?}"));
        }
        assert_eq!(later.pod_sandbox_status(&sandbox).await.unwrap().ips, address);
        let later = Subject::new(later, subject.image);
        assert_eq!(texts(&later.log(&ended, LogOptions::default()).await), ["one\n", "two"]);
        assert_eq!(texts(&later.log(&running, LogOptions::default()).await), ["ready\n"]);
        // An address in use is not given to a new pod.
        let (new, _) = later.start("new", SERVICE).await;
        assert_ne!(later.runtime.pod_sandbox_status(&new).await.unwrap().ips, address);
        later.runtime.stop_container(&running, 10).await.unwrap();
        later.clean().await;
    });
}

#[test]
fn pods_reach_one_another_and_share_what_is_theirs() {
    test(async |subject: &Subject| {
        let config = subject.pod("server");
        let server = subject.sandbox(&config).await;
        let web = subject.script("web", "echo ready; exec httpd -f -p 8080 -h /etc");
        let web = subject.start_in(&server, &config, &web).await;
        subject.logged(&web, 1).await;
        let side = subject
            .start_in(&server, &config, &subject.script("side", SERVICE))
            .await;
        let (_, other) = subject.start("client", SERVICE).await;
        let address = subject.runtime.pod_sandbox_status(&server).await.unwrap().ips[0].clone();
        for (id, host) in [(&side, "127.0.0.1"), (&other, &address), (&side, &address)] {
            let url = format!("http://{host}:8080/hostname");
            let (stdout, stderr, code) = subject.exec(id, &["wget", "-q", "-O", "-", &url]).await;
            assert_eq!((stdout.as_str(), code), ("server\n", 0), "{url}: {stderr}");
        }
        subject.exec(&web, &["sh", "-c", "echo shared > /dev/shm/x"]).await;
        assert_eq!(subject.exec(&side, &["cat", "/dev/shm/x"]).await.0, "shared\n");
        assert_ne!(subject.exec(&other, &["cat", "/dev/shm/x"]).await.2, 0);
        let processes = subject.exec(&side, &["ps"]).await.0;
        assert!(!processes.contains("httpd"), "{processes}");
        let hosts = subject.exec(&side, &["cat", "/etc/hosts"]).await.0;
        assert!(hosts.contains(&format!("{address}\tserver")), "{hosts}");
    });
}

#[test]
fn identity_limits_and_environment() {
    test(async |subject: &Subject| {
        let config = subject.pod("limits");
        let sandbox = subject.sandbox(&config).await;
        let container = ContainerConfig {
            env: vec![("A".into(), "b=c".into())],
            resources: Resources {
                memory_limit_bytes: 32 << 20,
                // Where the engine may not set it, it is raised.
                oom_score_adj: -900,
                ..Default::default()
            },
            security: SecurityContext {
                run_as_user: Some(65534),
                supplemental_groups: vec![7],
                drop_capabilities: vec!["ALL".into()],
                no_new_privs: true,
                readonly_rootfs: true,
                ..Default::default()
            },
            ..subject.script(
                "app",
                "id -u; id -G; echo $A $HOSTNAME; grep CapBnd /proc/self/status; touch /x && echo written; echo done",
            )
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        let log = subject.log(&id, LogOptions::default()).await;
        let stdout: Vec<String> = log
            .iter()
            .filter(|line| line.stream == LogStream::Stdout)
            .map(|line| String::from_utf8_lossy(&line.text).trim().replace('\t', " "))
            .collect();
        let expected = ["65534", "65534 7", "b=c limits", "CapBnd: 0000000000000000", "done"];
        assert_eq!(stdout, expected);
        let greedy = ContainerConfig {
            resources: Resources {
                memory_limit_bytes: 8 << 20,
                ..Default::default()
            },
            // tail keeps a line, however long it is.
            ..subject.script("greedy", "tail /dev/zero")
        };
        let id = subject.start_in(&sandbox, &config, &greedy).await;
        let status = subject.exited(&id).await;
        assert_eq!(
            (status.exit_code, status.reason.as_str()),
            (137, "OOMKilled"),
            "{status:?}"
        );
    });
}

#[test]
fn what_cannot_be_had_is_said() {
    test(async |subject: &Subject| {
        let mut config = subject.pod("port");
        config.port_mappings = vec![PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port: 8080,
            host_ip: "fd00::1".to_owned(),
        }];
        let error = subject.runtime.run_pod_sandbox(&config).await.unwrap_err();
        assert!(error.to_string().contains("IPv4 only"), "{error}");
        let config = subject.pod("user");
        let sandbox = subject.sandbox(&config).await;
        let unknown = ContainerConfig {
            security: SecurityContext {
                add_capabilities: vec!["FLY".into()],
                ..Default::default()
            },
            ..subject.script("app", "true")
        };
        let error = subject
            .runtime
            .create_container(&sandbox, &unknown, &config)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("unknown capability \"FLY\""), "{error}");
        let absent = ContainerConfig {
            mounts: vec![Mount {
                container_path: "/data".into(),
                host_path: "/no/such/directory".into(),
                readonly: true,
                ..Default::default()
            }],
            ..subject.script("app", "true")
        };
        let error = subject
            .runtime
            .create_container(&sandbox, &absent, &config)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/no/such/directory"), "{error}");
    });
}
