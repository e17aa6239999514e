// SPDX-License-Identifier: Apache-2.0
//! Connections to the socket.
//!
//! A connection that cannot be taken (no descriptor is left) stays in the socket's queue, and the socket stays ready: asked
//! again at once, it would fail again at once. So there is a pause, and a client waits instead of being turned away.

use std::io;
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use tokio::net::{UnixListener, UnixStream};

const PAUSE: Duration = Duration::from_millis(100);

/// The connections; never an error, and no end.
pub(crate) fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    unfold(listener, |listener| async {
        let mut is_told = false;
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(connection), listener)),
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, "a client waits: its connection cannot be taken; trying again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
