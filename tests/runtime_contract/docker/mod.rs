//! What is particular to Docker.

mod engine;
mod inside;
mod pods;

use super::subject::{Subject, on_docker, run};

/// Runs a case on the shared engine and removes what it left.
fn on_engine(case: impl AsyncFnOnce(&Subject)) {
    run(async {
        let subject = on_docker().await;
        case(&subject).await;
        subject.clean().await;
    });
}

#[test]
fn pulls_with_a_password() {
    on_engine(async |subject: &Subject| crate::cases::registry::pulls_with_a_password(subject).await);
}
