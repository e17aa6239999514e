// SPDX-License-Identifier: Apache-2.0
//! systemd, as far as a container runtime needs it: slices and scopes, and what a service tells its manager.
//!
//! ```text
//! unit     names of slices and scopes <-> paths in the cgroup tree
//! bus      one connection to the system bus: messages, replies, signals
//! manager  start and stop transient units, and wait until that is done
//! notify   READY=1, WATCHDOG=1, ... to $NOTIFY_SOCKET
//! ```
//!
//! Invariants:
//! - every call has a connection of its own, which ends with it: a bus or a manager that was restarted in between
//!   (`systemctl daemon-reexec`) leaves nothing stale, and nothing is shared that could be blocked;
//! - every call has a deadline; a job that systemd has accepted is awaited to its end;
//! - what comes from the bus is checked: length, nesting and text, and who sent it.

mod bus;
mod error;
mod manager;
pub mod notify;
pub mod unit;

pub use error::{Error, Result};
pub use manager::{Property, Scope, Systemd};
