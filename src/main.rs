//! The `chroma-sync` command.

use std::process::ExitCode;

/// Under load a fifth of the processor time of a call went into the C library's allocator (`make bench-rpc`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chroma_sync::cli::main()
}
