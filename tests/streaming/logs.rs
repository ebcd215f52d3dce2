//! Logs with every kubectl.

use crate::cluster::Cluster;
use crate::support::kubectl::VERSIONS;
use krust::runtime::LogStream;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn options_do_what_they_say() {
    let cluster = Cluster::start().await;
    for (stream, line) in [
        (LogStream::Stdout, "one\n"),
        (LogStream::Stderr, "two\n"),
        (LogStream::Stdout, "three\n"),
    ] {
        cluster.runtime.fake.write_log(&cluster.container_id, stream, line);
    }
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        let logs = |options: &[&str]| {
            let arguments: Vec<&str> = ["logs", "p", "-c", "c"]
                .into_iter()
                .chain(options.iter().copied())
                .collect();
            tokio::task::block_in_place(|| kubectl.run(&arguments))
        };
        assert_eq!(logs(&[]).stdout, "one\ntwo\nthree\n", "{version}");
        assert_eq!(logs(&["--tail=1"]).stdout, "three\n", "{version}");
        assert_eq!(logs(&["--tail=0"]).stdout, "", "{version}");
        assert_eq!(logs(&["--limit-bytes=5"]).stdout, "one\nt", "{version}");
        assert_eq!(logs(&["--since=1h"]).stdout, "one\ntwo\nthree\n", "{version}");
        assert_eq!(logs(&["--since-time=2100-01-01T00:00:00Z"]).stdout, "", "{version}");
        let stamped = logs(&["--timestamps", "--tail=1"]).stdout;
        let (time, text) = stamped.split_once(' ').expect("a time and a line");
        assert_eq!(
            (time.len(), text),
            ("2026-01-01T00:00:00.000000000Z".len(), "three\n"),
            "{version}"
        );
        let previous = logs(&["--previous"]);
        assert_eq!(previous.code, Some(1), "{version}");
        let text = "previous terminated container \"c\" in pod \"p\" not found";
        assert!(previous.stderr.contains(text), "{version}: {}", previous.stderr);
        let waiting = tokio::task::block_in_place(|| kubectl.run(&["logs", "p", "-c", "d"]));
        let text = "(BadRequest): container \"d\" in pod \"p\" is waiting to start: ContainerCreating";
        assert!(waiting.stderr.contains(text), "{version}: {}", waiting.stderr);
        let unbound = tokio::task::block_in_place(|| kubectl.run(&["logs", "unbound", "-c", "c"]));
        assert_eq!(
            (unbound.code, unbound.stdout.as_str()),
            (Some(0), ""),
            "{version}: {}",
            unbound.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_comes_line_by_line_and_ends_with_the_container() {
    let cluster = Cluster::start().await;
    let fake = &cluster.runtime.fake;
    fake.write_log(&cluster.container_id, LogStream::Stdout, "before\n");
    let command = cluster.kubectl("1.32").command(&["logs", "-f", "p", "-c", "c"]);
    let mut child = tokio::process::Command::from(command)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("before"));
    for line in ["first", "second"] {
        fake.write_log(&cluster.container_id, LogStream::Stdout, &format!("{line}\n"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some(line));
    }
    fake.exit_container(&cluster.container_id, 0);
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert!(child.wait().await.unwrap().success());
}
