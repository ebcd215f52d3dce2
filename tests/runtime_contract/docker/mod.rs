//! What is particular to Docker.

mod engine;
mod inside;
mod pods;
mod registry;

use super::subject::{Subject, on_docker, run};

/// Runs a case on the shared engine and removes what it left.
fn on_engine(case: impl AsyncFnOnce(&Subject)) {
    run(async {
        let subject = on_docker().await;
        case(&subject).await;
        subject.clean().await;
    });
}
