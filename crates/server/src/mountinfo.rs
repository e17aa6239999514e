// SPDX-License-Identifier: Apache-2.0
//! Mounts: `/proc/self/mountinfo` (proc(5)).
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
//! id up dev  root  point options optional... - type source options
//! ```

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The table of this process. Mount points need not be UTF-8.
pub(crate) const TABLE: &str = "/proc/self/mountinfo";

/// A mount.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) point: PathBuf,
    /// `shared:N`, `master:N` and the like.
    pub(crate) optional: Vec<&'a [u8]>,
    /// The type of its file system.
    pub(crate) kind: &'a [u8],
}

/// The mounts of a table, in the order in which they were made; what is no line of one is left out.
pub(crate) fn rows(table: &[u8]) -> impl Iterator<Item = Row<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(row)
}

fn row(line: &[u8]) -> Option<Row<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = path(fields.nth(4)?);
    let mut fields = fields.skip(1);
    let optional = fields.by_ref().take_while(|field| *field != b"-").collect();
    Some(Row { point, optional, kind: fields.next()? })
}

/// Mount points below the directories, in the order in which they were mounted.
pub(crate) fn below(dirs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&std::fs::read(TABLE)?, dirs))
}

fn parse(table: &[u8], dirs: &[PathBuf]) -> Vec<PathBuf> {
    let is_below = |path: &PathBuf| dirs.iter().any(|dir| path.starts_with(dir) && path != dir);
    rows(table).map(|row| row.point).filter(is_below).collect()
}

/// The path that a field stands for.
fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

/// Spaces, tabs, newlines and backslashes stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
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

    #[test]
    fn a_directory_is_not_another_with_the_same_beginning() {
        let table =
            b"1 2 0:3 / / rw - ext4 a b\n4 1 0:5 / /r/my\\040root/containers/aa/merged rw - overlay x y\n";
        let is_mounted_below = |dir: &str| !parse(table, &[PathBuf::from(dir)]).is_empty();
        assert!(is_mounted_below("/r/my root/containers/aa"));
        assert!(!is_mounted_below("/r/my root/containers/a"));
        assert!(!is_mounted_below("/r/containers/aa"));
    }
}
