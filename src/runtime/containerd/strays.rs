//! Shims that the daemon does not know: when a task's creation is broken off because its caller was killed, versions before
//! 1.7 forget the shim that they have just started.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends the shims, and what they run, of a container that the daemon has no task of. Sees only processes of this machine.
/// `id` must be one that nobody else uses: it tells whose the processes are.
pub(super) fn end_shims(id: &str) {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    let processes: Vec<(i32, i32, bool)> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?, is_shim_of(pid, id))))
        .collect();
    for (shim, ..) in processes.iter().filter(|(.., is_shim)| *is_shim) {
        tracing::info!(id, pid = shim, "ending a shim whose container was never started");
        let children = processes.iter().filter(|(_, parent, _)| parent == shim);
        for pid in children.map(|(pid, ..)| *pid).chain([*shim]) {
            // One that has ended meanwhile is fine.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn is_shim_of(pid: i32, id: &str) -> bool {
    // One that has ended meanwhile has none.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_shim = words
        .first()
        .is_some_and(|program| program.windows(15).any(|part| part == b"containerd-shim"));
    is_shim && words.windows(2).any(|pair| pair == [b"-id", id.as_bytes()])
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
        end_shims("stray-of-the-test");
        assert!(!stray.wait().unwrap().success());
        // What its child was is gone, or waits to be reaped by somebody else.
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
        assert!(other.try_wait().unwrap().is_none());
        end_shims("other-of-the-test");
        other.wait().unwrap();
    }
}
