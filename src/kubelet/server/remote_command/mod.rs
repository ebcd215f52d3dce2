//! Exec and attach: one session of a process and a client's streams, behind whichever transport brought them
//! (upstream: `cri-streaming/pkg/streaming/remotecommand`).

mod spdy;
mod status;
mod websocket;

pub use status::{Outcome, StatusFormat};

use super::Server;
use super::error::ServerError;
use super::mux::{Incoming, Outgoing, make_room};
use super::query::Query;
use super::upgrade::{Handshake, Upgrade};
use crate::kubelet::ContainerRef;
use crate::runtime::{ExecControl, ExecRequest, ExecSession, Reader, Runtime, RuntimeError, Writer};
use bytes::BytesMut;
use poem::{Request, Response};
use serde::Deserialize;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Bound on a resize message, which is some 30 bytes.
const RESIZE_BYTES_MAX: usize = 1024;

/// What is done in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Exec,
    Attach,
}

impl Action {
    async fn start(self, runtime: &dyn Runtime, id: &str, request: &ExecRequest) -> Result<ExecSession, RuntimeError> {
        match self {
            Action::Exec => runtime.exec(id, request).await,
            Action::Attach => runtime.attach(id, request).await,
        }
    }

    fn failure(self) -> &'static str {
        match self {
            Action::Exec => "executing command in",
            Action::Attach => "attaching to",
        }
    }
}

/// The client's streams of a session, whatever carries them.
pub struct Streams {
    pub stdin: Option<Incoming>,
    pub stdout: Option<Box<dyn Outgoing>>,
    pub stderr: Option<Box<dyn Outgoing>>,
    pub error: Box<dyn Outgoing>,
    pub resize: Option<Incoming>,
    pub status_format: StatusFormat,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

/// Reads the session's flags from a kubelet URL's query.
pub fn parse_request(action: Action, query: &Query) -> Result<ExecRequest, ServerError> {
    let tty = query.flag("tty");
    let request = ExecRequest {
        command: query.all("command").map(str::to_owned).collect(),
        stdin: query.flag("input"),
        stdout: query.flag("output"),
        // A terminal has one output.
        stderr: query.flag("error") && !tty,
        tty,
    };
    if !request.stdin && !request.stdout && !request.stderr {
        return Err(ServerError::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    if action == Action::Exec && request.command.is_empty() {
        return Err(ServerError::bad_request("you must specify a command"));
    }
    Ok(request)
}

/// Answers the handshake and runs the session on a task of the server.
pub fn handle(
    server: &Arc<Server>,
    action: Action,
    container: ContainerRef,
    exec: ExecRequest,
    request: &Request,
) -> Result<Response, ServerError> {
    let handshake = Handshake::of(request, websocket::PROTOCOLS, spdy::PROTOCOLS)?;
    let (kind, protocol) = (handshake.kind, handshake.protocol);
    let server_of_task = server.clone();
    Ok(handshake.serve(&server.tasks, move |io| async move {
        let session = Session {
            action,
            container,
            exec,
        };
        match kind {
            Upgrade::WebSocket => websocket::serve(&server_of_task, io, protocol, session).await,
            Upgrade::Spdy => spdy::serve(&server_of_task, io, protocol, session).await,
        }
    }))
}

/// What a client asked for.
pub struct Session {
    pub action: Action,
    pub container: ContainerRef,
    /// The streams as the client counts them.
    pub exec: ExecRequest,
}

impl Session {
    /// Runs the session to its end and tells the client how it ended. When the client leaves first, the
    /// process's session is dropped, which ends it.
    pub async fn run(self, server: &Server, mut streams: Streams) {
        let gone = streams.gone.clone();
        let outcome = tokio::select! {
            outcome = self.outcome(server.runtime.as_ref(), &mut streams) => outcome,
            () = gone.cancelled() => return,
            () = server.shutdown.cancelled() => Ok(Outcome::Interrupted),
        };
        let told = match outcome {
            Ok(outcome) => tell(outcome.encode(streams.status_format), &mut streams).await,
            Err(client_gone) => Err(client_gone),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a client left before it was told how its session ended");
        }
    }

    /// Errors mean that the client is gone.
    async fn outcome(&self, runtime: &dyn Runtime, streams: &mut Streams) -> io::Result<Outcome> {
        let request = ExecRequest {
            // An attached process has the terminal that its container was given.
            tty: match self.action {
                Action::Exec => self.exec.tty,
                Action::Attach => self.container.tty,
            },
            ..self.exec.clone()
        };
        let failed = |error| Outcome::Failed {
            what: self.action.failure(),
            error,
        };
        let session = match self.action.start(runtime, &self.container.id, &request).await {
            Ok(session) => session,
            Err(error) => return Ok(failed(error)),
        };
        let ExecSession {
            stdin,
            stdout,
            stderr,
            control,
        } = session;
        let towards_process = async {
            tokio::join!(
                feed(streams.stdin.take(), stdin),
                resize(streams.resize.take(), control.as_ref())
            );
            // Neither ends the session.
            std::future::pending::<Infallible>().await
        };
        let from_process = async {
            tokio::try_join!(
                pump(stdout, streams.stdout.as_deref_mut()),
                pump(stderr, streams.stderr.as_deref_mut())
            )?;
            Ok::<_, io::Error>(control.wait().await)
        };
        let code = tokio::select! {
            code = from_process => code?,
            never = towards_process => match never {},
        };
        Ok(match (code, self.action) {
            (Ok(0), _) | (Ok(_), Action::Attach) => Outcome::Success,
            (Ok(code), Action::Exec) => Outcome::ExitCode {
                command: request.command,
                code,
            },
            (Err(error), _) => failed(error),
        })
    }
}

/// Says how it ended, after the outputs.
async fn tell(message: Option<bytes::Bytes>, streams: &mut Streams) -> io::Result<()> {
    for output in [&mut streams.stdout, &mut streams.stderr].into_iter().flatten() {
        output.finish().await?;
    }
    if let Some(message) = message {
        streams.error.send(message).await?;
    }
    streams.error.finish().await
}

/// Stdin: until the client half-closes it, or the process does not take it any more.
async fn feed(from: Option<Incoming>, to: Option<Writer>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Some(piece) = from.recv().await {
        let written = async {
            to.write_all(&piece).await?;
            if from.is_empty() {
                to.flush().await?;
            }
            Ok::<_, io::Error>(())
        };
        if written.await.is_err() {
            return; // as a closed pipe is: the process has closed its stdin
        }
    }
    // An error means that the process is gone, which its exit code will tell.
    let _process_gone = to.shutdown().await;
}

/// Stdout or stderr, to its end. A failing read is its end as well (terminals end so). Output that the client
/// did not ask for is read and dropped, so that the process does not stall.
async fn pump(from: Option<Reader>, mut to: Option<&mut (dyn Outgoing + 'static)>) -> io::Result<()> {
    let Some(mut from) = from else {
        return Ok(());
    };
    let mut buffer = BytesMut::new();
    loop {
        make_room(&mut buffer);
        match from.read_buf(&mut buffer).await {
            Ok(bytes) if bytes > 0 => {}
            _ => return Ok(()),
        }
        let piece = buffer.split().freeze();
        if let Some(to) = to.as_mut() {
            to.send(piece).await?;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TerminalSize {
    width: u16,
    height: u16,
}

/// Sizes of the client's terminal, as they come: JSON objects one after another.
async fn resize(from: Option<Incoming>, control: &dyn ExecControl) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = Vec::new();
    while let Some(piece) = from.recv().await {
        buffer.extend_from_slice(&piece);
        // Of several sizes only the last matters.
        let (size, consumed, valid) = last_size(&buffer);
        if valid && buffer.len() - consumed <= RESIZE_BYTES_MAX {
            buffer.drain(..consumed);
        } else {
            buffer.clear();
        }
        if let Some(TerminalSize { width, height }) = size
            && let Err(error) = control.resize(width, height).await
        {
            tracing::debug!(%error, "a terminal was not resized");
        }
    }
}

/// The last complete size, the bytes taken, and whether the rest can still become one.
fn last_size(buffer: &[u8]) -> (Option<TerminalSize>, usize, bool) {
    let mut sizes = serde_json::Deserializer::from_slice(buffer).into_iter::<TerminalSize>();
    let mut last = None;
    loop {
        match sizes.next() {
            Some(Ok(size)) => last = Some(size),
            Some(Err(error)) => return (last, sizes.byte_offset(), error.is_eof()),
            None => return (last, sizes.byte_offset(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_pieces_and_rubbish_is_dropped() {
        let (size, consumed, valid) = last_size(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":50}{\"Wid");
        let size = size.unwrap();
        assert_eq!((size.width, size.height, valid), (100, 50, true));
        assert_eq!(consumed, 50);
        assert!(!last_size(b"rubbish").2);
        assert!(!last_size(b"{\"Width\":70000,\"Height\":24}").2);
    }

    #[test]
    fn a_terminal_has_no_stderr_of_its_own() {
        let query = Query::parse("command=sh&tty=1&input=1&output=1&error=1");
        let request = parse_request(Action::Exec, &query).unwrap();
        assert!(request.stdin && request.stdout && request.tty && !request.stderr);
    }

    #[test]
    fn a_session_without_streams_or_command_is_refused() {
        assert!(parse_request(Action::Exec, &Query::parse("command=ls")).is_err());
        assert!(parse_request(Action::Exec, &Query::parse("output=1")).is_err());
        assert!(parse_request(Action::Attach, &Query::parse("output=1")).is_ok());
    }
}
