//! A runtime whose exec and attach run local processes and whose pods' ports are those of this machine. The rest
//! is the runtime in memory.

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use krust::runtime::fake::FakeRuntime;
use krust::runtime::*;
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

pub struct LocalRuntime {
    pub fake: Arc<FakeRuntime>,
}

/// A process group that ends with its session.
struct LocalProcess {
    child: Mutex<Child>,
    group: nix::unistd::Pid,
    terminal: Option<OwnedFd>,
}

impl Drop for LocalProcess {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = nix::sys::signal::killpg(self.group, nix::sys::signal::Signal::SIGKILL);
    }
}

#[async_trait]
impl ExecControl for LocalProcess {
    async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let size = Winsize {
            ws_row: height,
            ws_col: width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = self.terminal.as_ref().ok_or(RuntimeError::Unsupported("resize"))?;
        // SAFETY: the descriptor is open and the structure is the one that the request takes.
        let result = unsafe { nix::libc::ioctl(terminal.as_raw_fd(), nix::libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
        Ok(())
    }

    async fn wait(&self) -> Result<i32> {
        let status = self
            .child
            .lock()
            .await
            .wait()
            .await
            .expect("the process can be waited for");
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }
}

fn failed(subject: &str, error: impl ToString) -> RuntimeError {
    RuntimeError::Failed {
        operation: "exec",
        subject: subject.to_owned(),
        message: error.to_string(),
    }
}

fn start(words: &[String], request: &ExecRequest) -> Result<ExecSession> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    if request.tty {
        with_terminal(command)
    } else {
        with_pipes(command, request)
    }
}

fn session(child: Child, terminal: Option<OwnedFd>) -> Box<LocalProcess> {
    let group = nix::unistd::Pid::from_raw(child.id().expect("a process that was just started") as i32);
    Box::new(LocalProcess {
        child: Mutex::new(child),
        group,
        terminal,
    })
}

fn with_pipes(mut command: Command, request: &ExecRequest) -> Result<ExecSession> {
    let pipe = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
    command
        .process_group(0)
        .stdin(pipe(request.stdin))
        .stdout(pipe(request.stdout))
        .stderr(pipe(request.stderr));
    let mut child = command.spawn().map_err(|error| failed("process", error))?;
    Ok(ExecSession {
        stdin: child.stdin.take().map(|pipe| Box::pin(pipe) as Writer),
        stdout: child.stdout.take().map(|pipe| Box::pin(pipe) as Reader),
        stderr: child.stderr.take().map(|pipe| Box::pin(pipe) as Reader),
        control: session(child, None),
    })
}

fn with_terminal(mut command: Command) -> Result<ExecSession> {
    let pty = openpty(None, None).map_err(|error| failed("terminal", error))?;
    let end = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
    command.stdin(end()).stdout(end()).stderr(end());
    // SAFETY: both calls are allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            if nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| failed("process", error))?;
    let master = || File::from(pty.master.try_clone().expect("a descriptor"));
    Ok(ExecSession {
        stdin: Some(Box::pin(tokio::fs::File::from_std(master()))),
        stdout: Some(Box::pin(tokio::fs::File::from_std(master()))),
        stderr: None,
        control: session(child, Some(pty.master)),
    })
}

#[async_trait]
impl Runtime for LocalRuntime {
    async fn exec(&self, _id: &str, request: &ExecRequest) -> Result<ExecSession> {
        start(&request.command, request)
    }

    /// To a process that repeats its lines, or counts them if it gets none.
    async fn attach(&self, _id: &str, request: &ExecRequest) -> Result<ExecSession> {
        let script = match request.stdin {
            true => "while read line; do echo got $line; done",
            false => "n=0; while sleep 0.2; do n=$((n+1)); echo line $n; done",
        };
        let words = ["sh", "-c", script].map(str::to_owned);
        start(&words, request)
    }

    async fn port_forward(&self, _sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(failed(&format!("127.0.0.1:{port}"), error)),
        }
    }

    async fn version(&self) -> Result<RuntimeVersion> {
        self.fake.version().await
    }
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.fake.run_pod_sandbox(config).await
    }
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.fake.stop_pod_sandbox(id).await
    }
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.fake.remove_pod_sandbox(id).await
    }
    async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        self.fake.usage(ids).await
    }
    async fn written(&self, id: &str) -> Result<Written> {
        self.fake.written(id).await
    }
    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.fake.list_pod_sandboxes().await
    }
    async fn pod_sandbox_status(&self, id: &str) -> Result<Sandbox> {
        self.fake.pod_sandbox_status(id).await
    }
    async fn create_container(&self, id: &str, config: &ContainerConfig, sandbox: &SandboxConfig) -> Result<String> {
        self.fake.create_container(id, config, sandbox).await
    }
    async fn start_container(&self, id: &str) -> Result<()> {
        self.fake.start_container(id).await
    }
    async fn stop_container(&self, id: &str, grace_seconds: u32) -> Result<()> {
        self.fake.stop_container(id, grace_seconds).await
    }
    async fn remove_container(&self, id: &str) -> Result<()> {
        self.fake.remove_container(id).await
    }
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        self.fake.list_containers().await
    }
    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.fake.container_status(id).await
    }
    async fn read_termination_message(&self, id: &str) -> Result<Vec<u8>> {
        self.fake.read_termination_message(id).await
    }
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.fake.logs(id, options).await
    }
    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        self.fake.image_status(image).await
    }
    async fn list_images(&self) -> Result<Vec<Image>> {
        self.fake.list_images().await
    }
    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>, progress: &PullProgress) -> Result<String> {
        self.fake.pull_image(image, auth, progress).await
    }
    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.fake.events()
    }
}
