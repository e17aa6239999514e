// SPDX-License-Identifier: Apache-2.0
//! Bodies that end well, badly, or never.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// A body in pieces.
#[derive(Debug)]
pub(super) struct TestBody {
    data: Bytes,
    /// Bytes that come before what `end` says.
    good: usize,
    sent: usize,
    end: End,
    /// Whether the length is told.
    sized: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What comes after the good bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// All of them are good.
    Well,
    Cut,
    Stall,
    Trickle(Duration),
}

// === impl TestBody ===

impl TestBody {
    pub(super) fn new(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        Self { good: data.len(), data, sent: 0, end: End::Well, sized: true, sleep: None }
    }

    pub(super) fn ending(self, good: usize, end: End) -> Self {
        Self { good: good.min(self.data.len()), end, ..self }
    }

    pub(super) fn unsized_(self) -> Self {
        Self { sized: false, ..self }
    }

    fn piece(&mut self, limit: usize) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let end = self.data.len().min(self.sent + limit);
        let piece = self.data.slice(self.sent..end);
        self.sent = end;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.sent < self.good {
            let limit = (self.good - self.sent).min(64 << 10);
            return self.piece(limit);
        }
        if self.sent == self.data.len() && !matches!(self.end, End::Stall) {
            return Poll::Ready(None);
        }
        match self.end {
            End::Well => Poll::Ready(None),
            End::Cut => {
                // Time for what was sent to go out: a server that fails drops what it still holds.
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(50))));
                sleep.as_mut().poll(cx).map(|()| Some(Err(std::io::Error::other("cut"))))
            }
            End::Stall => Poll::Pending,
            End::Trickle(each) => {
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(each)));
                match sleep.as_mut().poll(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => {
                        self.sleep = None;
                        self.piece(1)
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact((self.data.len() - self.sent) as u64)
        } else {
            SizeHint::default()
        }
    }
}
