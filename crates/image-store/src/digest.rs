// SPDX-License-Identifier: Apache-2.0
//! Content digests: `sha256:` and 64 lower-case hex digits.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// A sha256 digest. The only algorithm that image ids and diff ids have in practice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// The digest of some bytes as text.
#[cfg(any(test, feature = "contract"))]
pub(crate) fn sha256_text(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Whether the text is 64 lower-case hex digits.
pub(crate) fn is_hex64(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

/// Whether the text has only lower-case hex digits.
pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

// === impl Digest ===

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    /// Reads `sha256:<64 hex>`; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sha256", hex)) if is_hex64(hex) => Ok(Self(hex.to_owned())),
            Some(("sha512", _)) => Err(format!("digest {text:?}: only sha256 is supported")),
            _ => Err(format!("{text:?} is not a digest (sha256: and 64 hex digits)")),
        }
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    fn finish(hash: Sha256) -> Self {
        let mut text = String::with_capacity(64);
        for byte in hash.finalize() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        Self(text)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Counts and hashes what is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hash: Sha256,
    count: u64,
    limit: u64,
}

// === impl HashingReader ===

impl<R: Read> HashingReader<R> {
    /// Reading more than `limit` bytes is an error.
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, hash: Sha256::new(), count: 0, limit }
    }

    /// Bytes read so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The digest of all that was read.
    pub(crate) fn digest(&self) -> Digest {
        Digest::finish(self.hash.clone())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count += n as u64;
        if self.count > self.limit {
            return Err(io::Error::other(format!("larger than the limit of {} bytes", self.limit)));
        }
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}
