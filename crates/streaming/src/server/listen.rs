// SPDX-License-Identifier: Apache-2.0
//! Takes clients and owns their tasks: one for each connection, from its first byte to its last.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hull_failpoint::failpoint_async;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Serving;
use super::arrivals::Arrival;
use super::http::{Exchange, answer};
use super::upgrade;
use crate::session::EndReason;
use crate::transport::{Transport, prepare};

/// After a failed accept (no descriptors left, mostly): time for others to give some back.
const PAUSE: Duration = Duration::from_millis(100);

/// How long aborted tasks may take to be dropped.
const LAST_TASKS: Duration = Duration::from_secs(2);

/// Serves until told to stop.
pub(super) async fn run(listener: TcpListener, serving: Arc<Serving>, stopped: oneshot::Receiver<Duration>) {
    let mut connections = JoinSet::new();
    let deadline = tokio::select! {
        stopped = stopped => stopped.unwrap_or_default(),
        () = accept(&listener, &serving, &mut connections) => Duration::ZERO,
        () = serving.tokens.expire() => Duration::ZERO,
    };
    drop(listener);
    serving.stopping.cancel();
    serving.sessions.end_all(EndReason::Shutdown);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(deadline, all).await.is_err() {
        connections.shutdown().await;
    }
    // Aborted with their connections; a moment later they are gone.
    if tokio::time::timeout(LAST_TASKS, serving.sessions.tasks_gone()).await.is_err() {
        tracing::error!("a streaming handler blocks its thread and outlives the server");
    }
}

/// Never returns.
async fn accept(listener: &TcpListener, serving: &Arc<Serving>, connections: &mut JoinSet<()>) {
    loop {
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(ended) = connections.join_next() => note(ended),
            }
        };
        match failpoint_async!("streaming.accept").and(accepted) {
            Ok((tcp, peer)) => {
                let arrival = serving.arrivals.enter(peer.ip());
                connections.spawn(connection(Arc::clone(serving), tcp, peer, arrival));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a streaming client");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a streaming connection failed");
    }
}

/// One client: handshake, one request, and what that asks for.
async fn connection(serving: Arc<Serving>, tcp: TcpStream, peer: SocketAddr, arrival: Arrival) {
    let exchange = Exchange::new(Arc::clone(&serving), peer);
    let handshake = async {
        prepare(&tcp, peer);
        let transport = match &serving.identity {
            None => Transport::Plain(tcp),
            Some(identity) => {
                failpoint_async!("streaming.tls.accept")?;
                Transport::Tls(Box::new(identity.accept(tcp).await?))
            }
        };
        http(&serving, transport, &exchange).await
    };
    let outcome = tokio::select! {
        // A request that is there counts, whoever wants its place.
        biased;
        outcome = tokio::time::timeout(serving.timeouts.handshake, handshake) => outcome,
        () = arrival.displaced.cancelled() => return,
        () = serving.stopping.cancelled() => return,
    };
    drop(arrival);
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "streaming client failed before its session"),
        Err(_late) => tracing::debug!(%peer, "streaming client did not finish its request in time"),
    }
    if let Some(agreed) = exchange.take() {
        upgrade::run(&serving, agreed).await;
    }
}

/// Answers one request. Returns when it is answered; an upgraded connection is in the exchange.
async fn http(serving: &Serving, transport: Transport, exchange: &Exchange) -> io::Result<()> {
    let service = service_fn(|request| std::future::ready(answer(exchange, request)));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.timeouts.handshake)
        .max_buf_size(serving.limits.http_head.max(8192))
        .serve_connection(TokioIo::new(transport), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}
