//! What containers of a pod see of each other, of the node and of their configuration.

use super::on_engine;
use crate::subject::*;
use krust::runtime::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Serves a file over HTTP; it listens when it says so.
fn serve(address: &str) -> String {
    format!("echo served > /tmp/file; httpd -p {address} -h /tmp && echo ready; trap 'exit 0' TERM; sleep 3600 & wait")
}

const IDLE: &str = "trap 'exit 0' TERM; sleep 3600 & wait";

#[test]
fn containers_share_network_ipc_and_names() {
    on_engine(async |subject| {
        let mut config = subject.pod("shared");
        config.host_aliases = vec![("10.9.8.7".to_string(), vec!["alias.example".to_string()])];
        config.dns_servers = vec!["10.9.8.1".to_string()];
        config.dns_searches = vec!["default.svc.cluster.local".to_string()];
        config.dns_options = vec!["ndots:5".to_string()];
        let sandbox = subject.sandbox(&config).await;
        let server = subject.script("server", &serve("127.0.0.1:8080"));
        let server = subject.start_in(&sandbox, &config, &server).await;
        subject.logged(&server, 1).await;
        let client = subject
            .start_in(&sandbox, &config, &subject.script("client", IDLE))
            .await;
        let (stdout, stderr, _) = subject
            .exec(&client, &["wget", "-qO-", "http://127.0.0.1:8080/file"])
            .await;
        assert_eq!(stdout, "served\n", "{stderr}");
        let (stdout, ..) = subject.exec(&client, &["sh", "-c", "hostname; echo $HOSTNAME"]).await;
        assert_eq!(stdout, "shared\nshared\n");
        let (hosts, ..) = subject.exec(&client, &["cat", "/etc/hosts"]).await;
        let address = subject.runtime.pod_sandbox_status(&sandbox).await.unwrap().ips[0].clone();
        let has = |address: &str, name: &str| {
            hosts.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(address) && words.any(|word| word == name)
            })
        };
        assert!(has("10.9.8.7", "alias.example") && has(&address, "shared"), "{hosts}");
        let (resolv, ..) = subject.exec(&client, &["cat", "/etc/resolv.conf"]).await;
        for line in [
            "nameserver 10.9.8.1",
            "search default.svc.cluster.local",
            "options ndots:5",
        ] {
            assert!(resolv.lines().any(|found| found == line), "{resolv}");
        }
        // The same System V and shared memory namespace, but not the same processes.
        let namespaces = "readlink /proc/self/ns/ipc /proc/self/ns/net; cat /proc/1/cmdline | tr '\\0' ' '";
        let (seen, ..) = subject.exec(&client, &["sh", "-c", namespaces]).await;
        assert!(seen.contains("sleep 3600"), "{seen}");
        let (ours, ..) = subject
            .exec(&client, &["sh", "-c", "echo x > /dev/shm/file; ls /dev/shm"])
            .await;
        assert_eq!(ours, "file\n");
    });
}

#[test]
fn a_shared_process_namespace_is_reaped() {
    on_engine(async |subject| {
        let mut config = subject.pod("reaped");
        config.share_process_namespace = true;
        let sandbox = subject.sandbox(&config).await;
        let id = subject.start_in(&sandbox, &config, &subject.script("app", IDLE)).await;
        let (first, ..) = subject.exec(&id, &["cat", "/proc/1/comm"]).await;
        assert_eq!(first, "pause\n");
        // Orphans that end become the pause program's children.
        let orphans = "for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.6; cat /proc/[0-9]*/stat";
        let (stats, ..) = subject.exec(&id, &["sh", "-c", orphans]).await;
        assert!(stats.contains("(pause)"), "{stats}");
        let zombies: Vec<&str> = stats.lines().filter(|line| line.contains(") Z ")).collect();
        assert_eq!(zombies, [""; 0]);
    });
}

#[test]
fn memory_limits_are_kept_and_their_breach_is_told() {
    on_engine(async |subject| {
        let config = subject.pod("limits");
        let sandbox = subject.sandbox(&config).await;
        // Fills memory with a string that doubles.
        let container = ContainerConfig {
            resources: Resources {
                memory_limit_bytes: 16 << 20,
                cpu_shares: 256,
                cpu_quota: 100_000,
                cpu_period: 100_000,
                oom_score_adj: 900,
                ..Default::default()
            },
            ..subject.script(
                "hungry",
                "cat /proc/self/oom_score_adj; x=a; while true; do x=$x$x; done",
            )
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        let status = subject.exited(&id).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
        assert_eq!(texts(&subject.log(&id, LogOptions::default()).await), ["900\n"]);
        // A guaranteed pod's score, which this engine may be unable to set.
        let guaranteed = ContainerConfig {
            resources: Resources {
                oom_score_adj: -997,
                ..Default::default()
            },
            ..subject.script("guaranteed", "cat /proc/self/oom_score_adj")
        };
        let id = subject.start_in(&sandbox, &config, &guaranteed).await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        let score = texts(&subject.log(&id, LogOptions::default()).await);
        assert!(score == ["-997\n"] || score == ["0\n"], "{score:?}");
    });
}

#[test]
fn security_contexts() {
    on_engine(async |subject| {
        let config = subject.pod("security");
        let sandbox = subject.sandbox(&config).await;
        let script =
            "id -u; id -g; id -G; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; touch /x 2>/dev/null || echo readonly";
        let container = ContainerConfig {
            security: SecurityContext {
                run_as_user: Some(1000),
                run_as_group: Some(2000),
                supplemental_groups: vec![3000],
                readonly_rootfs: true,
                no_new_privs: true,
                drop_capabilities: vec!["ALL".to_string()],
                add_capabilities: vec!["CHOWN".to_string()],
                ..Default::default()
            },
            ..subject.script("app", script)
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        let lines = texts(&subject.log(&id, LogOptions::default()).await).concat();
        let words: Vec<&str> = lines.split_whitespace().collect();
        let expected = "1000 2000 2000 3000 CapBnd: 0000000000000001 NoNewPrivs: 1 readonly";
        assert_eq!(words.join(" "), expected);
        // A group without a user is beside the image's user.
        let grouped = ContainerConfig {
            security: SecurityContext {
                run_as_group: Some(2000),
                ..Default::default()
            },
            ..subject.script("grouped", "id -u; id -g")
        };
        let id = subject.start_in(&sandbox, &config, &grouped).await;
        subject.exited(&id).await;
        assert_eq!(texts(&subject.log(&id, LogOptions::default()).await), ["0\n", "2000\n"]);
    });
}

#[test]
fn mounts_are_what_they_should_be_or_an_error() {
    on_engine(async |subject| {
        let config = subject.pod("mounts");
        let sandbox = subject.sandbox(&config).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "content\n").unwrap();
        let mount = |name: &str, readonly| Mount {
            container_path: format!("/mnt/{name}"),
            host_path: directory.path().join(name).display().to_string(),
            readonly,
            ..Default::default()
        };
        let container = ContainerConfig {
            mounts: vec![
                Mount {
                    container_path: "/data".to_string(),
                    ..mount("", false)
                },
                mount("file", true),
            ],
            ..subject.script(
                "app",
                "cat /mnt/file; echo y > /data/new; (echo z > /mnt/file) 2>/dev/null || echo refused",
            )
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        assert_eq!(
            texts(&subject.log(&id, LogOptions::default()).await),
            ["content\n", "refused\n"]
        );
        assert_eq!(std::fs::read_to_string(directory.path().join("new")).unwrap(), "y\n");

        let missing = ContainerConfig {
            mounts: vec![mount("missing", false)],
            ..subject.script("other", "true")
        };
        let error = subject
            .runtime
            .create_container(&sandbox, &missing, &config)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(!directory.path().join("missing").exists());
    });
}

#[test]
fn environment_arguments_and_working_directory() {
    on_engine(async |subject| {
        let config = subject.pod("environment");
        let sandbox = subject.sandbox(&config).await;
        let container = ContainerConfig {
            // The image's command is `sh`, without an entrypoint: arguments alone replace it.
            command: Vec::new(),
            args: vec![
                "sh".into(),
                "-c".into(),
                "pwd; echo \"$A\"; echo \"$0\"".into(),
                "a b".into(),
            ],
            working_dir: "/tmp".to_string(),
            env: vec![("A".to_string(), "x=y \"quoted\"".to_string())],
            ..subject.script("app", "")
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        subject.exited(&id).await;
        assert_eq!(
            texts(&subject.log(&id, LogOptions::default()).await),
            ["/tmp\n", "x=y \"quoted\"\n", "a b\n"]
        );
    });
}

#[test]
fn ports_are_forwarded_and_published() {
    on_engine(async |subject| {
        let host_port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port()
        };
        let mut config = subject.pod("ports");
        config.port_mappings = vec![PortMapping {
            protocol: Protocol::Tcp,
            container_port: 8081,
            host_port,
            host_ip: "127.0.0.1".to_string(),
        }];
        let sandbox = subject.sandbox(&config).await;
        for (name, address) in [("loopback", "127.0.0.1:8080"), ("everywhere", "8081")] {
            let container = subject.script(name, &serve(address));
            let id = subject.start_in(&sandbox, &config, &container).await;
            subject.logged(&id, 1).await;
        }
        for port in [8080, 8081] {
            let mut stream = subject.runtime.port_forward(&sandbox, port).await.unwrap();
            fetch(&mut stream).await;
        }
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", host_port)).await.unwrap();
        fetch(&mut stream).await;
        let Err(error) = subject.runtime.port_forward(&sandbox, 9999).await else {
            panic!("nobody listens there");
        };
        assert!(error.to_string().contains("9999"), "{error}");

        // The same port again is refused, and leaves nothing behind.
        let mut second = subject.pod("ports-again");
        second.port_mappings = config.port_mappings.clone();
        let error = subject.runtime.run_pod_sandbox(&second).await.unwrap_err();
        assert!(error.to_string().contains(&host_port.to_string()), "{error}");
        let listed = subject.runtime.list_pod_sandboxes().await.unwrap();
        assert!(listed.iter().all(|listed| listed.pod.uid != second.pod.uid));
    });
}

async fn fetch(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1") && answer.ends_with("served\n"), "{answer}");
}

#[test]
fn a_pod_on_the_hosts_network() {
    on_engine(async |subject| {
        let mut config = subject.pod("host");
        config.host_network = true;
        config.host_pid = true;
        config.host_ipc = true;
        let sandbox = subject.sandbox(&config).await;
        let status = subject.runtime.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!((status.state, status.ips.len()), (SandboxState::Ready, 0));
        let script = "for name in net pid ipc uts; do readlink /proc/self/ns/$name; done";
        let id = subject
            .start_in(&sandbox, &config, &subject.script("app", script))
            .await;
        assert_eq!(subject.exited(&id).await.exit_code, 0);
        let ours: Vec<String> = ["net", "pid", "ipc", "uts"]
            .iter()
            .map(|name| {
                format!(
                    "{}\n",
                    std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display()
                )
            })
            .collect();
        assert_eq!(texts(&subject.log(&id, LogOptions::default()).await), ours);
        // Port-forward reaches what listens on the host's loopback.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(subject.runtime.port_forward(&sandbox, port).await.is_ok());
    });
}

#[test]
fn terminals_deliver_every_byte_and_resize() {
    on_engine(async |subject| {
        let config = subject.pod("terminal");
        let sandbox = subject.sandbox(&config).await;
        // A first byte that a framed stream would begin with.
        let container = ContainerConfig {
            tty: true,
            stdin: true,
            ..subject.script(
                "app",
                "printf '\\001\\000\\000\\000start\\n'; read line; stty size; echo $line; printf last",
            )
        };
        let id = subject.start_in(&sandbox, &config, &container).await;
        let status = subject.status(&id).await;
        assert!(status.tty);
        assert_eq!(texts(&subject.logged(&id, 1).await), ["\u{1}\0\0\0start\r\n"]);
        let request = ExecRequest {
            stdin: true,
            tty: true,
            ..exec_request(&[])
        };
        let mut session = subject.runtime.attach(&id, &request).await.unwrap();
        session.control.resize(100, 30).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"typed\n").await.unwrap();
        stdin.flush().await.unwrap();
        let (stdout, ..) = output(session).await;
        assert!(stdout.contains("30 100") && stdout.ends_with("last"), "{stdout:?}");
        subject.exited(&id).await;
        let log = texts(&subject.log(&id, LogOptions::default()).await);
        assert_eq!(log.last().map(String::as_str), Some("last"), "{log:?}");

        let other = subject
            .start_in(&sandbox, &config, &subject.script("other", IDLE))
            .await;
        let request = ExecRequest {
            stdin: true,
            tty: true,
            ..exec_request(&["sh", "-c", "printf '\\001\\002'; read line; stty size; exit 9"])
        };
        let mut session = subject.runtime.exec(&other, &request).await.unwrap();
        session.control.resize(77, 22).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(b"\n").await.unwrap();
        stdin.flush().await.unwrap();
        let (stdout, _, code) = output(session).await;
        // What is typed is echoed, sometimes before anything else.
        let said = stdout.trim_start_matches("\r\n");
        assert!(said.starts_with("\u{1}\u{2}") && said.contains("22 77"), "{stdout:?}");
        assert_eq!(code, 9);
    });
}

#[test]
fn an_abandoned_exec_is_ended() {
    on_engine(async |subject| crate::cases::real::an_abandoned_exec_is_ended(subject).await);
}

#[test]
fn usage_is_that_of_the_processes() {
    on_engine(async |subject| crate::cases::real::usage_is_that_of_the_processes(subject).await);
}

#[test]
fn resources_change_under_a_running_container() {
    on_engine(async |subject| crate::cases::real::resources_change(subject).await);
}

#[test]
fn images_as_directories() {
    on_engine(async |subject| crate::cases::real::images_as_directories(subject).await);
}

#[test]
fn long_lines_and_many() {
    on_engine(async |subject| {
        let script =
            "head -c 40000 /dev/zero | tr '\\0' x; echo; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";
        let (_, id) = subject.start("long", script).await;
        let follow = LogOptions {
            follow: true,
            ..Default::default()
        };
        let log = texts(&subject.log(&id, follow).await).concat();
        let mut lines = log.lines();
        assert_eq!(lines.next().map(str::len), Some(40_000));
        for number in 0..3000 {
            assert_eq!(lines.next(), Some(format!("line {number}").as_str()));
        }
        assert_eq!(lines.next(), None);
    });
}
