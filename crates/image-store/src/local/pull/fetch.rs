// SPDX-License-Identifier: Apache-2.0
//! Layers from the registry into their directories, some side by side.
//!
//! ```text
//!  task                                              thread of the blocking pool
//!  Blob: network, resume, size, sha256 --Data(bytes)--> [bounded] --> inflate, diff id, unpack into tmp/
//!                                      --End----------------------->  sync, rename
//! ```
//! `End` is sent only after the registry client has found size and digest right, and nothing is settled before it
//! has come: a sender that goes without it, for whatever reason, makes the thread delete what it made.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use hull_failpoint::failpoint_async;
use hull_registry::{Blob, Session, Wanted};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::resolve::RemoteLayer;
use super::{failed, unless};
use crate::local::{Inner, io_error};
use crate::reference::Reference;
use crate::{Error, PullError, Result};

/// Pieces between network and unpacking: each at most some hundred KiB.
const PIECES: usize = 16;

/// What the network side sends.
enum Piece {
    Data(Bytes),
    /// All was sent, and it is what its digest says.
    End,
}

/// Reads what comes through the channel. Blocks.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// Fetches the layers that are not here; how many that were. The caller holds them. After an error all work has ended.
pub(super) async fn all(
    inner: &Arc<Inner>,
    session: &Arc<Session>,
    reference: &Reference,
    layers: &[RemoteLayer],
    cancel: &CancellationToken,
) -> Result<usize> {
    // The same layer may occur twice in one image.
    let mut seen = HashSet::new();
    let mut queue = layers.iter().filter(|layer| seen.insert(layer.diff_id.clone()));
    let stop = cancel.child_token();
    let mut tasks = JoinSet::new();
    let mut fetched = 0;
    let mut first = None;
    loop {
        while first.is_none() && tasks.len() < inner.config.parallel_layers.max(1) {
            let Some(layer) = queue.next() else { break };
            let (inner, session) = (Arc::clone(inner), Arc::clone(session));
            let (reference, layer, stop) = (reference.clone(), layer.clone(), stop.clone());
            tasks.spawn(async move { one(&inner, &session, &reference, layer, &stop).await });
        }
        let result = match tasks.join_next().await {
            None => break,
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(io_error("finish work on", &inner.config.root)(io::Error::other(error))),
        };
        match result {
            Ok(was_fetched) => fetched += usize::from(was_fetched),
            Err(error) => {
                // The others would only delay the answer; what they say then follows from this.
                stop.cancel();
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(fetched), Err)
}

/// Fetches one layer unless it is here, or another pull or import brings it.
async fn one(
    inner: &Arc<Inner>,
    session: &Session,
    reference: &Reference,
    layer: RemoteLayer,
    stop: &CancellationToken,
) -> Result<bool> {
    let diff_id = layer.diff_id.to_string();
    let boarding = async { Ok(inner.flights.board_async(&diff_id).await) };
    let flight = unless(stop, reference, boarding).await?;
    if inner.layer_info(&diff_id).is_some() {
        return Ok(false);
    }
    let opening = async {
        failpoint_async!("image-store.pull.layer").map_err(io_error("pull into", &inner.config.root))?;
        let digest = layer.digest.to_string();
        let wanted = Wanted { digest: &digest, size: layer.size, urls: &layer.urls };
        session.blob(&wanted).await.map_err(|error| failed(reference)(error.into()))
    };
    let blob = unless(stop, reference, opening).await?;
    let (sender, receiver) = mpsc::channel(PIECES);
    let origin = format!("layer {} of {reference}", layer.digest);
    let making = tokio::task::spawn_blocking({
        let inner = Arc::clone(inner);
        move || {
            // Until the layer is settled or deleted, nobody else works on it.
            let _flight = flight;
            make(&inner, &layer, &origin, Pieces { pieces: receiver, current: Bytes::new(), ended: false })
        }
    });
    let sent = send(blob, sender, reference, stop).await;
    let made = match making.await {
        Ok(made) => made,
        Err(error) => Err(io_error("finish work on", &inner.config.root)(io::Error::other(error))),
    };
    // Where the network failed, the thread only saw the channel end.
    sent.and(made).map(|()| true)
}

/// Sends the blob through the channel. A receiver that is gone has an error of its own.
async fn send(
    mut blob: Blob,
    pieces: mpsc::Sender<Piece>,
    reference: &Reference,
    stop: &CancellationToken,
) -> Result<()> {
    loop {
        let next = async { blob.chunk().await.map_err(|error| failed(reference)(PullError::from(error))) };
        let (piece, last) = match unless(stop, reference, next).await? {
            Some(data) => (Piece::Data(data), false),
            None => (Piece::End, true),
        };
        let sending = async { Ok(pieces.send(piece).await.is_ok()) };
        if !unless(stop, reference, sending).await? || last {
            return Ok(());
        }
    }
}

fn make(inner: &Inner, layer: &RemoteLayer, origin: &str, mut pieces: Pieces) -> Result<()> {
    let made = inner.make_layer(&layer.diff_id, |temporary| {
        let info = inner.apply_layer(&mut pieces, origin, &layer.diff_id, temporary)?;
        let drained = io::copy(&mut pieces, &mut io::sink());
        drained.map_err(|error| Error::Invalid {
            origin: origin.to_owned(),
            problem: format!("cannot read the layer: {error}"),
        })?;
        inner.settle_layer(temporary, &layer.diff_id, &info)?;
        Ok(info)
    });
    made.map(drop)
}

// === impl Pieces ===

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::Error::other("the download ended early")),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buf.len());
        buf[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
