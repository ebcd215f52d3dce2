//! Logs, exec and attach.

use super::SERVICE;
use crate::subject::*;
use futures_util::StreamExt;
use krust::runtime::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn log_lines_and_options(subject: &Subject) {
    let script = "echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three";
    let (_, id) = subject.start("log", script).await;
    subject.exited(&id).await;
    let all = subject.log(&id, LogOptions::default()).await;
    assert_eq!(texts(&all), ["one\n", "two\n", "three\n"]);
    let streams: Vec<LogStream> = all.iter().map(|line| line.stream).collect();
    assert_eq!(streams, [LogStream::Stdout, LogStream::Stderr, LogStream::Stdout]);
    assert!(all[0].time < all[1].time && all[1].time < all[2].time);
    for (lines, expected) in [(0, &[][..]), (1, &["three\n"]), (2, &["two\n", "three\n"])] {
        let options = LogOptions {
            tail_lines: Some(lines),
            ..Default::default()
        };
        assert_eq!(texts(&subject.log(&id, options).await), expected);
    }
    let since = LogOptions {
        since: Some(all[1].time),
        ..Default::default()
    };
    assert_eq!(texts(&subject.log(&id, since.clone()).await), ["two\n", "three\n"]);
    let both = LogOptions {
        tail_lines: Some(1),
        ..since
    };
    assert_eq!(texts(&subject.log(&id, both).await), ["three\n"]);
}

pub async fn following_a_log(subject: &Subject) {
    let script = "echo one; sleep 0.4; echo two; sleep 0.4; echo three; sleep 0.2";
    let (_, id) = subject.start("follow", script).await;
    let follow = LogOptions {
        follow: true,
        ..Default::default()
    };
    let mut log = subject.runtime.logs(&id, &follow).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, log.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(&first.text[..], b"one\n");
    // It comes while the container runs, not at its end.
    assert_eq!(subject.status(&id).await.state, ContainerState::Running);
    let rest: Vec<LogLine> = tokio::time::timeout(PATIENCE, log.map(Result::unwrap).collect())
        .await
        .unwrap();
    assert_eq!(texts(&rest), ["two\n", "three\n"]);
    // Following what has ended ends as well.
    assert_eq!(subject.log(&id, follow.clone()).await.len(), 3);
    let tail = LogOptions {
        tail_lines: Some(1),
        ..follow
    };
    assert_eq!(texts(&subject.log(&id, tail).await), ["three\n"]);
}

pub async fn a_last_line_without_newline(subject: &Subject) {
    let config = subject.pod("partial");
    let sandbox = subject.sandbox(&config).await;
    let follow = LogOptions {
        follow: true,
        ..Default::default()
    };
    for (name, script, expected) in [
        ("after", "echo one; sleep 0.3; printf two", &["one\n", "two"][..]),
        ("alone", "sleep 0.3; printf only", &["only"]),
        ("none", "sleep 0.1", &[]),
    ] {
        let id = subject.start_in(&sandbox, &config, &subject.script(name, script)).await;
        assert_eq!(
            texts(&subject.log(&id, follow.clone()).await),
            expected,
            "followed {name}"
        );
        assert_eq!(
            texts(&subject.log(&id, LogOptions::default()).await),
            expected,
            "read {name}"
        );
    }
}

pub async fn exec_streams_and_exit_codes(subject: &Subject) {
    let (_, id) = subject.start("exec", SERVICE).await;
    let command = ["sh", "-c", "echo out; echo err >&2; exit 5"];
    assert_eq!(subject.exec(&id, &command).await, ("out\n".into(), "err\n".into(), 5));
    assert_eq!(subject.exec(&id, &["true"]).await, (String::new(), String::new(), 0));
    // Nobody reads, and the process ends all the same.
    let request = ExecRequest {
        stdout: false,
        stderr: false,
        ..exec_request(&["sh", "-c", "echo out; exit 6"])
    };
    let session = subject.runtime.exec(&id, &request).await.unwrap();
    let code = tokio::time::timeout(PATIENCE, session.control.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code, 6);
    // One of both, as a client that wants no more.
    for (stdout, stderr, wanted) in [(true, false, ("out\n", "")), (false, true, ("", "err\n"))] {
        let request = ExecRequest {
            stdout,
            stderr,
            ..exec_request(&command)
        };
        let got = output(subject.runtime.exec(&id, &request).await.unwrap()).await;
        assert_eq!(got, (wanted.0.into(), wanted.1.into(), 5));
    }
    // Many at once do not get each other's output.
    let one = async |number: i32| {
        let text = format!("echo {number}; exit {number}");
        let (stdout, _, code) = subject.exec(&id, &["sh", "-c", &text]).await;
        assert_eq!((stdout, code), (format!("{number}\n"), number));
    };
    futures_util::future::join_all((0..10).map(one)).await;
}

pub async fn exec_with_stdin(subject: &Subject) {
    let (_, id) = subject.start("stdin", SERVICE).await;
    let request = ExecRequest {
        stdin: true,
        ..exec_request(&["cat"])
    };
    let mut session = subject.runtime.exec(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    let mut stdout = session.stdout.take().unwrap();
    // Larger than every buffer on the way.
    let sent: Vec<u8> = (0..1_000_000u32).map(|number| (number % 253) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    tokio::time::timeout(PATIENCE, stdout.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert!(received == expected, "{} bytes of {}", received.len(), expected.len());
    assert_eq!(session.control.wait().await.unwrap(), 0);

    // Dropping the writer ends stdin too.
    let mut session = subject.runtime.exec(&id, &request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"end").await.unwrap();
    stdin.flush().await.unwrap();
    drop(stdin);
    assert_eq!(output(session).await, ("end".into(), String::new(), 0));
}

pub async fn exec_on_a_tty(subject: &Subject) {
    let (_, id) = subject.start("tty", SERVICE).await;
    let request = ExecRequest {
        stdin: true,
        tty: true,
        ..exec_request(&["sh", "-c", "echo out; echo err >&2; sleep 0.5; exit 3"])
    };
    let session = subject.runtime.exec(&id, &request).await.unwrap();
    assert!(session.stderr.is_none());
    session.control.resize(120, 40).await.unwrap();
    let mut session = session;
    // Dropping stdin would hang up.
    let stdin = session.stdin.take();
    let (stdout, _, code) = output(session).await;
    drop(stdin);
    assert_eq!(stdout.replace('\r', ""), "out\nerr\n");
    assert_eq!(code, 3);
}

pub async fn exec_where_it_cannot(subject: &Subject) {
    let config = subject.pod("cannot");
    let sandbox = subject.sandbox(&config).await;
    let id = subject
        .start_in(&sandbox, &config, &subject.script("app", SERVICE))
        .await;
    // Either the call fails or the session does, as a shell would.
    if let Ok(session) = subject.runtime.exec(&id, &exec_request(&["/no/such/program"])).await {
        let (stdout, stderr, code) = output(session).await;
        assert!([126, 127].contains(&code), "{code} {stdout} {stderr}");
    }
    assert!(subject.runtime.exec(&id, &exec_request(&[])).await.is_err());
    let ended = subject
        .start_in(&sandbox, &config, &subject.script("ended", "true"))
        .await;
    subject.exited(&ended).await;
    assert!(subject.runtime.exec(&ended, &exec_request(&["true"])).await.is_err());
}

pub async fn attach_to_stdin_and_stdout(subject: &Subject) {
    let config = subject.pod("attach");
    let sandbox = subject.sandbox(&config).await;
    let container = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..subject.script("app", "cat")
    };
    let id = subject.start_in(&sandbox, &config, &container).await;
    let request = ExecRequest {
        stdin: true,
        ..exec_request(&[])
    };
    let mut session = subject.runtime.attach(&id, &request).await.unwrap();
    let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
    stdin.write_all(b"hello\n").await.unwrap();
    stdin.flush().await.unwrap();
    let mut line = [0; 6];
    tokio::time::timeout(PATIENCE, stdout.read_exact(&mut line))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&line, b"hello\n");
    stdin.shutdown().await.unwrap();
    let code = tokio::time::timeout(PATIENCE, session.control.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code, 0);
    assert_eq!(subject.exited(&id).await.exit_code, 0);
    assert!(subject.runtime.attach(&id, &request).await.is_err());
}
