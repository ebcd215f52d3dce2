//! Requests that nobody thought of: schemathesis makes them from the server's own OpenAPI documents.

use crate::clients::tool;
use crate::support::root;
use std::process::Command;

/// How long schemathesis makes requests.
const SECONDS: &str = "150";

#[test]
#[ignore = "needs schemathesis"]
fn no_request_of_the_openapi_documents_is_a_server_error() {
    let output = Command::new(tool("python/bin/python"))
        .arg(root().join("scripts/fuzz-openapi.py"))
        .args([env!("CARGO_BIN_EXE_krust"), "--together", SECONDS])
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(
        output.status.success() && said.contains("no server errors"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
