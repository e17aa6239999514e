// SPDX-License-Identifier: Apache-2.0
//! Terminal sizes from the client: `{"Width":80,"Height":24}` objects one after the other, cut anywhere.

use serde::Deserialize;
use tokio::sync::watch;

/// The most bytes of one object.
const LONGEST: usize = 4096;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's terminal sizes. Only the latest is kept.
#[derive(Debug)]
pub struct Resizes(watch::Receiver<Option<TerminalSize>>);

impl Resizes {
    /// The next size that was not seen yet; `None` when the client sends no more. Cancel-safe.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.0.changed().await.ok()?;
        *self.0.borrow_and_update()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Object {
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
}

/// Takes the client's bytes apart and keeps the latest size.
#[derive(Debug)]
pub(crate) struct ResizeParser {
    sizes: watch::Sender<Option<TerminalSize>>,
    rest: Vec<u8>,
    /// Something that is no size was sent: where the next object would begin is not known.
    broken: bool,
}

impl ResizeParser {
    pub(crate) fn new() -> (Self, Resizes) {
        let (sizes, receiver) = watch::channel(None);
        (Self { sizes, rest: Vec::new(), broken: false }, Resizes(receiver))
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.broken {
            return;
        }
        for part in bytes.chunks(LONGEST) {
            self.rest.extend_from_slice(part);
            self.parse();
        }
    }

    fn parse(&mut self) {
        let mut objects = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Object>();
        let mut used = 0;
        loop {
            match objects.next() {
                Some(Ok(object)) => {
                    used = objects.byte_offset();
                    let size = |n: u32| u16::try_from(n).ok().filter(|n| *n > 0);
                    if let (Some(width), Some(height)) = (size(object.width), size(object.height)) {
                        self.sizes.send_replace(Some(TerminalSize { width, height }));
                    }
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => {
                    tracing::debug!(%error, "the client sent no terminal size; resizing ends");
                    self.broken = true;
                    break;
                }
                None => {
                    used = self.rest.len();
                    break;
                }
            }
        }
        self.rest.drain(..used);
        if self.broken || self.rest.len() > LONGEST {
            self.broken = true;
            self.rest = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(width: u16, height: u16) -> Option<TerminalSize> {
        Some(TerminalSize { width, height })
    }

    #[tokio::test]
    async fn the_latest_size_wins_and_zeros_are_ignored() {
        let (mut parser, mut sizes) = ResizeParser::new();
        parser
            .push(b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":30}\n{\"Width\":0,\"Height\":9}");
        parser.push(b"{\"Width\":70000,\"Height\":9}{\"Height\":9}");
        assert_eq!(sizes.next().await, size(100, 30));
        parser.push(b"{\"Width\":1,\"He");
        parser.push(b"ight\":2}");
        assert_eq!(sizes.next().await, size(1, 2));
        drop(parser);
        assert_eq!(sizes.next().await, None);
    }

    #[tokio::test]
    async fn garbage_ends_resizing_and_holds_nothing() {
        for garbage in [&b"]"[..], b"\xff\xff", b"{\"Width\":-1}", &[b'['; 100_000], &[b' '; 100_000]] {
            let (mut parser, mut sizes) = ResizeParser::new();
            parser.push(b"{\"Width\":1,\"Height\":2}");
            parser.push(garbage);
            parser.push(b"{\"Width\":3,\"Height\":4}");
            assert!(parser.rest.len() <= LONGEST);
            drop(parser);
            assert!(sizes.next().await.is_some());
            assert_eq!(sizes.next().await, None);
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(cuts in prop::collection::vec(0usize..60, 0..6)) {
            let text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":132,\"Height\":43}\n";
            let (mut parser, sizes) = ResizeParser::new();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                parser.push(&text[from..cut]);
                from = cut;
            }
            prop_assert_eq!(*sizes.0.borrow(), size(132, 43));
        }
    }
}
