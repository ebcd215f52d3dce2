//! Exec and attach over upgraded connections of our own (upstream: dockershim's `docker_streaming.go`, `exec.go`).

use super::events::{Event, Hub};
use super::frames::Frames;
use super::{
    Engine, ExecControl, ExecRequest, ExecSession, LogStream, Reader, Result, RuntimeEventKind, Writer, failed,
};
use async_trait::async_trait;
use bollard::models::ExecConfig;
use bollard::query_parameters::{ResizeContainerTTYOptionsBuilder, ResizeExecOptionsBuilder};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

/// Bytes that a session holds for a slow reader before the process has to wait.
const PIPE_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 32 * 1024;
/// How long the engine may take to know the pid of an exec that was started.
const PID_WAIT_MAX: Duration = Duration::from_secs(5);

type Connection = TokioIo<Upgraded>;

/// Runs a command in a running container.
pub(super) async fn exec(engine: &Arc<Engine>, hub: &Hub, id: &str, request: &ExecRequest) -> Result<ExecSession> {
    let config = ExecConfig {
        attach_stdin: Some(request.stdin),
        attach_stdout: Some(request.stdout),
        attach_stderr: Some(request.stderr && !request.tty),
        tty: Some(request.tty),
        cmd: Some(request.command.clone()),
        ..Default::default()
    };
    let exec_id = engine
        .docker
        .create_exec(id, config)
        .await
        .map_err(|error| engine.error("exec", "container", id, error))?
        .id;
    let events = hub.subscribe();
    let path = format!("/exec/{exec_id}/start");
    let body = serde_json::json!({ "Detach": false, "Tty": request.tty });
    let guard = Guard {
        engine: Arc::clone(engine),
        exec_id,
        container_id: id.to_string(),
        ended: AtomicBool::new(false),
    };
    // In a task of its own, which goes on when nobody waits any more: once the engine was asked to start it, only its
    // answer tells when there is something to be ended.
    let starting = tokio::spawn(async move {
        let id = &guard.container_id;
        let upgraded = guard
            .engine
            .raw
            .upgrade("exec", "container", id, &path, Some(body))
            .await;
        (guard, upgraded)
    });
    let (guard, upgraded) = starting.await.map_err(|error| failed("exec", id, error.to_string()))?;
    let connection = upgraded?;
    let control = |streams| -> Box<dyn ExecControl> { Box::new(ExecEnd { guard, events, streams }) };
    Ok(session(connection, request, request.tty, control))
}

/// Joins the streams of a running container.
pub(super) async fn attach(engine: &Arc<Engine>, id: &str, request: &ExecRequest, tty: bool) -> Result<ExecSession> {
    let path = format!(
        "/containers/{id}/attach?stream=1&stdin={}&stdout={}&stderr={}",
        u8::from(request.stdin),
        u8::from(request.stdout),
        u8::from(request.stderr && !tty),
    );
    let connection = engine.raw.upgrade("attach", "container", id, &path, None).await?;
    let (engine, container_id) = (Arc::clone(engine), id.to_string());
    let control = |streams| -> Box<dyn ExecControl> {
        Box::new(AttachEnd {
            engine,
            container_id,
            streams,
        })
    };
    Ok(session(connection, request, tty, control))
}

/// The task that takes the output apart, and whether it has seen the end.
struct Streams {
    ended: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

fn session(
    connection: Connection,
    request: &ExecRequest,
    tty: bool,
    control: impl FnOnce(Streams) -> Box<dyn ExecControl>,
) -> ExecSession {
    let (reader, writer) = tokio::io::split(connection);
    let (stdout_writer, stdout) = pipe(request.stdout);
    let (stderr_writer, stderr) = pipe(request.stderr && !tty);
    let (end, ended) = watch::channel(false);
    let (stdin, unused_writer) = match request.stdin {
        true => (Some(Box::pin(Stdin(Some(writer))) as Writer), None),
        false => (None, Some(writer)),
    };
    let task = tokio::spawn(async move {
        if tty {
            copy_raw(reader, stdout_writer).await;
        } else {
            copy_frames(reader, stdout_writer, stderr_writer).await;
        }
        // Closing it earlier may end a session without stdin.
        drop(unused_writer);
        end.send_replace(true);
    });
    ExecSession {
        stdin,
        stdout,
        stderr,
        control: control(Streams {
            ended,
            _task: AbortOnDropHandle::new(task),
        }),
    }
}

fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<Reader>) {
    if !wanted {
        return (None, None);
    }
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    (Some(near), Some(Box::pin(far)))
}

async fn copy_raw(mut reader: ReadHalf<Connection>, mut stdout: Option<DuplexStream>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        write_or_discard(&mut stdout, &buffer[..n]).await;
    }
}

async fn copy_frames(
    mut reader: ReadHalf<Connection>,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) {
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        frames.push(&buffer[..n]);
        loop {
            match frames.next_frame() {
                Ok(Some((LogStream::Stdout, payload))) => write_or_discard(&mut stdout, &payload).await,
                Ok(Some((LogStream::Stderr, payload))) => write_or_discard(&mut stderr, &payload).await,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a stream of Docker's is not what it should be, closing it");
                    return;
                }
            }
        }
    }
}

/// A reader that went away must not stop the process, nor the other stream.
async fn write_or_discard(target: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(writer) = target
        && writer.write_all(bytes).await.is_err()
    {
        *target = None;
    }
}

/// The process's stdin: closed when shut down, and also when dropped.
struct Stdin(Option<WriteHalf<Connection>>);

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.0 {
            Some(writer) => Pin::new(writer).poll_write(cx, bytes),
            None => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.0 {
            Some(writer) => Pin::new(writer).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match &mut self.0 {
            Some(writer) => Pin::new(writer).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        // Shutting a local socket down does not wait; a connection that cannot be shut down is gone already.
        if let Some(mut writer) = self.0.take() {
            let mut context = Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut writer).poll_shutdown(&mut context);
        }
    }
}

/// Ends the process of an exec if it is left before its end. The engine has no call for it.
struct Guard {
    engine: Arc<Engine>,
    exec_id: String,
    container_id: String,
    ended: AtomicBool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if *self.ended.get_mut() {
            return;
        }
        let (engine, exec_id) = (Arc::clone(&self.engine), std::mem::take(&mut self.exec_id));
        let container_id = std::mem::take(&mut self.container_id);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move { end_abandoned(&engine, &exec_id, &container_id).await });
    }
}

/// Kills the process of an exec. The engine takes the connection before it says that the exec runs, and says that, and
/// passes on what it prints, before it knows its pid: both are waited for, but no longer than [`PID_WAIT_MAX`]. One that
/// has ended has an exit code.
async fn end_abandoned(engine: &Engine, exec_id: &str, container_id: &str) {
    let since = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        let Ok(found) = engine.docker.inspect_exec(exec_id).await else {
            return;
        };
        if found.running != Some(true) && found.exit_code.is_some() {
            return;
        }
        let pid = found.pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        if super::port_forward::is_process_of(pid, container_id) {
            if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL) {
                tracing::debug!(%error, pid, "the process of an abandoned exec stays");
            }
            return;
        }
        if since.elapsed() > PID_WAIT_MAX {
            tracing::debug!(
                pid,
                exec_id,
                "the process of an abandoned exec is not to be found and stays"
            );
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

struct ExecEnd {
    guard: Guard,
    events: broadcast::Receiver<Event>,
    streams: Streams,
}

#[async_trait]
impl ExecControl for ExecEnd {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let options = ResizeExecOptionsBuilder::default()
            .w(width.into())
            .h(height.into())
            .build();
        let engine = &self.guard.engine;
        engine
            .docker
            .resize_exec(&self.guard.exec_id, options)
            .await
            .map_err(|error| engine.error("resize", "exec", &self.guard.exec_id, error))
    }

    async fn wait(&self) -> Result<i32> {
        let engine = &self.guard.engine;
        let exec_id = &self.guard.exec_id;
        // Events count from here on; what ended before shows in the first inspection.
        let mut events = self.events.resubscribe();
        let mut ended = self.streams.ended.clone();
        let mut streams_end = false;
        loop {
            let found = engine
                .docker
                .inspect_exec(exec_id)
                .await
                .map_err(|error| engine.error("exec", "container", &self.guard.container_id, error))?;
            if found.running != Some(true)
                && let Some(code) = found.exit_code
            {
                self.guard.ended.store(true, Ordering::Relaxed);
                return Ok(i32::try_from(code).unwrap_or(-1));
            }
            loop {
                tokio::select! {
                    // A command that cannot be started ends without an event.
                    _ = ended.wait_for(|ended| *ended), if !streams_end => {
                        streams_end = true;
                        break;
                    }
                    event = events.recv() => match event {
                        Ok(event) if self.concerns(&event) => break,
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(_)) => break,
                        Err(broadcast::error::RecvError::Closed) => {
                            return Err(failed("exec", &self.guard.container_id, "the runtime was shut down"));
                        }
                    },
                }
            }
        }
    }
}

impl ExecEnd {
    fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::ExecEnded { exec_id } => *exec_id == self.guard.exec_id,
            Event::Runtime(event) => {
                event.kind == RuntimeEventKind::Resync || event.container_id == self.guard.container_id
            }
        }
    }
}

struct AttachEnd {
    engine: Arc<Engine>,
    container_id: String,
    streams: Streams,
}

#[async_trait]
impl ExecControl for AttachEnd {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let options = ResizeContainerTTYOptionsBuilder::default()
            .w(width.into())
            .h(height.into())
            .build();
        self.engine
            .docker
            .resize_container_tty(&self.container_id, options)
            .await
            .map_err(|error| self.engine.error("resize", "container", &self.container_id, error))
    }

    async fn wait(&self) -> Result<i32> {
        // The sender goes away with the task, which is an end too.
        let _ = self.streams.ended.clone().wait_for(|ended| *ended).await;
        Ok(0)
    }
}
