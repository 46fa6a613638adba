//! The `chroma-sync` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    chroma_sync::cli::main()
}
