//! Client libraries that others wrote, in their own languages: each runs its script of tests/clients.

use crate::support::krust::Krust;
use crate::support::root;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tool that scripts/install-clients.sh or install-kubectl.py puts into target/tools.
pub fn tool(path: &str) -> PathBuf {
    let path = root().join("target/tools").join(path);
    assert!(path.exists(), "{} is missing: run make tools", path.display());
    path
}

fn run(command: &mut Command) {
    let output = command.output().expect("the client starts");
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn script(name: &str) -> PathBuf {
    root().join("tests/clients").join(Path::new(name))
}

#[test]
#[ignore = "needs the Python client"]
fn python() {
    let krust = Krust::start(&["--runtime", "none"]);
    run(Command::new(tool("python/bin/python"))
        .arg(script("python_client.py"))
        .env("KUBECONFIG", krust.kubeconfig()));
}

#[test]
#[ignore = "needs the JavaScript client"]
fn javascript() {
    let krust = Krust::start(&["--runtime", "none"]);
    run(Command::new("node")
        .args(["--test", "--test-reporter=spec"])
        .arg(script("javascript_client.mjs"))
        .env("KUBECONFIG", krust.kubeconfig())
        .env(
            "CLIENT",
            tool("javascript/node_modules/@kubernetes/client-node/dist/index.js"),
        ));
}
