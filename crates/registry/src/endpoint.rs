// SPDX-License-Identifier: Apache-2.0
//! One server, asked for one repository: with authorization, and again where that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode};

use crate::auth::{Auth, Tokens, Tried};
use crate::hosts::{Endpoint, Role, api_host};
use crate::transport::{Answer, Ask, Downgrade, Transport};
use crate::url::Url;
use crate::{Config, Credentials, Error, Repository, Result, challenge};

/// Sends of one request that differ in their authorization.
const MAX_AUTHORIZATIONS: usize = 4;

/// A server for one repository.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Transport,
    /// `None`: a foreign server that gets no authorization at all.
    auth: Option<Auth>,
    tokens: Arc<Tokens>,
    repository: Repository,
    /// It has cost a blob its whole patience: others are asked before it from then on.
    faltered: AtomicBool,
}

/// Whether failures that pass are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// There is nobody else to ask.
    Wait,
    /// The next endpoint is quicker.
    Hurry,
}

/// Counts tries and knows the next pause.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    config: &'a Config,
    patience: Patience,
    tries: u32,
}

// === impl Server ===

impl Server {
    pub(crate) fn new(
        config: &Config,
        endpoint: Endpoint,
        repository: &Repository,
        credentials: Option<&Credentials>,
        tokens: &Arc<Tokens>,
        proxies: &Arc<hyper_util::client::proxy::matcher::Matcher>,
    ) -> Self {
        let transport = Transport::new(config, endpoint.tls.clone(), endpoint.connect, Arc::clone(proxies));
        // A mirror on another host is somebody else: the credentials are not for it.
        let own =
            endpoint.role == Role::Origin || endpoint.base.authority() == api_host(&repository.registry);
        let credentials = credentials.filter(|_| own).cloned();
        let auth = Auth::new(endpoint.base.clone(), repository.path.clone(), credentials);
        Self {
            endpoint,
            transport,
            auth: Some(auth),
            tokens: Arc::clone(tokens),
            repository: repository.clone(),
            faltered: AtomicBool::new(false),
        }
    }

    /// The same machine's settings without any authorization, for URLs that a manifest names.
    pub(crate) fn anonymous(
        config: &Config,
        endpoint: Endpoint,
        repository: &Repository,
        tokens: &Arc<Tokens>,
        proxies: &Arc<hyper_util::client::proxy::matcher::Matcher>,
    ) -> Self {
        let transport = Transport::new(config, endpoint.tls.clone(), endpoint.connect, Arc::clone(proxies));
        let (tokens, repository) = (Arc::clone(tokens), repository.clone());
        Self { endpoint, transport, auth: None, tokens, repository, faltered: AtomicBool::new(false) }
    }

    /// Notes that it was given up for an error that is the server's, not the content's.
    pub(crate) fn note_failure(&self, error: &Error) {
        if error.is_passing() || matches!(error.cause(), Error::Connect { .. }) {
            self.faltered.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_faltered(&self) -> bool {
        self.faltered.load(Ordering::Relaxed)
    }

    /// `kind` is `manifests` or `blobs`.
    pub(crate) fn url(&self, kind: &str, name: &str) -> Url {
        let url = self.endpoint.base.below(&format!("/{}/{kind}/{name}", self.repository.path));
        if self.endpoint.base.authority() == api_host(&self.repository.registry) {
            return url;
        }
        // A mirror of many registries must be told which one is meant.
        url.with_parameter("ns", &self.repository.registry)
    }

    /// A GET; the answer's status is a success or 416.
    pub(crate) async fn get(&self, url: &Url, headers: &HeaderMap, downgrade: Downgrade) -> Result<Answer> {
        let mut tried = Tried::default();
        for _ in 0..MAX_AUTHORIZATIONS {
            let authorization = self.auth.as_ref().and_then(|auth| auth.header(&self.tokens, &mut tried));
            let mut private = self.endpoint.headers.clone();
            if let Some(authorization) = authorization {
                private.insert(AUTHORIZATION, authorization);
            }
            let answer = self
                .transport
                .ask(Ask {
                    method: Method::GET,
                    url: url.clone(),
                    headers: headers.clone(),
                    private,
                    body: Bytes::new(),
                    downgrade,
                })
                .await?;
            let status = answer.response.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answer);
            }
            // A challenge of somebody we were sent to is not ours to answer.
            let ours = self.auth.as_ref().filter(|_| answer.url.origin() == url.origin());
            let Some(auth) = ours.filter(|_| status == StatusCode::UNAUTHORIZED) else {
                return Err(self.transport.refusal(answer, "").await);
            };
            let challenges = challenge::of(answer.response.headers());
            if !auth.renew(&self.transport, &self.tokens, &challenges, &mut tried).await? {
                return Err(self.transport.refusal(answer, auth.note(&tried)).await);
            }
        }
        Err(Error::Unauthorized { url: url.to_string(), detail: ": it asks for ever new tokens".to_owned() })
    }
}

// === impl Retry ===

impl<'a> Retry<'a> {
    pub(crate) fn new(config: &'a Config, patience: Patience) -> Self {
        Self { config, patience, tries: 0 }
    }

    /// Waits if the request is worth another try; else gives the error back.
    pub(crate) async fn again(&mut self, error: Error) -> Result<()> {
        self.tries += 1;
        match self.pause(&error) {
            Some(pause) => {
                tracing::warn!(%error, ?pause, "asking the registry again");
                tokio::time::sleep(pause).await;
                Ok(())
            }
            None => Err(error),
        }
    }

    fn pause(&self, error: &Error) -> Option<Duration> {
        if self.patience == Patience::Hurry || !error.is_passing() {
            return None;
        }
        let wait = self.config.first_wait.saturating_mul(1 << (self.tries - 1).min(16));
        let wait = wait.min(self.config.longest_wait);
        match error.cause() {
            Error::TooManyRequests { retry_after, .. } => {
                let wait = retry_after.unwrap_or(wait);
                (self.tries < self.config.tries && wait <= self.config.longest_wait).then_some(wait)
            }
            _ => (self.tries < self.config.server_tries).then_some(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(config: &Config, patience: Patience, error: impl Fn() -> Error) -> Vec<Duration> {
        let mut retry = Retry::new(config, patience);
        let mut pauses = Vec::new();
        loop {
            retry.tries += 1;
            match retry.pause(&error()) {
                Some(pause) => pauses.push(pause),
                None => return pauses,
            }
        }
    }

    #[test]
    fn pauses_double_and_end() {
        let config = Config { tries: 8, longest_wait: Duration::from_secs(20), ..Config::default() };
        let busy = |retry_after| {
            move || Error::TooManyRequests { url: String::new(), retry_after, detail: String::new() }
        };
        let seconds = |list: &[u64]| list.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>();
        assert_eq!(pauses(&config, Patience::Wait, busy(None)), seconds(&[2, 4, 8, 16, 20, 20, 20]));
        let three = Some(Duration::from_secs(3));
        assert_eq!(pauses(&config, Patience::Wait, busy(three)), seconds(&[3; 7]));
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(pauses(&config, Patience::Wait, busy(hour)), [], "who wants an hour is not waited for");
        assert_eq!(pauses(&config, Patience::Hurry, busy(three)), []);
        let server = |status| move || Error::Server { url: String::new(), status, detail: String::new() };
        assert_eq!(pauses(&config, Patience::Wait, server(503)), seconds(&[2, 4]));
        assert_eq!(pauses(&config, Patience::Wait, server(501)), []);
        let gone = || Error::NotFound { url: String::new(), detail: String::new() };
        assert_eq!(pauses(&config, Patience::Wait, gone), []);
    }
}
