//! Writes a container's log: a process of its own beside the container (upstream: `containerd/runtime/v2/logging`).
//!
//! It is this program, started by the container's shim, so that a container's output goes on being read while krust is
//! away. It ends when both pipes do, or when it is told to, after what is in the pipes. A container with stdin but no
//! terminal has named pipes, since a shim with a logger gives it no stdin; its logger is started by krust.

use super::{LINE_BYTES_MAX, LogLimits, LogStream, current, format, lock, previous, read_limits};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

/// What is taken from a pipe at once.
const TAKEN_BYTES_MAX: usize = 1 << 20;
/// For how long a terminal's unfinished line is kept back, so that an echo and its rest come together.
const TERMINAL_DELAY: Duration = Duration::from_millis(10);
const READ_BYTES_MAX: usize = 64 << 10;

/// The descriptors that containerd's shim gives a logger.
const STDOUT_FD: i32 = 3;
const STDERR_FD: i32 = 4;
const READY_FD: i32 = 5;

/// Runs as the logger of a containerd shim. With a `terminal`, unfinished lines (prompts) are written at once.
pub fn run_as_shim_logger(directory: &Path, terminal: bool) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // SAFETY: the shim opened these for this process, and nothing else here uses them.
    let [stdout, stderr, ready] = [STDOUT_FD, STDERR_FD, READY_FD].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    runtime.block_on(async {
        let file = LogFile::open(directory)?;
        let [stdout, stderr] = [Receiver::from_owned_fd(stdout)?, Receiver::from_owned_fd(stderr)?];
        let mut logger = Logger::new(file, stdout, stderr, terminal)?;
        // The shim waits for this before it starts the container.
        drop(ready);
        logger.run().await
    })
}

/// Reads the named pipes `stdout` and `stderr` in a directory. Closes its own stdout when it is ready.
pub fn run_on_named_pipes(directory: &Path, pipes: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let file = LogFile::open(directory)?;
        let open = |name: &str| tokio::net::unix::pipe::OpenOptions::new().open_receiver(pipes.join(name));
        let mut logger = Logger::new(file, open("stdout")?, open("stderr")?, false)?;
        // SAFETY: nothing else here uses it.
        drop(unsafe { OwnedFd::from_raw_fd(libc::STDOUT_FILENO) });
        logger.run().await
    })
}

/// Both streams and where they go.
struct Logger {
    file: LogFile,
    stdout: Stream,
    stderr: Stream,
    stop: tokio::signal::unix::Signal,
    terminal: bool,
}

struct Stream {
    pipe: Receiver,
    lines: Lines,
    open: bool,
}

impl Logger {
    fn new(file: LogFile, stdout: Receiver, stderr: Receiver, terminal: bool) -> io::Result<Logger> {
        let stream = |pipe, stream| Stream {
            pipe,
            lines: Lines::new(stream),
            open: true,
        };
        Ok(Logger {
            file,
            stdout: stream(stdout, LogStream::Stdout),
            stderr: stream(stderr, LogStream::Stderr),
            stop: signal(SignalKind::terminate())?,
            terminal,
        })
    }

    async fn run(&mut self) -> io::Result<()> {
        let mut stopping = false;
        while !stopping && (self.stdout.open || self.stderr.open) {
            let unfinished = self.terminal && !(self.stdout.lines.is_empty() && self.stderr.lines.is_empty());
            let mut out = Vec::new();
            // Only what is readable is read: a named pipe that nobody has opened yet would seem to have ended.
            tokio::select! {
                readable = self.stdout.pipe.readable(), if self.stdout.open => {
                    readable?;
                    self.stdout.take(&mut out)?;
                }
                readable = self.stderr.pipe.readable(), if self.stderr.open => {
                    readable?;
                    self.stderr.take(&mut out)?;
                }
                _ = self.stop.recv() => {
                    stopping = true;
                    self.stdout.take(&mut out)?;
                    self.stderr.take(&mut out)?;
                }
                () = tokio::time::sleep(TERMINAL_DELAY), if unfinished => {
                    self.stdout.lines.flush(&mut out);
                    self.stderr.lines.flush(&mut out);
                }
            }
            self.file.append(&out)?;
        }
        let mut out = Vec::new();
        self.stdout.lines.flush(&mut out);
        self.stderr.lines.flush(&mut out);
        self.file.append(&out)
    }
}

impl Stream {
    /// Takes what is in the pipe now.
    fn take(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES_MAX];
        while self.open && out.len() < TAKEN_BYTES_MAX {
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => self.lines.push(&buffer[..count], out),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Cuts a stream into entries.
struct Lines {
    stream: LogStream,
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
}

impl Lines {
    fn new(stream: LogStream) -> Lines {
        Lines {
            stream,
            pending: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        let time = jiff::Timestamp::now();
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX - self.pending.len();
            let end = bytes.iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) if end <= room => {
                    self.pending.extend_from_slice(&bytes[..end]);
                    format(out, time, self.stream, true, &self.pending);
                    self.pending.clear();
                    bytes = &bytes[end + 1..];
                }
                _ => {
                    let taken = bytes.len().min(room);
                    self.pending.extend_from_slice(&bytes[..taken]);
                    bytes = &bytes[taken..];
                    if self.pending.len() == LINE_BYTES_MAX && !bytes.is_empty() {
                        self.flush(out);
                    }
                }
            }
        }
    }

    /// Writes an unfinished line as a part.
    fn flush(&mut self, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            format(out, jiff::Timestamp::now(), self.stream, false, &self.pending);
            self.pending.clear();
        }
    }
}

/// The files, and the lock that tells readers of this writer.
struct LogFile {
    directory: PathBuf,
    file: File,
    size: u64,
    limits: LogLimits,
    _lock: Flock<File>,
}

impl LogFile {
    fn open(directory: &Path) -> io::Result<LogFile> {
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(lock(directory))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let file = open_current(directory)?;
        Ok(LogFile {
            size: file.metadata()?.len(),
            directory: directory.to_owned(),
            file,
            limits: read_limits(directory),
            _lock: lock,
        })
    }

    /// Writes whole entries, to as many files as they need.
    fn append(&mut self, mut entries: &[u8]) -> io::Result<()> {
        while !entries.is_empty() {
            let room = usize::try_from(self.limits.file_bytes_max.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let fitting = match entries.len() <= room {
                true => entries.len(),
                false => end(&entries[..room]),
            };
            let taken = match (fitting, self.size) {
                // One that is longer than a file has one of its own.
                (0, 0) => entries
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(entries.len(), |at| at + 1),
                (0, _) => {
                    self.put_aside()?;
                    self.file = open_current(&self.directory)?;
                    self.size = 0;
                    continue;
                }
                (fitting, _) => fitting,
            };
            self.file.write_all(&entries[..taken])?;
            self.size += taken as u64;
            entries = &entries[taken..];
        }
        Ok(())
    }

    /// Every file becomes one older; the oldest goes.
    fn put_aside(&self) -> io::Result<()> {
        let name = |age: u32| match age {
            0 => current(&self.directory),
            age => previous(&self.directory, age),
        };
        // A reader that is slow must still find the file that it reads: there are at least two.
        let oldest = self.limits.files_max.max(2) - 1;
        for age in (1..=oldest).rev() {
            match std::fs::rename(name(age - 1), name(age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open_current(directory: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(current(directory))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn texts(out: &[u8]) -> Vec<String> {
        out.split(|byte| *byte == b'\n')
            .filter(|entry| !entry.is_empty())
            .map(|entry| String::from_utf8(parse(entry).unwrap().text.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn lines_in_pieces_and_long_ones() {
        let mut lines = Lines::new(LogStream::Stdout);
        let mut out = Vec::new();
        for piece in ["on", "e\n\ntw", "o"] {
            lines.push(piece.as_bytes(), &mut out);
        }
        assert_eq!(texts(&out), ["one\n", "\n"]);
        lines.flush(&mut out);
        assert_eq!(texts(&out), ["one\n", "\n", "two"]);
        let mut out = Vec::new();
        let long = "x".repeat(LINE_BYTES_MAX);
        lines.push(format!("{long}\n{long}y\n").as_bytes(), &mut out);
        assert_eq!(texts(&out), [format!("{long}\n"), long.clone(), "y\n".to_string()]);
    }

    #[tokio::test]
    async fn full_files_are_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let limits = LogLimits {
            file_bytes_max: 100,
            files_max: 3,
        };
        super::super::write_limits(directory.path(), limits).unwrap();
        let mut file = LogFile::open(directory.path()).unwrap();
        for number in 0..9u8 {
            file.append(&[b'0' + number; 50]).unwrap();
        }
        let read = |path| String::from_utf8(std::fs::read(path).unwrap()).unwrap();
        assert_eq!(read(current(directory.path())), "8".repeat(50));
        assert_eq!(read(previous(directory.path(), 1)), "6".repeat(50) + &"7".repeat(50));
        assert_eq!(read(previous(directory.path(), 2)), "4".repeat(50) + &"5".repeat(50));
        assert!(!previous(directory.path(), 3).exists());
        // Many entries at once go to several files, each of them whole.
        file.append(format!("{}\n", "a".repeat(39)).repeat(4).as_bytes())
            .unwrap();
        assert_eq!(read(current(directory.path())).len(), 40);
        assert_eq!(read(previous(directory.path(), 1)).len(), 80);
        assert_eq!(read(previous(directory.path(), 2)).len(), 90);
    }

    #[tokio::test]
    async fn both_streams_to_their_end() {
        let directory = tempfile::tempdir().unwrap();
        let (out_reader, out_writer) = nix::unistd::pipe().unwrap();
        let (err_reader, err_writer) = nix::unistd::pipe().unwrap();
        for fd in [&out_reader, &err_reader] {
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        }
        let file = LogFile::open(directory.path()).unwrap();
        let [out, err] = [out_reader, err_reader].map(|fd| Receiver::from_owned_fd(fd).unwrap());
        let mut logger = Logger::new(file, out, err, false).unwrap();
        nix::unistd::write(&out_writer, b"one\ntwo").unwrap();
        nix::unistd::write(&err_writer, b"oops\n").unwrap();
        drop((out_writer, err_writer));
        logger.run().await.unwrap();
        let written = texts(&std::fs::read(current(directory.path())).unwrap());
        let mut sorted = written.clone();
        sorted.sort();
        assert_eq!(sorted, ["one\n", "oops\n", "two"]);
        assert_eq!(
            written.last().map(String::as_str),
            Some("two"),
            "what is unfinished comes last"
        );
    }
}
