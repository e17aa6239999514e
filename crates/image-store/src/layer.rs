// SPDX-License-Identifier: Apache-2.0
//! Unpacks one layer into a directory, ready to be a `lowerdir` of an overlay mount.
//!
//! ```text
//! blob -> [gzip | zstd | none] -> sha256 (the diff id) -> members -> files under the directory
//! ```
//! The layer is hostile. What never gives way:
//! - Every path is resolved by the kernel with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS` below the directory,
//!   so that neither `..` nor a link of the layer leads out; the last component is never followed.
//! - The uncompressed bytes, the files and the entries are counted against [`Limits`].
//! - The diff id covers the whole stream, also what follows the tar's end marker.
//!
//! Whiteouts become what overlay reads: `.wh.x` a character device 0:0 named `x` (the kernel lets anyone make it
//! since 5.8, so it is the same without privileges), `.wh..wh..opq` the attribute `trusted.overlay.opaque` of the
//! directory (`user.overlay.opaque` without privileges). They speak of lower layers alone: a real entry of the same
//! layer wins, whatever the order, and a directory that was whited out and made again is opaque.
//! A layer that nothing lies below keeps its whiteouts: at the bottom of an overlay they hide nothing, and
//! the same layer may lie elsewhere in another image.

mod apply;
mod attributes;
mod decompress;
mod name;

use std::io::BufRead;
use std::path::Path;

pub(crate) use apply::Applier;
pub(crate) use decompress::{Decompressed, buffered};

use crate::digest::{Digest, HashingReader};
use crate::tar_stream::TarStream;
use crate::{Error, Result};

/// What a layer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one layer, uncompressed.
    pub layer_bytes: u64,
    /// Entries of one layer.
    pub layer_entries: u64,
}

/// Whose rights there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileges {
    /// root's: owners, devices and trusted attributes must all come out as the layer says.
    #[default]
    Root,
    /// An ordinary user's, for tests: owners, devices and attributes that need more are left out; a directory
    /// always lets its owner in.
    Unprivileged,
}

/// How to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ApplyOptions {
    /// What the layer may cost.
    pub limits: Limits,
    /// Whose rights there are.
    pub privileges: Privileges,
}

/// A layer that was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// sha256 of the uncompressed stream.
    pub diff_id: Digest,
    /// Bytes of the uncompressed stream.
    pub size: u64,
}

/// Unpacks a layer's blob into `dir`, which must exist and be empty, and which nobody else may reach.
///
/// Blocks. On an error the directory holds a part: the caller deletes it. The blob is read to its end.
///
/// # Errors
/// [`Error::Invalid`] for what is wrong with the layer (`origin` names it), [`Error::Io`] for what is wrong here.
pub fn apply(blob: impl BufRead, origin: &str, dir: &Path, options: ApplyOptions) -> Result<Applied> {
    let invalid = |problem: String| Error::Invalid { origin: origin.to_owned(), problem };
    let stream = Decompressed::new(blob).map_err(invalid)?;
    let mut stream = HashingReader::new(stream, options.limits.layer_bytes);
    let mut tar = TarStream::new(&mut stream);
    let mut applier = Applier::open(dir, origin, options)?;
    while let Some(member) = tar.next_member().map_err(invalid)? {
        applier.apply(&member, &mut tar)?;
    }
    tar.drain().map_err(|e| invalid(format!("cannot read the layer: {e}")))?;
    applier.finish()?;
    Ok(Applied { diff_id: stream.digest(), size: stream.count() })
}

/// Whether a directory hides what lies below it in lower layers.
pub(crate) fn is_opaque(dir: &Path, privileges: Privileges) -> std::io::Result<bool> {
    use rustix::io::Errno;
    let mut value = [0; 8];
    match rustix::fs::lgetxattr(dir, attributes::opaque_name(privileges), &mut value) {
        Ok(length) => Ok(value[..length.min(value.len())] == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

// === impl Limits ===

impl Default for Limits {
    /// More than any image in use: 128 GiB and four million entries.
    fn default() -> Self {
        Self { layer_bytes: 128 << 30, layer_entries: 4_000_000 }
    }
}

#[cfg(test)]
mod tests;
