// SPDX-License-Identifier: Apache-2.0
//! The server as its clients see it: over loopback, by clients that share no code with it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod exec;
mod forward;
mod handler;
mod hostile;
mod http;
mod life;
mod tls;
mod websocket;

use hull_stream_client::{spdy, ws};
