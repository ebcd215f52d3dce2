//! The commands (upstream: `cmd/`).

pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
