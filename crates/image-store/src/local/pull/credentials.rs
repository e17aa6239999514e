// SPDX-License-Identifier: Apache-2.0
//! From what a caller gave to what a registry is shown.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hull_registry::Credentials;

use crate::reference::Reference;
use crate::{Auth, PullError};

/// Writers differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The user name that says that the password is an identity token.
const TOKEN_USER: &str = "<token>";

/// The credentials, if they are for this image's registry. The strongest form counts: a registry token, an identity
/// token, `auth`, then name and password.
pub(super) fn of(auth: &Auth, reference: &Reference) -> Result<Option<Credentials>, PullError> {
    let server = host_of(&auth.server_address);
    if !server.is_empty() && server != reference.registry() {
        tracing::warn!(image = %reference, server, "the credentials are for another registry; pulling without");
        return Ok(None);
    }
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credentials::RegistryToken(auth.registry_token.clone())));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credentials::IdentityToken(auth.identity_token.clone())));
    }
    let (username, password) = if auth.auth.is_empty() {
        (auth.username.clone(), auth.password.clone())
    } else {
        decode(&auth.auth)?
    };
    Ok(match (username.as_str(), password.as_str()) {
        ("", "") => None,
        (TOKEN_USER, _) => Some(Credentials::IdentityToken(password)),
        _ => Some(Credentials::Password { username, password }),
    })
}

fn decode(text: &str) -> Result<(String, String), PullError> {
    let bad =
        |problem: &str| PullError::Credentials(format!("auth is not base64 of user:password: {problem}"));
    let bytes = BASE64.decode(text.trim()).map_err(|_| bad("not base64"))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("not UTF-8"))?;
    let (username, password) = text.split_once(':').ok_or_else(|| bad("no colon"))?;
    Ok((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The registry as image names have it: files of credentials hold hosts, URLs, and docker's own old form.
fn host_of(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(auth: &Auth) -> Option<Credentials> {
        of(auth, &Reference::parse("busybox").unwrap()).unwrap()
    }

    fn password(username: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { username: username.into(), password: password.into() })
    }

    #[test]
    fn every_form_is_read() {
        let auth = |text: &str| Auth { auth: BASE64.encode(text), username: "no".into(), ..Auth::default() };
        assert_eq!(credentials(&auth("ann:a:b\0\0")), password("ann", "a:b"));
        let padless = Auth { auth: BASE64.encode("ann:ab").trim_end_matches('=').into(), ..Auth::default() };
        assert_eq!(credentials(&padless), password("ann", "ab"));
        assert_eq!(credentials(&auth("<token>:t")), Some(Credentials::IdentityToken("t".into())));
        let plain = Auth { username: "ann".into(), password: "ab".into(), ..Auth::default() };
        assert_eq!(credentials(&plain), password("ann", "ab"));
        assert_eq!(credentials(&Auth::default()), None);
        let identity = Auth { identity_token: "t".into(), ..plain.clone() };
        assert_eq!(credentials(&identity), Some(Credentials::IdentityToken("t".into())));
        let token = Auth { registry_token: "r".into(), ..identity };
        assert_eq!(credentials(&token), Some(Credentials::RegistryToken("r".into())));
        for bad in ["%%%", &BASE64.encode("no colon"), &BASE64.encode([0xff, b':'])] {
            let auth = Auth { auth: bad.to_owned(), ..Auth::default() };
            let error = of(&auth, &Reference::parse("busybox").unwrap()).unwrap_err().to_string();
            assert!(error.contains("base64 of user:password"), "{error}");
        }
    }

    #[test]
    fn credentials_of_another_registry_are_not_used() {
        let auth = |server: &str| Auth {
            username: "ann".into(),
            password: "ab".into(),
            server_address: server.into(),
            ..Auth::default()
        };
        for own in ["", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert!(credentials(&auth(own)).is_some(), "{own}");
        }
        for other in ["quay.io", "https://quay.io/v2/"] {
            assert_eq!(credentials(&auth(other)), None, "{other}");
        }
    }
}
