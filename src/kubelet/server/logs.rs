//! A container's log as text, while it grows if asked (upstream: `server.getContainerLogs`,
//! `cri-client/pkg/logs`).

use super::error::ServerError;
use super::query::Query;
use crate::kubelet::ContainerRef;
use crate::runtime::{LogLine, LogOptions, LogStream, Runtime, RuntimeError};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt};
use jiff::Timestamp;
use poem::{Body, Response};
use std::io;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Lines that are there at once are sent as one chunk, up to this many.
const LINES_PER_CHUNK_MAX: usize = 256;

/// The parameters of a log request (upstream: `PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerLogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<SystemTime>,
    pub tail_lines: Option<u64>,
    pub limit_bytes: Option<u64>,
}

impl ContainerLogOptions {
    /// Reads a kubelet URL's query; `now` is what `sinceSeconds` counts from.
    pub fn parse(query: &Query, now: SystemTime) -> Result<ContainerLogOptions, ServerError> {
        let number = |name: &str| -> Result<Option<u64>, ServerError> {
            query
                .get(name)
                .filter(|text| !text.is_empty())
                .map(|text| {
                    text.parse()
                        .map_err(|_| ServerError::bad_request(format!("{name} {text:?} is not a number of 0 or more")))
                })
                .transpose()
        };
        let tail_lines = match query.get("tail") {
            Some("all") => None,
            Some(_) => number("tail")?,
            None => number("tailLines")?,
        };
        let since_time = query
            .get("sinceTime")
            .filter(|text| !text.is_empty())
            .map(|text| {
                text.parse::<Timestamp>()
                    .map(SystemTime::from)
                    .map_err(|_| ServerError::bad_request(format!("sinceTime {text:?} is not an RFC 3339 time")))
            })
            .transpose()?;
        let since_seconds = number("sinceSeconds")?;
        if since_time.is_some() && since_seconds.is_some() {
            return Err(ServerError::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        let since = since_time.or(since_seconds.map(|seconds| {
            now.checked_sub(Duration::from_secs(seconds))
                .unwrap_or(SystemTime::UNIX_EPOCH)
        }));
        Ok(ContainerLogOptions {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            timestamps: query.flag("timestamps"),
            since,
            tail_lines,
            limit_bytes: number("limitBytes")?,
        })
    }
}

/// Answers with the container's log; one that is followed ends with `shutdown`, too.
pub async fn respond(
    runtime: &dyn Runtime,
    container: &ContainerRef,
    options: ContainerLogOptions,
    shutdown: CancellationToken,
) -> Result<Response, ServerError> {
    let wanted = LogOptions {
        follow: options.follow,
        tail_lines: options.tail_lines,
        since: options.since,
    };
    let lines = runtime.logs(&container.id, &wanted).await?;
    // Whoever follows a log has no end of its own.
    let lines = lines.take_until(shutdown.cancelled_owned());
    Ok(Response::builder()
        .content_type("text/plain")
        .body(Body::from_bytes_stream(render(lines, options))))
}

/// The text of the lines, in chunks. Ends after a failure of the runtime, which the client sees as a broken body,
/// and at the limit, rather than at the line after it.
fn render(
    lines: impl Stream<Item = Result<LogLine, RuntimeError>> + Send + 'static,
    options: ContainerLogOptions,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let lines = Box::pin(lines.ready_chunks(LINES_PER_CHUNK_MAX));
    let state = Some((lines, Printer::new(options)));
    futures_util::stream::unfold(state, |state| async move {
        let (mut lines, mut printer) = state?;
        let (chunk, end) = printer.print_all(lines.next().await?);
        let more = end.is_none();
        let items = std::iter::once(Ok(chunk))
            .filter(|chunk: &io::Result<Bytes>| chunk.as_ref().is_ok_and(|chunk| !chunk.is_empty()))
            .chain(end.and_then(End::failure).map(Err));
        Some((futures_util::stream::iter(items), more.then_some((lines, printer))))
    })
    .flatten()
}

/// Why a log ends before its lines do.
enum End {
    Limit,
    Failure(RuntimeError),
}

impl End {
    fn failure(self) -> Option<io::Error> {
        match self {
            End::Limit => None,
            End::Failure(error) => Some(io::Error::other(error)),
        }
    }
}

/// Writes lines as the client wants them.
struct Printer {
    options: ContainerLogOptions,
    remaining_bytes: Option<u64>,
    /// Whether the next text of stdout and of stderr starts a line: long lines come in parts.
    line_start: [bool; 2],
}

impl Printer {
    fn new(options: ContainerLogOptions) -> Printer {
        Printer {
            remaining_bytes: options.limit_bytes,
            options,
            line_start: [true; 2],
        }
    }

    fn print_all(&mut self, lines: Vec<Result<LogLine, RuntimeError>>) -> (Bytes, Option<End>) {
        let mut chunk = BytesMut::new();
        let mut end = None;
        for line in lines {
            end = match line {
                Ok(line) if self.print(&line, &mut chunk) => continue,
                Ok(_) => Some(End::Limit),
                Err(error) => {
                    tracing::warn!(%error, "reading a container's log failed");
                    Some(End::Failure(error))
                }
            };
            break;
        }
        (chunk.freeze(), end)
    }

    /// Appends the line; false when nothing more is wanted.
    fn print(&mut self, line: &LogLine, output: &mut BytesMut) -> bool {
        // Engines filter by whole seconds.
        if self.options.since.is_some_and(|since| line.time < since) {
            return true;
        }
        let start = output.len();
        let line_start = &mut self.line_start[usize::from(line.stream == LogStream::Stderr)];
        if self.options.timestamps && *line_start {
            output.put_slice(format_time(line.time).as_bytes());
            output.put_u8(b' ');
        }
        output.put_slice(&line.text);
        *line_start = line.text.ends_with(b"\n");
        if let Some(remaining) = &mut self.remaining_bytes {
            let written = (output.len() - start) as u64;
            if written >= *remaining {
                output.truncate(start + *remaining as usize);
                return false;
            }
            *remaining -= written;
        }
        true
    }
}

/// RFC 3339 with nine digits of a second, in UTC (upstream: `types.RFC3339NanoFixed`).
fn format_time(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    fn line(millis: u64, stream: LogStream, text: &'static str) -> LogLine {
        LogLine {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            stream,
            text: Bytes::from_static(text.as_bytes()),
        }
    }

    async fn text(lines: Vec<LogLine>, options: ContainerLogOptions) -> String {
        let lines = futures_util::stream::iter(lines.into_iter().map(Ok));
        let chunks: Vec<Bytes> = render(lines, options).try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    #[tokio::test]
    async fn timestamps_are_put_before_lines_not_parts() {
        let lines = vec![
            line(1500, LogStream::Stdout, "one "),
            line(1600, LogStream::Stderr, "error\n"),
            line(1700, LogStream::Stdout, "line\n"),
            line(1800, LogStream::Stdout, "last"),
        ];
        let options = ContainerLogOptions {
            timestamps: true,
            ..Default::default()
        };
        let expected = "1970-01-01T00:00:01.500000000Z one 1970-01-01T00:00:01.600000000Z error\nline\n\
                        1970-01-01T00:00:01.800000000Z last";
        assert_eq!(text(lines, options).await, expected);
    }

    #[tokio::test]
    async fn since_is_exact() {
        let lines = vec![
            line(1500, LogStream::Stdout, "before\n"),
            line(1700, LogStream::Stdout, "after\n"),
        ];
        let options = ContainerLogOptions {
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1700)),
            ..Default::default()
        };
        assert_eq!(text(lines, options).await, "after\n");
    }

    #[tokio::test]
    async fn a_limit_ends_a_followed_log_at_once() {
        let first = futures_util::stream::iter([Ok(line(1, LogStream::Stdout, "12345\n"))]);
        let endless = first.chain(futures_util::stream::pending());
        let options = ContainerLogOptions {
            limit_bytes: Some(3),
            follow: true,
            ..Default::default()
        };
        let chunks: Vec<Bytes> = render(endless, options).try_collect().await.unwrap();
        assert_eq!(chunks.concat(), b"123");
    }

    #[tokio::test]
    async fn a_failure_breaks_the_body_after_what_was_read() {
        let lines = futures_util::stream::iter([
            Ok(line(1, LogStream::Stdout, "read\n")),
            Err(RuntimeError::Unsupported("log")),
            Ok(line(2, LogStream::Stdout, "not reached\n")),
        ]);
        let items: Vec<_> = render(lines, ContainerLogOptions::default()).collect().await;
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].as_ref().unwrap(), "read\n");
        assert!(items[1].is_err());
    }

    #[test]
    fn parameters_are_checked() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let parse = |query: &str| ContainerLogOptions::parse(&Query::parse(query), now);
        let options = parse("follow=true&tailLines=0&sinceSeconds=30&limitBytes=5").unwrap();
        assert_eq!(options.tail_lines, Some(0));
        assert_eq!(options.since, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(70)));
        let time = parse("sinceTime=1970-01-01T00:00:01.5Z").unwrap().since;
        assert_eq!(time, Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)));
        for bad in [
            "tailLines=-1",
            "limitBytes=x",
            "sinceTime=yesterday",
            "sinceTime=1970-01-01T00:00:01Z&sinceSeconds=1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
