// SPDX-License-Identifier: Apache-2.0
//! One request and its answer: deadlines, redirects, errors in words.
//!
//! Every connection's task belongs to the transport and ends with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT, WARNING,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hull_failpoint::failpoint_async;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use serde::Deserialize;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connect::{Connector, Trouble, chain};
use crate::hosts::TlsFiles;
use crate::url::{Scheme, Url};
use crate::{Config, Error, Result, json};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// Longest error document that is read.
const MAX_ERROR: usize = 64 << 10;
/// Headers of one answer: registries behind several proxies send more than the library's 100.
const MAX_HEADERS: usize = 1000;
/// Longest of a registry's words in a message.
const MAX_WORDS: usize = 300;

/// Speaks HTTP with the settings of one endpoint. A clone shares its connections.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    client: Client<Connector, Full<Bytes>>,
    connector: Connector,
    user_agent: Option<HeaderValue>,
    connect: Duration,
    answer: Duration,
    /// Ends the connections' tasks.
    _tasks: Arc<DropGuard>,
}

/// A request that follows redirects.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// For every server.
    pub(crate) headers: HeaderMap,
    /// For the server of `url` alone: authorization and what the configuration says.
    pub(crate) private: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether a redirect may lead from https to http: only for what a digest protects.
    pub(crate) downgrade: Downgrade,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Downgrade {
    Allowed,
    Refused,
}

/// An answer and who gave it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) response: Response<Incoming>,
}

/// Runs the connections' tasks until they are cancelled.
#[derive(Debug, Clone)]
struct Tasks(CancellationToken);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let cancelled = self.0.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = cancelled => {}
                () = future => {}
            }
        });
    }
}

// === impl Transport ===

impl Transport {
    pub(crate) fn new(
        config: &Config,
        files: TlsFiles,
        connect: Option<Duration>,
        proxies: Arc<Matcher>,
    ) -> Self {
        let tasks = CancellationToken::new();
        let connect = connect.unwrap_or(config.connect);
        let connector = Connector::new(files, proxies, connect);
        let mut builder = Client::builder(Tasks(tasks.clone()));
        // RFC 9112, section 5.2: a folded line in an answer has to be taken.
        builder.http1_allow_obsolete_multiline_headers_in_responses(true).http1_max_headers(MAX_HEADERS);
        Self {
            client: builder.build(connector.clone()),
            connector,
            user_agent: HeaderValue::from_str(&config.user_agent).ok(),
            connect,
            answer: config.answer,
            _tasks: Arc::new(tasks.drop_guard()),
        }
    }

    /// Sends and follows redirects. The answer has any status but one that leads on.
    pub(crate) async fn ask(&self, mut ask: Ask) -> Result<Answer> {
        let first = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&ask).await?;
            if !is_redirect(response.status()) {
                return Ok(Answer { url: ask.url, response });
            }
            let next = target(&ask, &response)?;
            if next.origin() != ask.url.origin() {
                // Whoever the registry sends us to has no business with our secrets.
                ask.private.clear();
                for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    ask.headers.remove(name);
                }
            }
            ask.url = next;
        }
        Err(protocol(&first, format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn send(&self, ask: &Ask) -> Result<Response<Incoming>> {
        let url = &ask.url;
        failpoint_async!("registry.request")
            .map_err(|source| Error::Fault { step: "send a request", source })?;
        let uri = url.uri().ok_or_else(|| protocol(url, "it is not a URL"))?;
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        let headers = request.headers_mut();
        *headers = ask.headers.clone();
        // Several values of one name stay; a name of the private ones replaces.
        for name in ask.private.keys() {
            headers.remove(name);
        }
        for (name, value) in &ask.private {
            headers.append(name.clone(), value.clone());
        }
        // Digests and sizes are those of the plain bytes. Without this any coding is welcome (RFC 9110, section 12.5.3).
        headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
        if let Some(user_agent) = &self.user_agent {
            headers.entry(USER_AGENT).or_insert(user_agent.clone());
        }
        if url.scheme() == Scheme::Http
            && let Some(authorization) = self.connector.proxy_of(&uri).as_ref().and_then(|p| p.basic_auth())
        {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        *request.uri_mut() = uri;
        // Connecting has its own deadline and is part of this.
        let limit = self.answer.saturating_add(self.connect);
        let answer = tokio::time::timeout(limit, self.client.request(request)).await;
        match answer {
            Err(_) => Err(timed_out(url, "the answer", limit)),
            Ok(Ok(response)) => {
                log_warnings(url, response.headers());
                Ok(response)
            }
            Ok(Err(error)) => Err(sending(url, &error)),
        }
    }

    /// A document, whole. Longer than `limit` is an error.
    pub(crate) async fn read(&self, answer: Answer, limit: usize) -> Result<Bytes> {
        let url = answer.url;
        let mut body = answer.response.into_body();
        let mut bytes = BytesMut::new();
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broken(&url, &error))?;
                if let Ok(data) = frame.into_data() {
                    if bytes.len() + data.len() > limit {
                        return Err(content(&url, format!("longer than the limit of {limit} bytes")));
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.answer, reading).await {
            Ok(result) => result?,
            Err(_) => return Err(timed_out(&url, "the document", self.answer)),
        }
        Ok(bytes.freeze())
    }

    /// What an answer says that is not the one we wanted. `note` comes before the registry's words.
    pub(crate) async fn refusal(&self, answer: Answer, note: &str) -> Error {
        let status = answer.response.status();
        let retry_after = retry_after(answer.response.headers(), SystemTime::now());
        let url = answer.url.to_string();
        // Words are a courtesy: without them the status must do.
        let body = self.read(answer, MAX_ERROR).await.unwrap_or_default();
        let (code, words) = words_of(&body);
        let detail = match (note.is_empty(), words.is_empty()) {
            (true, true) => String::new(),
            (false, true) => format!(": {note}"),
            (true, false) => format!(": {words}"),
            (false, false) => format!(": {note}: {words}"),
        };
        let unknown = matches!(code.as_str(), "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN");
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { url, detail },
            StatusCode::UNAUTHORIZED => Error::Unauthorized { url, detail },
            StatusCode::FORBIDDEN => Error::Denied { url, detail },
            StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests { url, retry_after, detail },
            _ if status.is_server_error() => Error::Server { url, status: status.as_u16(), detail },
            _ if unknown && status.is_client_error() => Error::NotFound { url, detail },
            _ => Error::Status { url, status: status.as_u16(), detail },
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn target(ask: &Ask, response: &Response<Incoming>) -> Result<Url> {
    let url = &ask.url;
    if ask.method != Method::GET {
        return Err(protocol(url, "a redirect of what is not a plain question; refused"));
    }
    let location = response.headers().get(LOCATION).ok_or_else(|| protocol(url, "a redirect to nowhere"))?;
    let location = String::from_utf8_lossy(location.as_bytes());
    let next = url
        .join(&location)
        .map_err(|problem| protocol(url, format!("a redirect that leads astray: {problem}")))?;
    let falls = url.scheme() == Scheme::Https && next.scheme() == Scheme::Http;
    if falls && ask.downgrade == Downgrade::Refused {
        return Err(protocol(url, format!("a redirect from https to {next}; refused")));
    }
    Ok(next)
}

fn sending(url: &Url, error: &hyper_util::client::legacy::Error) -> Error {
    if !error.is_connect() {
        return broken(url, error);
    }
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        match source.downcast_ref::<Trouble>() {
            Some(Trouble::TimedOut(after)) => return timed_out(url, "connecting", *after),
            Some(Trouble::Failed(problem)) => {
                return Error::Connect { url: url.to_string(), problem: problem.clone() };
            }
            None => cause = source.source(),
        }
    }
    Error::Connect { url: url.to_string(), problem: chain(error) }
}

pub(crate) fn broken(url: &Url, error: &dyn std::error::Error) -> Error {
    Error::Broken { url: url.to_string(), problem: chain(error) }
}

pub(crate) fn protocol(url: &Url, problem: impl Into<String>) -> Error {
    Error::Protocol { url: url.to_string(), problem: problem.into() }
}

pub(crate) fn content(url: &Url, problem: impl Into<String>) -> Error {
    Error::Content { url: url.to_string(), problem: problem.into() }
}

pub(crate) fn timed_out(url: &Url, what: &'static str, after: Duration) -> Error {
    Error::TimedOut { url: url.to_string(), what, after }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
    /// What token servers write.
    details: Option<String>,
    error_description: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorEntry {
    code: String,
    message: String,
}

/// The code and the words of an error document; both empty where it is none.
fn words_of(body: &[u8]) -> (String, String) {
    let Ok(document) = json::from_slice::<ErrorDocument>(body) else {
        return Default::default();
    };
    if let Some(words) = document.details.or(document.error_description) {
        return (String::new(), plain(&words));
    }
    let code = document.errors.iter().map(|entry| &entry.code).find(|code| !code.is_empty());
    let words: Vec<String> = document
        .errors
        .iter()
        .map(|entry| {
            let parts = [entry.code.as_str(), entry.message.as_str()];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        })
        .collect();
    (code.cloned().unwrap_or_default(), plain(&words.join("; ")))
}

/// Foreign words for a message: one line, not too long.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = crate::date::parse(text)?;
    Some(date.duration_since(now).unwrap_or_default())
}

fn log_warnings(url: &Url, headers: &HeaderMap) {
    for warning in headers.get_all(WARNING).iter().take(10) {
        // `299 - "text"`: what the registry wants its users to know.
        let text = plain(&String::from_utf8_lossy(warning.as_bytes()));
        tracing::warn!(registry = %url.authority(), %text, "the registry warns");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_words_are_found() {
        for (body, code, words) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\nentry","detail":{"x":1}}]}"#,
                "DENIED",
                "DENIED: no entry",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, "A", "A; b"),
            (r#"{"details":"incorrect username or password"}"#, "", "incorrect username or password"),
            ("<html>", "", ""),
            ("{}", "", ""),
        ] {
            assert_eq!(words_of(body.as_bytes()), (code.to_owned(), words.to_owned()), "{body}");
        }
        let long = format!(r#"{{"details":"{}"}}"#, "x".repeat(5000));
        assert_eq!(words_of(long.as_bytes()).1.len(), MAX_WORDS);
    }

    #[test]
    fn the_wait_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT"), Some(Duration::from_secs(23)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO), "a date that has passed");
        assert_eq!(wait("soon"), None);
    }
}
