// SPDX-License-Identifier: Apache-2.0
use std::collections::VecDeque;

use http::uri::Authority;
use proptest::prelude::*;

use super::*;

const TABLE_BYTES: usize = 4096;

fn preface() -> Vec<u8> {
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
}

/// What h2 reads when the client's bytes come in pieces of these sizes, over and over.
fn through(wire: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut rewriter, mut out) = (Rewriter::new(), BytesMut::new());
    let (mut rest, mut pieces) = (wire, pieces.iter().cycle());
    while !rest.is_empty() {
        let count = pieces.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (piece, next) = rest.split_at(count);
        let passing = rewriter.passing();
        if count <= passing {
            rewriter.pass(count);
            out.put_slice(piece);
        } else {
            rewriter.push(piece, &mut out);
        }
        rest = next;
    }
    out.to_vec()
}

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Head { length: payload.len(), kind, flags, stream }.write(&mut out);
    out.extend_from_slice(payload);
    out
}

/// A field as a block has it.
#[derive(Debug, Clone)]
enum Field {
    Authority {
        name: u8,
        kind: u8,
        huffman: bool,
        value: Vec<u8>,
    },
    Other {
        indexed: bool,
        value: Vec<u8>,
    },
    /// One of the dynamic table, by its place in what it holds.
    Again(usize),
    Resize(usize),
}

/// The client's dynamic table: lengths of its entries.
#[derive(Debug)]
struct Table {
    sizes: VecDeque<usize>,
    most: usize,
}

impl Table {
    fn add(&mut self, name: usize, value: usize) {
        self.sizes.push_front(name + value + 32);
        self.evict();
    }

    fn evict(&mut self) {
        while self.sizes.iter().sum::<usize>() > self.most {
            self.sizes.pop_back();
        }
    }
}

fn number(out: &mut Vec<u8>, first: u8, bits: u32, value: usize) {
    let mask = (1 << bits) - 1;
    if value < mask {
        out.push(first | value as u8);
        return;
    }
    out.push(first | mask as u8);
    let mut left = value - mask;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn text(out: &mut Vec<u8>, huffman: bool, text: &[u8]) {
    let mut coded = Vec::new();
    if huffman {
        httlib_huffman::encode(text, &mut coded).unwrap();
        number(out, 0x80, 7, coded.len());
    } else {
        coded.extend_from_slice(text);
        number(out, 0, 7, coded.len());
    }
    out.extend_from_slice(&coded);
}

fn encode(fields: &[Field], table: &mut Table) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        match field {
            Field::Authority { name, kind, huffman, value } => {
                let (first, bits) = [(0x40, 6), (0x00, 4), (0x10, 4)][usize::from(*kind % 3)];
                number(&mut out, first, bits, usize::from(*name % 3 == 0));
                if *name % 3 != 0 {
                    text(&mut out, *name % 3 == 1, b":authority");
                }
                text(&mut out, *huffman, value);
                if kind % 3 == 0 {
                    table.add(10, value.len());
                }
            }
            Field::Other { indexed, value } => {
                out.push(if *indexed { 0x40 } else { 0 });
                text(&mut out, *indexed, b"x-name");
                text(&mut out, !*indexed, value);
                if *indexed {
                    table.add(6, value.len());
                }
            }
            Field::Again(place) if !table.sizes.is_empty() => {
                number(&mut out, 0x80, 7, 62 + place % table.sizes.len());
            }
            Field::Resize(most) if index == 0 => {
                table.most = most % TABLE_BYTES;
                table.evict();
                number(&mut out, 0x20, 5, table.most);
            }
            Field::Again(_) | Field::Resize(_) => {}
        }
    }
    // A block does not end with a new size of the table.
    out.push(0x86);
    out
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..40),
        proptest::collection::vec(any::<u8>(), 200..700),
        Just(b"%2Frun%2Fhull%2Fhull.sock".to_vec()),
        Just(b"localhost".to_vec()),
    ];
    let field = prop_oneof![
        3 => (any::<u8>(), any::<u8>(), any::<bool>(), value.clone())
            .prop_map(|(name, kind, huffman, value)| Field::Authority { name, kind, huffman, value }),
        2 => (any::<bool>(), value).prop_map(|(indexed, value)| Field::Other { indexed, value }),
        3 => any::<usize>().prop_map(Field::Again),
        1 => any::<usize>().prop_map(Field::Resize),
    ];
    proptest::collection::vec(field, 0..12)
}

/// How a request is cut into frames: priority, padding, lengths of the parts of its block, data after it.
type Cut = (bool, Option<u8>, Vec<usize>, Vec<u8>);

fn request(stream: u32, block: &[u8], (priority, padding, parts, data): &Cut) -> Vec<u8> {
    let mut parts = parts.iter();
    let mut cut = |rest: usize| parts.next().map_or(rest, |count| (*count).min(rest));
    let (part, mut rest) = block.split_at(cut(block.len()));
    let mut flags = if rest.is_empty() { END_HEADERS } else { 0 };
    let mut payload = Vec::new();
    if let Some(padding) = padding {
        flags |= PADDED;
        payload.push(*padding);
    }
    if *priority {
        flags |= PRIORITY;
        payload.extend_from_slice(&[0, 0, 0, 3, 16]);
    }
    payload.extend_from_slice(part);
    payload.extend(std::iter::repeat_n(0, usize::from(padding.unwrap_or_default())));
    let mut wire = frame_of(HEADERS, flags, stream, &payload);
    while !rest.is_empty() {
        let (part, next) = rest.split_at(cut(rest.len()));
        rest = next;
        wire.extend(frame_of(CONTINUATION, if rest.is_empty() { END_HEADERS } else { 0 }, stream, part));
    }
    wire.extend(frame_of(0, 1, stream, data));
    wire
}

/// Names and values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What a receiver reads: the fields of each block, and all other frames.
fn read(wire: &[u8]) -> (Vec<Fields>, Vec<u8>) {
    let mut decoder = httlib_hpack::Decoder::with_dynamic_size(TABLE_BYTES as u32);
    let (mut requests, mut others, mut block) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = &wire[PREFACE..];
    while !rest.is_empty() {
        let (head, payload, next) = split_frame(rest).unwrap();
        assert!(head.length <= MAX_PAYLOAD);
        match head.kind {
            HEADERS => block.extend_from_slice(fragment(head, payload).unwrap().1),
            CONTINUATION => block.extend_from_slice(payload),
            _ => others.extend_from_slice(&rest[..rest.len() - next.len()]),
        }
        if matches!(head.kind, HEADERS | CONTINUATION) && head.flags & END_HEADERS != 0 {
            let mut fields = Vec::new();
            decoder.decode(&mut block, &mut fields).unwrap();
            requests.push(fields.into_iter().map(|(name, value, _)| (name, value)).collect());
        }
        rest = next;
    }
    (requests, others)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn only_authorities_change_and_every_one_is_then_good(
        requests in proptest::collection::vec(
            (
                fields(),
                (
                    any::<bool>(),
                    proptest::option::of(any::<u8>()),
                    proptest::collection::vec(0usize..300, 0..4),
                    proptest::collection::vec(any::<u8>(), 0..100),
                ),
            ),
            1..8,
        ),
        pieces in proptest::collection::vec(1usize..200, 1..20),
    ) {
        let mut table = Table { sizes: VecDeque::new(), most: TABLE_BYTES };
        let mut wire = preface();
        for (number, (fields, cut)) in requests.iter().enumerate() {
            wire.extend(request(number as u32 * 2 + 1, &encode(fields, &mut table), cut));
        }
        let rewritten = through(&wire, &pieces);
        prop_assert_eq!(&rewritten, &through(&wire, &[usize::MAX]), "the pieces do not matter");
        let ((sent, sent_others), (got, got_others)) = (read(&wire), read(&rewritten));
        prop_assert_eq!(sent_others, got_others);
        prop_assert_eq!(sent.len(), got.len());
        for ((name, value), (got_name, got_value)) in sent.concat().into_iter().zip(got.concat()) {
            prop_assert_eq!(&name, &got_name);
            if name != b":authority" || Authority::try_from(value.as_slice()).is_ok() {
                prop_assert_eq!(value, got_value);
            } else {
                prop_assert!(Authority::try_from(got_value.as_slice()).is_ok(), "{:?}", got_value);
                prop_assert_eq!(value.len(), got_value.len());
            }
        }
    }

    #[test]
    fn anything_passes_in_any_pieces(
        noise in proptest::collection::vec(
            prop_oneof![Just(0u8), Just(1), Just(4), Just(9), Just(0x41), any::<u8>()],
            0..400,
        ),
        pieces in proptest::collection::vec(1usize..50, 1..10),
    ) {
        let wire = [preface(), noise].concat();
        prop_assert_eq!(through(&wire, &pieces), through(&wire, &[usize::MAX]));
    }
}

#[test]
fn the_corpus_of_the_fuzzer_passes_in_any_pieces() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rewrite");
    let mut rewritten = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        let wire = &seed[1..];
        let whole = through(wire, &[usize::MAX]);
        rewritten += usize::from(whole != wire);
        for pieces in 1..20 {
            assert_eq!(through(wire, &[pieces]), whole);
        }
    }
    assert!(rewritten > 0);
}

#[test]
fn a_flood_of_continuations_is_passed_on_and_not_held() {
    let (mut rewriter, mut out) = (Rewriter::new(), BytesMut::new());
    rewriter.push(&preface(), &mut out);
    rewriter.push(&frame_of(HEADERS, 0, 1, &[0x41]), &mut out);
    for _ in 0..1000 {
        rewriter.push(&frame_of(CONTINUATION, 0, 1, &[0x86; 1000]), &mut out);
        assert!(rewriter.held.len() <= LONGEST_BLOCK, "{}", rewriter.held.len());
        assert!(rewriter.held.capacity() <= 4 * LONGEST_BLOCK);
    }
    assert_eq!(out.len() + rewriter.held.len(), PREFACE + HEAD + 1 + 1000 * (HEAD + 1000));
}

#[test]
fn what_is_out_of_order_is_passed_on_at_once() {
    for next in [
        frame_of(0, 0, 1, b"data"),
        frame_of(CONTINUATION, END_HEADERS, 3, b""),
        frame_of(HEADERS, 0, 1, b""),
    ] {
        let wire = [preface(), frame_of(HEADERS, 0, 1, &[0x41, 1, b'/']), next].concat();
        assert_eq!(through(&wire, &[usize::MAX]), wire);
    }
    // Padding that is longer than its frame.
    let wire = [preface(), frame_of(HEADERS, PADDED | END_HEADERS, 1, &[9, 0x41, 1, b'/'])].concat();
    assert_eq!(through(&wire, &[3]), wire);
}

#[test]
fn a_block_that_grows_goes_into_more_frames() {
    // 8 bits each become 1 in the Huffman code's best case: 5.
    let value = vec![b'/'; 25_000];
    let mut block = vec![0x41];
    text(&mut block, true, &value);
    let (first, rest) = block.split_at(16_000);
    let wire =
        [preface(), frame_of(HEADERS, 1, 1, first), frame_of(CONTINUATION, END_HEADERS, 1, rest)].concat();
    let (requests, _) = read(&through(&wire, &[usize::MAX]));
    assert_eq!(requests, [[(b":authority".to_vec(), vec![b'-'; 25_000])]]);
}
