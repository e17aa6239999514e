// SPDX-License-Identifier: Apache-2.0
//! One forwarded connection, and all of a session.
//!
//! ```text
//! both streams there --> handler --ok------> data ends, error stream ends empty
//!      | 30 s               |--refused-----> message on the error stream, data is reset
//!      `--> message         `--cut---------> error stream ends empty, data is reset
//! ```
//! A message makes `kubectl` close the whole connection, so there is none for what befalls one of many.

use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::Timeouts;
use crate::handler::{ForwardError, Handler, PortStream};
use crate::outlet::{Gone, Outlet};
use crate::output::{Framer, OutputStream};
use crate::pipe::InputStream;
use crate::request::PortForwardRequest;
use crate::session::{EndReason, Ending, Session, Sessions};
use crate::spdy::connection::reset;
use crate::spdy::frame::Status;
use crate::wire::Line;

/// What all connections of a session share.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) request: PortForwardRequest,
    pub(crate) outlet: Outlet,
    pub(crate) ending: Ending,
    pub(crate) tasks: Sessions,
}

impl Request {
    /// Runs a connection whose streams are open.
    pub(crate) async fn forward(
        self,
        port: u16,
        input: InputStream,
        output: OutputStream,
        mut error: OutputStream,
    ) -> Result<(), Gone> {
        let (data, framer) = (output.closer(), output.framer());
        let stream = PortStream::new(input, output, self.ending);
        let (handler, request, sandbox) = (self.handler, self.request.clone(), self.request.sandbox_id);
        // A task of its own: a handler that panics takes its connection with it, and no other.
        let task = self.tasks.spawn(async move { handler.port_forward(request, port, stream).await });
        let outcome = task.await.unwrap_or_else(|error| {
            tracing::error!(sandbox, port, %error, "the handler of a forwarded connection failed");
            Err(ForwardError::refused("the handler failed; the daemon's log tells more"))
        });
        let message = match &outcome {
            Err(ForwardError::Refused { message }) => {
                format!("error forwarding port {port} to pod {sandbox}: {message}")
            }
            Ok(()) | Err(ForwardError::Cut(_)) => String::new(),
        };
        error.finish_with(&self.outlet, message.as_bytes()).await?;
        let last = match (data.close(), framer, outcome) {
            (Some(_), Framer::Spdy { stream }, Err(_)) => reset(stream, Status::Cancel),
            (Some(end), _, _) => end,
            (None, _, _) => return Ok(()),
        };
        self.outlet.send(last).await
    }
}

/// The connections of a session.
#[derive(Debug, Default)]
pub(crate) struct Forwards(JoinSet<()>);

impl Forwards {
    /// Starts one, and forgets those that have ended.
    pub(crate) fn start(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(connection);
    }

    /// Waits until there is none.
    pub(crate) async fn all_ended(&mut self) {
        while self.0.join_next().await.is_some() {}
    }

    /// Ends them. What a client that left has sent before still reaches its target, if that takes it soon.
    pub(crate) async fn end(
        &mut self,
        reason: EndReason,
        line: &Line,
        session: &Session,
        timeouts: &Timeouts,
    ) {
        if reason == EndReason::ClientGone {
            line.writer.abort();
            let _ = tokio::time::timeout(timeouts.close_linger, self.all_ended()).await;
        }
        session.ending.end(reason);
        if tokio::time::timeout(timeouts.handler_grace, self.all_ended()).await.is_err() {
            tracing::warn!(
                session = session.id,
                ?reason,
                "forwarded connections did not end in time and are dropped"
            );
            self.0.shutdown().await;
        }
    }
}
