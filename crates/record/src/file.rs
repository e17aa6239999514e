// SPDX-License-Identifier: Apache-2.0
//! Writing a file whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use hull_failpoint::failpoint;

/// How much a written file must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: file and directory are synced.
    PowerCut,
    /// The end of the process: for files on a volatile file system.
    Process,
}

/// Replaces `path` by a file with these bytes and exactly this mode, or leaves it as it was.
///
/// Blocks; call it where blocking is allowed.
///
/// # Errors
/// Those of open, write, fsync and rename; the temporary file is then removed.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (dir, name) = path.parent().zip(path.file_name()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{} has no file name", path.display()))
    })?;
    let mut temporary = std::ffi::OsString::from(".tmp-");
    temporary.push(name);
    let temporary = dir.join(temporary);
    let written = write_and_rename(&temporary, path, bytes, mode, durability);
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    if durability == Durability::PowerCut {
        failpoint!("record.write.sync_dir")?;
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn write_and_rename(
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    failpoint!("record.write.create")?;
    let mut file = hull_files::create(temporary, mode)?;
    failpoint!("record.write.content")?;
    file.write_all(bytes)?;
    if durability == Durability::PowerCut {
        file.sync_all()?;
    }
    failpoint!("record.write.rename")?;
    fs::rename(temporary, path)
}
