// SPDX-License-Identifier: Apache-2.0
//! Exec and attach: one process's streams over one connection.
//!
//! ```text
//! streams opened --> handler runs --returns--> output drained, status, good-bye --> client closes --> over
//!        |                 |                            |
//!      30 s           client gone, killed, idle,     client gone, killed, idle
//!        v            shutdown: `ending`; 30 s for      v
//!      over           the handler, then dropped        over
//! ```
//! A client that reads slowly gets everything, however long it takes: the process is over, and what waits is bounded.
//! Unless the handler has called it too slow, or somebody ends the session: then it has `close_linger`.

pub(crate) mod spdy;
pub(crate) mod ws;

use std::future::Future;
use std::sync::Arc;

use crate::config::Timeouts;
use crate::handler::{Handler, Streams};
use crate::outlet::{Gone, Packet};
use crate::request::{AttachRequest, ExecRequest, Stdio};
use crate::session::{EndReason, Session};
use crate::status::{ExitStatus, Format};
use crate::wire::{Finish, Line, WireError};

/// Exec or attach: the two differ in whom they are for.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Exec(ExecRequest),
    Attach(AttachRequest),
}

impl Job {
    pub(crate) fn stdio(&self) -> Stdio {
        match self {
            Self::Exec(request) => request.stdio,
            Self::Attach(request) => request.stdio,
        }
    }

    async fn run(self, handler: Arc<dyn Handler>, streams: Streams) -> ExitStatus {
        match self {
            Self::Exec(request) => handler.exec(request, streams).await,
            // The container's exit code is not this session's.
            Self::Attach(request) => match handler.attach(request, streams).await {
                ExitStatus::Code(_) => ExitStatus::Code(0),
                other => other,
            },
        }
    }
}

/// What a version of the protocol can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) format: Format,
    pub(crate) resize: bool,
}

/// The reading side of a session: hands bytes on until the client acknowledges the end, or leaves.
pub(crate) trait Wire: Send {
    fn run(&mut self) -> impl Future<Output = Result<Finish, WireError>> + Send;

    /// Tells readers that nothing more comes.
    fn abandon(&mut self);

    /// The last frames: the status, the end of each stream, good-bye.
    fn farewell(&mut self, status: &ExitStatus) -> Vec<Packet>;
}

/// Runs a session whose streams are open.
pub(crate) async fn conduct<W: Wire>(
    wire: &mut W,
    mut line: Line,
    session: &Session,
    timeouts: &Timeouts,
    job: impl Future<Output = ExitStatus> + Send + 'static,
) {
    let mut handler = session.spawn(job);
    let reason = tokio::select! {
        status = &mut handler => {
            let status = status.unwrap_or_else(|error| broken(session, &error));
            session.note_outcome(status.in_words());
            let patience = async {
                if !session.activity.has_stalled() {
                    session.ending.ended().await;
                }
                tokio::time::sleep(timeouts.close_linger).await;
            };
            tokio::select! {
                () = part(wire, line, session, timeouts, &status) => {}
                () = patience => {}
            }
            return;
        }
        outcome = wire.run() => line.read_ended(session, outcome).await,
        reason = line.cut(session, timeouts) => reason,
    };
    session.ending.end(reason);
    wire.abandon();
    if reason == EndReason::ClientGone {
        // Writes fail from now on, rather than wait for a client that does not read.
        line.writer.abort();
    }
    let status = match tokio::time::timeout(timeouts.handler_grace, &mut handler).await {
        Ok(status) => status.unwrap_or_else(|error| broken(session, &error)),
        Err(_late) => {
            tracing::warn!(session = session.id, ?reason, "the handler did not end in time and is dropped");
            handler.abort();
            let _ = handler.await;
            ExitStatus::failed("the session was ended")
        }
    };
    session.note_outcome(status.in_words());
    if reason != EndReason::ClientGone {
        let goodbye = part(wire, line, session, timeouts, &status);
        let _ = tokio::time::timeout(timeouts.close_linger, goodbye).await;
    }
}

fn broken(session: &Session, error: &tokio::task::JoinError) -> ExitStatus {
    tracing::error!(session = session.id, %error, "the handler of a session failed");
    ExitStatus::failed("the handler of this session failed; the daemon's log tells more")
}

/// Sends what is left, and waits until the client has read it.
async fn part<W: Wire>(
    wire: &mut W,
    mut line: Line,
    session: &Session,
    timeouts: &Timeouts,
    status: &ExitStatus,
) {
    // The client may have been silent for as long as it may; now something happens.
    session.activity.touch();
    let packets = wire.farewell(status);
    let outlet = line.outlet.clone();
    let say = async {
        for packet in packets {
            outlet.send(packet).await?;
        }
        outlet.end().await?;
        Ok::<(), Gone>(())
    };
    let hear = async {
        if matches!(wire.run().await, Ok(Finish::Acknowledged)) {
            // Everything has arrived; a closing client is waited for so that nothing is reset.
            let _ = tokio::time::timeout(timeouts.close_linger, wire.run()).await;
        }
    };
    tokio::pin!(hear);
    tokio::select! {
        said = say => if said.is_err() { return },
        () = &mut hear => return,
        _ = line.lost(session, timeouts) => return,
    }
    let written = async {
        // An error is the client's leaving.
        if let Ok(Ok(())) = (&mut line.writer).await {
            hear.await;
        }
    };
    tokio::select! {
        () = written => {}
        () = session.activity.idle(timeouts.idle) => {}
    }
}
