//! Fake processes and what they print: the container's log, and the sessions of exec and attach.

use super::super::*;
use super::{Inner, Script, Step};
use bytes::Bytes;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

/// Bytes that a pipe of a session holds.
const PIPE_BYTES: usize = 64 * 1024;

/// A log that can be followed.
pub(super) struct LogBook {
    pub lines: Vec<LogLine>,
    /// Number of lines, and whether there will be more; following readers wait on it.
    progress: watch::Sender<Progress>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    pub lines: usize,
    pub closed: bool,
}

impl LogBook {
    pub fn new() -> Self {
        LogBook {
            lines: Vec::new(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    pub fn append(&mut self, stream: LogStream, text: Bytes) {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.lines.push(LogLine {
                time: SystemTime::now(),
                stream,
                text: text.slice_ref(line),
            });
        }
        let lines = self.lines.len();
        self.progress.send_modify(|progress| progress.lines = lines);
    }

    pub fn close(&mut self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// Runs a container's script to its end and reports it. Holds the runtime weakly: it may be dropped before.
pub(super) async fn run_container(inner: Weak<Inner>, id: String, script: Script, mut stdin: Option<DuplexStream>) {
    let mut code = 0;
    for step in script.steps {
        match step {
            Step::Sleep(time) => {
                tokio::time::sleep(time).await;
                continue;
            }
            Step::Exit(exit_code) => {
                code = exit_code;
                break;
            }
            Step::Cat => {
                let mut buffer = vec![0; 4096];
                while let Some(stdin) = stdin.as_mut() {
                    match stdin.read(&mut buffer).await {
                        Ok(0) | Err(_) => break,
                        Ok(n) => match inner.upgrade() {
                            Some(inner) => inner.log(&id, LogStream::Stdout, Bytes::copy_from_slice(&buffer[..n])),
                            None => return,
                        },
                    }
                }
                continue;
            }
            _ => {}
        }
        let Some(inner) = inner.upgrade() else { return };
        match step {
            Step::Print(stream, text) => inner.log(&id, stream, text),
            Step::WriteFile { path, text } => {
                if let Ok(container) = inner.state.lock().container(&id)
                    && path == container.config.termination_message_path
                {
                    container.termination_message = text.to_vec();
                }
            }
            Step::OnStop(action) => {
                if let Ok(container) = inner.state.lock().container(&id) {
                    container.on_stop = Some(action);
                }
            }
            Step::Sleep(_) | Step::Cat | Step::Exit(_) => unreachable!("handled above"),
        }
    }
    if script.forever {
        return;
    }
    if let Some(inner) = inner.upgrade() {
        inner.finish(&id, code);
    }
}

/// Starts a script whose output goes to a session instead of a log.
pub(super) fn exec(script: Script, request: &ExecRequest) -> ExecSession {
    let (stdin, process_stdin) = pipe(request.stdin);
    let (process_stdout, stdout) = pipe(request.stdout);
    let (process_stderr, stderr) = pipe(request.stderr && !request.tty);
    let ended = watch::Sender::new(None);
    let control = Control {
        ended: ended.subscribe(),
    };
    let tty = request.tty;
    let task = tokio::spawn(async move {
        let code = tokio::select! {
            code = run_exec(script, tty, process_stdin, process_stdout, process_stderr) => code,
            // Every holder of the session is gone.
            () = ended.closed() => 137,
        };
        ended.send_replace(Some(code));
    });
    drop(task);
    ExecSession {
        stdin: stdin.map(|pipe| Box::pin(pipe) as Writer),
        stdout: stdout.map(|pipe| Box::pin(pipe) as Reader),
        stderr: stderr.map(|pipe| Box::pin(pipe) as Reader),
        control: Box::new(control),
    }
}

async fn run_exec(
    script: Script,
    tty: bool,
    mut stdin: Option<DuplexStream>,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) -> i32 {
    for step in script.steps {
        match step {
            Step::Print(stream, text) => {
                let target = if stream == LogStream::Stderr && !tty {
                    &mut stderr
                } else {
                    &mut stdout
                };
                if let Some(target) = target {
                    // A reader that has gone is as good as one that discards.
                    let _ = target.write_all(&text).await;
                }
            }
            Step::Cat => {
                if let Some(mut stdin) = stdin.take() {
                    let _ = match stdout.as_mut() {
                        Some(stdout) => tokio::io::copy(&mut stdin, stdout).await,
                        None => tokio::io::copy(&mut stdin, &mut tokio::io::sink()).await,
                    };
                }
            }
            Step::Sleep(time) => tokio::time::sleep(time).await,
            Step::Exit(code) => return code,
            Step::WriteFile { .. } | Step::OnStop(_) => {}
        }
    }
    if script.forever {
        std::future::pending::<()>().await;
    }
    0
}

/// A session on a running container: what it prints from now on, and its stdin.
pub(super) fn attach(
    inner: &Arc<Inner>,
    id: &str,
    request: &ExecRequest,
    stdin: Option<DuplexStream>,
    progress: watch::Receiver<Progress>,
) -> ExecSession {
    let (process_stdout, stdout) = pipe(request.stdout);
    let (process_stderr, stderr) = pipe(request.stderr && !request.tty);
    let ended = watch::Sender::new(None);
    let control = Control {
        ended: ended.subscribe(),
    };
    let (inner, id, tty) = (Arc::downgrade(inner), id.to_string(), request.tty);
    // Taken now, not when the task first runs: what the container answers to early input belongs to the session.
    let next = progress.borrow().lines;
    let task = tokio::spawn(async move {
        tokio::select! {
            () = copy_log(inner, id, tty, next, progress, process_stdout, process_stderr) => {}
            () = ended.closed() => {}
        }
        ended.send_replace(Some(0));
    });
    drop(task);
    ExecSession {
        stdin: stdin.map(|pipe| Box::pin(pipe) as Writer),
        stdout: stdout.map(|pipe| Box::pin(pipe) as Reader),
        stderr: stderr.map(|pipe| Box::pin(pipe) as Reader),
        control: Box::new(control),
    }
}

async fn copy_log(
    inner: Weak<Inner>,
    id: String,
    tty: bool,
    mut next: usize,
    mut progress: watch::Receiver<Progress>,
    mut stdout: Option<DuplexStream>,
    mut stderr: Option<DuplexStream>,
) {
    loop {
        let (lines, closed) = read_log(&inner, &id, next, &mut progress);
        next += lines.len();
        for line in lines {
            let target = if line.stream == LogStream::Stderr && !tty {
                &mut stderr
            } else {
                &mut stdout
            };
            if let Some(target) = target {
                let _ = target.write_all(&line.text).await;
            }
        }
        if closed || progress.changed().await.is_err() {
            return;
        }
    }
}

/// Lines from `next` on, and whether they are the last.
pub(super) fn read_log(
    inner: &Weak<Inner>,
    id: &str,
    next: usize,
    progress: &mut watch::Receiver<Progress>,
) -> (Vec<LogLine>, bool) {
    // Read first: lines that come after it wake the reader again.
    let closed = progress.borrow_and_update().closed;
    let Some(inner) = inner.upgrade() else {
        return (Vec::new(), true);
    };
    let mut state = inner.state.lock();
    match state.container(id) {
        Ok(container) => (container.log.lines.get(next..).unwrap_or_default().to_vec(), closed),
        Err(_) => (Vec::new(), true),
    }
}

struct Control {
    ended: watch::Receiver<Option<i32>>,
}

#[async_trait]
impl ExecControl for Control {
    async fn resize(&self, _width: u16, _height: u16) -> Result<()> {
        Ok(())
    }

    async fn wait(&self) -> Result<i32> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(code) => Ok(code.unwrap_or_default()),
            Err(_) => Err(RuntimeError::Failed {
                operation: "wait",
                subject: "exec".to_string(),
                message: "the process is gone".to_string(),
            }),
        }
    }
}

fn pipe(wanted: bool) -> (Option<DuplexStream>, Option<DuplexStream>) {
    if !wanted {
        return (None, None);
    }
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    (Some(near), Some(far))
}
