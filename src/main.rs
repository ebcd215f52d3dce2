//! The `krust` program. Everything it does stands in the library; see `cli`.

fn main() -> std::process::ExitCode {
    krust::cli::main()
}
