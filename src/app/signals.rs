//! SIGTERM, SIGINT and SIGPWR: the first ends the server in order, the second at once.

use std::io;

use nix::sys::signal::Signal::SIGPWR;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    power: Signal,
}

/// What a signal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Stop,
    /// The machine goes down (SIGPWR).
    PowerFails,
}

impl Signals {
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            power: signal(SignalKind::from_raw(SIGPWR as i32))?,
        })
    }

    /// Returns with the next signal. Cancel-safe.
    pub async fn stop(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.power.recv() => Told::PowerFails,
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
