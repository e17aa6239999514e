// SPDX-License-Identifier: Apache-2.0
//! SPDY/3.1 as Kubernetes clients speak it: their streams, our replies.
//!
//! There is no flow control: the clients never send WINDOW_UPDATE, so backpressure is TCP's.

pub(crate) mod connection;
mod dictionary;
pub(crate) mod frame;
pub(crate) mod headers;

pub(crate) use connection::{Acceptor, Connection, Finish, Sink};
pub(crate) use headers::Headers;
