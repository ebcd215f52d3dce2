//! Container logs through the engine's API (upstream: the kubelet's `kuberuntime/logs`).

use super::frames::Frames;
use super::raw::Answer;
use super::{Engine, LogLine, LogOptions, LogStream, Result, RuntimeError, failed};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines read ahead of a slow reader.
const AHEAD_LINES_MAX: usize = 256;
/// `2026-01-02T03:04:05.000000006Z`
const TIMESTAMP_BYTES: usize = 30;
/// The engine cuts longer lines into pieces of this size.
const PIECE_BYTES: usize = 16 * 1024;

/// Opens a container's log. With `follow` it ends some time after the container does.
pub(super) async fn open(
    engine: Arc<Engine>,
    id: &str,
    tty: bool,
    options: &LogOptions,
) -> Result<BoxStream<'static, Result<LogLine>>> {
    let answer = request(&engine, id, options).await?;
    let (sender, receiver) = mpsc::channel(AHEAD_LINES_MAX);
    let (id, options) = (id.to_string(), options.clone());
    // Ends when the log does, or when the receiver is dropped.
    let reader = tokio::spawn(async move {
        tokio::select! {
            () = read(&engine, &id, tty, &options, answer, &sender) => {}
            () = sender.closed() => {}
        }
    });
    drop(reader);
    Ok(ReceiverStream::new(receiver).boxed())
}

async fn request(engine: &Engine, id: &str, options: &LogOptions) -> Result<Answer> {
    let mut path = format!(
        "/containers/{id}/logs?stdout=1&stderr=1&timestamps=1&follow={}",
        u8::from(options.follow)
    );
    if let Some(lines) = options.tail_lines {
        path.push_str(&format!("&tail={lines}"));
    }
    if let Some(since) = options.since.and_then(|since| since.duration_since(UNIX_EPOCH).ok()) {
        path.push_str(&format!("&since={}.{:09}", since.as_secs(), since.subsec_nanos()));
    }
    engine.raw.get("read log of", "container", id, &path).await
}

async fn read(
    engine: &Engine,
    id: &str,
    tty: bool,
    options: &LogOptions,
    answer: Answer,
    sender: &mpsc::Sender<Result<LogLine>>,
) {
    let mut seen = Seen::default();
    let mut result = copy(id, answer, tty, &mut seen, None, sender).await;
    if options.follow {
        // The engine stops following before the last line if that has no newline: read what follows the last one.
        let again = LogOptions {
            follow: false,
            since: seen.time.or(options.since),
            tail_lines: options.tail_lines.filter(|_| seen.time.is_none()),
        };
        let before = seen.clone();
        match request(engine, id, &again).await {
            Ok(answer) => {
                let read = copy(id, answer, tty, &mut seen, Some(before), sender).await;
                result = result.and(read);
            }
            // Removed together with its log.
            Err(RuntimeError::NotFound { .. }) => {}
            Err(error) => result = result.and(Err(error)),
        }
    }
    if let Err(error) = result {
        // A receiver that has gone does not want to know.
        let _ = sender.send(Err(error)).await;
    }
}

/// Where a log was read up to: the time of the last line, and how many lines have it.
#[derive(Clone, Debug, Default)]
struct Seen {
    time: Option<SystemTime>,
    lines: u64,
}

impl Seen {
    fn note(&mut self, time: SystemTime) {
        match self.time {
            Some(last) if last == time => self.lines += 1,
            Some(last) if last > time => {}
            _ => {
                self.time = Some(time);
                self.lines = 1;
            }
        }
    }

    /// Whether a line is one of those seen. They come again in the same order.
    fn covers(&mut self, time: SystemTime) -> bool {
        match self.time {
            Some(last) if time < last => true,
            Some(last) if time == last && self.lines > 0 => {
                self.lines -= 1;
                true
            }
            _ => false,
        }
    }
}

async fn copy(
    id: &str,
    mut answer: Answer,
    tty: bool,
    seen: &mut Seen,
    mut before: Option<Seen>,
    sender: &mpsc::Sender<Result<LogLine>>,
) -> Result<()> {
    let mut lines = Lines::new(tty);
    loop {
        let chunk = answer.chunk().await;
        let ended = chunk.is_none();
        match chunk {
            Some(Ok(chunk)) => lines.push(&chunk),
            Some(Err(error)) => return Err(failed("read log of", id, error.to_string())),
            None => lines.end(),
        }
        while let Some(line) = lines
            .next_line()
            .map_err(|error| failed("read log of", id, error.to_string()))?
        {
            if before.as_mut().is_some_and(|before| before.covers(line.time)) {
                continue;
            }
            seen.note(line.time);
            if sender.send(Ok(line)).await.is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// Cuts what the engine sends into lines.
enum Lines {
    /// Without a TTY every message has its frame.
    Framed(Frames),
    /// With one, messages follow each other without any framing.
    Raw { pending: BytesMut, ended: bool },
}

impl Lines {
    fn new(tty: bool) -> Lines {
        if tty {
            Lines::Raw {
                pending: BytesMut::new(),
                ended: false,
            }
        } else {
            Lines::Framed(Frames::default())
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self {
            Lines::Framed(frames) => frames.push(bytes),
            Lines::Raw { pending, .. } => pending.extend_from_slice(bytes),
        }
    }

    fn end(&mut self) {
        if let Lines::Raw { ended, .. } = self {
            *ended = true;
        }
    }

    fn next_line(&mut self) -> Result<Option<LogLine>, super::frames::FrameError> {
        let (stream, message) = match self {
            Lines::Framed(frames) => match frames.next_frame()? {
                Some(frame) => frame,
                None => return Ok(None),
            },
            Lines::Raw { pending, ended } => match take_message(pending, *ended) {
                Some(message) => (LogStream::Stdout, message),
                None => return Ok(None),
            },
        };
        let (time, text) = match timestamp(&message) {
            Some(time) => (time, message.slice(TIMESTAMP_BYTES + 1..)),
            None => (SystemTime::now(), message),
        };
        Ok(Some(LogLine { time, stream, text }))
    }
}

/// The next message of a raw log: up to a newline, or the piece of a longer line, which the next timestamp follows.
fn take_message(pending: &mut BytesMut, ended: bool) -> Option<Bytes> {
    let piece = TIMESTAMP_BYTES + 1 + PIECE_BYTES;
    let newline = pending.iter().take(piece).position(|byte| *byte == b'\n');
    let length = match newline {
        Some(newline) => newline + 1,
        None if pending.len() > piece + TIMESTAMP_BYTES => {
            if timestamp(&pending[piece..]).is_some() {
                piece
            } else {
                // Not cut where the engine cuts: the line goes on to its newline.
                match pending.iter().position(|byte| *byte == b'\n') {
                    Some(newline) => newline + 1,
                    None if ended => pending.len(),
                    None => return None,
                }
            }
        }
        None if ended && !pending.is_empty() => pending.len(),
        None => return None,
    };
    Some(pending.split_to(length).freeze())
}

/// The time at the start of a message, if there is one with a blank after it.
fn timestamp(message: &[u8]) -> Option<SystemTime> {
    if message.get(TIMESTAMP_BYTES) != Some(&b' ') {
        return None;
    }
    let text = std::str::from_utf8(&message[..TIMESTAMP_BYTES]).ok()?;
    text.parse::<jiff::Timestamp>().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            found.push(String::from_utf8(line.text.to_vec()).unwrap());
        }
        found
    }

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    #[test]
    fn framed_messages_keep_their_stream_and_time() {
        let message = format!("{TIME} hello\n");
        let mut bytes = vec![2, 0, 0, 0, 0, 0, 0, message.len() as u8];
        bytes.extend(message.as_bytes());
        let mut lines = Lines::new(false);
        lines.push(&bytes);
        let line = lines.next_line().unwrap().unwrap();
        assert_eq!(line.stream, LogStream::Stderr);
        assert_eq!(&line.text[..], b"hello\n");
        assert_eq!(line.time, timestamp(message.as_bytes()).unwrap());
        assert_eq!(line.time.duration_since(UNIX_EPOCH).unwrap().subsec_nanos(), 6);
    }

    #[test]
    fn raw_messages_in_pieces() {
        let long = "x".repeat(PIECE_BYTES);
        let text = format!("{TIME} one\r\n{TIME} {long}{TIME} rest\n{TIME} \n{TIME} last");
        for size in [1, 10, 1000, 100_000] {
            let mut lines = Lines::new(true);
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                lines.push(piece);
                found.extend(all(&mut lines));
            }
            lines.end();
            found.extend(all(&mut lines));
            assert_eq!(found, ["one\r\n", &long, "rest\n", "\n", "last"], "{size}");
        }
    }

    #[test]
    fn lines_that_were_seen_are_not_shown_again() {
        let at = |nanos: u64| UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
        let mut seen = Seen::default();
        for nanos in [1, 5, 5, 4] {
            seen.note(at(nanos));
        }
        let again: Vec<bool> = [4, 5, 5, 5, 6].iter().map(|nanos| seen.covers(at(*nanos))).collect();
        assert_eq!(again, [true, true, true, false, false]);
        assert!(!Seen::default().covers(at(1)));
    }
}
