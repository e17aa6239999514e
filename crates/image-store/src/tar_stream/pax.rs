// SPDX-License-Identifier: Apache-2.0
//! PAX records: `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record and VALUE may hold any byte.

use super::{Member, Parsed};

/// Keys and values in their order.
pub(super) type Records = Vec<(String, Vec<u8>)>;

const XATTR: &str = "SCHILY.xattr.";

pub(super) fn parse(mut data: &[u8]) -> Parsed<Records> {
    let bad = || "a damaged PAX header".to_owned();
    let mut records = Vec::new();
    while !data.is_empty() {
        // Some writers fill up with NULs.
        if data.iter().all(|byte| *byte == 0) {
            break;
        }
        let space = data.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length: usize = text(&data[..space]).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &data[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let key = String::from_utf8_lossy(&record[..equals]).into_owned();
        records.push((key, record[equals + 1..].to_vec()));
        data = &data[length..];
    }
    Ok(records)
}

/// The last value of a key; an empty one takes the key back.
pub(super) fn get<'a>(records: &'a Records, key: &str) -> Option<&'a [u8]> {
    let value = records.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_slice());
    value.filter(|value| !value.is_empty())
}

pub(super) fn number<T: std::str::FromStr>(records: &Records, key: &str) -> Parsed<Option<T>> {
    let Some(value) = get(records, key) else {
        return Ok(None);
    };
    let number = text(value).and_then(|t| t.parse().ok());
    number.map(Some).ok_or_else(|| format!("PAX record {key} is not a number"))
}

/// Puts what the records say into the member; returns the size of its data if they say it.
pub(super) fn apply(records: &Records, member: &mut Member) -> Parsed<Option<u64>> {
    if let Some(path) = get(records, "path") {
        member.path = path.to_vec();
    }
    if let Some(path) = get(records, "GNU.sparse.name") {
        member.path = path.to_vec();
    }
    if let Some(link) = get(records, "linkpath") {
        member.link = link.to_vec();
    }
    if let Some(uid) = number(records, "uid")? {
        member.uid = uid;
    }
    if let Some(gid) = number(records, "gid")? {
        member.gid = gid;
    }
    if let Some(mtime) = get(records, "mtime") {
        member.mtime = text(mtime).and_then(time).ok_or("PAX record mtime is not a time")?;
    }
    for (key, value) in records {
        if let Some(name) = key.strip_prefix(XATTR) {
            member.xattrs.push((name.as_bytes().to_vec(), value.clone()));
        }
    }
    number(records, "size")
}

/// `[-]SECONDS[.FRACTION]` as seconds and nanoseconds, rounded down; out of range: clamped.
fn time(text: &str) -> Option<(i64, u32)> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let seconds = whole.parse().unwrap_or(i64::MAX);
    let nanos: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => ((-seconds).saturating_sub(1), 1_000_000_000 - nanos),
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("12.1234567899"), Some((12, 123_456_789)));
        assert_eq!(time("99999999999999999999"), Some((i64::MAX, 0)));
        for bad in ["", ".5", "x", "1.x", "--1", "1e5"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_may_hold_newlines_and_equals_signs() {
        let records = parse(b"16 a=b\nc=d\0\ne\nf\n7 x=yz\n\0\0").unwrap();
        assert_eq!(records[0], ("a".to_owned(), b"b\nc=d\0\ne\nf".to_vec()));
        assert_eq!(get(&records, "x"), Some(&b"yz"[..]));
    }

    #[test]
    fn damaged_records_are_refused() {
        for bad in [&b"5 a=b"[..], b"x a=b\n", b"99 a=b\n", b"2 \n", b"0 a=b\n", b"6 abc\n", b"nospace"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
