// SPDX-License-Identifier: Apache-2.0
//! A blob as a stream that heals.
//!
//! ```text
//! open --> data --> data --> ... --> size reached, digest right --> end
//!            |
//!            broken (cut, or too few bytes for too long)
//!            |
//!            pause --> Range: bytes=<so far>- --> 206 from there   --> data
//!                                             --> 200 whole again  --> skip what is here --> data
//! ```
//! Invariants: no byte is given out twice; never more bytes than the descriptor says; the end is told only when
//! size and digest are right. A server that fails too often in a row is left for the next one, which takes up
//! where it stopped: content with a digest is the same everywhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hull_failpoint::failpoint_async;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use crate::digest::{Digest, Hasher};
use crate::endpoint::{Patience, Retry, Server};
use crate::hosts::Role;
use crate::transport::{Answer, Downgrade, broken, content, protocol, timed_out};
use crate::url::Url;
use crate::{Config, Error, Result, range};

/// Progress that makes earlier breaks forgotten.
const PROGRESS: u64 = 1 << 20;

/// A place where a blob may be had.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) server: Arc<Server>,
    pub(crate) url: Url,
}

/// A blob being read. See the module's documentation for what it promises.
#[derive(Debug)]
pub struct Blob {
    config: Arc<Config>,
    sources: Vec<Source>,
    /// The source in use.
    current: usize,
    /// What earlier sources failed with.
    failures: Vec<(Role, Error)>,
    digest: Digest,
    size: u64,
    hasher: Hasher,
    /// Bytes given out.
    offset: u64,
    body: Option<Body>,
    /// Breaks in a row, and where the first of them was.
    breaks: u32,
    mark: u64,
}

#[derive(Debug)]
struct Body {
    url: Url,
    stream: Incoming,
    /// Bytes that come again and are not wanted.
    skip: u64,
    /// The stall window: bytes that came, and the time that was spent waiting for them.
    bytes: u64,
    waited: Duration,
}

// === impl Blob ===

impl Blob {
    /// Opens it at the first source that has it.
    pub(crate) async fn open(
        config: Arc<Config>,
        sources: Vec<Source>,
        digest: Digest,
        size: u64,
    ) -> Result<Self> {
        let mut blob = Self {
            config,
            sources,
            current: 0,
            failures: Vec::new(),
            digest,
            size,
            hasher: Hasher::default(),
            offset: 0,
            body: None,
            breaks: 0,
            mark: 0,
        };
        blob.body = Some(blob.opened().await?);
        Ok(blob)
    }

    /// Bytes given out so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, or the end.
    ///
    /// # Errors
    /// [`Error::Content`] when it is not what its digest and size promise; otherwise what the last source failed with.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            // Taken out for the wait: a reader that gives up in between takes the stream up again.
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.opened().await?,
            };
            match body.next(&self.config).await {
                Ok(Some(data)) => {
                    let data = self.take(&body.url, data)?;
                    self.body = Some(body);
                    if data.is_some() {
                        return Ok(data);
                    }
                }
                // All is here; how the connection ends does not matter.
                Ok(None) | Err(_) if self.offset == self.size => return self.end(&body.url),
                Ok(None) => {
                    let problem = format!("the stream ended at {} of {} bytes", self.offset, self.size);
                    self.broke(Error::Broken { url: body.url.to_string(), problem }).await?;
                }
                Err(error) => self.broke(error).await?,
            }
        }
    }

    fn take(&mut self, url: &Url, data: Bytes) -> Result<Option<Bytes>> {
        if data.is_empty() {
            return Ok(None);
        }
        self.offset += data.len() as u64;
        if self.offset > self.size {
            return Err(content(
                url,
                format!("longer than the {} bytes that its descriptor says", self.size),
            ));
        }
        self.hasher.update(&data);
        Ok(Some(data))
    }

    fn end(&self, url: &Url) -> Result<Option<Bytes>> {
        let actual = self.hasher.digest();
        if actual == self.digest {
            return Ok(None);
        }
        Err(content(url, format!("its content has the digest {actual}, not {}", self.digest)))
    }

    async fn opened(&mut self) -> Result<Body> {
        loop {
            match self.reopen().await {
                Ok(body) => return Ok(body),
                // Opening has been tried often enough: the next source.
                Err(error) => self.leave(error)?,
            }
        }
    }

    /// After a break: pauses, or goes to the next source.
    async fn broke(&mut self, error: Error) -> Result<()> {
        if matches!(error, Error::Fault { .. }) {
            return Err(error);
        }
        if self.offset - self.mark >= PROGRESS {
            self.breaks = 0;
        }
        self.mark = self.offset;
        self.breaks += 1;
        if self.breaks > self.config.resumes {
            return self.leave(error);
        }
        tracing::warn!(%error, offset = self.offset, size = self.size, "taking up a blob's stream again");
        tokio::time::sleep(self.config.resume_wait).await;
        Ok(())
    }

    fn leave(&mut self, error: Error) -> Result<()> {
        if matches!(error, Error::Fault { .. }) {
            return Err(error);
        }
        let source = self.sources.get(self.current);
        let role = source.map_or(Role::Mirror, |source| source.server.endpoint.role);
        if let Some(source) = source {
            source.server.note_failure(&error);
        }
        self.current += 1;
        self.breaks = 0;
        self.mark = self.offset;
        if self.current < self.sources.len() {
            tracing::warn!(%error, "asking the next server for the blob");
            self.failures.push((role, error));
            return Ok(());
        }
        let mut failures = std::mem::take(&mut self.failures);
        failures.push((role, error));
        Err(Error::of_endpoints(failures))
    }

    async fn reopen(&self) -> Result<Body> {
        let Some(source) = self.sources.get(self.current) else {
            return Err(Error::NotFound {
                url: self.digest.to_string(),
                detail: ": no server to ask".to_owned(),
            });
        };
        let last = self.current + 1 == self.sources.len();
        let patience = if last { Patience::Wait } else { Patience::Hurry };
        let mut retry = Retry::new(&self.config, patience);
        loop {
            match self.request(source).await {
                Ok(body) => return Ok(body),
                Err(error) => retry.again(error).await?,
            }
        }
    }

    async fn request(&self, source: &Source) -> Result<Body> {
        failpoint_async!("registry.blob.open")
            .map_err(|source| Error::Fault { step: "open a blob", source })?;
        let mut headers = HeaderMap::new();
        if self.offset > 0
            && let Ok(value) = HeaderValue::from_str(&format!("bytes={}-", self.offset))
        {
            headers.insert(RANGE, value);
        }
        let answer = source.server.get(&source.url, &headers, Downgrade::Allowed).await?;
        let skip = self.start_of(&answer)?;
        let url = answer.url;
        Ok(Body { url, stream: answer.response.into_body(), skip, bytes: 0, waited: Duration::ZERO })
    }

    /// How many bytes of the answer are here already.
    fn start_of(&self, answer: &Answer) -> Result<u64> {
        let url = &answer.url;
        let headers = answer.response.headers();
        match answer.response.status() {
            StatusCode::OK => {
                let length =
                    headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
                match length {
                    Some(length) if length != self.size => {
                        let problem = format!("{length} bytes; its descriptor says {}", self.size);
                        Err(content(url, problem))
                    }
                    // A server that knows no ranges sends it from the start.
                    _ => Ok(self.offset),
                }
            }
            StatusCode::PARTIAL_CONTENT if self.offset > 0 => {
                let text =
                    headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
                match range::parse(text) {
                    Some(range)
                        if range.first == self.offset
                            && range.last + 1 == self.size
                            && range.total.is_none_or(|total| total == self.size) =>
                    {
                        Ok(0)
                    }
                    _ => {
                        let wanted = format!("bytes {}-{}/{}", self.offset, self.size - 1, self.size);
                        Err(protocol(url, format!("it was asked for {wanted:?} and sends {text:?}")))
                    }
                }
            }
            status => {
                Err(Error::Status { url: url.to_string(), status: status.as_u16(), detail: String::new() })
            }
        }
    }
}

// === impl Body ===

impl Body {
    /// The next bytes that are wanted (possibly none), or the end of the stream.
    async fn next(&mut self, config: &Config) -> Result<Option<Bytes>> {
        failpoint_async!("registry.blob.read")
            .map_err(|source| Error::Fault { step: "read a blob", source })?;
        let started = Instant::now();
        let left = config.stall.saturating_sub(self.waited);
        let frame = timeout(left, self.stream.frame()).await;
        // Only time spent here counts: while the reader is busy, the server has nothing to prove.
        self.waited += started.elapsed();
        let frame = match frame {
            Err(_) if self.bytes < config.stall_bytes => {
                return Err(timed_out(&self.url, "the next bytes", config.stall));
            }
            Err(_) => {
                (self.bytes, self.waited) = (0, Duration::ZERO);
                return Ok(Some(Bytes::new()));
            }
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame.map_err(|error| broken(&self.url, &error))?,
        };
        let Ok(mut data) = frame.into_data() else {
            return Ok(Some(Bytes::new()));
        };
        self.bytes += data.len() as u64;
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
        data.advance(known);
        self.skip -= known as u64;
        Ok(Some(data))
    }
}
