//! The `krust` program. Everything it does stands in the library; see `cli`.

/// Gives memory back to the system soon after a peak (the first OpenAPI document, a large list), which the C
/// library's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Two arenas are enough for a few worker threads, and every further one costs idle memory.
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 69] = b"narenas:2,background_thread:true,dirty_decay_ms:500,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    krust::cli::main()
}
