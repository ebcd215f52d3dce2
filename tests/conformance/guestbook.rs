//! The parts of a guestbook: a leader that keeps entries, followers that copy them from it, and a front end that writes to
//! the leader and reads from a follower (upstream: agnhost's `guestbook`).

use crate::dialing::ask;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::time::Duration;

static ENTRIES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LEADER: OnceLock<String> = OnceLock::new();
static FOLLOWER: OnceLock<String> = OnceLock::new();

fn ask_at(place: &str, request: &str) -> Result<String, String> {
    let (host, port) = place.split_once(':').ok_or("HOST:PORT")?;
    ask("http", host, port.parse().map_err(|_| "a port")?, request)
}

/// `--copies HOST:PORT`: all that the leader there has.
pub fn follow(leader: String) {
    std::thread::spawn(move || {
        loop {
            if let Ok(all) = ask_at(&leader, "entries") {
                *ENTRIES.lock().unwrap() = all.lines().map(str::to_owned).collect();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

/// `--writes-to HOST:PORT`
pub fn writes_to(place: String) {
    let _ = LEADER.set(place);
}

/// `--reads-from HOST:PORT`
pub fn reads_from(place: String) {
    let _ = FOLLOWER.set(place);
}

/// `/entries`, or `/entries?add=X`.
pub fn answer(add: &str) -> (u16, String) {
    let elsewhere = match add {
        "" => FOLLOWER.get().map(|place| ask_at(place, "entries")),
        text => LEADER.get().map(|place| {
            let text: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            ask_at(place, &format!("entries?add={text}"))
        }),
    };
    match elsewhere {
        Some(Ok(answer)) => (200, answer),
        Some(Err(why)) => (502, why),
        None => {
            let mut entries = ENTRIES.lock().unwrap();
            if !add.is_empty() {
                entries.push(add.to_owned());
            }
            (200, entries.join("\n"))
        }
    }
}
