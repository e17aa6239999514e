// SPDX-License-Identifier: Apache-2.0
//! `Debug` for messages that carry secrets: a request that is logged whole must not give them away.

use std::fmt;

use crate::v1::AuthConfig;

/// Stands for a secret: tells whether there is one, and nothing about it.
struct Secret<'a>(&'a str);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "<redacted>" })
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart in full, so that a new field cannot be forgotten here.
        let Self { username, password, auth, server_address, identity_token, registry_token } = self;
        f.debug_struct("AuthConfig")
            .field("username", username)
            .field("password", &Secret(password))
            .field("auth", &Secret(auth))
            .field("server_address", server_address)
            .field("identity_token", &Secret(identity_token))
            .field("registry_token", &Secret(registry_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{AuthConfig, PullImageRequest};

    #[test]
    fn a_logged_pull_request_keeps_its_secrets() {
        let request = PullImageRequest {
            auth: Some(AuthConfig {
                username: "ann".into(),
                password: "s3cret-p".into(),
                auth: "s3cret-a".into(),
                server_address: "registry.example".into(),
                identity_token: "s3cret-i".into(),
                registry_token: "s3cret-r".into(),
            }),
            ..Default::default()
        };
        let text = format!("{request:?} {request:#?}");
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains("ann") && text.contains("registry.example"), "{text}");
    }
}
