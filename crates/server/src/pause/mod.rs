// SPDX-License-Identifier: Apache-2.0
//! The pause: the first process of a PID namespace that the containers of a pod share.
//!
//! It is a program of a few hundred bytes that the daemon carries in itself, so that a pod needs no
//! image to start. `program.rs` is its source; the build script compiles it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hull_failpoint::failpoint;

#[cfg(test)]
mod tests;

/// The program: a static ELF file for this target.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The program's name in the root that [`write_root`] makes.
pub const PROGRAM_NAME: &str = "pause";

/// Makes the root directory of a pause, or puts an older one right: the program, and the empty
/// directories that an OCI runtime mounts on. Each pod has its own, behind its gate (ADR 0027).
///
/// Whole or not at all: the program is written beside its place and renamed. A program that runs from
/// an older version's file goes on running. Blocks on files.
pub fn write_root(dir: &Path) -> io::Result<()> {
    failpoint!("pause.root.mkdir")?;
    for dir in [dir, &dir.join("proc"), &dir.join("dev")] {
        // The pause runs as nobody.
        hull_files::own_dir(dir, 0o755)?;
    }
    let program = dir.join(PROGRAM_NAME);
    if is_current(&program)? {
        return Ok(());
    }
    let new = dir.join(".pause.new");
    failpoint!("pause.root.write")?;
    let write = || -> io::Result<()> {
        hull_files::write(&new, PROGRAM, 0o755)?;
        failpoint!("pause.root.rename")?;
        fs::rename(&new, &program)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })
}

/// Whether the file is already this program, and may be run.
fn is_current(program: &Path) -> io::Result<bool> {
    let meta = match fs::symlink_metadata(program) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta?,
    };
    let fits =
        meta.is_file() && meta.permissions().mode() & 0o777 == 0o755 && meta.len() == PROGRAM.len() as u64;
    Ok(fits && fs::read(program)? == PROGRAM)
}
