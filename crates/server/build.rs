// SPDX-License-Identifier: Apache-2.0
//! Compiles the pause (`src/pause/program.rs`) into a static program for the same target; the daemon
//! carries its bytes.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/pause/program.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name: &str| env::var_os(name).ok_or(format!("cargo sets {name} for build scripts"));
    let out = PathBuf::from(var("OUT_DIR")?).join("pause");
    let target = env::var("TARGET")?;

    let mut rustc = Command::new(var("RUSTC")?);
    rustc
        .args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target", &target])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols"])
        .args(["-C", "relocation-model=static"])
        // No table of sections at page boundaries and no build id: a few hundred bytes in all.
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        .args(["-C", "link-arg=-Wl,--build-id=none", "-C", "link-arg=-Wl,-n"])
        .arg("-o")
        .arg(&out)
        .arg(SOURCE);
    // A linker that cargo was told to use for the target is the one that can link for it.
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    let output = rustc.output().map_err(|error| format!("cannot run {rustc:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the pause for {target} does not compile: {rustc:?}\n{said}").into());
    }
    Ok(())
}
