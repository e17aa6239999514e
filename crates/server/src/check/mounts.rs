// SPDX-License-Identifier: Apache-2.0
//! What is mounted below some directories: `/proc/self/mountinfo` (proc(5)), its fifth field.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Mount points below the directories, in the order in which they were mounted.
pub(super) fn below(dirs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?, dirs))
}

fn parse(table: &[u8], dirs: &[PathBuf]) -> Vec<PathBuf> {
    let is_below = |path: &PathBuf| dirs.iter().any(|dir| path.starts_with(dir) && path != dir);
    table.split(|b| *b == b'\n').filter_map(point).filter(is_below).collect()
}

fn point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|b| *b == b' ').nth(4)?;
    Some(Path::new(&OsString::from_vec(unescaped(field))).to_owned())
}

/// `\040` is a space.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let octal = || {
            let digits = std::str::from_utf8(more.get(..3)?).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match (first, octal()) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"1 2 0:3 / / rw - ext4 a b\n\
            4 1 0:5 / /my\\040root/c/aa/merged rw shared:3 - overlay x y\n\
            5 1 0:5 / /my\\040root/c rw - tmpfs x y\n\
            6 1 0:5 / /my\\040root/cc/aa rw - tmpfs x y\n";
        let dirs = [PathBuf::from("/my root/c")];
        assert_eq!(parse(table, &dirs), [PathBuf::from("/my root/c/aa/merged")]);
    }
}
