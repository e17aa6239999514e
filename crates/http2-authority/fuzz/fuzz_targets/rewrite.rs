// SPDX-License-Identifier: Apache-2.0
#![no_main]
use bytes::BytesMut;
use hull_http2_authority::Rewriter;

// The first byte is how the rest is cut; whole and in pieces it must come out the same.
libfuzzer_sys::fuzz_target!(|wire: &[u8]| {
    let Some((cut, wire)) = wire.split_first() else { return };
    let (mut whole, mut pieces) = (BytesMut::new(), BytesMut::new());
    Rewriter::new().push(wire, &mut whole);
    let mut rewriter = Rewriter::new();
    for piece in wire.chunks(usize::from(*cut).max(1)) {
        rewriter.push(piece, &mut pieces);
    }
    assert_eq!(whole, pieces);
});
