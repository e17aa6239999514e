// SPDX-License-Identifier: Apache-2.0
//! Exec, attach and port-forward: the HTTP server that the kubelet and `crictl` are sent to by URL.
//!
//! [`Server::issue`] makes a URL for a request, good once and for a minute. Whoever opens it speaks SPDY/3.1 or
//! WebSocket, in one of a dozen dialects; a [`Handler`] sees none of that, but [`Streams`] or a [`PortStream`].
//!
//! ```text
//! RPC -> issue -> URL        client -> server -> token -> session -> Handler -> runtime, monitor, pod network
//! ```
//! What holds for every session:
//! - it has its own connection and tasks; a client that stalls, breaks the protocol or leaves touches no other;
//! - what it holds is bounded, in both directions ([`Limits`]); a full buffer stops whoever fills it;
//! - output precedes the status, the status precedes the end, and a slow client gets all of it;
//! - it is listed and can be killed ([`Sessions`]); when its client is gone its handler is told ([`Ending`]).
//!
//! This crate knows no container: it is the outermost layer, and the daemon gives it a handler.

mod config;
mod error;
mod exec;
mod forward;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod outlet;
mod output;
mod pipe;
mod relay;
mod request;
mod resize;
mod server;
mod session;
mod spdy;
mod status;
mod tls;
mod token;
mod transport;
mod wire;
mod ws;

pub use config::{Config, Limits, Timeouts, TlsFiles};
pub use error::{Error, Result};
pub use handler::{ForwardError, Handler, PortStream, Streams};
pub use output::OutputStream;
pub use pipe::InputStream;
pub use relay::relay;
pub use request::{AttachRequest, Context, ExecRequest, Kind, PortForwardRequest, Request, Stdio};
pub use resize::{Resizes, TerminalSize};
pub use server::Server;
pub use session::{EndReason, Ending, SessionInfo, Sessions, Transport};
pub use status::ExitStatus;
