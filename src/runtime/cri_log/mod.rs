//! Log files in CRI's format, which outlive a restart of krust (upstream: `k8s.io/cri-client/pkg/logs`).
//!
//! A container's log is a directory. A [`writer`] beside the container fills it; [`reader`]s follow it. One line
//! each: `<RFC3339 time> stdout|stderr F|P <text>`, where P is a part that the rest of its line follows.

pub mod reader;
pub mod writer;

use super::{LogLimits, LogLine, LogStream};
use bytes::Bytes;
use std::path::{Path, PathBuf};

/// A line that is longer is cut into parts, as containerd does.
pub const LINE_BYTES_MAX: usize = 16 << 10;

/// The file that is written to.
fn current(directory: &Path) -> PathBuf {
    directory.join("0.log")
}

/// What was written before the current file: 1 is the newest.
fn previous(directory: &Path, age: u32) -> PathBuf {
    directory.join(format!("0.log.{age}"))
}

/// Says how long the files get and how many there are: a writer is told only its directory.
fn limits_file(directory: &Path) -> PathBuf {
    directory.join("limits")
}

pub fn write_limits(directory: &Path, limits: LogLimits) -> std::io::Result<()> {
    let text = format!("{} {}\n", limits.file_bytes_max, limits.files_max);
    std::fs::write(limits_file(directory), text)
}

/// Without a readable file, the defaults.
fn read_limits(directory: &Path) -> LogLimits {
    let text = std::fs::read_to_string(limits_file(directory)).unwrap_or_default();
    let mut numbers = text.split_whitespace();
    let read = (|| {
        Some(LogLimits {
            file_bytes_max: numbers.next()?.parse().ok()?,
            files_max: numbers.next()?.parse().ok()?,
        })
    })();
    read.unwrap_or_default()
}

/// Locked by the writer as long as it lives, however it ends.
fn lock(directory: &Path) -> PathBuf {
    directory.join("lock")
}

/// Appends an entry. `text` is without the newline; `whole` says that there was one.
fn format(out: &mut Vec<u8>, time: jiff::Timestamp, stream: LogStream, whole: bool, text: &[u8]) {
    let stream = match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
    };
    let tag = if whole { "F" } else { "P" };
    out.extend_from_slice(format!("{time:.9} {stream} {tag} ").as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Reads an entry, given without the newline that ends it. None if it is not one.
fn parse(entry: &[u8]) -> Option<LogLine> {
    let mut fields = entry.splitn(4, |byte| *byte == b' ');
    let time: jiff::Timestamp = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    // Tags are separated by colons; only the first one has a meaning so far.
    let whole = match fields.next()?.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    let mut text = fields.next().unwrap_or_default().to_vec();
    if whole {
        text.push(b'\n');
    }
    Some(LogLine {
        time: time.into(),
        stream,
        text: Bytes::from(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let time: jiff::Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        let mut out = Vec::new();
        format(&mut out, time, LogStream::Stderr, true, b"two words");
        assert_eq!(out, b"2026-01-02T03:04:05.000000006Z stderr F two words\n");
        let line = parse(&out[..out.len() - 1]).unwrap();
        assert_eq!((line.stream, &line.text[..]), (LogStream::Stderr, &b"two words\n"[..]));
        assert_eq!(line.time, std::time::SystemTime::from(time));
        let part = parse(b"2026-01-02T03:04:05Z stdout P x").unwrap();
        assert_eq!(&part.text[..], b"x");
        let empty = parse(b"2026-01-02T03:04:05Z stdout F ").unwrap();
        assert_eq!(&empty.text[..], b"\n");
    }

    #[test]
    fn what_is_no_entry() {
        for entry in [
            "",
            "x",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05Z stdin F x",
            "2026-01-02T03:04:05Z stdout X x",
        ] {
            assert!(parse(entry.as_bytes()).is_none(), "{entry:?}");
        }
    }
}
