// SPDX-License-Identifier: Apache-2.0
//! One repository, asked by one user.
//!
//! Mirrors are asked in their order, then the registry itself; an endpoint works when a manifest could be had from
//! it, and is then asked first for all that follows. Endpoints that may fail over to another are not waited for.
//! Nobody is asked twice for the same thing: an endpoint that is configured under several entries counts once, with
//! the settings of the first of them that may be asked.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use hyper_util::client::proxy::matcher::Matcher;

use crate::auth::Tokens;
use crate::blob::{Blob, Source};
use crate::digest::Digest;
use crate::endpoint::{Patience, Retry, Server};
use crate::hosts::{self, Endpoint, Role, TlsFiles};
use crate::manifest::{self, Manifest, Version};
use crate::url::Url;
use crate::{Config, Credentials, Error, Repository, Result};

/// Longest document that is read whole as a blob: configs of images.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Most URLs of a foreign layer that are tried: each may take its time to fail.
const MAX_FOREIGN: usize = 8;

/// Pulls from registries. A clone shares what it knows.
#[derive(Debug, Clone)]
pub struct Registry {
    config: Arc<Config>,
    tokens: Arc<Tokens>,
    proxies: Arc<Matcher>,
}

/// A repository with the endpoints that it can be had from.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    tokens: Arc<Tokens>,
    proxies: Arc<Matcher>,
    repository: Repository,
    servers: Vec<Arc<Server>>,
    /// The server that worked; beyond the end: none yet.
    works: AtomicUsize,
}

/// What a blob is and where it may be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `sha256:...`.
    pub digest: &'a str,
    /// Bytes.
    pub size: u64,
    /// Where a foreign layer is kept; asked first, without credentials. Only http and https.
    pub urls: &'a [String],
}

// === impl Registry ===

impl Registry {
    /// Makes one. Proxies are read from the environment now; everything else at each pull.
    pub fn new(config: Config) -> Self {
        let proxies = Arc::new(config.proxy.matcher());
        Self { config: Arc::new(config), tokens: Arc::default(), proxies }
    }

    /// Reads the configuration of the repository's registry. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Hosts`], [`Error::File`] when the configuration cannot be used.
    pub async fn open(&self, repository: Repository, credentials: Option<&Credentials>) -> Result<Session> {
        let certs_dir = self.config.certs_dir.clone();
        let registry = repository.registry.clone();
        let load = tokio::task::spawn_blocking(move || hosts::load(certs_dir.as_deref(), &registry));
        let endpoints = match load.await {
            Ok(endpoints) => endpoints?,
            Err(error) => {
                let problem = error.to_string();
                return Err(Error::File { file: self.config.certs_dir.clone().unwrap_or_default(), problem });
            }
        };
        let server = |endpoint| {
            Server::new(&self.config, endpoint, &repository, credentials, &self.tokens, &self.proxies)
        };
        let servers: Vec<_> = endpoints.into_iter().map(|endpoint| Arc::new(server(endpoint))).collect();
        Ok(Session {
            config: Arc::clone(&self.config),
            tokens: Arc::clone(&self.tokens),
            proxies: Arc::clone(&self.proxies),
            works: AtomicUsize::new(servers.len()),
            repository,
            servers,
        })
    }
}

// === impl Session ===

impl Session {
    /// A manifest or an index, from the first endpoint that has it.
    ///
    /// # Errors
    /// That of the only endpoint, or [`Error::Endpoints`]: match on [`Error::cause`].
    pub async fn manifest(&self, version: Version<'_>) -> Result<Manifest> {
        let may = |endpoint: &Endpoint| match version {
            Version::Tag(_) => endpoint.resolve,
            Version::Digest(_) => endpoint.pull,
        };
        let order = self.order(may);
        let mut failures = Vec::new();
        for (place, index) in order.iter().enumerate() {
            let Some(server) = self.servers.get(*index) else { continue };
            let patience = if place + 1 == order.len() { Patience::Wait } else { Patience::Hurry };
            match self.manifest_from(server, version, patience).await {
                Ok(manifest) => {
                    if server.endpoint.pull {
                        self.works.store(*index, Ordering::Relaxed);
                    }
                    return Ok(manifest);
                }
                Err(error @ Error::Fault { .. }) => return Err(error),
                Err(error) => {
                    if patience == Patience::Hurry {
                        tracing::warn!(%error, "asking the next server for the manifest");
                    }
                    failures.push((server.endpoint.role, error));
                }
            }
        }
        if failures.is_empty() {
            return Err(self.nobody());
        }
        Err(Error::of_endpoints(failures))
    }

    async fn manifest_from(
        &self,
        server: &Server,
        version: Version<'_>,
        patience: Patience,
    ) -> Result<Manifest> {
        let mut retry = Retry::new(&self.config, patience);
        loop {
            match manifest::fetch(server, version).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => retry.again(error).await?,
            }
        }
    }

    /// A blob as a stream.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn blob(&self, wanted: &Wanted<'_>) -> Result<Blob> {
        let parsed = Digest::parse(wanted.digest);
        let digest =
            parsed.map_err(|problem| Error::Content { url: self.repository.to_string(), problem })?;
        let mut sources = Vec::new();
        let mut seen = HashSet::new();
        for text in wanted.urls.iter().filter(|text| seen.insert(text.as_str())).take(MAX_FOREIGN) {
            match self.foreign(text) {
                Ok(source) => sources.push(source),
                Err(problem) => {
                    tracing::warn!(url = %crate::transport::plain(text), %problem, "a layer's URL is skipped")
                }
            }
        }
        for index in self.order(|endpoint| endpoint.pull) {
            if let Some(server) = self.servers.get(index) {
                let url = server.url("blobs", wanted.digest);
                sources.push(Source { server: Arc::clone(server), url });
            }
        }
        if sources.is_empty() {
            return Err(self.nobody());
        }
        Blob::open(Arc::clone(&self.config), sources, digest, wanted.size).await
    }

    /// A blob, whole and checked. At most [`MAX_DOCUMENT`] bytes.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); [`Error::Content`] when it is larger.
    pub async fn document(&self, digest: &str, size: u64) -> Result<Bytes> {
        if size > MAX_DOCUMENT {
            let problem = format!("a document of {size} bytes; the limit is {MAX_DOCUMENT}");
            return Err(Error::Content { url: format!("{} {digest}", self.repository), problem });
        }
        let mut blob = self.blob(&Wanted { digest, size, urls: &[] }).await?;
        let mut bytes = BytesMut::new();
        while let Some(data) = blob.chunk().await? {
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    fn foreign(&self, text: &str) -> std::result::Result<Source, String> {
        let url = Url::parse(text)?;
        let endpoint = Endpoint {
            base: url.clone(),
            role: Role::Mirror,
            resolve: false,
            pull: true,
            tls: TlsFiles::default(),
            headers: http::HeaderMap::new(),
            connect: None,
        };
        let server = Server::anonymous(&self.config, endpoint, &self.repository, &self.tokens, &self.proxies);
        Ok(Source { server: Arc::new(server), url })
    }

    /// The endpoint that worked first, then the others as they are configured, then those that have cost a blob its
    /// patience: what stalls once is not waited for again with each layer. Each server once.
    fn order(&self, may: impl Fn(&Endpoint) -> bool) -> Vec<usize> {
        let works = self.works.load(Ordering::Relaxed);
        let others = (0..self.servers.len()).filter(|index| *index != works);
        let mut seen = HashSet::new();
        let mut counts = |endpoint: &Endpoint| may(endpoint) && seen.insert(endpoint.base.identity());
        let all = std::iter::once(works).chain(others);
        let wanted = |index: &usize| self.servers.get(*index).is_some_and(|server| counts(&server.endpoint));
        let mut order: Vec<usize> = all.filter(wanted).collect();
        order.sort_by_key(|index| self.servers.get(*index).is_some_and(|server| server.has_faltered()));
        order
    }

    fn nobody(&self) -> Error {
        let detail = ": no server may be asked for it; see `capabilities` in its hosts.toml".to_owned();
        Error::NotFound { url: self.repository.to_string(), detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endpoints that are asked for a tag and for a blob, as `hosts.toml` of `r.io:5000` says.
    async fn asked(hosts: &str) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("_default")).unwrap();
        std::fs::write(dir.path().join("_default/hosts.toml"), hosts).unwrap();
        let config = Config { certs_dir: Some(dir.path().to_owned()), ..Config::default() };
        let session = Registry::new(config).open(Repository::new("r.io:5000", "a"), None).await.unwrap();
        let urls = |may: fn(&Endpoint) -> bool| {
            let order = session.order(may);
            order.iter().map(|index| session.servers[*index].endpoint.base.to_string()).collect()
        };
        (urls(|endpoint| endpoint.resolve), urls(|endpoint| endpoint.pull))
    }

    #[tokio::test]
    async fn an_endpoint_with_several_entries_is_asked_once() {
        let own = "https://r.io:5000/v2";
        let mirror = "https://m.io/v2";
        for (hosts, resolve, pull) in [
            ("server = \"https://r.io:5000\"\n[host.\"https://r.io:5000/v2/\"]", vec![own], vec![own]),
            // The registry's name alone leads there as well.
            ("[host.\"https://R.io:5000\"]", vec![own], vec![own]),
            (
                "[host.\"https://m.io:443\"]\n[host.\"https://m.io/\"]\n[host.\"m.io\"]",
                vec!["https://m.io:443/v2", own],
                vec!["https://m.io:443/v2", own],
            ),
            // What the entry may not be asked, the server may.
            (
                "[host.\"https://m.io\"]\n[host.\"https://r.io:5000\"]\ncapabilities = [\"pull\"]",
                vec![mirror, own],
                vec![mirror, own],
            ),
            (
                "[host.\"http://r.io:5000\"]",
                vec!["http://r.io:5000/v2", own],
                vec!["http://r.io:5000/v2", own],
            ),
        ] {
            let asked = asked(hosts).await;
            assert_eq!(asked.0, resolve, "{hosts}");
            assert_eq!(asked.1, pull, "{hosts}");
        }
    }
}
