//! How a session's end is told to the client on its error stream (upstream: `remotecommand/v4.go`,
//! `remotecommand/errorstream.go`).

use crate::runtime::RuntimeError;
use bytes::Bytes;
use serde_json::json;

/// How a session ended.
#[derive(Debug)]
pub enum Outcome {
    Success,
    /// The command's exit code, other than 0.
    ExitCode {
        command: Vec<String>,
        code: i32,
    },
    /// The server ends before the session does. Without a word, clients would take that for a success.
    Interrupted,
    /// The runtime could not run it; `what` is `executing command in` or `attaching to`.
    Failed {
        what: &'static str,
        error: RuntimeError,
    },
}

/// What the negotiated protocol puts on the error stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusFormat {
    /// From v4 on: a Status at every end.
    Json,
    /// Before v4: a text on failure.
    Text,
}

impl Outcome {
    /// The message for the error stream; None when the format has none for a success.
    pub fn encode(&self, format: StatusFormat) -> Option<Bytes> {
        match format {
            StatusFormat::Json => Some(self.status().to_string().into()),
            StatusFormat::Text => self.message().map(Bytes::from),
        }
    }

    fn message(&self) -> Option<String> {
        match self {
            Outcome::Success => None,
            Outcome::ExitCode { command, code } => Some(format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                command.join(" ")
            )),
            Outcome::Interrupted => Some("Internal error occurred: the kubelet is shutting down".to_owned()),
            Outcome::Failed { what, error } => {
                Some(format!("Internal error occurred: error {what} container: {error}"))
            }
        }
    }

    fn status(&self) -> serde_json::Value {
        match self {
            Outcome::Success => json!({"metadata": {}, "status": "Success"}),
            Outcome::ExitCode { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Interrupted => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "code": 500,
            }),
            Outcome::Failed { error, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "details": {"causes": [{"message": error.to_string()}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_causes_of_the_status() {
        let outcome = Outcome::ExitCode {
            command: vec!["sh".to_owned(), "-c".to_owned(), "exit 7".to_owned()],
            code: 7,
        };
        let status: serde_json::Value = serde_json::from_slice(&outcome.encode(StatusFormat::Json).unwrap()).unwrap();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(
            status["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "7"})
        );
        let text = outcome.encode(StatusFormat::Text).unwrap();
        assert!(text.ends_with(b"[sh -c exit 7], exit code 7"));
    }

    #[test]
    fn success_is_a_status_from_v4_on_and_silent_before() {
        let status = Outcome::Success.encode(StatusFormat::Json).unwrap();
        assert_eq!(&status[..], br#"{"metadata":{},"status":"Success"}"#);
        assert_eq!(Outcome::Success.encode(StatusFormat::Text), None);
    }
}
