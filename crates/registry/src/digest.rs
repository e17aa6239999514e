// SPDX-License-Identifier: Apache-2.0
//! `sha256:` and 64 lower-case hex digits: the only algorithm in use.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The digest of some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest([u8; 32]);

/// Computes one, piece by piece.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(Sha256);

// === impl Digest ===

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let hex = match text.split_once(':') {
            Some(("sha256", hex)) => hex,
            Some(("sha512", _)) => return Err(format!("digest {text:?}: only sha256 is supported")),
            _ => return Err(format!("{text:?} is not a digest (sha256: and 64 hex digits)")),
        };
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let pairs = hex.as_bytes().chunks(2);
        if pairs.len() != bytes.len() || hex.len() != 64 {
            return Err(format!("digest {text:?}: it must have 64 hex digits"));
        }
        for (byte, pair) in bytes.iter_mut().zip(pairs) {
            match pair {
                [high, low] => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => *byte = high << 4 | low,
                    _ => return Err(format!("digest {text:?}: its digits must be lower-case hex")),
                },
                _ => return Err(format!("digest {text:?}: it must have 64 hex digits")),
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// === impl Hasher ===

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_digest_are_the_same() {
        let digest = Digest::of(b"hull");
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        let mut hasher = Hasher::default();
        hasher.update(b"hu");
        hasher.update(b"ll");
        assert_eq!(hasher.digest(), digest);
        for bad in [
            "",
            "sha256:",
            "sha256:zz",
            "md5:00",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha512:{}", "a".repeat(128)),
            &format!("sha256:{}", "\u{e4}".repeat(32)),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
    }
}
