//! The real kubectl binaries, put into target/tools by scripts/install-kubectl.py.

use super::root;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The versions that every test runs: the oldest, the newest, and where what is sent changed between them.
pub const VERSIONS: &[&str] = &["1.27", "1.30", "1.32", "1.37"];

/// All that are installed.
pub const EVERY_VERSION: &[&str] = &[
    "1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37",
];

#[derive(Clone)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

/// What a run printed.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Kubectl {
    pub fn new(version: &str, kubeconfig: PathBuf, cache: PathBuf) -> Self {
        let binary = root().join("target/tools").join(format!("kubectl-{version}"));
        assert!(
            binary.exists(),
            "{} is missing: run scripts/install-kubectl.py",
            binary.display()
        );
        Self {
            binary,
            kubeconfig,
            cache,
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--cache-dir")
            .arg(&self.cache)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments);
        command
    }

    /// Runs with `input` on stdin.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl starts");
        let mut stdin = child.stdin.take().expect("kubectl's stdin");
        // A kubectl that ends early closes its end: that shows in its exit code.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("kubectl ends").into()
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// stdout of a run that must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    pub fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run_with(arguments, input);
        assert_eq!(
            ran.code,
            Some(0),
            "kubectl {arguments:?}\nstdout: {}\nstderr: {}",
            ran.stdout,
            ran.stderr
        );
        ran.stdout
    }

    /// Waits until there is a node and it is ready; it registers itself a moment after `/readyz`.
    pub fn wait_for_node(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ran = self.run(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
            if ran.code == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "no node is ready: {}", ran.stderr);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// stderr of a run that must fail.
    pub fn fails_with(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run_with(arguments, input);
        assert!(
            !matches!(ran.code, Some(0)),
            "kubectl {arguments:?} succeeded: {}",
            ran.stdout
        );
        ran.stderr
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// The manifest of a Deployment; `pod` is the spec of its pods in YAML's flow style.
pub fn deployment(name: &str, pod: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {pod}
"
    )
}
