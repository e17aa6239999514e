// SPDX-License-Identifier: Apache-2.0
//! From HTTP to the session's own protocol: puts the layers onto the connection.
//!
//! ```text
//! SPDY        TCP or TLS | frames out: outlet | frames in: spdy::Connection
//! WebSocket   TCP or TLS | frames out: outlet | frames in: ws::Reader
//! tunnel      the WebSocket's, and SPDY's on top of its messages
//! ```

use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;

use super::Serving;
use super::http::Agreed;
use super::negotiate::Agreement;
use crate::exec::{self, Job};
use crate::forward;
use crate::outlet::Outlet;
use crate::output::{Framer, OutputStream};
use crate::pipe::Budget;
use crate::request::{PortForwardRequest, Request};
use crate::session::Session;
use crate::spdy::{self, Connection};
use crate::transport::{Hangup, ReadHalf, Transport, WriteHalf};
use crate::wire::Line;
use crate::ws::frame::{PROTOCOL_ERROR, close, pong};
use crate::ws::tunnel::TunnelReader;
use crate::ws::{self, Reader};

/// Runs the session of a connection to its end.
pub(super) async fn run(serving: &Serving, agreed: Agreed) {
    let Agreed { upgrade, agreement, request, session, slot } = agreed;
    let id = session.id;
    match upgrade.await.map_err(io::Error::other).and_then(Parts::take) {
        Ok(parts) => start(serving, agreement, request, &session, parts).await,
        Err(error) => tracing::info!(session = id, %error, "the client left before its session"),
    }
    // Gone from the list before its place is free.
    drop(session);
    drop(slot);
}

/// The connection without HTTP.
struct Parts {
    reader: ReadHalf,
    buffered: bytes::Bytes,
    writer: WriteHalf,
    hangup: Hangup,
}

impl Parts {
    fn take(upgraded: hyper::upgrade::Upgraded) -> io::Result<Self> {
        let parts = upgraded
            .downcast::<TokioIo<Transport>>()
            .map_err(|_| io::Error::other("the connection is not the one that was accepted"))?;
        let transport = parts.io.into_inner();
        let hangup = transport.hangup()?;
        let (reader, writer) = transport.split();
        Ok(Self { reader, buffered: parts.read_buf, writer, hangup })
    }
}

async fn start(serving: &Serving, agreement: Agreement, request: Request, session: &Session, parts: Parts) {
    match (agreement, request) {
        (Agreement::ExecSpdy(version), request) => {
            let Some(job) = job(request) else { return };
            let (connection, line) = spdy_layer(serving, session, parts);
            exec::spdy::serve(serving, job, version, connection, line, session).await;
        }
        (Agreement::ExecWebSocket(dialect), request) => {
            let Some(job) = job(request) else { return };
            let (reader, line) = websocket_layer(serving, session, parts);
            exec::ws::serve(serving, job, dialect, reader, line, session).await;
        }
        (agreement, Request::PortForward(request)) => {
            forward(serving, agreement, request, session, parts).await;
        }
        // The agreement was made for the request's kind.
        (_, Request::Exec(_) | Request::Attach(_)) => {}
    }
}

fn job(request: Request) -> Option<Job> {
    match request {
        Request::Exec(request) => Some(Job::Exec(request)),
        Request::Attach(request) => Some(Job::Attach(request)),
        Request::PortForward(_) => None,
    }
}

async fn forward(
    serving: &Serving,
    agreement: Agreement,
    request: PortForwardRequest,
    session: &Session,
    parts: Parts,
) {
    let forwarding = |outlet: &Outlet| forward::Request {
        handler: Arc::clone(&serving.handler),
        request,
        outlet: outlet.clone(),
        ending: session.ending.clone(),
        tasks: session.spawner(),
    };
    match agreement {
        Agreement::ForwardWebSocket(encoding) => {
            let (reader, line) = websocket_layer(serving, session, parts);
            let request = forwarding(&line.outlet);
            forward::ws::serve(serving, request, encoding, reader, line, session).await;
        }
        Agreement::ForwardTunnel => {
            let (reader, carrier) = websocket_layer(serving, session, parts);
            let Line { outlet, writer, hangup, sign_of_life, .. } = carrier;
            let tunnel = Parts {
                reader: Box::new(TunnelReader::new(reader)),
                buffered: bytes::Bytes::new(),
                writer: Box::new(OutputStream::new(&outlet, Framer::Tunnel)),
                hangup,
            };
            let (connection, mut line) = spdy_layer(serving, session, tunnel);
            // Nothing foreign among SPDY's bytes.
            line.sign_of_life = sign_of_life;
            let request = forwarding(&line.outlet);
            forward::spdy::serve(serving, request, connection, line, session).await;
            // With the last sender gone the carrier's writer flushes and ends.
            drop(outlet);
            let _ = tokio::time::timeout(serving.timeouts.close_linger, writer).await;
        }
        _ => {
            let (connection, line) = spdy_layer(serving, session, parts);
            let request = forwarding(&line.outlet);
            forward::spdy::serve(serving, request, connection, line, session).await;
        }
    }
}

fn budget(serving: &Serving) -> Budget {
    Budget::new(serving.limits.connection_buffer, serving.limits.stream_buffer)
}

fn spdy_layer(serving: &Serving, session: &Session, parts: Parts) -> (Connection, Line) {
    let Parts { reader, buffered, writer, hangup } = parts;
    let (outlet, writer) = Outlet::start(writer, session);
    let connection = Connection::new(reader, &buffered, outlet.clone(), Arc::clone(&serving.limits));
    let sign_of_life = (outlet.clone(), spdy::connection::sign_of_life());
    let complaint = spdy::connection::complaint();
    let line = Line { outlet, writer, hangup, budget: budget(serving), sign_of_life, complaint };
    (connection, line)
}

fn websocket_layer(serving: &Serving, session: &Session, parts: Parts) -> (Reader, Line) {
    let Parts { reader, buffered, writer, hangup } = parts;
    let (outlet, writer) = Outlet::start(writer, session);
    let reader = ws::Reader::new(reader, &buffered, outlet.clone());
    let sign_of_life = (outlet.clone(), pong(&[]));
    let complaint = close(PROTOCOL_ERROR);
    (reader, Line { outlet, writer, hangup, budget: budget(serving), sign_of_life, complaint })
}
