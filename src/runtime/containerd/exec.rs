//! Processes beside a container's first one, and sessions with that one (upstream: the CRI plugin's
//! `container_exec.go`, `container_attach.go`).
//!
//! The shim copies between the process and named pipes. Those of an exec exist as long as its session.

use super::super::oci::exec_process;
use super::record::{self, ContainerRecord, TYPE_CONTAINER};
use super::{
    ContainerState, Engine, ExecControl, ExecRequest, ExecSession, LogOptions, Parts, Reader, Result, Writer, cri_log,
    failed,
};
use async_trait::async_trait;
use containerd_client::services::v1::{
    CloseIoRequest, DeleteProcessRequest, ExecProcessRequest, KillRequest, ResizePtyRequest, StartRequest, WaitRequest,
};
use futures_util::{StreamExt, TryStreamExt};
use nix::sys::stat::Mode;
use oci_spec::runtime::Spec;
use prost_types::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio_util::io::StreamReader;

/// What the daemon's runtime takes the specification of a process for.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

pub(super) async fn exec(parts: &Arc<Parts>, id: &str, request: &ExecRequest) -> Result<ExecSession> {
    let engine = &parts.engine;
    let container = engine.container(id, TYPE_CONTAINER).await?;
    if parts.status(id).await?.state != ContainerState::Running {
        return Err(failed("exec in", id, "the container does not run"));
    }
    if request.command.is_empty() {
        return Err(failed("exec in", id, "no command was given"));
    }
    let spec = container.spec.unwrap_or_default().value;
    let spec: Spec = serde_json::from_slice(&spec).map_err(|error| failed("exec in", id, error))?;
    let process = exec_process(&spec, &request.command, request.tty)
        .ok_or_else(|| failed("exec in", id, "the container has no process"))?;
    let process = serde_json::to_vec(&process).map_err(|error| failed("exec in", id, error))?;
    let exec_id = uuid::Uuid::new_v4().simple().to_string();
    // From here on, whatever is there of it is taken away when nobody holds it any more.
    let running = Arc::new(Exec {
        parts: Arc::clone(parts),
        container_id: id.to_string(),
        directory: engine.directory(id).join("exec").join(&exec_id),
        exec_id: exec_id.clone(),
    });
    let pipes =
        Pipes::create(&running.directory, request).map_err(|error| failed("make pipes for an exec in", id, error))?;
    let message = ExecProcessRequest {
        container_id: id.to_string(),
        exec_id,
        stdin: pipes.path(0, request.stdin).unwrap_or_default(),
        stdout: pipes.path(1, request.stdout).unwrap_or_else(nowhere),
        // A terminal has one stream; other processes' shim wants a file for each.
        stderr: match request.tty {
            true => String::new(),
            false => pipes.path(2, request.stderr).unwrap_or_else(nowhere),
        },
        terminal: request.tty,
        spec: Some(Any {
            type_url: PROCESS_TYPE.to_string(),
            value: process,
        }),
    };
    let opened = pipes
        .open(request)
        .map_err(|error| failed("open pipes for an exec in", id, error))?;
    // In a task of its own, which goes on when nobody waits any more: a kill that overtakes the start would find nothing
    // to end.
    let started = tokio::spawn(start(Arc::clone(&running), message, opened)).await;
    let (stdin, stdout, stderr) = started.map_err(|error| failed("exec in", id, error))??;
    let reader = |pipe: Receiver| -> Reader { Box::pin(pipe) };
    Ok(ExecSession {
        stdin: stdin.map(|pipe| -> Writer {
            let exec = Arc::clone(&running);
            let close = async move { close_stdin(exec.engine(), &exec.container_id, &exec.exec_id).await };
            Box::pin(Stdin::new(pipe, close))
        }),
        stdout: stdout.map(reader),
        stderr: stderr.map(reader),
        control: Box::new(ExecHandle(running)),
    })
}

/// Adds the process, and starts it. Its pipes stay open on this side until then: the shim waits for them, and answers
/// nobody meanwhile.
async fn start(exec: Arc<Exec>, message: ExecProcessRequest, opened: Opened) -> Result<Opened> {
    let engine = exec.engine();
    let refused = |status| engine.error("exec in", "container", &exec.container_id, status);
    engine.tasks().exec(engine.request(message)).await.map_err(refused)?;
    let start = StartRequest {
        container_id: exec.container_id.clone(),
        exec_id: exec.exec_id.clone(),
    };
    let started = engine.tasks().start(engine.request(start)).await;
    started.map(|_| opened).map_err(refused)
}

/// Where output goes that nobody asked for.
fn nowhere() -> String {
    "/dev/null".to_string()
}

/// The named pipes of one process.
struct Pipes {
    directory: PathBuf,
}

type Opened = (Option<Sender>, Option<Receiver>, Option<Receiver>);

impl Pipes {
    fn create(directory: &Path, request: &ExecRequest) -> io::Result<Pipes> {
        std::fs::create_dir_all(directory)?;
        let pipes = Pipes {
            directory: directory.to_owned(),
        };
        let wanted = [request.stdin, request.stdout, request.stderr && !request.tty];
        for number in (0..3).filter(|number| wanted[*number]) {
            nix::unistd::mkfifo(&pipes.file(number), Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(pipes)
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.join(["stdin", "stdout", "stderr"][number])
    }

    fn path(&self, number: usize, wanted: bool) -> Option<String> {
        wanted.then(|| self.file(number).display().to_string())
    }

    /// Opened before the process starts, so that the shim does not wait for this side.
    fn open(&self, request: &ExecRequest) -> io::Result<Opened> {
        let read = |number, wanted: bool| {
            wanted
                .then(|| OpenOptions::new().open_receiver(self.file(number)))
                .transpose()
        };
        // With both ends it opens although the shim has not opened its end yet.
        let stdin = request
            .stdin
            .then(|| OpenOptions::new().read_write(true).open_sender(self.file(0)))
            .transpose()?;
        Ok((
            stdin,
            read(1, request.stdout)?,
            read(2, request.stderr && !request.tty)?,
        ))
    }
}

/// A process that was added to a container. It ends with its session.
struct Exec {
    parts: Arc<Parts>,
    container_id: String,
    exec_id: String,
    directory: PathBuf,
}

impl Exec {
    fn engine(&self) -> &Engine {
        &self.parts.engine
    }
}

async fn close_stdin(engine: &Engine, container_id: &str, exec_id: &str) -> Result<()> {
    let request = engine.request(CloseIoRequest {
        container_id: container_id.to_string(),
        exec_id: exec_id.to_string(),
        stdin: true,
    });
    let closed = engine.tasks().close_io(request).await;
    super::gone_is_fine(
        closed
            .map(drop)
            .map_err(|status| engine.error("close stdin of", "container", container_id, status)),
    )
}

impl Drop for Exec {
    fn drop(&mut self) {
        let (parts, container_id, exec_id) = (Arc::clone(&self.parts), self.container_id.clone(), self.exec_id.clone());
        let _ = std::fs::remove_dir_all(&self.directory);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let engine = &parts.engine;
            let kill = KillRequest {
                container_id: container_id.clone(),
                exec_id: exec_id.clone(),
                signal: libc::SIGKILL as u32,
                all: false,
            };
            // What has ended, or never started, cannot be killed.
            if engine.tasks().kill(engine.request(kill)).await.is_ok() {
                let wait = WaitRequest {
                    container_id: container_id.clone(),
                    exec_id: exec_id.clone(),
                };
                let _ = engine.tasks().wait(engine.request(wait)).await;
            }
            let delete = DeleteProcessRequest { container_id, exec_id };
            if let Err(status) = engine.tasks().delete_process(engine.request(delete)).await {
                tracing::debug!(error = status.message(), "an exec stays until its container ends");
            }
        });
    }
}

struct ExecHandle(Arc<Exec>);

#[async_trait]
impl ExecControl for ExecHandle {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        resize(self.0.engine(), &self.0.container_id, &self.0.exec_id, width, height).await
    }

    async fn wait(&self) -> Result<i32> {
        let engine = self.0.engine();
        let request = engine.request(WaitRequest {
            container_id: self.0.container_id.clone(),
            exec_id: self.0.exec_id.clone(),
        });
        let ended = engine.tasks().wait(request).await;
        let ended = ended.map_err(|status| engine.error("wait for", "container", &self.0.container_id, status))?;
        Ok(i32::try_from(ended.into_inner().exit_status).unwrap_or(-1))
    }
}

async fn resize(engine: &Engine, container_id: &str, exec_id: &str, width: u16, height: u16) -> Result<()> {
    let request = engine.request(ResizePtyRequest {
        container_id: container_id.to_string(),
        exec_id: exec_id.to_string(),
        width: width.into(),
        height: height.into(),
    });
    let resized = engine.tasks().resize_pty(request).await;
    resized
        .map(drop)
        .map_err(|status| engine.error("resize", "container", container_id, status))
}

/// The process's stdin. The shim holds an end of the pipe as well, which it is told to close first: what is in the pipe
/// by then is read all the same.
struct Stdin {
    pipe: Option<Sender>,
    /// Tells the shim to close its end.
    close: Option<Closing>,
    closing: Option<Closing>,
}

type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Stdin {
    fn new(pipe: Sender, close: impl Future<Output = Result<()>> + Send + 'static) -> Stdin {
        let close = async move {
            if let Err(error) = close.await {
                tracing::debug!(%error, "the stdin of a process could not be closed");
            }
        };
        Stdin {
            pipe: Some(pipe),
            close: Some(Box::pin(close)),
            closing: None,
        }
    }

    fn close(&mut self) -> Option<Closing> {
        let (pipe, close) = (self.pipe.take()?, self.close.take()?);
        Some(Box::pin(async move {
            close.await;
            drop(pipe);
        }))
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.pipe {
            Some(pipe) => Pin::new(pipe).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            self.closing = self.close();
        }
        let Some(closing) = &mut self.closing else {
            return Poll::Ready(Ok(()));
        };
        std::task::ready!(closing.as_mut().poll(context));
        self.closing = None;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        if let (Some(closing), Ok(runtime)) = (self.close(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(closing);
        }
    }
}

/// Follows what the container's first process writes, from its log.
pub(super) async fn attach(parts: &Arc<Parts>, id: &str, request: &ExecRequest) -> Result<ExecSession> {
    let container = parts.engine.container(id, TYPE_CONTAINER).await?;
    let record: ContainerRecord = record::record(&container);
    if parts.status(id).await?.state != ContainerState::Running {
        return Err(failed("attach", id, "the container does not run"));
    }
    let stdin = match request.stdin && record.stdin {
        true => Some(attach_stdin(parts, id, &record).map_err(|error| failed("open the stdin of", id, error))?),
        false => None,
    };
    let from_now = LogOptions {
        follow: true,
        tail_lines: Some(0),
        since: None,
    };
    let output = |wanted: bool, stream| -> Result<Option<Reader>> {
        if !wanted {
            return Ok(None);
        }
        let lines = cri_log::reader::read(&parts.engine.log_directory(id), &from_now)
            .map_err(|error| failed("read the log of", id, error))?;
        let texts = lines
            .try_filter(move |line| std::future::ready(line.stream == stream))
            .map_ok(|line| line.text);
        Ok(Some(Box::pin(StreamReader::new(texts.boxed()))))
    };
    Ok(ExecSession {
        stdin,
        stdout: output(request.stdout, super::LogStream::Stdout)?,
        stderr: output(request.stderr && !record.tty, super::LogStream::Stderr)?,
        control: Box::new(Attached {
            parts: Arc::clone(parts),
            id: id.to_string(),
        }),
    })
}

/// The container's stdin ends with the first session where it is meant for one, else it outlives the sessions.
fn attach_stdin(parts: &Arc<Parts>, id: &str, record: &ContainerRecord) -> io::Result<Writer> {
    let path = container_pipes(&parts.engine, id).join("stdin");
    let pipe = OpenOptions::new().read_write(true).open_sender(path)?;
    let (parts, id, once) = (Arc::clone(parts), id.to_string(), record.stdin_once);
    Ok(Box::pin(Stdin::new(pipe, async move {
        match once {
            true => close_stdin(&parts.engine, &id, "").await,
            false => Ok(()),
        }
    })))
}

/// Named pipes of a container with stdin.
pub(super) fn container_pipes(engine: &Engine, id: &str) -> PathBuf {
    engine.directory(id).join("pipes")
}

struct Attached {
    parts: Arc<Parts>,
    id: String,
}

#[async_trait]
impl ExecControl for Attached {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        resize(&self.parts.engine, &self.id, "", width, height).await
    }

    async fn wait(&self) -> Result<i32> {
        self.parts
            .engine
            .wait_for_end(&self.id, std::time::Duration::MAX)
            .await?;
        Ok(0)
    }
}
