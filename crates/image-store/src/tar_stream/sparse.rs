// SPDX-License-Identifier: Apache-2.0
//! Sparse files: the old GNU form (type S) and the PAX forms 0.0, 0.1 and 1.0.

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{Parsed, TarStream, pax};

/// Stored bytes: where they belong and how many.
pub(crate) type Segment = (u64, u64);

/// More segments than any real file of an image has.
const MAX_SEGMENTS: usize = 1 << 16;

/// The old GNU form: four segments in the header, more in blocks that `next_block` reads.
pub(super) fn from_header(
    header: &Header,
    mut next_block: impl FnMut() -> Parsed<[u8; 512]>,
) -> Parsed<(Vec<Segment>, u64)> {
    let gnu = header.as_gnu().ok_or("a sparse file without a GNU header")?;
    let size = gnu.real_size().map_err(|e| format!("bad size of a sparse file: {e}"))?;
    let mut segments = Vec::new();
    add(&mut segments, &gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&next_block()?);
        add(&mut segments, block.sparse())?;
        more = block.is_extended();
        if segments.len() > MAX_SEGMENTS {
            return Err("a sparse file with too many segments".to_owned());
        }
    }
    Ok((segments, size))
}

fn add(segments: &mut Vec<Segment>, blocks: &[GnuSparseHeader]) -> Parsed<()> {
    for block in blocks.iter().filter(|block| !block.is_empty()) {
        let number = |n: std::io::Result<u64>| n.map_err(|e| format!("bad sparse map: {e}"));
        segments.push((number(block.offset())?, number(block.length())?));
    }
    Ok(())
}

/// The PAX forms; in 1.0 the map stands before the data in the stream.
pub(super) fn from_pax<R: Read>(
    records: &pax::Records,
    stream: &mut TarStream<R>,
) -> Parsed<Option<(Vec<Segment>, u64)>> {
    if let Some(map) = pax::get(records, "GNU.sparse.map") {
        let numbers: Option<Vec<u64>> =
            String::from_utf8_lossy(map).split(',').map(|n| n.parse().ok()).collect();
        return segments(&numbers.ok_or("bad sparse map")?, real_size(records)?).map(Some);
    }
    if pax::number(records, "GNU.sparse.major")? == Some(1_u64) {
        let size = real_size(records)?;
        return segments(&read_map(stream)?, size).map(Some);
    }
    let pairs: Vec<_> = records
        .iter()
        .filter(|(key, _)| key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes")
        .map(|(_, value)| std::str::from_utf8(value).ok().and_then(|t| t.parse().ok()))
        .collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let numbers: Option<Vec<u64>> = pairs.into_iter().collect();
    segments(&numbers.ok_or("bad sparse map")?, real_size(records)?).map(Some)
}

fn real_size(records: &pax::Records) -> Parsed<u64> {
    let size = match pax::number(records, "GNU.sparse.realsize")? {
        Some(size) => Some(size),
        None => pax::number(records, "GNU.sparse.size")?,
    };
    size.ok_or_else(|| "a sparse file without its size".to_owned())
}

fn segments(numbers: &[u64], size: u64) -> Parsed<(Vec<Segment>, u64)> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
        return Err("bad sparse map".to_owned());
    }
    Ok((numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), size))
}

/// Decimal numbers, one a line: count, then offset and length of each; filled up to 512 bytes.
fn read_map<R: Read>(stream: &mut TarStream<R>) -> Parsed<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut wanted = None;
    let mut line = String::new();
    loop {
        let mut block = [0; 512];
        stream.read_exact(&mut block).map_err(|e| format!("cannot read a sparse map: {e}"))?;
        for byte in block {
            match byte {
                b'0'..=b'9' if line.len() < 20 => line.push(char::from(byte)),
                b'\n' => {
                    let number = line.parse().map_err(|_| "bad sparse map".to_owned())?;
                    line.clear();
                    match wanted {
                        None if number > MAX_SEGMENTS as u64 => {
                            return Err("a sparse file with too many segments".to_owned());
                        }
                        None => wanted = Some(number * 2),
                        Some(_) => numbers.push(number),
                    }
                }
                _ => return Err("bad sparse map".to_owned()),
            }
            if wanted == Some(numbers.len() as u64) {
                return Ok(numbers);
            }
        }
    }
}

/// Segments go upwards, lie within the file, and are together what is stored.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Parsed<()> {
    let mut end = 0;
    let mut sum = 0_u64;
    for (offset, length) in segments {
        if *offset < end {
            return Err("overlapping segments of a sparse file".to_owned());
        }
        end = offset.checked_add(*length).ok_or("bad sparse map")?;
        sum = sum.checked_add(*length).ok_or("bad sparse map")?;
    }
    if end > size || sum != stored {
        return Err("a sparse map that does not fit its file".to_owned());
    }
    Ok(())
}
