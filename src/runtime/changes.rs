//! Changes in directories, told by the kernel. One inotify instance serves all: a user may have few of them, 128 where
//! nobody has said otherwise.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// Wakes when something changes in a directory.
pub struct Changes {
    wakes: watch::Receiver<()>,
    hub: Arc<Hub>,
    directory: WatchDescriptor,
}

static HUB: Mutex<Option<Arc<Hub>>> = Mutex::new(None);

struct Hub {
    inotify: Inotify,
    directories: Mutex<HashMap<WatchDescriptor, Directory>>,
}

struct Directory {
    wake: watch::Sender<()>,
    /// How many `Changes` there are of it.
    watchers: usize,
}

impl Changes {
    pub fn of(directory: &Path) -> io::Result<Changes> {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            // The writer's end closes its lock.
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF;
        let hub = hub()?;
        let mut directories = hub.directories.lock();
        // The kernel gives one directory one descriptor.
        let directory = hub.inotify.add_watch(directory, flags)?;
        let known = directories.entry(directory).or_insert_with(|| Directory {
            wake: watch::Sender::new(()),
            watchers: 0,
        });
        known.watchers += 1;
        let wakes = known.wake.subscribe();
        drop(directories);
        Ok(Changes { wakes, hub, directory })
    }

    /// Returns when something may have changed since the last return.
    pub async fn wait(&mut self) -> io::Result<()> {
        self.wakes.changed().await.map_err(io::Error::other)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut directories = self.hub.directories.lock();
        let Some(known) = directories.get_mut(&self.directory) else {
            return;
        };
        known.watchers -= 1;
        if known.watchers == 0 {
            directories.remove(&self.directory);
            // It is gone already where the directory is.
            let _ = self.hub.inotify.rm_watch(self.directory);
        }
    }
}

/// The one of this process, with a thread that reads from it.
fn hub() -> io::Result<Arc<Hub>> {
    let mut shared = HUB.lock();
    if let Some(hub) = &*shared {
        return Ok(Arc::clone(hub));
    }
    let hub = Arc::new(Hub {
        inotify: Inotify::init(InitFlags::IN_CLOEXEC)?,
        directories: Mutex::default(),
    });
    let told = Arc::clone(&hub);
    std::thread::Builder::new()
        .name("changes".to_owned())
        .spawn(move || told.tell())?;
    Ok(Arc::clone(shared.insert(hub)))
}

impl Hub {
    fn tell(&self) {
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "changes of files are not noticed any more");
                    // Whoever waits learns of it, and who comes later tries anew.
                    *HUB.lock() = None;
                    self.directories.lock().clear();
                    return;
                }
            };
            let directories = self.directories.lock();
            for event in events {
                let some = directories.get(&event.wd);
                // Where there was no room for events, anything may have changed.
                let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let all = directories.values().filter(|_| lost);
                some.into_iter()
                    .chain(all)
                    .for_each(|known| known.wake.send_replace(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn more_directories_than_a_user_may_have_instances() {
        let root = tempfile::tempdir().unwrap();
        let path = |number: usize| root.path().join(number.to_string());
        let mut all: Vec<Changes> = (0..600)
            .map(|number| {
                std::fs::create_dir_all(path(number % 300)).unwrap();
                Changes::of(&path(number % 300)).unwrap()
            })
            .collect();
        std::fs::write(path(7).join("file"), "").unwrap();
        all[7].wait().await.unwrap();
        all[307].wait().await.unwrap();
        assert!(all[8].wait().now_or_never().is_none());
        // The other of the directory stays when one goes.
        drop(all.remove(7));
        std::fs::write(path(7).join("other"), "").unwrap();
        all[306].wait().await.unwrap();
        std::fs::remove_dir_all(path(9)).unwrap();
        all[8].wait().await.unwrap();
        drop(all);
        let left = hub().unwrap();
        assert!(left.directories.lock().values().all(|known| known.watchers > 0));
    }
}
