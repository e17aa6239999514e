// SPDX-License-Identifier: Apache-2.0
//! What a hub reads from: a monitor's socket, or the simulated machine.

use std::io;

use hull_oci_runtime::mock::Streams;

use super::{AttachClient, PACKET_SIZE, Stream};

/// One connection to a container's standard streams.
#[derive(Debug)]
pub(crate) enum Connection {
    Conmon(AttachClient),
    Simulated(Streams),
}

impl Connection {
    /// The next output; `None` at the container's end. Cancel-safe.
    pub(super) async fn read<'b>(
        &self,
        buffer: &'b mut [u8; PACKET_SIZE],
    ) -> io::Result<Option<(Stream, &'b [u8])>> {
        match self {
            Self::Conmon(client) => client.read(buffer).await,
            Self::Simulated(streams) => {
                let Some(bytes) = streams.read().await else { return Ok(None) };
                let length = bytes.len().min(PACKET_SIZE);
                buffer[..length].copy_from_slice(&bytes[..length]);
                Ok(Some((Stream::Stdout, &buffer[..length])))
            }
        }
    }

    pub(super) async fn write_stdin(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Conmon(client) => client.write_stdin(bytes).await,
            Self::Simulated(streams) => streams.write(bytes).await,
        }
    }

    pub(super) fn shutdown_stdin(&self) -> io::Result<()> {
        match self {
            Self::Conmon(client) => client.shutdown_stdin(),
            Self::Simulated(streams) => {
                streams.close();
                Ok(())
            }
        }
    }
}
