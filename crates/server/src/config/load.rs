// SPDX-License-Identifier: Apache-2.0
//! Finds and reads the files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use super::tree::{self, Table};
use super::{Config, ConfigError, Programs, raw, resolve};

/// The file that is read when none is named. It need not exist; its drop-ins are read all the same.
pub const DEFAULT_FILE: &str = "/etc/hull/hull.toml";

/// Far more than anybody writes; keeps a mistaken path (a device, a log) from filling memory.
const LARGEST: u64 = 1 << 20;

impl Config {
    /// Reads `path` (must exist) or [`DEFAULT_FILE`] (need not), then `conf.d/*.toml` beside it, and
    /// checks everything. Programs that are not named are looked for in `PATH`.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(path, &Programs::from_env())
    }

    /// As [`Config::load`], with programs looked for elsewhere.
    pub fn load_with(path: Option<&Path>, programs: &Programs) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        let mut merged = match read_file(file) {
            Err(error) if path.is_none() && is_not_found(&error) => Table::new(),
            text => checked(file, &text?)?,
        };
        for drop_in in drop_ins(file)? {
            tree::merge(&mut merged, checked(&drop_in, &read_file(&drop_in)?)?);
        }
        resolve::resolve(raw::read(&merged)?, programs)
    }
}

/// One file's tree. Checked by itself: otherwise a wrong value that a later file replaces would
/// only be noticed on the day that file is removed.
fn checked(file: &Path, text: &str) -> Result<Table, ConfigError> {
    let table = tree::parse(file, text)?;
    raw::read(&table)?;
    Ok(table)
}

/// The drop-ins beside a file in the order they apply. Hidden files are an editor's.
fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let dir = file.parent().unwrap_or(Path::new("/")).join("conf.d");
    let failed = |source| ConfigError::Read { path: dir.clone(), source };
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        if text.ends_with(".toml") && !text.starts_with('.') {
            files.push(dir.join(&name));
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<String, ConfigError> {
    let read = || -> io::Result<String> {
        // Asked before opening: opening a fifo would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
    };
    read().map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn is_not_found(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Read { source, .. } if source.kind() == ErrorKind::NotFound)
}
