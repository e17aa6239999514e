// SPDX-License-Identifier: Apache-2.0
//! How an endpoint wants us to prove ourselves (distribution specification, "token authentication").
//!
//! ```text
//! request ---- 401, Bearer realm, service, scope ----> token from the realm ----> request again
//!         ---- 401, Basic ---------------------------> request again with the password
//! sent a token, 401 insufficient_scope --------------> a token for the scope named there, once
//! sent a remembered token, 401 ----------------------> a new token, once
//! ```
//! Credentials go to the registry itself and to the realm that it names, never to a mirror on another host, and
//! never over plain http unless the registry itself is spoken to that way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hull_failpoint::failpoint_async;
use serde::Deserialize;

use crate::challenge::Challenge;
use crate::credentials::sensitive;
use crate::transport::{Answer, Ask, Downgrade, Transport, content, protocol};
use crate::url::{Scheme, Url, form_escape};
use crate::{Credentials, Error, Result, json};

/// Longest answer of a token server.
const MAX_TOKEN: usize = 1 << 20;
/// What a token lasts that does not say it, and at least.
const MIN_LIFE: Duration = Duration::from_secs(60);
/// The longest that a token is used, whatever it says.
const MAX_LIFE: Duration = Duration::from_secs(86_400);
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(5);
/// Tokens that are remembered.
const MAX_TOKENS: usize = 1024;

/// Tokens by what they are for. Shared by all pulls.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, Token>>);

/// Endpoint, repository, and whose credentials.
type Key = (String, String, Option<[u8; 32]>);

#[derive(Debug, Clone)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// How one endpoint is convinced, for one repository.
#[derive(Debug)]
pub(crate) struct Auth {
    /// The endpoint.
    base: Url,
    repository: String,
    credentials: Option<Credentials>,
    /// The registry wants the password itself.
    basic: Mutex<bool>,
}

/// What was tried for one request.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// The header that was sent last.
    sent: Option<HeaderValue>,
    /// A token or password that was got for this request, not remembered.
    fresh: bool,
    widened: bool,
}

/// What a token server answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenDocument {
    token: String,
    access_token: String,
    /// Seconds. Servers write it as a fraction, as text, as null: no life that makes no sense fails a pull.
    expires_in: serde_json::Value,
}

/// Where tokens come from and what for.
struct Realm {
    url: Url,
    service: Option<String>,
    scopes: Vec<String>,
}

// === impl Tokens ===

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<HeaderValue> {
        let tokens = self.lock();
        tokens.get(key).filter(|token| token.until > Instant::now()).map(|token| token.header.clone())
    }

    fn put(&self, key: Key, token: Token) {
        let mut tokens = self.lock();
        let now = Instant::now();
        tokens.retain(|_, token| token.until > now);
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
        tokens.insert(key, token);
    }

    fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }
}

// === impl Auth ===

impl Auth {
    pub(crate) fn new(base: Url, repository: String, credentials: Option<Credentials>) -> Self {
        Self { base, repository, credentials, basic: Mutex::new(false) }
    }

    fn key(&self) -> Key {
        let whose = self.credentials.as_ref().map(Credentials::fingerprint);
        (self.base.origin(), self.repository.clone(), whose)
    }

    /// The `Authorization` to send now.
    pub(crate) fn header(&self, tokens: &Tokens, tried: &mut Tried) -> Option<HeaderValue> {
        let header = match &self.credentials {
            Some(Credentials::RegistryToken(token)) => sensitive(&format!("Bearer {token}")),
            credentials if *self.basic.lock().unwrap_or_else(PoisonError::into_inner) => {
                credentials.as_ref().and_then(Credentials::basic)
            }
            _ => tokens.get(&self.key()),
        };
        tried.sent = header.clone();
        header
    }

    /// In words, for the error of a request that was refused.
    pub(crate) fn note(&self, tried: &Tried) -> &'static str {
        match (&self.credentials, &tried.sent) {
            (Some(_), _) => "the credentials were not accepted",
            (None, Some(_)) => "anonymous access is not allowed",
            (None, None) => "no credentials were given",
        }
    }

    /// After a 401: whether to send the request again.
    pub(crate) async fn renew(
        &self,
        transport: &Transport,
        tokens: &Tokens,
        challenges: &[Challenge],
        tried: &mut Tried,
    ) -> Result<bool> {
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        match bearer {
            _ if matches!(self.credentials, Some(Credentials::RegistryToken(_))) => Ok(false),
            Some(bearer) if self.may_ask(bearer, tried) => {
                let token = self.token(transport, bearer).await?;
                tokens.put(self.key(), token);
                Ok(true)
            }
            None if basic && !tried.fresh => {
                tried.fresh = true;
                let has_password = self.credentials.as_ref().and_then(Credentials::basic).is_some();
                *self.basic.lock().unwrap_or_else(PoisonError::into_inner) = has_password;
                Ok(has_password)
            }
            _ => {
                tokens.forget(&self.key());
                Ok(false)
            }
        }
    }

    fn may_ask(&self, bearer: &Challenge, tried: &mut Tried) -> bool {
        let narrow = bearer.get("error") == Some("insufficient_scope") && tried.sent.is_some();
        if narrow && !tried.widened {
            tried.widened = true;
            tried.fresh = true;
            return true;
        }
        !std::mem::replace(&mut tried.fresh, true)
    }

    async fn token(&self, transport: &Transport, challenge: &Challenge) -> Result<Token> {
        let wrap = |source: Error| Error::Token {
            registry: self.base.authority().to_owned(),
            source: Box::new(source),
        };
        self.ask_for_token(transport, challenge).await.map_err(wrap)
    }

    async fn ask_for_token(&self, transport: &Transport, challenge: &Challenge) -> Result<Token> {
        failpoint_async!("registry.token").map_err(|source| Error::Fault { step: "get a token", source })?;
        let realm = self.realm(challenge)?;
        let answer = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = realm.form(&[
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "hull"),
                ]);
                transport.ask(realm.post(form)).await?
            }
            Some(Credentials::Password { username, .. }) => {
                let url = realm.question(Some(username));
                let basic = self.credentials.as_ref().and_then(Credentials::basic);
                transport.ask(question(url, basic)).await?
            }
            _ => transport.ask(question(realm.question(None), None)).await?,
        };
        read_token(transport, answer).await
    }

    fn realm(&self, challenge: &Challenge) -> Result<Realm> {
        let text = challenge.get("realm").unwrap_or_default();
        if text.is_empty() {
            return Err(protocol(&self.base, "it wants a token and does not say from whom"));
        }
        let url = self.base.join(text).map_err(|problem| {
            protocol(&self.base, format!("it names {text:?} as its token server: {problem}"))
        })?;
        if self.credentials.is_some() && url.scheme() == Scheme::Http && self.base.scheme() == Scheme::Https {
            let problem = format!("it wants credentials to be sent to {url} over plain http; refused");
            return Err(protocol(&self.base, problem));
        }
        let ours = format!("repository:{}:pull", self.repository);
        let named: Vec<String> =
            challenge.get("scope").unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        let scopes = if named.is_empty() { vec![ours] } else { named };
        Ok(Realm { url, service: challenge.get("service").map(str::to_owned), scopes })
    }
}

fn question(url: Url, authorization: Option<HeaderValue>) -> Ask {
    Ask {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        private: authorization.into_iter().map(|value| (AUTHORIZATION, value)).collect(),
        body: Bytes::new(),
        downgrade: Downgrade::Refused,
    }
}

async fn read_token(transport: &Transport, answer: Answer) -> Result<Token> {
    if answer.response.status() != StatusCode::OK {
        return Err(transport.refusal(answer, "").await);
    }
    let url = answer.url.clone();
    let body = transport.read(answer, MAX_TOKEN).await?;
    // The parser's words could show what it read.
    let document: TokenDocument =
        json::from_slice(&body).map_err(|_| content(&url, "its answer is not a token in JSON"))?;
    let text = [document.token, document.access_token].into_iter().find(|text| !text.is_empty());
    let text = text.ok_or_else(|| content(&url, "its answer has no token"))?;
    let header = sensitive(&format!("Bearer {text}"))
        .ok_or_else(|| content(&url, "its token cannot stand in a header"))?;
    // Counted from now: the clocks of the two machines may differ.
    let until = Instant::now().checked_add(life(&document.expires_in) - MARGIN);
    Ok(Token { header, until: until.unwrap_or_else(Instant::now) })
}

/// How long a token is used: at least a minute, at most a day.
fn life(expires_in: &serde_json::Value) -> Duration {
    let seconds = match expires_in {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        number => number.as_f64(),
    };
    let (least, most) = (MIN_LIFE.as_secs_f64(), MAX_LIFE.as_secs_f64());
    // A comparison with what is not a number is false: the least life.
    let seconds = seconds.filter(|seconds| *seconds > least).unwrap_or(least);
    Duration::from_secs_f64(seconds.min(most))
}

// === impl Realm ===

impl Realm {
    fn question(&self, account: Option<&str>) -> Url {
        let mut url = self.url.clone();
        if let Some(account) = account {
            url = url.with_parameter("account", account);
        }
        if let Some(service) = &self.service {
            url = url.with_parameter("service", service);
        }
        for scope in &self.scopes {
            url = url.with_parameter("scope", scope);
        }
        url
    }

    fn form(&self, fields: &[(&str, &str)]) -> Bytes {
        let scope = self.scopes.join(" ");
        let service = self.service.as_deref().map(|service| ("service", service));
        let fields = fields.iter().copied().chain(service).chain([("scope", scope.as_str())]);
        let pairs: Vec<String> =
            fields.map(|(name, value)| format!("{name}={}", form_escape(value))).collect();
        Bytes::from(pairs.join("&"))
    }

    fn post(&self, form: Bytes) -> Ask {
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        Ask {
            method: Method::POST,
            url: self.url.clone(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, form_type)]),
            private: HeaderMap::new(),
            body: form,
            downgrade: Downgrade::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lifetimes_of_tokens_are_bounded() {
        let seconds = |text: &str| {
            let document: TokenDocument = json::from_slice(text.as_bytes()).unwrap();
            life(&document.expires_in).as_secs()
        };
        for (text, expected) in [
            ("{}", 60),
            (r#"{"expires_in":null}"#, 60),
            (r#"{"expires_in":0}"#, 60),
            (r#"{"expires_in":-5}"#, 60),
            (r#"{"expires_in":300}"#, 300),
            (r#"{"Expires_In":300.0}"#, 300),
            (r#"{"expires_in":3e2}"#, 300),
            (r#"{"expires_in":"300"}"#, 300),
            (r#"{"expires_in":"soon"}"#, 60),
            (r#"{"expires_in":"NaN"}"#, 60),
            (r#"{"expires_in":"inf"}"#, 86_400),
            (r#"{"expires_in":[1]}"#, 60),
            (r#"{"expires_in":18446744073709551616}"#, 86_400),
            (r#"{"expires_in":99999999999999999999999999}"#, 86_400),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
