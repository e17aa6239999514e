// SPDX-License-Identifier: Apache-2.0
//! Whether an error means that the node has run out of something.
//!
//! The kernel's number, wherever in the chain of causes it stands; its usual words where a foreign program told them; both
//! mean the same whoever met them, so this is looked for once, for every kind of error.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};
use tonic::Code;

use crate::context::Daemon;
use crate::error::Error;

/// Words of foreign programs (strerror(3), Go's and Rust's), in lower case.
const WORDS: [(&str, Code); 8] = [
    ("no space left on device", Code::ResourceExhausted),
    ("quota exceeded", Code::ResourceExhausted),
    ("too many open files", Code::ResourceExhausted),
    ("cannot allocate memory", Code::ResourceExhausted),
    ("out of memory", Code::ResourceExhausted),
    ("resource temporarily unavailable", Code::ResourceExhausted),
    ("failed to create new os thread", Code::ResourceExhausted),
    ("read-only file system", Code::FailedPrecondition),
];

/// The code of an error whose kind tells nothing; `None` where the node lacks nothing.
pub(crate) fn code(error: &(dyn StdError + 'static)) -> Option<Code> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(code) = number.and_then(|number| of(Errno::from_raw(number))) {
            return Some(code);
        }
        let words = error.to_string().to_lowercase();
        if let Some((_, code)) = WORDS.iter().find(|(known, _)| words.contains(known)) {
            return Some(*code);
        }
        cause = error.source();
    }
    None
}

/// The code of one of the kernel's numbers.
pub(crate) fn of(errno: Errno) -> Option<Code> {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EAGAIN => {
            Some(Code::ResourceExhausted)
        }
        Errno::EROFS => Some(Code::FailedPrecondition),
        _ => None,
    }
}

/// What counts as none left: a program that was refused has given back what it had taken.
const NO_BYTES: u64 = 64 << 10;
const NO_INODES: u64 = 16;

/// Foreign programs do not always say why they fail (runc: `unable to store init state: %!w(<nil>)`). With an error
/// that tells nothing comes what the daemon's own file systems lack at this moment.
pub(crate) fn explain(ctx: &Daemon, cause: Error) -> Error {
    if cause.code() != Code::Internal {
        return cause;
    }
    let dirs = [&ctx.layout.run_root, &ctx.layout.root];
    match dirs.into_iter().find_map(|dir| Some((dir, lack(dir)?))) {
        Some((dir, (lack, code))) => Error::Lacks { dir: dir.clone(), lack, code, cause: Box::new(cause) },
        None => cause,
    }
}

fn lack(dir: &Path) -> Option<(&'static str, Code)> {
    let stat = statvfs(dir).ok()?;
    if stat.flags().contains(FsFlags::ST_RDONLY) {
        return Some(("Read-only file system", Code::FailedPrecondition));
    }
    // Without a number of inodes there is no end of them.
    let bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
    let is_full = bytes < NO_BYTES || (stat.files() > 0 && stat.files_available() < NO_INODES);
    is_full.then_some(("No space left on device", Code::ResourceExhausted))
}
