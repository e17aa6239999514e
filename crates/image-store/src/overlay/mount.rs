// SPDX-License-Identifier: Apache-2.0
//! The mount itself, by whichever interface the kernel has.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use super::{MERGED, UPPER, WORK, io_error};
use crate::Result;

/// Longest value that fsconfig takes: 255 bytes and a NUL.
const MAX_VALUE: usize = 255;
/// Longest option string of mount(2): a page with its NUL.
const MAX_OPTIONS: usize = 4095;

/// Mounts an overlay of these layers, topmost first, at `dir/merged`.
pub(crate) fn overlay(lowers: &[PathBuf], dir: &Path) -> Result<()> {
    let merged = dir.join(MERGED);
    match with_fsopen(lowers, dir) {
        Ok(()) => Ok(()),
        Err(Attempt::Unsupported) => {
            with_mount(lowers, dir).map_err(|error| io_error("mount overlay at", &merged)(error))
        }
        Err(Attempt::Failed(error)) => Err(io_error("mount overlay at", &merged)(error)),
    }
}

enum Attempt {
    /// The kernel has no such interface.
    Unsupported,
    Failed(io::Error),
}

/// One value: the path itself, or a descriptor standing for it when it is too long. The descriptor must live until
/// the file system is made.
struct Value {
    text: Vec<u8>,
    _fd: Option<OwnedFd>,
}

fn value(path: &Path) -> io::Result<Value> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= MAX_VALUE {
        return Ok(Value { text: bytes.to_vec(), _fd: None });
    }
    by_descriptor(path)
}

fn by_descriptor(path: &Path) -> io::Result<Value> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    Ok(Value { text: format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(), _fd: Some(fd) })
}

fn with_fsopen(lowers: &[PathBuf], dir: &Path) -> std::result::Result<(), Attempt> {
    let failed = |error: io::Error| Attempt::Failed(error);
    let fs = match rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(fs) => fs,
        Err(Errno::NOSYS) => return Err(Attempt::Unsupported),
        Err(Errno::NODEV) => {
            return Err(failed(io::Error::other("the kernel has no overlay file system (modprobe overlay)")));
        }
        Err(error) => return Err(failed(error.into())),
    };
    let mut kept = Vec::new();
    for (number, lower) in lowers.iter().enumerate() {
        let value = value(lower).map_err(failed)?;
        match set(fs.as_fd(), "lowerdir+", &value.text) {
            Ok(()) => {}
            // Linux before 6.8 does not know the key; a bad layer has the same number, but on every kernel.
            Err(Errno::INVAL) if number == 0 && lower.is_dir() && !has_message(fs.as_fd()) => {
                return Err(Attempt::Unsupported);
            }
            Err(error) => return Err(failed(explained(fs.as_fd(), error))),
        }
        kept.push(value);
    }
    for (key, name) in [("upperdir", UPPER), ("workdir", WORK)] {
        let value = value(&dir.join(name)).map_err(failed)?;
        set(fs.as_fd(), key, &value.text).map_err(|error| failed(explained(fs.as_fd(), error)))?;
        kept.push(value);
    }
    // Not on kernels built without it: there it is off.
    let _ = set(fs.as_fd(), "index", b"off");
    // Not before 5.10: there an unmount writes back the file system below.
    let _ = rustix::mount::fsconfig_set_flag(fs.as_fd(), "volatile");
    let _ = set(fs.as_fd(), "source", b"hull");
    match rustix::mount::fsconfig_create(fs.as_fd()) {
        Ok(()) => {}
        // Before 6.5 an overlay takes every key and reads them only now, without a word about the one that it does
        // not know. What else is wrong, mount(2) finds as well.
        Err(Errno::INVAL) if !has_message(fs.as_fd()) => return Err(Attempt::Unsupported),
        Err(error) => return Err(failed(explained(fs.as_fd(), error))),
    }
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|error| failed(explained(fs.as_fd(), error)))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, dir.join(MERGED), flags).map_err(|error| failed(error.into()))
}

fn set(fs: BorrowedFd<'_>, key: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::mount::fsconfig_set_string(fs, key, value)
}

/// Whether the kernel has said something about the context, other than that a key is unknown.
fn has_message(fs: BorrowedFd<'_>) -> bool {
    let messages = messages(fs);
    !messages.is_empty() && !messages.contains("Unknown parameter")
}

/// The kernel's own words (`e overlay: ...`) with the error.
fn explained(fs: BorrowedFd<'_>, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    let messages = messages(fs);
    if messages.is_empty() { error } else { io::Error::new(error.kind(), format!("{error}: {messages}")) }
}

fn messages(fs: BorrowedFd<'_>) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    // One message per read, an error when there are no more.
    while let Ok(read) = rustix::io::read(fs, &mut buffer) {
        if read == 0 || all.len() >= 8 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..read]);
        all.push(text.trim().trim_start_matches("e ").to_owned());
    }
    all.join("; ")
}

/// The interface of kernels before 6.8.
pub(crate) fn with_mount(lowers: &[PathBuf], dir: &Path) -> io::Result<()> {
    let upper_work = [(UPPER, dir.join(UPPER)), (WORK, dir.join(WORK))];
    let plain: Vec<Vec<u8>> = lowers.iter().map(|lower| escaped(lower.as_os_str().as_bytes())).collect();
    let uppers: Vec<Vec<u8>> = upper_work.iter().map(|(_, p)| escaped(p.as_os_str().as_bytes())).collect();
    let options = options(&plain, &uppers);
    if options.len() <= MAX_OPTIONS {
        return mount_with(&options, dir);
    }
    let mut kept = Vec::new();
    for path in lowers.iter().chain(upper_work.iter().map(|(_, path)| path)) {
        kept.push(by_descriptor(path)?);
    }
    let texts: Vec<Vec<u8>> = kept.iter().map(|value| value.text.clone()).collect();
    let (lowers, uppers) = texts.split_at(lowers.len());
    let options = self::options(lowers, uppers);
    if options.len() > MAX_OPTIONS {
        return Err(io::Error::other(format!(
            "{} layers are too many for this kernel: their list has {} bytes, it takes {MAX_OPTIONS}; \
             Linux 6.8 and later take 500 layers",
            lowers.len(),
            options.len()
        )));
    }
    mount_with(&options, dir)
}

fn options(lowers: &[Vec<u8>], uppers: &[Vec<u8>]) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    options.extend(lowers.join(&b':'));
    for (key, path) in [&b",upperdir="[..], b",workdir="].into_iter().zip(uppers) {
        options.extend_from_slice(key);
        options.extend_from_slice(path);
    }
    options
}

/// Overlay reads `:` and `,` in paths as the end of one.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for byte in path {
        if matches!(byte, b':' | b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

fn mount_with(options: &[u8], dir: &Path) -> io::Result<()> {
    let c_string =
        |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let mount = |options: &[u8]| -> io::Result<()> {
        let data = c_string(options)?;
        rustix::mount::mount(
            "hull",
            dir.join(MERGED),
            "overlay",
            MountFlags::empty(),
            Some(data.as_c_str()),
        )?;
        Ok(())
    };
    // An older kernel does not know the one or the other.
    for wished in [&b",index=off,volatile"[..], b",index=off"] {
        let all = [options, wished].concat();
        if all.len() > MAX_OPTIONS {
            continue;
        }
        match mount(&all) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            mounted => return mounted,
        }
    }
    mount(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_paths_are_escaped() {
        let options = options(&[escaped(b"/a:b,c"), b"/d".to_vec()], &[b"/u".to_vec(), b"/w".to_vec()]);
        assert_eq!(options, br"lowerdir=/a\:b\,c:/d,upperdir=/u,workdir=/w");
    }
}
