//! Calls to extenders over HTTP (upstream: `pkg/scheduler/extender.go`, send).

use super::Caller;
use super::wire::Answer;
use crate::transport::webhook::{CallError, Endpoint};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// One verb of an extender.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: String,
    pub url: String,
    pub endpoint: Endpoint,
    pub timeout: Duration,
}

/// Posts the body; Err is upstream's text.
pub async fn post(call: &Call, body: Vec<u8>) -> Answer {
    let answer = crate::transport::webhook::post(&call.endpoint, body, call.timeout).await;
    let (status, body) = answer.map_err(|error| {
        let late = match error {
            CallError::Timeout => " (Client.Timeout exceeded while awaiting headers)",
            _ => "",
        };
        format!("Post {:?}: {error}{late}", call.url)
    })?;
    if status.as_u16() != 200 {
        let (verb, url, code) = (&call.verb, &call.url, status.as_u16());
        return Err(format!("failed {verb} with extender at URL {url}, code {code}"));
    }
    Ok(body)
}

/// Waits on the thread that asks; its other tasks go on elsewhere. Needs a runtime of several threads.
pub struct Network {
    pub shutdown: CancellationToken,
}

impl Caller for Network {
    fn call(&self, calls: Vec<(&Call, Vec<u8>)>) -> Vec<Answer> {
        let urls: Vec<&str> = calls.iter().map(|(call, _)| call.url.as_str()).collect();
        let answers = async {
            let asked = calls.into_iter().map(|(call, body)| post(call, body));
            tokio::select! {
                answers = join_all(asked) => answers,
                () = self.shutdown.cancelled() => {
                    let broken_off = |url: &&str| Err(format!("Post {url:?}: context canceled"));
                    urls.iter().map(broken_off).collect()
                }
            }
        };
        tokio::task::block_in_place(|| Handle::current().block_on(answers))
    }
}
