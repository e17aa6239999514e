// SPDX-License-Identifier: Apache-2.0
//! The other side of exec, attach and port-forward, for tests and measurements.
//!
//! Written from the protocols and sharing no code with `hull-streaming`: what both misread the same way would
//! otherwise never be seen. It panics on whatever a server must not do, and on what takes for ever; so it is for tests,
//! never for the daemon or for a user's client.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]
#![expect(clippy::missing_panics_doc, clippy::panic, reason = "a panic is how a test fails")]

pub mod forward;
pub mod http;
pub mod spdy;
pub mod ws;
