//! The binary: everything is in the library.

use mimalloc::MiMalloc;
use std::process::ExitCode;
use zeroizing_alloc::ZeroAlloc;

/// Zeroes whatever is freed, so that no copy of a secret outlives its use: libraries copy what they are given. Around
/// mimalloc, because the system's allocator keeps what the parsing of a large configuration took, several times what
/// the broker then holds.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    token_broker::cli::run(std::env::args_os())
}
