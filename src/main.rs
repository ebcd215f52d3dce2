//! The `krust` program. Everything it does stands in the library; see `cli`.

/// glibc's allocator keeps what a burst of work leaves behind in each thread's arena; this one gives it back.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    krust::cli::main()
}
