// SPDX-License-Identifier: Apache-2.0
//! The one request of a connection: shows its token, asks for an upgrade.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::Serving;
use super::negotiate::{Agreement, Refusal, negotiate};
use crate::request::Kind;
use crate::session::{EndReason, Session};

/// A connection while it is HTTP.
pub(super) struct Exchange {
    serving: Arc<Serving>,
    peer: SocketAddr,
    agreed: Mutex<Option<Agreed>>,
}

/// What becomes of the connection.
pub(super) struct Agreed {
    pub(super) upgrade: OnUpgrade,
    pub(super) agreement: Agreement,
    pub(super) request: crate::request::Request,
    pub(super) session: Session,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Exchange {
    pub(super) fn new(serving: Arc<Serving>, peer: SocketAddr) -> Self {
        Self { serving, peer, agreed: Mutex::new(None) }
    }

    /// What was agreed, if anything was.
    pub(super) fn take(self) -> Option<Agreed> {
        self.agreed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a request. Never fails; the type is what hyper wants.
pub(super) fn answer<B>(
    exchange: &Exchange,
    mut request: Request<B>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(admit(exchange, &mut request).unwrap_or_else(refuse))
}

fn admit<B>(exchange: &Exchange, request: &mut Request<B>) -> Result<Response<Full<Bytes>>, Refusal> {
    let Exchange { serving, peer, agreed } = exchange;
    let (kind, token) = route(request.uri().path())
        .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is nothing here"))?;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "GET or POST"));
    }
    let wanted = serving.tokens.take(token, kind).ok_or_else(|| {
        tracing::info!(%peer, %kind, "a streaming client showed a token that is not, or no longer, good");
        Refusal::new(StatusCode::NOT_FOUND, "this URL was used, is too old, or never was")
    })?;
    let (agreement, response) = negotiate(request, kind)?;
    let slot = Arc::clone(&serving.slots).try_acquire_owned().map_err(|_| {
        let limit = serving.limits.sessions;
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("{limit} streaming sessions are running"))
    })?;
    let session = serving.sessions.begin(&wanted, *peer, agreement.transport());
    if serving.stopping.is_cancelled() {
        session.ending.end(EndReason::Shutdown);
    }
    let upgrade = hyper::upgrade::on(request);
    let agreement = Agreed { upgrade, agreement, request: wanted, session, slot };
    *agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreement);
    Ok(response)
}

fn route(path: &str) -> Option<(Kind, &str)> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    Some((Kind::from_path(kind)?, token))
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(refusal.message + "\n"));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    // One connection is one request: what is refused holds no place.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    for (name, value) in refusal.headers {
        headers.append(name, HeaderValue::from_static(value));
    }
    response
}
