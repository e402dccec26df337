//! The binary: everything is in the library.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// The system's allocator keeps what the parsing of a large configuration took, several times what the broker then
/// holds.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    token_broker::cli::run(std::env::args_os())
}
