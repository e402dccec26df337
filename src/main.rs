//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    token_broker::cli::run(std::env::args_os())
}
