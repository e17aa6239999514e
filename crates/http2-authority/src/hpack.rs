// SPDX-License-Identifier: Apache-2.0
//! Header blocks (RFC 7541), as far as needed to find the values of `:authority`.
//!
//! ```text
//! 1.......  index (7 bits)                       a field of a table
//! 01......  index of the name (6), value         a field that goes into the dynamic table
//! 001.....  size (5)                             a new size of the dynamic table
//! 000x....  index of the name (4), value         a field that does not
//!
//! Index 0: the name follows as a text. A text: Huffman flag (1), length (7), bytes.
//! ```

use httlib_huffman::DecoderSpeed;
use http::uri::Authority;

const NAME: &[u8] = b":authority";
/// The same in the Huffman code, of which there is one form.
const NAME_IN_HUFFMAN: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
/// Its place in the static table.
const STATIC: usize = 1;

/// A text as it stands in a block.
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

/// Rewrites a header block. `None` if nothing has to change, or if it is malformed.
pub(crate) fn rewrite(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // The part of `block` that `out` does not hold yet begins here.
    let mut kept = 0;
    let mut rest = block;
    while let Some(&first) = rest.first() {
        let bits = match first {
            0x80.. => 7,
            0x40..0x80 => 6,
            0x20..0x40 => 5,
            _ => 4,
        };
        let index = integer(&mut rest, bits)?;
        if matches!(bits, 7 | 5) {
            continue;
        }
        let is_authority = match index {
            0 => text(&mut rest)?.is_name(),
            index => index == STATIC,
        };
        let before = block.len() - rest.len();
        let value = text(&mut rest)?;
        if let Some(new) = is_authority.then(|| replacement(value)).flatten() {
            out.extend_from_slice(&block[kept..before]);
            write_text(&new, &mut out);
            kept = block.len() - rest.len();
        }
    }
    if kept == 0 {
        return None;
    }
    out.extend_from_slice(&block[kept..]);
    Some(out)
}

/// Returns what takes the place of a value; `None` if it can stay.
fn replacement(value: Text<'_>) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    if value.huffman {
        httlib_huffman::decode(value.bytes, &mut decoded, DecoderSpeed::FourBits).ok()?;
    } else {
        decoded.extend_from_slice(value.bytes);
    }
    sanitize(decoded)
}

fn sanitize(mut value: Vec<u8>) -> Option<Vec<u8>> {
    if value.is_empty() || Authority::try_from(value.as_slice()).is_ok() {
        return None;
    }
    for byte in &mut value {
        if !byte.is_ascii_alphanumeric() && !b".-_".contains(byte) {
            *byte = b'-';
        }
    }
    Some(value)
}

/// Takes an integer whose first byte has `bits` bits of it.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1usize << bits) - 1;
    let mut value = usize::from(take(rest, 1)?[0]) & mask;
    if value < mask {
        return Some(value);
    }
    // Four more bytes hold more than any length here can be.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(take(rest, 1)?[0]);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    Some(Text { huffman, bytes: take(rest, length)? })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// Writes a text, not in the Huffman code.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let length = text.len();
    if length < 0x7f {
        out.push(length as u8);
    } else {
        out.push(0x7f);
        let mut left = length - 0x7f;
        while left >= 0x80 {
            out.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
    }
    out.extend_from_slice(text);
}

// === impl Text ===

impl Text<'_> {
    fn is_name(self) -> bool {
        self.bytes == if self.huffman { NAME_IN_HUFFMAN } else { NAME }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn huffman(text: &[u8]) -> Vec<u8> {
        let mut coded = Vec::new();
        httlib_huffman::encode(text, &mut coded).unwrap();
        coded
    }

    #[test]
    fn the_name_in_huffman_code_is_right() {
        assert_eq!(huffman(NAME), NAME_IN_HUFFMAN);
    }

    #[test]
    fn what_clients_send_and_what_h2_gets() {
        for (sent, wanted) in [
            ("%2Frun%2Fhull%2Fhull.sock", Some("-2Frun-2Fhull-2Fhull.sock")),
            ("/run/hull/hull.sock", Some("-run-hull-hull.sock")),
            ("unix:///run/hull.sock", Some("unix----run-hull.sock")),
            ("/", Some("-")),
            ("a:b:c", Some("a-b-c")),
            ("localhost", None),
            ("localhost:80", None),
            ("[::1]:80", None),
            ("", None),
        ] {
            assert_eq!(sanitize(sent.into()), wanted.map(|text| text.as_bytes().to_vec()), "{sent}");
        }
    }

    #[test]
    fn every_form_of_a_literal_is_found() {
        let (path, clean) = (&b"/run/h.sock"[..], &b"-run-h.sock"[..]);
        let plain = |name: &[u8], value: &[u8]| [name, &[value.len() as u8], value].concat();
        let coded = |name: &[u8], value: &[u8]| {
            let value = huffman(value);
            [name, &[value.len() as u8 | 0x80], value.as_slice()].concat()
        };
        let literal_name = [&[0x40, NAME.len() as u8], NAME].concat();
        let coded_name = [&[0x10, NAME_IN_HUFFMAN.len() as u8 | 0x80], NAME_IN_HUFFMAN].concat();
        for name in [&[0x41][..], &[0x01], &[0x11], &literal_name, &coded_name] {
            let wanted = Some([&[0x83], plain(name, clean).as_slice(), &[0x86]].concat());
            assert_eq!(rewrite(&[&[0x83], plain(name, path).as_slice(), &[0x86]].concat()), wanted);
            assert_eq!(rewrite(&[&[0x83], coded(name, path).as_slice(), &[0x86]].concat()), wanted);
            assert_eq!(rewrite(&plain(name, b"localhost")), None);
            assert_eq!(rewrite(&coded(name, b"localhost")), None);
        }
        // `:path`, and a name out of the dynamic table.
        assert_eq!(rewrite(&plain(&[0x44], path)), None);
        assert_eq!(rewrite(&plain(&[0x7e], path)), None);
    }

    #[test]
    fn a_long_value_keeps_its_length() {
        for length in [126, 127, 128, 254, 255, 300, 20_000] {
            let mut block = vec![0x41];
            write_text(&vec![b'/'; length], &mut block);
            let mut wanted = vec![0x41];
            write_text(&vec![b'-'; length], &mut wanted);
            assert_eq!(rewrite(&block), Some(wanted), "{length}");
        }
    }

    #[test]
    fn what_is_malformed_stays() {
        for block in [
            &[0x41][..],
            &[0x41, 5, b'/'],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x41, 0x81, 0x00],
            &[0x41, 1, b'/', 0x41, 9],
            &[0x40],
            &[0xff, 0x80],
        ] {
            assert_eq!(rewrite(block), None, "{block:x?}");
        }
    }
}
