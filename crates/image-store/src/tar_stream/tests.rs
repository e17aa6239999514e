// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]
use super::*;
use proptest::prelude::*;

fn all(bytes: &[u8]) -> Parsed<Vec<(Member, Vec<u8>)>> {
    let mut stream = TarStream::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = stream.next_member()? {
        let mut data = Vec::new();
        stream.read_to_end(&mut data).map_err(|e| e.to_string())?;
        members.push((member, data));
    }
    Ok(members)
}

fn built(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in entries {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn members_come_with_their_data_and_long_names() {
    let long = "d/".repeat(150) + "file";
    let bytes = built(&[("a", b"one"), (&long, b"two"), ("c", &[7; 513])]);
    let members = all(&bytes).unwrap();
    assert_eq!(members.len(), 3);
    assert_eq!(members[1].0.path, long.as_bytes());
    assert_eq!(members[2].1, [7; 513]);
    let (member, data) = &members[2];
    let start = usize::try_from(member.offset).unwrap();
    assert_eq!(&bytes[start..start + 513], data, "the offset is that of the data");
}

#[test]
fn a_giant_extension_is_refused_before_it_is_read() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let error = all(header.as_bytes()).unwrap_err();
    assert!(error.contains("extension header of 1099511627776 bytes"), "{error}");
}

#[test]
fn truncated_archives_are_errors() {
    let bytes = built(&[("a", b"one"), ("b", &[1; 2000])]);
    assert!(all(&bytes[..1024 + 512 + 100]).unwrap_err().contains("ends within a file"));
    assert!(all(&bytes[..1024 + 100]).unwrap_err().contains("within a header"));
    assert_eq!(all(&bytes[..1024]).unwrap().len(), 1, "a missing end marker is tolerated");
}

#[test]
fn sparse_files_of_the_old_form_are_read() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(6);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..1].copy_from_slice(b"s");
    gnu.set_real_size(1000);
    for (block, (offset, length)) in gnu.sparse.iter_mut().zip([(0, 2), (500, 4), (1000, 0)]) {
        block.set_offset(offset);
        block.set_length(length);
    }
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(b"abcdef");
    bytes.resize(1024, 0);
    let members = all(&bytes).unwrap();
    assert_eq!(members[0].0.sparse, Some(vec![(0, 2), (500, 4), (1000, 0)]));
    assert_eq!(members[0].0.size, 1000);
    assert_eq!(members[0].1, b"abcdef");
}

#[test]
fn links_have_no_data_whatever_their_size_says() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Link);
    header.set_path("l").unwrap();
    header.set_link_name("a").unwrap();
    header.set_size(4096);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(built(&[("b", b"x")]));
    let members = all(&bytes).unwrap();
    assert_eq!(members.iter().map(|(m, _)| m.path.as_slice()).collect::<Vec<_>>(), [b"l", b"b"]);
}

#[test]
fn numbers_are_octal_or_of_gnus_form() {
    let field = |text: &[u8], length: usize| {
        let mut field = text.to_vec();
        field.resize(length, 0);
        number(&field, "uid").ok()
    };
    for (text, length, expected) in [
        (&b"0000755\0"[..], 8, Some(0o755)),
        (b"   755 \0", 8, Some(0o755)),
        (b"\0\x20755", 8, Some(0o755)),
        (b"", 8, Some(0)),
        (b"       ", 8, Some(0)),
        (b"77777777777", 12, Some(0o77_777_777_777)),
        (b"8", 8, None),
        (b"-1", 8, None),
        (b"7\xff", 8, None),
        (b"\x80\0\0\0\xb2\xd0\x5e\0", 8, Some(3_000_000_000)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", 8, Some(-2)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfc\x17", 12, Some(-1001)),
        (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12, Some(i64::MAX)),
        (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12, Some(i64::MIN)),
        (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", 12, None),
        (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 12, None),
        (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", 12, None),
    ] {
        assert_eq!(field(text, length), expected, "{text:?}");
    }
}

#[test]
fn negative_owners_and_times_are_read_and_a_negative_size_is_not() {
    let negative = |set: fn(&mut tar::OldHeader)| {
        let mut header = Header::new_gnu();
        header.set_path("f").unwrap();
        header.set_size(0);
        set(header.as_old_mut());
        header.set_cksum();
        all(header.as_bytes()).map(|members| (members[0].0.uid, members[0].0.mtime.0))
    };
    assert_eq!(negative(|header| header.uid = (-2_i64).to_be_bytes()), Ok((-2, 0)));
    assert_eq!(negative(|header| header.mtime = [0xff; 12]), Ok((0, -1)));
    assert!(negative(|header| header.size = [0xff; 12]).unwrap_err().contains("bad size"));
}

#[test]
fn the_end_is_two_blocks_of_zeros_and_members_after_a_lone_one_are_not_lost() {
    let one = built(&[("a", b"1")]);
    let member = &one[..1024];
    let zeros = |count: usize| vec![0; 512 * count];
    let count = |parts: &[&[u8]]| all(&parts.concat()).map(|members| members.len());
    for end in [0, 1, 2, 3, 20] {
        assert_eq!(count(&[member, &zeros(end)]), Ok(1), "{end} blocks");
    }
    assert_eq!(count(&[member, &zeros(1), &[0; 100]]), Ok(1), "a cut second block");
    assert_eq!(count(&[member, &zeros(2), member]), Ok(1), "whatever follows the end");
    for rest in [member, &b"x"[..], &[1; 512]] {
        let error = count(&[member, &zeros(1), rest]).unwrap_err();
        assert!(error.contains("lone block of zeros"), "{error}");
    }
}

#[test]
fn checksums_of_signed_bytes_are_taken() {
    let mut header = Header::new_gnu();
    header.set_path("f\u{fc}").unwrap();
    header.set_size(0);
    let bytes = header.as_mut_bytes();
    bytes[148..156].fill(b' ');
    let sum: i64 = bytes.iter().map(|byte| i64::from(byte.cast_signed())).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(all(header.as_bytes()).unwrap()[0].0.path, "f\u{fc}".as_bytes());
    header.as_mut_bytes()[0] = b'g';
    assert!(all(header.as_bytes()).unwrap_err().contains("checksum"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = all(&bytes);
    }

    #[test]
    fn no_flipped_byte_makes_it_panic(at in 0usize..3000, value in any::<u8>()) {
        let mut bytes = built(&[("a", b"one"), (&"n".repeat(300), b"two"), ("c", &[7; 513])]);
        let at = at % bytes.len();
        bytes[at] = value;
        // A valid checksum lets the change through to the fields.
        let block = at / 512 * 512;
        let sum: u32 = (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(bytes[block + i]) }).sum();
        let text = format!("{sum:06o}\0 ");
        bytes[block + 148..block + 156].copy_from_slice(text.as_bytes());
        let _ = all(&bytes);
    }
}
