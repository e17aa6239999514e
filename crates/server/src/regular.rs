// SPDX-License-Identifier: Apache-2.0
//! Reads small text files whose paths others choose: a request, a vendor's package.
//!
//! Such a path may lead to anything. Opening a FIFO waits for its writer, opening a device may do something to it, reading
//! `/proc/kmsg` waits for the kernel's next message, and other files of the kernel have no end or are made up while they are
//! read. So the file is judged before it is opened, opened without waiting, and judged again.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// Why a file's text cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It can never be what was asked for; whoever named it made a mistake.
    #[error("{0}")]
    Unfit(String),
    /// The node cannot read it.
    #[error(transparent)]
    Io(io::Error),
}

/// File systems whose files the kernel makes up, by their numbers in statfs(2).
const OF_THE_KERNEL: [(u64, &str); 16] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0xcafe_4a11, "bpf"),
    (0x6265_6570, "configfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x6573_5543, "fusectl"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6165_676c, "pstore"),
    (0x1980_0202, "mqueue"),
    (0x6e73_6673, "nsfs"),
];

/// Reads a regular file of at most `largest` bytes of UTF-8. Symlinks are followed. Blocks, on a dead file server for ever.
pub(crate) fn read_text(path: &Path, largest: u64) -> Result<String, ReadError> {
    if !std::fs::metadata(path).map_err(named_wrongly)?.is_file() {
        return Err(unfit("is not a regular file"));
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| named_wrongly(errno.into()))?;
    judge(&file)?;
    let mut bytes = Vec::new();
    File::from(file).take(largest + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > largest {
        return Err(unfit(format!("is larger than {largest} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| unfit("is not UTF-8 text"))
}

/// Refuses what was put in the file's place after the first look, and files of the kernel.
fn judge(file: impl AsFd) -> Result<(), ReadError> {
    let stat = rustix::fs::fstat(&file).map_err(|errno| ReadError::Io(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unfit("is not a regular file"));
    }
    let system = rustix::fs::fstatfs(&file).map_err(|errno| ReadError::Io(errno.into()))?;
    // The number is signed on some processors, and 32 bits wide.
    let number = u64::from(system.f_type as u32);
    match OF_THE_KERNEL.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => {
            Err(unfit(format!("is a file of the kernel, on {name}, not one that somebody wrote")))
        }
        None => Ok(()),
    }
}

fn unfit(problem: impl Into<String>) -> ReadError {
    ReadError::Unfit(problem.into())
}

/// A path that leads nowhere is the mistake of whoever named it.
fn named_wrongly(error: io::Error) -> ReadError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::InvalidFilename
        | Kind::InvalidInput => unfit(format!("cannot be opened: {error}")),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            unfit(format!("cannot be opened: {error}"))
        }
        _ => ReadError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn problem(path: &Path) -> String {
        match read_text(path, 8).unwrap_err() {
            ReadError::Unfit(problem) => problem,
            ReadError::Io(error) => panic!("{}: {error}", path.display()),
        }
    }

    #[test]
    fn small_regular_files_are_read_also_by_links() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "12345678").unwrap();
        symlink("file", &link).unwrap();
        assert_eq!(read_text(&file, 8).unwrap(), "12345678");
        assert_eq!(read_text(&link, 8).unwrap(), "12345678");
        std::fs::write(&file, "123456789").unwrap();
        assert_eq!(problem(&file), "is larger than 8 bytes");
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(problem(&file), "is not UTF-8 text");
    }

    #[test]
    fn everything_else_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink("loop", at("loop")).unwrap();
        symlink("/proc/self/status", at("to-proc")).unwrap();
        symlink("fifo", at("to-fifo")).unwrap();
        for path in ["fifo", "socket", "to-fifo", "."].map(at).into_iter().chain(["/dev/zero".into()]) {
            assert_eq!(problem(&path), "is not a regular file", "{}", path.display());
        }
        let of_the_kernel =
            [at("to-proc"), "/proc/kmsg".into(), "/proc/self/mem".into(), "/sys/kernel/mm".into()];
        for path in of_the_kernel.iter().filter(|path| path.is_file()) {
            // As nobody some cannot even be opened.
            match read_text(path, 8) {
                Err(ReadError::Unfit(problem)) => {
                    assert!(problem.starts_with("is a file of the kernel"), "{problem}")
                }
                Err(ReadError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
                Ok(text) => panic!("{}: {text}", path.display()),
            }
        }
        for path in [at("missing"), at("loop"), at("to-proc/x"), at(&"x".repeat(300)), "/a\0b".into()] {
            assert!(problem(&path).starts_with("cannot be opened"), "{}", path.display());
        }
    }
}
