// SPDX-License-Identifier: Apache-2.0
//! What a user proves himself with.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

/// Credentials for one registry. Never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credentials {
    /// User name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, which the registry's token server changes for a bearer token.
    IdentityToken(String),
    /// A bearer token as it is.
    RegistryToken(String),
}

// === impl Credentials ===

impl Credentials {
    /// `Basic ...`; `None` where there is no password.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        match self {
            Self::Password { username, password } => {
                sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
            }
            Self::IdentityToken(_) | Self::RegistryToken(_) => None,
        }
    }

    /// Tells credentials apart without keeping them.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        match self {
            Self::Password { username, password } => {
                add("password");
                add(username);
                add(password);
            }
            Self::IdentityToken(token) => {
                add("identity");
                add(token);
            }
            Self::RegistryToken(token) => {
                add("registry");
                add(token);
            }
        }
        hash.finalize().into()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::IdentityToken(_) => "IdentityToken",
            Self::RegistryToken(_) => "RegistryToken",
        })
    }
}

/// A header that logs do not show; `None` for text that cannot stand in one.
pub(crate) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let password = Credentials::Password { username: "ann".into(), password: "secret".into() };
        for credentials in [
            password,
            Credentials::IdentityToken("secret".into()),
            Credentials::RegistryToken("secret".into()),
        ] {
            assert!(!format!("{credentials:?} {:?}", credentials.basic()).contains("secret"));
        }
    }

    #[test]
    fn fingerprints_differ_where_credentials_do() {
        let password = |a: &str, b: &str| Credentials::Password { username: a.into(), password: b.into() };
        assert_ne!(password("a", "bc").fingerprint(), password("ab", "c").fingerprint());
        assert_eq!(password("a", "b").fingerprint(), password("a", "b").fingerprint());
        assert_ne!(
            Credentials::IdentityToken("x".into()).fingerprint(),
            Credentials::RegistryToken("x".into()).fingerprint()
        );
    }
}
