// SPDX-License-Identifier: Apache-2.0
//! What strangers' bytes are given to, one function for each decoder: for the fuzz targets in `fuzz/`, and for the test
//! below, which gives them the corpus and mutations of it. They panic where a decoder breaks its word.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use crate::outlet::Outlet;
use crate::request::{Context, PortForwardRequest, Request};
use crate::resize::ResizeParser;
use crate::session::{Sessions, Transport};
use crate::spdy::frame::{Control, HEAD, Head};
use crate::spdy::headers::Inflater;
use crate::ws::reader::{Event, Reader};

/// What a header block may unpack to here.
const LIMIT: usize = 16 << 10;

/// A function for bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names of their targets.
pub const TARGETS: [(&str, Target); 4] = [
    ("spdy_frames", spdy_frames),
    ("spdy_headers", spdy_headers),
    ("ws_messages", ws_messages),
    ("resizes", resizes),
];

/// A connection's SPDY frames one after the other. What is understood is the same after encoding and decoding.
pub fn spdy_frames(mut wire: &[u8]) {
    while let Some((head, rest)) = wire.split_first_chunk::<HEAD>() {
        let Ok(head) = Head::decode(*head) else { return };
        let (Head::Data { length, .. } | Head::Control { length, .. }) = head;
        let payload = &rest[..length.min(rest.len())];
        if let Head::Control { kind, flags, .. } = head
            && let Ok(frame) = Control::decode(kind, flags, Bytes::copy_from_slice(payload))
        {
            let encoded = frame.encode().to_vec();
            let head = encoded.first_chunk().map(|head| Head::decode(*head));
            let Some(Ok(Head::Control { kind, flags, length })) = head else {
                unreachable!("{frame:?} was encoded as {encoded:?}");
            };
            assert_eq!(length, encoded.len() - HEAD);
            let payload = Bytes::copy_from_slice(&encoded[HEAD..]);
            assert_eq!(Control::decode(kind, flags, payload), Ok(frame));
        }
        wire = &rest[payload.len()..];
    }
}

/// A connection's header blocks, each after two bytes with its length.
pub fn spdy_headers(mut wire: &[u8]) {
    let mut inflater = Inflater::new(LIMIT);
    while let Some((length, rest)) = wire.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let Ok(headers) = inflater.read(&rest[..length]) else { return };
        assert!(headers.size() <= LIMIT, "a block unpacked to {} bytes", headers.size());
        wire = &rest[length..];
    }
}

/// A connection's WebSocket messages; the first byte says in what pieces they come. The pieces do not matter.
pub fn ws_messages(wire: &[u8]) {
    let Some((piece, wire)) = wire.split_first() else { return };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let in_pieces = runtime.block_on(read_all(wire, usize::from(*piece) + 1));
    let at_once = runtime.block_on(read_all(wire, wire.len() + 1));
    assert_eq!(in_pieces, at_once);
}

/// Terminal sizes.
pub fn resizes(wire: &[u8]) {
    let (mut parser, _sizes) = ResizeParser::new();
    for part in wire.chunks(7) {
        parser.push(part);
    }
}

/// The messages, and how it ended.
async fn read_all(wire: &[u8], piece: usize) -> (Vec<(bool, Vec<u8>)>, String) {
    let context = Context::default();
    let request = PortForwardRequest { sandbox_id: String::new(), ports: Vec::new(), context };
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let session = Sessions::default().begin(&Request::PortForward(request), peer, Transport::WebSocket);
    let (outlet, task) = Outlet::start(io_sink(), &session);
    let (near, mut far) = tokio::io::duplex(piece);
    let mut reader = Reader::new(Box::new(near), &[], outlet.clone());
    let mut messages: Vec<(bool, Vec<u8>)> = Vec::new();
    let reading = async {
        loop {
            match reader.next().await {
                Ok(Event::Part(part)) => {
                    if part.first {
                        messages.push((part.text, Vec::new()));
                    }
                    match messages.last_mut() {
                        Some((_, message)) => message.extend_from_slice(reader.bytes()),
                        None => unreachable!("a part before the first one"),
                    }
                }
                Ok(end) => break format!("{end:?}"),
                Err(error) => break error.to_string(),
            }
        }
    };
    let feeding = async {
        // A reader that has given up takes no more.
        let _: io::Result<()> = far.write_all(wire).await;
        drop(far);
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = reading => end,
        () = feeding => unreachable!("it never ends"),
    };
    drop(task);
    (messages, end)
}

/// Answers go nowhere.
fn io_sink() -> tokio::io::DuplexStream {
    tokio::io::duplex(1 << 16).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn the_corpus_is_got_over() {
        for (name, target) in TARGETS {
            let seeds = corpus(name);
            assert!(!seeds.is_empty(), "{name} has no corpus");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    proptest! {
        /// What begins well and goes wrong somewhere gets further into a decoder than random bytes do.
        #[test]
        fn mutations_of_the_corpus_are_got_over(
            which: prop::sample::Index,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            for (name, target) in TARGETS {
                let seeds = corpus(name);
                let mut bytes = which.get(&seeds).clone();
                for (place, value) in &changes {
                    let place = place.index(bytes.len());
                    bytes[place] = *value;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                target(&bytes);
            }
        }
    }
}
