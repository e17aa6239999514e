// SPDX-License-Identifier: Apache-2.0
//! The file in which a monitor tells how a container ended.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// More than any code needs; what is longer is not a code.
const MAX_LENGTH: u64 = 64;

/// What an exit file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitCode {
    /// 0 to 255; 128 + n for signal n.
    Status(u8),
    /// The monitor's own limit passed and it killed the process (`-1`).
    TimedOut,
    /// Something else: the text, shortened.
    Garbled(String),
}

/// An exit file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitFile {
    /// What it says.
    pub code: ExitCode,
    /// When the process ended: the file's change time.
    pub finished_at: SystemTime,
    /// Whether the oom marker stands beside it.
    pub oom: bool,
}

/// An exit file that is there and could not be read.
#[derive(Debug, thiserror::Error)]
#[error("reading the exit file {}", path.display())]
pub struct ExitFileError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Decodes the text of an exit file. Space around the number is allowed.
pub fn parse_exit_code(text: &[u8]) -> ExitCode {
    let text = String::from_utf8_lossy(text);
    let number = text.trim();
    // Stricter than parse alone, which takes `+7`.
    if !number.starts_with('+')
        && let Ok(code) = number.parse::<u8>()
    {
        return ExitCode::Status(code);
    }
    match number {
        "-1" => ExitCode::TimedOut,
        _ => ExitCode::Garbled(number.chars().take(MAX_LENGTH as usize).collect()),
    }
}

impl ExitCode {
    /// The code as it is told to others: a process that timed out was killed (137), what cannot be
    /// read is 255.
    pub fn as_code(&self) -> i32 {
        match self {
            Self::Status(code) => i32::from(*code),
            Self::TimedOut => 128 + 9,
            Self::Garbled(_) => 255,
        }
    }
}

impl ExitFile {
    /// Reads an exit file; `None` if there is none (yet). `oom_marker` is the file whose existence
    /// means that memory was lacking. Blocks for two look-ups on a volatile file system.
    ///
    /// # Errors
    /// [`ExitFileError`] when it is there and cannot be read. Content that is no code is no error but
    /// [`ExitCode::Garbled`].
    pub fn read(path: &Path, oom_marker: Option<&Path>) -> Result<Option<Self>, ExitFileError> {
        let fail = |source| ExitFileError { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let finished_at = changed_at(&file.metadata().map_err(fail)?);
        let mut text = Vec::new();
        file.take(MAX_LENGTH + 1).read_to_end(&mut text).map_err(fail)?;
        let oom = oom_marker.is_some_and(Path::exists);
        Ok(Some(Self { code: parse_exit_code(&text), finished_at, oom }))
    }
}

/// The change time. Before 1970 (a broken clock) it is told as 1970.
fn changed_at(metadata: &std::fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanos = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    UNIX_EPOCH + Duration::new(seconds, nanos)
}
