// SPDX-License-Identifier: Apache-2.0
//! Reading and writing the files of a cgroup, of which any may vanish at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::{Error, Result};

/// `ENODEV`: the file was open when its cgroup was removed.
const ENODEV: i32 = 19;
/// `EOPNOTSUPP`: a threaded cgroup of version 2 lists its processes in its domain cgroup.
const EOPNOTSUPP: i32 = 95;

/// The text of a file; `None` where it, or its cgroup, is gone.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(EOPNOTSUPP) => Ok(None),
        Err(source) => Err(io_error("cannot read", path, source)),
    }
}

/// Writes an existing file; cgroup files take what one `write` brings, so it is one.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    hull_failpoint::failpoint!("cgroups.file.write")?;
    File::options().write(true).open(path)?.write_all(text.as_bytes())
}

pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(ENODEV)
}

pub(crate) fn io_error(step: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { step, path: path.to_owned(), source }
}
