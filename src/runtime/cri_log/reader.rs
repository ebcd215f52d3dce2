//! Reads and follows a container's log (upstream: `k8s.io/cri-client/pkg/logs`, `ReadLogs`).

use super::super::changes::Changes;
use super::super::{LogLine, LogOptions};
use super::{LINE_BYTES_MAX, current, lock, parse, previous};
use futures_util::stream::{BoxStream, StreamExt};
use nix::fcntl::{Flock, FlockArg};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const READ_BYTES_MAX: usize = 64 << 10;
/// An entry's time, stream and tag take far less than this.
const ENTRY_BYTES_MAX: usize = LINE_BYTES_MAX + 1024;

/// Whether nothing is written there any more: the writer has ended, or never was.
pub fn is_complete(directory: &Path) -> bool {
    match File::open(lock(directory)) {
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_ok(),
        Err(_) => true,
    }
}

/// The lines there are, and with `follow` those to come until the writer ends.
pub fn read(directory: &Path, options: &LogOptions) -> io::Result<BoxStream<'static, io::Result<LogLine>>> {
    // Only what is to come: from where the log ends at this moment, not at that of the first read.
    let from_now = options.follow && options.tail_lines == Some(0);
    let changes = options.follow.then(|| Changes::of(directory)).transpose()?;
    let mut file = match from_now {
        true => File::open(current(directory)).ok(),
        false => open_first(directory),
    };
    if let Some(file) = file.as_mut().filter(|_| from_now) {
        file.seek(SeekFrom::End(0))?;
    }
    let reader = Follower {
        changes,
        file,
        directory: directory.to_owned(),
        pending: Vec::new(),
        ready: VecDeque::new(),
        options: options.clone(),
        tail: options.tail_lines.filter(|_| !from_now),
        done: false,
    };
    let stream = futures_util::stream::unfold(reader, |mut reader| async move {
        match reader.next().await {
            Ok(Some(line)) => Some((Ok(line), reader)),
            Ok(None) => None,
            Err(error) => {
                reader.done = true;
                reader.ready.clear();
                Some((Err(error), reader))
            }
        }
    });
    Ok(stream.boxed())
}

/// Where full files were put aside, the oldest of them comes first.
fn open_first(directory: &Path) -> Option<File> {
    files(directory).into_iter().next()
}

/// All files, the oldest first. Opened from the newest on: one that is put aside meanwhile is found twice, not missed.
fn files(directory: &Path) -> Vec<File> {
    let mut files: Vec<File> = File::open(current(directory)).into_iter().collect();
    let mut absent = 0;
    // While they become older, one number at a time is free.
    for age in 1.. {
        let Ok(file) = File::open(previous(directory, age)) else {
            absent += 1;
            if absent > 1 {
                break;
            }
            continue;
        };
        if files.iter().all(|known| !is_same(known, &file)) {
            files.push(file);
        }
    }
    files.reverse();
    files
}

/// The file after this one; none if it is the current one. One that is gone was the oldest.
fn file_after(directory: &Path, file: &File) -> Option<File> {
    let mut files = files(directory);
    let place = files.iter().position(|other| is_same(other, file));
    let next = place.map_or(0, |place| place + 1);
    (next < files.len()).then(|| files.swap_remove(next))
}

fn is_same(one: &File, other: &File) -> bool {
    let inode = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    inode(one).is_some() && inode(one) == inode(other)
}

struct Follower {
    directory: PathBuf,
    /// With `follow`.
    changes: Option<Changes>,
    file: Option<File>,
    /// The beginning of an entry whose end is not written yet.
    pending: Vec<u8>,
    ready: VecDeque<LogLine>,
    options: LogOptions,
    /// Lines that the first pass still has to leave out all but the last of.
    tail: Option<u64>,
    done: bool,
}

impl Follower {
    async fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            // With a tail the whole log is read before the first line is known.
            if self.tail.is_none()
                && let Some(line) = self.ready.pop_front()
            {
                return Ok(Some(line));
            }
            if self.done {
                return Ok(None);
            }
            // In this order: what is written before the end is seen is read after it.
            let complete = is_complete(&self.directory);
            if self.read_some()? {
                self.bound_tail();
                continue;
            }
            if self.tail.take().is_some() && !self.ready.is_empty() {
                continue;
            }
            match &mut self.changes {
                Some(changes) if !complete => changes.wait().await?,
                _ => self.done = true,
            }
        }
    }

    /// Reads a piece; false at the end of what there is.
    fn read_some(&mut self) -> io::Result<bool> {
        if self.file.is_none() {
            self.file = open_first(&self.directory);
        }
        let Some(file) = &mut self.file else {
            return Ok(false);
        };
        let mut buffer = vec![0; READ_BYTES_MAX];
        let mut count = file.read(&mut buffer)?;
        if count == 0 {
            let Some(next) = file_after(&self.directory, file) else {
                return Ok(false);
            };
            // Only now is it sure that nothing more is written here.
            count = file.read(&mut buffer)?;
            if count == 0 {
                *file = next;
                return Ok(true);
            }
        }
        self.pending.extend_from_slice(&buffer[..count]);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            if self.pending.len() > ENTRY_BYTES_MAX {
                let message = format!("{} holds something else than a log", self.directory.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            return Ok(true);
        };
        let since = self.options.since;
        let lines = self.pending[..end].split(|byte| *byte == b'\n').filter_map(parse);
        self.ready
            .extend(lines.filter(|line| since.is_none_or(|since| line.time >= since)));
        self.pending.drain(..=end);
        Ok(true)
    }

    /// Keeps no more than the tail in memory. Parts of a line count together.
    fn bound_tail(&mut self) {
        let Some(tail) = self.tail else { return };
        let ends = |line: &LogLine| line.text.ends_with(b"\n");
        let unfinished = self.ready.back().is_some_and(|last| !ends(last));
        let mut lines = self.ready.iter().filter(|line| ends(line)).count() as u64 + u64::from(unfinished);
        while lines > tail {
            match self.ready.pop_front() {
                Some(first) if ends(&first) || self.ready.is_empty() => lines -= 1,
                Some(_) => {}
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn entry(text: &str, tag: &str) -> String {
        format!("2026-01-02T03:04:05Z stdout {tag} {text}\n")
    }

    async fn all(directory: &Path, options: LogOptions) -> Vec<String> {
        let lines = read(directory, &options).unwrap();
        lines
            .map(|line| String::from_utf8(line.unwrap().text.to_vec()).unwrap())
            .collect()
            .await
    }

    #[tokio::test]
    async fn tails_count_lines_and_cross_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(previous(path, 1), entry("one", "F")).unwrap();
        std::fs::write(
            current(path),
            entry("tw", "P") + &entry("o", "F") + &entry("three", "P"),
        )
        .unwrap();
        let tail = |lines| LogOptions {
            tail_lines: Some(lines),
            ..Default::default()
        };
        assert_eq!(all(path, LogOptions::default()).await, ["one\n", "tw", "o\n", "three"]);
        assert_eq!(all(path, tail(2)).await, ["tw", "o\n", "three"]);
        assert_eq!(all(path, tail(1)).await, ["three"]);
        assert_eq!(all(path, tail(0)).await, Vec::<String>::new());
        assert_eq!(all(path, tail(9)).await.len(), 4);
    }

    #[tokio::test]
    async fn from_now_is_from_the_call() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(current(path), entry("old", "F")).unwrap();
        let options = LogOptions {
            follow: true,
            tail_lines: Some(0),
            since: None,
        };
        let lines = read(path, &options).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(current(path)).unwrap();
        io::Write::write_all(&mut file, entry("new", "F").as_bytes()).unwrap();
        let texts: Vec<_> = lines.map(|line| line.unwrap().text).collect().await;
        assert_eq!(texts, ["new\n"]);
    }

    #[tokio::test]
    async fn following_ends_with_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let held = Flock::lock(File::create(lock(&path)).unwrap(), FlockArg::LockExclusive).unwrap();
        let follow = LogOptions {
            follow: true,
            ..Default::default()
        };
        let mut lines = read(&path, &follow).unwrap();
        std::fs::write(current(&path), entry("one", "F")).unwrap();
        assert_eq!(&lines.next().await.unwrap().unwrap().text[..], b"one\n");
        let more = tokio::time::timeout(Duration::from_millis(50), lines.next()).await;
        assert!(more.is_err(), "the writer still writes");
        std::fs::rename(current(&path), previous(&path, 1)).unwrap();
        std::fs::write(current(&path), entry("two", "F")).unwrap();
        drop(held);
        assert_eq!(&lines.next().await.unwrap().unwrap().text[..], b"two\n");
        assert!(lines.next().await.is_none());
    }
}
