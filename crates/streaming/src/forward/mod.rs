// SPDX-License-Identifier: Apache-2.0
//! Port-forward: many connections to ports of a pod over one client connection, each for itself.

mod connection;
pub(crate) mod spdy;
pub(crate) mod ws;

pub(crate) use connection::{Forwards, Request};
