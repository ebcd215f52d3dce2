//! SIGTERM and SIGINT: the first ends the server in order, the second at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Returns with the next signal. Cancel-safe.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Lets the next signal end the process, whatever it is doing. What was acknowledged is on disk.
    pub fn exit_on_next(mut self) {
        tokio::spawn(async move {
            self.stop().await;
            tracing::warn!("stopped at once");
            std::process::exit(1);
        });
    }
}
