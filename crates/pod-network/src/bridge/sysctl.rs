// SPDX-License-Identifier: Apache-2.0
//! Kernel settings under `/proc/sys/net`, of the network namespace that the calling thread is in.

use std::fs;
use std::io;
use std::path::PathBuf;

use hull_failpoint::failpoint;

/// Names of interfaces have dots, so a setting is given by its parts.
pub(super) type Parts<'a> = &'a [&'a str];

/// The value; `None` where the kernel has no such setting.
pub(super) fn get(parts: Parts<'_>) -> io::Result<Option<String>> {
    match fs::read_to_string(path(parts)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(explained(parts, "read", error)),
    }
}

/// Sets a value, unless it is so already or the kernel has no such setting.
pub(super) fn set(parts: Parts<'_>, value: &str) -> io::Result<()> {
    match get(parts)? {
        None => return Ok(()),
        Some(now) if now == value => return Ok(()),
        Some(_) => {}
    }
    failpoint!("bridge.sysctl.write").map_err(|e| explained(parts, "set", e))?;
    fs::write(path(parts), value).map_err(|e| explained(parts, "set", e))
}

fn path(parts: Parts<'_>) -> PathBuf {
    let mut path = PathBuf::from("/proc/sys/net");
    path.extend(parts);
    path
}

fn explained(parts: Parts<'_>, step: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{step} sysctl net.{}: {error}", parts.join(".")))
}
