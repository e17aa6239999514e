// SPDX-License-Identifier: Apache-2.0
//! Copies between a client and what it is forwarded to, each direction for itself.
//!
//! ```text
//! client ends its side    -> the target's writing side is closed;  target -> client goes on
//! target ends its side    -> the client is told;                   client -> target goes on
//! target takes no more    -> the client's bytes are thrown away;   target -> client goes on, then cut
//! client is reset         -> over, if the target had ended;        else cut
//! target is reset         -> cut
//! ```
//! What one side has sent before it closed arrives at the other. A client that has read the target's end resets its
//! stream rather than close it (`kubectl` does): that is no failure.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::handler::{ForwardError, PortStream};

const BUFFER: usize = 32 << 10;

/// Runs a forwarded connection to its end; the bytes that went to the target and to the client.
///
/// # Errors
/// [`ForwardError::Cut`] as drawn above, and when the session ends.
pub async fn relay<T>(stream: PortStream, target: T) -> Result<(u64, u64), ForwardError>
where
    T: AsyncRead + AsyncWrite + Send,
{
    let ending = stream.ending().clone();
    let (client_in, client_out) = stream.into_split();
    let (target_in, target_out) = tokio::io::split(target);
    // Each owns its ends: a direction that is over lets go of them, and what still comes for it is thrown away.
    let upwards = pump(client_in, target_out);
    let downwards = pump(target_in, client_out);
    tokio::pin!(upwards, downwards);
    let (mut up, mut down) = (None, None);
    while up.is_none() || down.is_none() {
        tokio::select! {
            outcome = &mut upwards, if up.is_none() => up = Some(match outcome {
                Err(Side::Read(_)) if down.is_some() => Ok(0),
                Err(Side::Read(error)) => return Err(error.into()),
                Err(Side::Write(error)) => Err(error),
                Ok(bytes) => Ok(bytes),
            }),
            outcome = &mut downwards, if down.is_none() => down = Some(outcome.map_err(Side::into_inner)?),
            _ = ending.ended() => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        }
    }
    Ok((up.transpose()?.unwrap_or(0), down.unwrap_or(0)))
}

/// Whose fault an error is.
enum Side {
    Read(io::Error),
    Write(io::Error),
}

impl Side {
    fn into_inner(self) -> io::Error {
        match self {
            Self::Read(error) | Self::Write(error) => error,
        }
    }
}

/// Copies until the reader ends, then closes the writer.
async fn pump(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> Result<u64, Side> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = reader.read(&mut buffer).await.map_err(Side::Read)?;
        if count == 0 {
            break;
        }
        writer.write_all(&buffer[..count]).await.map_err(Side::Write)?;
        total += count as u64;
    }
    match writer.shutdown().await {
        // It has closed before we did.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(total),
        outcome => outcome.map(|()| total).map_err(Side::Write),
    }
}
