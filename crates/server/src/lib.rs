// SPDX-License-Identifier: Apache-2.0
//! The daemon `hull`: a CRI server over an OCI runtime, a monitor, pinned namespaces, a pod network
//! and an image store, each behind a trait.
//!
//! ```text
//! service/    thin gRPC layer            operation/  who wins, stages, deadlines, waiters
//! sandbox/    pod sandboxes, by verb     store       every object, published as snapshots
//! container/  containers, by verb        records     the same, durable; written first
//! image       the image verbs            recovery    what an earlier daemon left
//! ledger      what is still to be given back
//! ids         which pods and containers are this daemon's
//! streaming/  exec, attach, port-forward config/     hull.toml
//! spec/       config.json, pure         volume/     paths that may lie on dead file systems
//! ```
//!
//! As a library it is a whole CRI server for tests, on mocks and without root:
//!
//! ```no_run
//! # async fn test(dir: &std::path::Path) -> Result<(), hull_server::Error> {
//! let server = hull_server::Server::start_mock(dir).await?;
//! println!("a CRI at unix://{}", server.socket().display());
//! server.shutdown().await;
//! # Ok(()) }
//! ```

mod backends;
mod cgroup;
mod check;
mod claim;
pub mod config;
mod container;
mod context;
mod daemon;
mod error;
mod events;
mod exhausted;
mod health;
mod id;
mod ids;
mod image;
mod incoming;
mod layout;
mod ledger;
mod limits;
pub mod memory;
mod model;
mod mountinfo;
mod node;
mod operation;
mod owner;
pub mod pause;
mod pod_cidr;
mod probe;
mod records;
mod recovery;
mod regular;
mod sandbox;
mod service;
pub mod spec;
mod store;
mod streaming;
mod unwritten;
pub mod volume;

pub use backends::Mocks;
pub use check::{Offline, Report};
pub use daemon::{Server, lock_root};
pub use error::{Error, Result, chain};
pub use health::Health;
