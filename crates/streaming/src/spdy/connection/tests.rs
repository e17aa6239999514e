// SPDX-License-Identifier: Apache-2.0
//! Whatever a client sends: no panic, no wait for ever, nothing handed on that it did not send.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::pipe::{Budget, InputStream};
use crate::session::Session;

/// Takes every stream and keeps its reader.
struct All {
    budget: Budget,
    opened: Vec<(u32, InputStream, OutputStream)>,
}

impl Acceptor for All {
    type Slot = (u32, InputStream);

    fn admit(&mut self, id: u32, _: &Headers) -> Option<((u32, InputStream), Sink)> {
        let (writer, reader) = self.budget.pipe();
        Some(((id, reader), Sink::Pipe(writer)))
    }

    fn opened(&mut self, (id, reader): (u32, InputStream), output: OutputStream) -> ControlFlow<()> {
        self.opened.push((id, reader, output));
        ControlFlow::Continue(())
    }
}

/// Feeds a connection in pieces; how it ended, and what each stream's reader got.
async fn feed(wire: Vec<u8>, piece: usize) -> (Result<Finish, WireError>, Vec<(u32, Vec<u8>)>) {
    let (near, mut far) = tokio::io::duplex(piece);
    let (answers, mut answered) = tokio::io::duplex(1 << 16);
    let (outlet, _writer) = Outlet::start(answers, &Session::test());
    let drain = tokio::spawn(async move { tokio::io::copy(&mut answered, &mut tokio::io::sink()).await });
    let feeder = tokio::spawn(async move {
        let _ = far.write_all(&wire).await;
    });
    let mut all = All { budget: Budget::new(1 << 20, 1 << 20), opened: Vec::new() };
    let mut connection = Connection::new(Box::new(near), &[], outlet, Arc::new(Limits::default()));
    let outcome = connection.run(&mut all).await;
    drop(connection);
    let mut received = Vec::new();
    for (id, mut reader, _output) in all.opened {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
        received.push((id, bytes));
    }
    feeder.abort();
    drain.abort();
    (outcome, received)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// A frame that a client may send, or nearly.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let id = || 0u32..12;
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        4 => (id(), any::<bool>(), bytes()).prop_map(|(id, fin, bytes)| data(id, fin, bytes.into()).to_vec()),
        2 => (id(), any::<u32>())
            .prop_map(|(stream, status)| Control::Reset { stream, status }.encode().to_vec()),
        1 => any::<u32>().prop_map(|id| Control::Ping { id }.encode().to_vec()),
        1 => Just(Control::GoAway { last: 0, status: 0 }.encode().to_vec()),
        1 => bytes(),
        1 => (0u16..12, any::<u8>(), bytes()).prop_map(|(kind, flags, payload)| {
            let head = [&[0x80, 3][..], &kind.to_be_bytes(), &[flags, 0, 0, payload.len() as u8]].concat();
            [head, payload].concat()
        }),
    ]
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_or_hang(frames in prop::collection::vec(frames(), 0..30), piece in 1usize..300) {
        let mut deflater = Deflater::new();
        let mut wire = Vec::new();
        for stream in [1, 3, 5] {
            let block = deflater.write(&[("streamtype", "stdin")]).unwrap();
            let (fin, unidirectional) = (false, false);
            wire.extend(Control::SynStream { stream, fin, unidirectional, block }.encode().to_vec());
        }
        wire.extend(frames.concat());
        let (_, received) = run(feed(wire, piece));
        prop_assert!(received.len() >= 3);
    }

    #[test]
    fn what_is_sent_on_a_stream_arrives_on_it_and_nowhere_else(
        sent in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..200)), 0..30),
        piece in 1usize..500,
    ) {
        let (mut deflater, mut wire) = (Deflater::new(), Vec::new());
        let mut expected: Vec<(u32, Vec<u8>)> = [1, 3, 7].map(|id| (id, Vec::new())).to_vec();
        for (stream, _) in &expected {
            let block = deflater.write(&[("streamtype", "data"), ("port", "80")]).unwrap();
            let (stream, fin, unidirectional) = (*stream, false, false);
            wire.extend(Control::SynStream { stream, fin, unidirectional, block }.encode().to_vec());
        }
        for (which, bytes) in sent {
            // The fourth is open to nobody.
            let stream = expected.get(which).map_or(99, |(id, _)| *id);
            wire.extend(data(stream, false, bytes.clone().into()).to_vec());
            if let Some((_, all)) = expected.get_mut(which) {
                all.extend(bytes);
            }
        }
        let (outcome, received) = run(feed(wire, piece));
        prop_assert_eq!(outcome.unwrap(), Finish::Closed);
        prop_assert_eq!(received, expected);
    }
}
