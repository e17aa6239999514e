// SPDX-License-Identifier: Apache-2.0
//! Durable records: one JSON file per thing, versioned, checksummed, written whole.
//!
//! ```text
//! {"version":1,"kind":"sandbox","checksum":"sha256:<hex of the body's bytes>","body":{...}}
//! ```
//! A write is: temporary file beside the record, fsync, rename over it, fsync of the directory. A
//! record that cannot be read (bad JSON, checksum, kind, version) is moved to a quarantine directory
//! together with the reason, and never keeps anything else from loading.

mod error;
mod file;
mod store;

pub use error::{Error, Result};
pub use file::{Durability, write_atomic};
pub use store::{Loaded, Quarantined, RecordStore};
