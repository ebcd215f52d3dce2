//! Shims that the daemon does not know: when the creation of a task is broken off because its caller was killed, versions
//! before 1.7 may forget the shim that they are starting. It can still come after its container was removed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When it is looked for a removed container's shim, after its removal.
const LOOKS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(40)];
/// All that are due within this time are looked for at once.
const TICK: Duration = Duration::from_secs(2);

/// The removed containers whose shims must be gone.
pub(super) struct Strays {
    /// A file for each: what is not done when krust ends goes on at its next start.
    directory: PathBuf,
    /// Containers whose tasks the daemon has told of: it knows their shims, and no other comes later.
    told: Mutex<HashSet<String>>,
    expected: Mutex<Expected>,
}

#[derive(Default)]
struct Expected {
    /// By id: the time of the removal, and how often it was looked for.
    ids: HashMap<String, (Instant, usize)>,
    somebody_looks: bool,
}

impl Strays {
    /// Goes on with what an earlier run expected. Must be called within a runtime.
    pub(super) fn new(directory: PathBuf) -> Arc<Self> {
        let strays = Arc::new(Self {
            directory,
            told: Mutex::default(),
            expected: Mutex::default(),
        });
        for entry in std::fs::read_dir(&strays.directory).into_iter().flatten().flatten() {
            if let Ok(id) = entry.file_name().into_string() {
                strays.look_for(id);
            }
        }
        strays
    }

    /// The daemon has answered that the container's task is made.
    pub(super) fn told(&self, id: &str) {
        self.told.lock().insert(id.to_owned());
    }

    /// Sees to it that nothing is left of a container that the daemon has no task of any more. `id` must be one that nobody
    /// else uses: it tells whose the processes are. All processes are looked at, so only where the answer was not seen: it
    /// may have been for a krust that was killed.
    pub(super) fn expect(self: &Arc<Self>, id: &str) {
        if self.told.lock().remove(id) {
            return;
        }
        let marked =
            std::fs::create_dir_all(&self.directory).and_then(|()| std::fs::write(self.directory.join(id), ""));
        if let Err(error) = marked {
            tracing::debug!(%error, id, "a shim may stay if krust ends now");
        }
        self.look_for(id.to_owned());
    }

    fn look_for(self: &Arc<Self>, id: String) {
        let mut expected = self.expected.lock();
        expected.ids.insert(id, (Instant::now(), 0));
        if !std::mem::replace(&mut expected.somebody_looks, true) {
            let strays = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(TICK).await;
                    let at_work = Arc::clone(&strays);
                    if !tokio::task::spawn_blocking(move || at_work.look())
                        .await
                        .unwrap_or(false)
                    {
                        break;
                    }
                }
            });
        }
    }

    /// One look for those that are due; false when there is nothing more to look for.
    fn look(&self) -> bool {
        let due: HashSet<String> = {
            let expected = self.expected.lock();
            let is_due = |(removed, looks): &(Instant, usize)| removed.elapsed() >= LOOKS[*looks];
            let due = expected.ids.iter().filter(|(_, state)| is_due(state));
            due.map(|(id, _)| id.clone()).collect()
        };
        if !due.is_empty() {
            end_shims(&due);
        }
        let mut expected = self.expected.lock();
        for id in due {
            let Some((_, looks)) = expected.ids.get_mut(&id) else {
                continue;
            };
            *looks += 1;
            if *looks == LOOKS.len() {
                expected.ids.remove(&id);
                if let Err(error) = std::fs::remove_file(self.directory.join(&id)) {
                    tracing::debug!(%error, id, "a mark stays");
                }
            }
        }
        expected.somebody_looks = !expected.ids.is_empty();
        expected.somebody_looks
    }
}

/// Ends the shims of these containers, and what they run. Sees only processes of this machine.
fn end_shims(ids: &HashSet<String>) {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes: Vec<(i32, i32)> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    for (shim, _) in &processes {
        let Some(id) = shim_of(*shim).filter(|id| ids.contains(id)) else {
            continue;
        };
        tracing::info!(id, pid = shim, "ending a shim that its daemon has forgotten");
        let children = processes.iter().filter(|(_, parent)| parent == shim);
        // The shim first: it would go on when its children end.
        for pid in std::iter::once(*shim).chain(children.map(|(pid, _)| *pid)) {
            // One that has ended meanwhile is fine.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The id of the container that a process is the shim of.
fn shim_of(pid: i32) -> Option<String> {
    // One that has ended meanwhile has none.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    if !words.next()?.contains("containerd-shim") {
        return None;
    }
    words.by_ref().find(|word| *word == "-id")?;
    words.next().map(str::to_owned)
}

/// The fourth field of `/proc/PID/stat`; the second may contain anything but ends with the last parenthesis.
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_shim_of_the_id_ends() {
        // A shell that calls itself so, takes the options as its script's, and waits for a child.
        let start = |id: &str| {
            let mut command = std::process::Command::new("/bin/sh");
            std::os::unix::process::CommandExt::arg0(&mut command, "containerd-shim-test");
            command.args(["-c", "sleep 60; true", "-id", id]).spawn().unwrap()
        };
        let (mut stray, mut other) = (start("stray-of-the-test"), start("other-of-the-test"));
        let child_of = |pid: u32| {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            children.ok().filter(|children| !children.is_empty())
        };
        for shim in [&stray, &other] {
            while child_of(shim.id()).is_none() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        let child: i32 = child_of(stray.id()).unwrap().trim().parse().unwrap();
        assert_eq!(parent(child), i32::try_from(stray.id()).ok());
        end_shims(&HashSet::from(["stray-of-the-test".to_owned()]));
        assert!(!stray.wait().unwrap().success());
        // What its child was is soon gone, or waits to be reaped by somebody else.
        let ended = || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        let begun = Instant::now();
        while !ended() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{child} goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(other.try_wait().unwrap().is_none());
        end_shims(&HashSet::from(["other-of-the-test".to_owned()]));
        other.wait().unwrap();
    }
}
