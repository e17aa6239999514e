// SPDX-License-Identifier: Apache-2.0
//! Bounds on what the daemon keeps of requests, in memory and in records.
//!
//! A CRI message may have 16 MiB, and the configurations of pods and containers are kept for as long as these exist. An object
//! of the Kubernetes API has at most 1.5 MiB, of which 256 KiB annotations; an environment that a kernel takes, filled from
//! configuration maps and services, at most 2 MiB. What is larger than that several times over is refused before
//! anything is made.

use prost::Message;

use crate::error::{Error, Result};

/// Bytes of the configuration of one pod sandbox or container, encoded.
pub(crate) const CONFIG: usize = 4 << 20;
/// Bytes of the configurations of a pod sandbox and its containers together: status and events, which hold a part of
/// each, fit into a message.
pub(crate) const POD: usize = 12 << 20;
/// Bytes of the resources of one pod or container that were updated.
pub(crate) const RESOURCES: usize = 64 << 10;
/// Bytes of a command to be executed; more no kernel takes.
pub(crate) const COMMAND: usize = 2 << 20;
/// Bytes of an image reference: more than name, tag and digest can have.
pub(crate) const REFERENCE: usize = 1024;
/// Bytes of the credentials of a pull. A registry's token travels in a header, which servers limit to less.
pub(crate) const CREDENTIALS: usize = 256 << 10;
/// Bytes of configurations that events keep in memory for one slow subscriber.
pub(crate) const EVENTS: usize = 32 << 20;

/// Refuses a message that is too large to be kept.
pub(crate) fn message(
    operation: &'static str,
    field: &str,
    message: &impl Message,
    most: usize,
) -> Result<()> {
    bytes(operation, field, message.encoded_len(), most)
}

/// Refuses a field that is too large to be kept.
pub(crate) fn bytes(operation: &'static str, field: &str, size: usize, most: usize) -> Result<()> {
    if size <= most {
        return Ok(());
    }
    let problem = format!("has {size} bytes; at most {most} are taken");
    Err(Error::InvalidArgument { operation, field: field.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_size_and_limit() {
        assert!(bytes("RunPodSandbox", "config", CONFIG, CONFIG).is_ok());
        let error = bytes("RunPodSandbox", "config", CONFIG + 1, CONFIG).unwrap_err().to_string();
        assert_eq!(error, "RunPodSandbox: config: has 4194305 bytes; at most 4194304 are taken");
    }
}
