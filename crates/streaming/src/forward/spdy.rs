// SPDX-License-Identifier: Apache-2.0
//! Port-forward over SPDY: each connection is a pair of streams with the headers `streamtype` (error, then data),
//! `port` and `requestid`. Clients without request ids open the data stream right after its error stream.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Forwards, Request};
use crate::outlet::Gone;
use crate::output::{Framer, OutputStream};
use crate::pipe::{Budget, InputStream};
use crate::server::Serving;
use crate::session::{EndReason, Session};
use crate::spdy::connection::reset;
use crate::spdy::frame::Status;
use crate::spdy::{Acceptor, Connection, Headers, Sink};
use crate::wire::{Finish, Line};

/// Runs a session.
pub(crate) async fn serve(
    serving: &Serving,
    request: Request,
    mut connection: Connection,
    mut line: Line,
    session: &Session,
) {
    let timeouts = &serving.timeouts;
    let mut pairs = Pairs {
        request,
        budget: line.budget.clone(),
        deadline: timeouts.stream_creation,
        pending: HashMap::new(),
        forwards: Forwards::default(),
    };
    let reason = tokio::select! {
        outcome = connection.run(&mut pairs) => line.read_ended(session, outcome).await,
        reason = line.cut(session, timeouts) => reason,
    };
    if reason == EndReason::ClientGone {
        // It may have sent more than was read when it was found gone.
        let _ = tokio::time::timeout(timeouts.close_linger, connection.run(&mut pairs)).await;
    }
    let farewell = connection.farewell();
    if reason == EndReason::ClientGone {
        // Its readers get what came before, then an error.
        drop(connection);
        return pairs.forwards.end(reason, &line, session, timeouts).await;
    }
    pairs.forwards.end(reason, &line, session, timeouts).await;
    let goodbye = async {
        for packet in farewell {
            line.outlet.send(packet).await?;
        }
        line.outlet.end().await?;
        let _ = (&mut line.writer).await;
        while let Ok(Finish::Complete | Finish::Acknowledged) = connection.run(&mut pairs).await {}
        Ok::<(), Gone>(())
    };
    let _ = tokio::time::timeout(timeouts.close_linger, goodbye).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Data,
}

enum Half {
    Error(OutputStream),
    Data(u16, InputStream, OutputStream),
}

/// A pair of which one stream has come.
struct Pending {
    has: Kind,
    rest: mpsc::Sender<Half>,
}

/// What is remembered of a stream between admission and opening.
struct Slot {
    kind: Kind,
    key: String,
    port: u16,
    input: InputStream,
}

struct Pairs {
    request: Request,
    budget: Budget,
    deadline: Duration,
    pending: HashMap<String, Pending>,
    forwards: Forwards,
}

impl Acceptor for Pairs {
    type Slot = Slot;

    fn admit(&mut self, id: u32, headers: &Headers) -> Option<(Slot, Sink)> {
        let kind = match headers.get("streamtype")? {
            "error" => Kind::Error,
            "data" => Kind::Data,
            _ => return None,
        };
        let port = headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
        let key = match (headers.get("requestid"), kind) {
            (Some(request), _) => request.to_owned(),
            (None, Kind::Error) => format!("stream {id}"),
            (None, Kind::Data) => format!("stream {}", id.checked_sub(2)?),
        };
        self.pending.retain(|_, pending| !pending.rest.is_closed());
        if self.pending.get(&key).is_some_and(|pending| pending.has == kind) {
            return None;
        }
        let (writer, input) = self.budget.pipe();
        let sink = match kind {
            Kind::Error => Sink::Discard,
            Kind::Data => Sink::Pipe(writer),
        };
        Some((Slot { kind, key, port, input }, sink))
    }

    fn opened(&mut self, slot: Slot, output: OutputStream) -> ControlFlow<()> {
        let Slot { kind, key, port, input } = slot;
        let half = match kind {
            Kind::Error => Half::Error(output),
            Kind::Data => Half::Data(port, input, output),
        };
        let rest = match self.pending.remove(&key) {
            Some(pending) => pending.rest,
            None => {
                let (rest, halves) = mpsc::channel(2);
                let pair = pair(self.request.clone(), halves, self.deadline);
                self.forwards.start(async move {
                    // The client is gone: so is the connection.
                    let _ = pair.await;
                });
                self.pending.insert(key, Pending { has: kind, rest: rest.clone() });
                rest
            }
        };
        // Two places for two halves; a pair that has timed out takes none.
        let _ = rest.try_send(half);
        ControlFlow::Continue(())
    }
}

/// Waits for both streams, then forwards.
async fn pair(request: Request, mut halves: mpsc::Receiver<Half>, deadline: Duration) -> Result<(), Gone> {
    let (mut error, mut data) = (None, None);
    let collect = async {
        while error.is_none() || data.is_none() {
            match halves.recv().await {
                Some(Half::Error(output)) => error = Some(output),
                Some(Half::Data(port, input, output)) => data = Some((port, input, output)),
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(deadline, collect).await;
    drop(halves);
    match (error, data) {
        (Some(error), Some((port, input, output))) => request.forward(port, input, output, error).await,
        (Some(mut error), None) => {
            let message = format!("the data stream of this connection was not opened within {deadline:?}");
            error.finish_with(&request.outlet, message.as_bytes()).await
        }
        (None, Some((_, _, output))) => {
            let Framer::Spdy { stream } = output.framer() else { return Ok(()) };
            let _ = output.closer().close();
            request.outlet.send(reset(stream, Status::Cancel)).await
        }
        (None, None) => Ok(()),
    }
}
