//! Generates the gRPC code from `proto/` with protox, so that no `protoc` is needed.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

/// Messages that carry a token: their `Debug` is written by hand in `src/grpc/pb.rs`.
const SECRET_MESSAGES: [&str; 2] = [".tokenbroker.v1.Token", ".tokenbroker.v1.Header"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(["tokenbroker/v1/token_service.proto"])?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .skip_debug(SECRET_MESSAGES)
        .codec_path("crate::grpc::strict::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
