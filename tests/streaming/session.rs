//! Exec, attach and cp with every kubectl: SPDY with 1.27, WebSocket v5 with the others.

use crate::cluster::Cluster;
use crate::support::kubectl::{Kubectl, Ran, VERSIONS};
use sha2::{Digest, Sha256};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs kubectl without holding the server up.
async fn run(kubectl: &Kubectl, arguments: &[&str], input: &str) -> Ran {
    let (kubectl, input) = (kubectl.clone(), input.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        kubectl.run_with(&arguments, &input)
    })
    .await
    .unwrap()
}

async fn output(command: &mut Command) -> Ran {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the command starts");
    tokio::task::spawn_blocking(|| child.wait_with_output().expect("the command ends").into())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_exit_codes_arrive() {
    let cluster = Cluster::start().await;
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        let script = "echo out; echo err >&2; exit 7";
        let ran = run(&kubectl, &["exec", "p", "-c", "c", "--", "sh", "-c", script], "").await;
        assert_eq!(ran.code, Some(7), "{version}: {}", ran.stderr);
        assert_eq!(ran.stdout, "out\n", "{version}");
        assert_eq!(ran.stderr, "err\ncommand terminated with exit code 7\n", "{version}");
        let ran = run(&kubectl, &["exec", "p", "-c", "c", "--", "true"], "").await;
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (Some(0), "", ""),
            "{version}"
        );
        let ran = run(&kubectl, &["exec", "p", "-c", "c", "--", "/no/such/program"], "").await;
        assert_eq!(ran.code, Some(1), "{version}");
        assert!(
            ran.stderr.contains("No such file or directory"),
            "{version}: {}",
            ran.stderr
        );
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_stdin_arrives() {
    let cluster = Cluster::start().await;
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        let ran = run(&kubectl, &["exec", "-i", "p", "-c", "c", "--", "cat"], "hi\n").await;
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (Some(0), "hi\n"),
            "{version}: {}",
            ran.stderr
        );
        let ran = run(&kubectl, &["attach", "-i", "p", "-c", "c"], "one\ntwo\n").await;
        assert_eq!(ran.code, Some(0), "{version}: {}", ran.stderr);
        assert_eq!(ran.stdout, "got one\ngot two\n", "{version}");
        // The process does not read what it is sent, and its end is not held up by that.
        let ran = run(
            &kubectl,
            &["exec", "-i", "p", "-c", "c", "--", "true"],
            &"x".repeat(5_000_000),
        )
        .await;
        assert_eq!(ran.code, Some(0), "{version}: {}", ran.stderr);
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_size_of_the_users() {
    let cluster = Cluster::start().await;
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        // The size follows the session's start, so the process waits for it.
        let inner = "while [ \"$(stty size)\" = \"0 0\" ]; do sleep 0.05; done; stty size; tty";
        let command = kubectl.command(&["exec", "-it", "p", "-c", "c", "--", "sh", "-c", inner]);
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
            .collect();
        let mut script = Command::new("script");
        script
            .args([
                "-qec",
                &format!("stty rows 40 cols 100; {}", words.join(" ")),
                "/dev/null",
            ])
            .env("KUBECONFIG", cluster.kubeconfig());
        let ran = output(&mut script).await;
        assert_eq!(ran.code, Some(0), "{version}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains("40 100"), "{version}: {:?}", ran.stdout);
        assert!(ran.stdout.contains("/dev/pts/"), "{version}: {:?}", ran.stdout);
    }
    cluster.sessions_end().await;
}

/// Resident memory of this process, which is both servers.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_megabytes_pass_both_ways_in_little_memory() {
    const SIZE: usize = 50 * 1024 * 1024;
    let cluster = Cluster::start().await;
    let input: Vec<u8> = (0..SIZE / 4)
        .flat_map(|word| (word as u32).wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(cluster.path("input"), &input).unwrap();
    for version in ["1.27", "1.32"] {
        let before = resident_bytes();
        let mut peak = before;
        let command = cluster
            .kubectl(version)
            .command(&["exec", "-i", "p", "-c", "c", "--", "cat"]);
        let mut child = tokio::process::Command::from(command)
            .stdin(std::fs::File::open(cluster.path("input")).unwrap())
            .stdout(std::fs::File::create(cluster.path("output")).unwrap())
            .spawn()
            .unwrap();
        let status = loop {
            tokio::select! {
                status = child.wait() => break status.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => peak = peak.max(resident_bytes()),
            }
        };
        assert!(status.success(), "{version}");
        let output = std::fs::read(cluster.path("output")).unwrap();
        assert_eq!(output.len(), SIZE, "{version}");
        assert_eq!(Sha256::digest(&output), Sha256::digest(&input), "{version}");
        assert!(
            peak - before < SIZE / 2,
            "{version}: {} MiB more",
            (peak - before) >> 20
        );
    }
    cluster.sessions_end().await;
}

/// Whether a process with that word in its command line lives.
fn is_running(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // kubectl has the word in its own command line.
        !command.windows(7).any(|part| part == b"kubectl")
            && command
                .split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
    })
}

async fn becomes(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    for (version, stdin) in [("1.27", false), ("1.27", true), ("1.32", false), ("1.32", true)] {
        let word = format!("krust-orphan-{}-{version}-{stdin}", std::process::id());
        let script = [
            "exec",
            "-i",
            "p",
            "-c",
            "c",
            "--",
            "sh",
            "-c",
            "sleep 1000",
            word.as_str(),
        ];
        let mut command = cluster.kubectl(version).command(&script);
        // Endless input that the process does not read, or none.
        let input = if stdin { "/dev/zero" } else { "/dev/null" };
        let mut child = command.stdin(std::fs::File::open(input).unwrap()).spawn().unwrap();
        becomes("the process starts", || is_running(&word)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        becomes("the process ends", || !is_running(&word)).await;
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_both_ways() {
    let cluster = Cluster::start().await;
    let content: String = (0..200_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(cluster.path("there"), &content).unwrap();
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        let (local, inside) = (cluster.path("there"), cluster.path(&format!("inside-{version}")));
        let back = cluster.path(&format!("back-{version}"));
        let target = format!("p:{}", inside.display());
        let ran = run(&kubectl, &["cp", "-c", "c", local.to_str().unwrap(), &target], "").await;
        assert_eq!(ran.code, Some(0), "{version}: {}", ran.stderr);
        let ran = run(&kubectl, &["cp", "-c", "c", &target, back.to_str().unwrap()], "").await;
        assert_eq!(ran.code, Some(0), "{version}: {}", ran.stderr);
        assert_eq!(std::fs::read_to_string(&back).unwrap(), content, "{version}");
    }
    cluster.sessions_end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_ends_is_no_success() {
    for version in VERSIONS {
        let cluster = Cluster::start().await;
        let word = format!("krust-interrupted-{}-{version}", std::process::id());
        let script = ["exec", "p", "-c", "c", "--", "sh", "-c", "sleep 1000", word.as_str()];
        let mut command = cluster.kubectl(version).command(&script);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        becomes("the process starts", || is_running(&word)).await;
        cluster.shut_down();
        let ran: Ran = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap().into())
            .await
            .unwrap();
        assert_eq!(ran.code, Some(1), "{version}");
        assert!(ran.stderr.contains("shutting down"), "{version}: {}", ran.stderr);
        becomes("the process ends", || !is_running(&word)).await;
        cluster.sessions_end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_shown() {
    let cluster = Cluster::start().await;
    for version in VERSIONS {
        let kubectl = cluster.kubectl(version);
        for (arguments, text) in [
            (vec!["exec", "p", "-c", "x", "--", "true"], "container x"),
            (vec!["exec", "p", "-c", "d", "--", "true"], "ContainerCreating"),
            (
                vec!["exec", "unbound", "-c", "c", "--", "true"],
                "does not have a host assigned",
            ),
        ] {
            let ran = run(&kubectl, &arguments, "").await;
            assert_eq!(ran.code, Some(1), "{version} {arguments:?}");
            assert!(ran.stderr.contains(text), "{version} {arguments:?}: {}", ran.stderr);
        }
    }
}
