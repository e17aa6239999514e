// SPDX-License-Identifier: Apache-2.0
//! What every connection of a session has, whatever it speaks, and what ends it from outside.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Timeouts;
use crate::outlet::{Gone, Outlet, Packet, WriterTask};
use crate::pipe::Budget;
use crate::session::{EndReason, Session};
use crate::spdy::frame::FrameError;
use crate::spdy::headers::HeaderError;
use crate::transport::Hangup;
use crate::ws::frame::WsError;

/// How long nothing must have been read before it is watched whether the client is still there. Short waits for a
/// reader are normal.
const BLOCKED_FOR: Duration = Duration::from_secs(1);

/// How often a client is told that we live while its own pings wait behind unread bytes. It gives up after 61 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Why nothing more can be read from a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("reading from the client")]
    Io(#[from] io::Error),
    #[error("the client sent {0}")]
    Frame(#[from] FrameError),
    #[error("the client sent {0}")]
    Headers(#[from] HeaderError),
    #[error("the client sent a control frame of {length} bytes; {limit} are allowed")]
    TooLong { length: usize, limit: usize },
    #[error("the client sent {0}")]
    WebSocket(#[from] WsError),
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl WireError {
    /// Whether the client deserves to hear about it.
    fn is_protocol(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Gone(_))
    }
}

/// How reading came to an end without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Whoever takes the streams has what it wanted.
    Complete,
    /// The client has read everything that we sent, and said so.
    Acknowledged,
    /// The client has closed the connection.
    Closed,
}

/// The outgoing side of a session's connection, and its watchers.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) outlet: Outlet,
    pub(crate) writer: WriterTask,
    pub(crate) hangup: Hangup,
    pub(crate) budget: Budget,
    /// Sent now and then while nothing is read, and on which wire. A client whose pings wait behind other bytes
    /// hears that we live; one that has left without a trace, because what it sent last had no room in our
    /// kernel's buffer, is found out by its machine's reset.
    pub(crate) sign_of_life: (Outlet, Packet),
    /// Sent to a client that broke the protocol.
    pub(crate) complaint: Packet,
}

impl Line {
    /// Waits for what ends a session from outside: the client left, nothing moves, somebody wants it. Not for
    /// what is read: the caller does that. The writer must not be awaited after this said that the client is gone.
    pub(crate) async fn cut(&mut self, session: &Session, timeouts: &Timeouts) -> EndReason {
        tokio::select! {
            reason = session.ending.ended() => reason,
            reason = self.lost(session, timeouts) => reason,
        }
    }

    /// As [`Line::cut`], but for what somebody wants.
    pub(crate) async fn lost(&mut self, session: &Session, timeouts: &Timeouts) -> EndReason {
        let mut blocked = self.budget.blocked();
        tokio::select! {
            _ = &mut self.writer => EndReason::ClientGone,
            () = left(&self.hangup, &mut blocked, &self.sign_of_life) => EndReason::ClientGone,
            () = session.activity.idle(timeouts.idle) => EndReason::Idle,
        }
    }

    /// What the end of reading means for the session; says why to a client that broke the protocol.
    pub(crate) async fn read_ended(
        &mut self,
        session: &Session,
        outcome: Result<Finish, WireError>,
    ) -> EndReason {
        if let Err(error) = outcome {
            tracing::debug!(session = session.id, error = &error as &dyn std::error::Error, "reading ended");
            if error.is_protocol() {
                tracing::warn!(session = session.id, %error, "session cut");
                let last_words = async {
                    self.outlet.send(self.complaint.clone()).await?;
                    self.outlet.end().await?;
                    let _ = (&mut self.writer).await;
                    Ok::<(), Gone>(())
                };
                let _ = tokio::time::timeout(BLOCKED_FOR, last_words).await;
            }
        }
        EndReason::ClientGone
    }
}

/// Returns when the client has left although nothing is read from it.
async fn left(hangup: &Hangup, blocked: &mut watch::Receiver<bool>, (outlet, sign): &(Outlet, Packet)) {
    loop {
        if blocked.wait_for(|blocked| *blocked).await.is_err() {
            return std::future::pending().await;
        }
        let watch = async {
            tokio::time::sleep(BLOCKED_FOR).await;
            let signs = async {
                loop {
                    outlet.send_urgent(sign.clone());
                    tokio::time::sleep(SIGN_OF_LIFE).await;
                }
            };
            tokio::select! {
                outcome = hangup.wait() => match outcome {
                    Ok(()) => {}
                    // No descriptor left, perhaps. The session lives on without this watch.
                    Err(error) => {
                        tracing::debug!(%error, "cannot watch for a client that leaves");
                        std::future::pending::<()>().await;
                    }
                },
                () = signs => {}
            }
        };
        tokio::select! {
            _ = blocked.wait_for(|blocked| !*blocked) => {}
            () = watch => return,
        }
    }
}
