//! `kill -9` while writers run: what was acknowledged is there, nothing repeats, watches resume.

use super::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set for the process that is going to be killed, which is this test once more.
const DATABASE: &str = "KRUST_TEST_CRASH_DATABASE";
const ROUNDS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_keeps_what_it_acknowledged() {
    if let Ok(url) = std::env::var(DATABASE) {
        return write_until_killed(Options::new(url)).await;
    }
    let place = Place::new();
    // Revision to what was acknowledged with it, over all rounds.
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    let mut seen = 1;
    for round in 0..ROUNDS {
        let killed = tokio::task::spawn_blocking({
            let url = place.options().url;
            move || run_and_kill(&url, Duration::from_millis(40 + 35 * round))
        });
        let acks = killed.await.unwrap();
        assert!(!acks.is_empty(), "killed before the first write");
        for (revision, what) in acks {
            assert!(
                acknowledged.insert(revision, what).is_none(),
                "revision {revision} was given out twice"
            );
        }

        let storage = place.open().await;
        let revision = storage.revision();
        assert!(revision >= *acknowledged.keys().next_back().unwrap());
        // A watch that had seen everything up to the last round goes on without a gap.
        let resumed: Vec<_> = events(&storage, seen)
            .unwrap()
            .iter()
            .map(|event| event.revision())
            .collect();
        assert!(resumed.into_iter().eq(seen + 1..=revision));
        seen = revision;
        // Everything acknowledged is in the log, as it was acknowledged.
        for event in events(&storage, 1).unwrap() {
            let what = format!("{:?} {} {}", event.kind, event.entry.key.name, content(&event.entry));
            if let Some(ack) = acknowledged.get(&event.revision()) {
                assert_eq!(*ack, what);
            }
        }
        storage.close().await;
    }
    assert!(acknowledged.len() > 100, "only {} writes", acknowledged.len());
}

/// Starts the writing process, kills it `after` its first acknowledgement, and returns what it acknowledged.
fn run_and_kill(url: &str, after: Duration) -> Vec<(u64, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "storage::tests::crash::a_killed_server_keeps_what_it_acknowledged",
            "--nocapture",
        ])
        .env(DATABASE, url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test runs itself");
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let parse = |line: String| {
        let (revision, what) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
        // The kill may cut a line off; the newline is not seen here, so the line ends in a mark.
        Some((revision.parse().ok()?, what.strip_suffix(" .")?.to_owned()))
    };
    let first = lines.by_ref().find_map(parse);
    std::thread::sleep(after);
    child.kill().expect("SIGKILL");
    let acks = first.into_iter().chain(lines.filter_map(parse)).collect();
    child.wait().expect("it is dead");
    acks
}

async fn write_until_killed(options: Options) {
    let storage = Storage::open(options, Arc::new(UidIndexer)).await.unwrap();
    let writers = (0..8).map(|writer| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for round in 0_u64.. {
                let name = format!("w{writer}-{}", round % 3);
                let content = format!("{}-{round}", std::process::id());
                let there = storage.get("configmaps", "default", &name);
                let operation = match there {
                    None => create(&name, &content),
                    Some(entry) if round % 7 == 0 => delete(&name, entry.revision),
                    Some(entry) => update(&name, entry.revision, &content),
                };
                let (kind, content) = match &operation {
                    Operation::Delete { .. } => (EventKind::Delete, "deleted".to_owned()),
                    _ => (EventKind::Put, content),
                };
                let revision = write(&storage, operation).await;
                let line = format!("acknowledged {revision} {kind:?} {name} {content} .\n");
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        })
    });
    futures_util::future::join_all(writers).await;
}
