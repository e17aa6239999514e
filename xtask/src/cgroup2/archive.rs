// SPDX-License-Identifier: Apache-2.0
//! A cpio archive as the kernel unpacks it into its first file system.
//!
//! ```text
//! "070701", then 13 fields of 8 hexadecimal digits:
//!   inode mode uid gid links mtime size  device (2)  device of a special file (2)  length of the name with NUL  0
//! name, NUL, padding to 4;  content, padding to 4;  the last entry is named "TRAILER!!!"
//! ```
//! <https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>

/// An archive that grows.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;

impl Archive {
    /// Adds a directory.
    pub(crate) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY, &[]);
    }

    /// Adds a file that may be executed.
    pub(crate) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// Adds a file that may be read.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        self.entry(name, FILE, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend(b"070701");
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0] {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_reads() {
        let mut archive = Archive::default();
        archive.directory("a");
        archive.file("a/b", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let directory = "0707010000000100 0041ED".replace(' ', "");
        assert!(text.starts_with(&directory), "{text}");
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of head and a name of 2 with NUL: the next entry begins at a multiple of 4.
        assert_eq!(&bytes[112..118], b"070701");
        assert!(text.contains("a/b\0") && text.contains("hello\0"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
