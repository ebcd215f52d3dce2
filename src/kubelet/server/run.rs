//! `/run`: a command without a session, whose output is the answer's body (upstream: `server.getRun`).

use super::error::ServerError;
use super::mux::make_room;
use super::query::Query;
use crate::kubelet::ContainerRef;
use crate::runtime::{ExecRequest, ExecSession, Reader, Runtime};
use bytes::BytesMut;
use http::StatusCode;
use poem::Response;
use std::io;
use tokio::io::AsyncReadExt;

/// The output is kept until the exit code is known, since that decides the answer's status.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// Runs `cmd` (words separated by spaces, or repeated `command`) and answers with stdout and stderr.
pub async fn respond(runtime: &dyn Runtime, container: &ContainerRef, query: &Query) -> Result<Response, ServerError> {
    let mut command: Vec<String> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        let words = query.get("cmd").unwrap_or_default();
        command.extend(words.split_whitespace().map(str::to_owned));
    }
    if command.is_empty() {
        return Err(ServerError::bad_request("query parameter \"cmd\" is required"));
    }
    let request = ExecRequest {
        command,
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let ExecSession {
        stdout,
        stderr,
        control,
        ..
    } = runtime.exec(&container.id, &request).await?;
    let (stdout, stderr) = tokio::try_join!(read_all(stdout), read_all(stderr))?;
    let code = control.wait().await?;
    let mut output = stdout;
    output.unsplit(stderr);
    if code != 0 {
        let text = format!(
            "command terminated with exit code {code}: {}",
            String::from_utf8_lossy(&output)
        );
        return Err(ServerError::new(StatusCode::INTERNAL_SERVER_ERROR, text));
    }
    Ok(Response::builder().content_type("text/plain").body(output.freeze()))
}

async fn read_all(from: Option<Reader>) -> Result<BytesMut, ServerError> {
    let mut output = BytesMut::new();
    let Some(mut from) = from else {
        return Ok(output);
    };
    loop {
        make_room(&mut output);
        let read: io::Result<usize> = from.read_buf(&mut output).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return Ok(output);
        }
        if output.len() > OUTPUT_BYTES_MAX {
            let text = format!("the command's output exceeds {OUTPUT_BYTES_MAX} bytes");
            return Err(ServerError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
        }
    }
}
