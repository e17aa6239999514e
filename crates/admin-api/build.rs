// SPDX-License-Identifier: Apache-2.0
//! Compiles `proto/` into messages, clients, servers and a descriptor set. Needs no protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);
    let files = protox::compile(["hull/v1/admin.proto"], ["proto"])?;

    // Comments make doc comments; programs that embed the descriptors do without them.
    let mut bare = files.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;

    tonic_prost_build::configure()
        // A server need not name the calls that it does not offer: they answer UNIMPLEMENTED.
        .generate_default_stubs(true)
        .compile_fds(files)?;
    Ok(())
}
