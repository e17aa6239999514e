// SPDX-License-Identifier: Apache-2.0
//! The process's environment.
//!
//! From weak to strong, by key: `PATH` and `TERM` defaults, the image's, `HOSTNAME`, the CRI's.
//! Variables are not expanded: the kubelet has done that.

use hull_cri_api::v1;

use super::SpecError;

/// `PATH` where neither image nor container sets one.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `TERM` where a terminal is asked for and nobody sets one.
pub const DEFAULT_TERM: &str = "TERM=xterm";

/// Builds the list, in the order in which keys first appear. An image's entry without `=` or without a
/// key sets nothing and is left out; the CRI's is an error.
pub fn build(
    image: &[String],
    hostname: &str,
    tty: bool,
    envs: &[v1::KeyValue],
) -> Result<Vec<String>, SpecError> {
    let mut list = Vec::with_capacity(image.len() + envs.len() + 3);
    set(&mut list, DEFAULT_PATH.to_owned());
    if tty {
        set(&mut list, DEFAULT_TERM.to_owned());
    }
    for entry in image {
        if entry.contains('\0') {
            return Err(SpecError::invalid("image env", format!("{entry:?} holds a NUL byte")));
        }
        if !key(entry).is_empty() && entry.contains('=') {
            set(&mut list, entry.clone());
        }
    }
    if !hostname.is_empty() {
        set(&mut list, format!("HOSTNAME={hostname}"));
    }
    for env in envs {
        set(&mut list, entry(env)?);
    }
    Ok(list)
}

/// Adds an entry to a list, in place of one with the same key.
pub(super) fn set(list: &mut Vec<String>, entry: String) {
    match list.iter_mut().find(|old| key(old) == key(&entry)) {
        Some(old) => *old = entry,
        None => list.push(entry),
    }
}

/// Whether the list has a value for the key.
pub(super) fn has(list: &[String], name: &str) -> bool {
    list.iter().any(|entry| key(entry) == name)
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

fn entry(env: &v1::KeyValue) -> Result<String, SpecError> {
    let bad = |problem: &str| SpecError::invalid("envs", format!("{:?} {problem}", env.key));
    if env.key.is_empty() || env.key.contains(['=', '\0']) {
        return Err(bad("is not a variable's name"));
    }
    // config.json is JSON text; a value of other bytes cannot be written to it.
    let value = std::str::from_utf8(&env.value).map_err(|_| bad("has a value that is not UTF-8"))?;
    if value.contains('\0') {
        return Err(bad("has a value with a NUL byte"));
    }
    Ok(format!("{}={value}", env.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &[u8]) -> v1::KeyValue {
        v1::KeyValue { key: key.to_owned(), value: value.to_vec() }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn order_of_precedence() {
        let image = strings(&["PATH=/image", "A=image", "B=image", "HOSTNAME=image", "junk", "=x", "E="]);
        let envs = [kv("A", b"cri"), kv("C", b"c=d"), kv("A", b"cri again"), kv("F", b"")];
        let expected = ["PATH=/image", "A=cri again", "B=image", "HOSTNAME=pod", "E=", "C=c=d", "F="];
        assert_eq!(build(&image, "pod", false, &envs).unwrap(), strings(&expected));
    }

    #[test]
    fn defaults() {
        let expected = [DEFAULT_PATH, DEFAULT_TERM, "HOSTNAME=pod"];
        assert_eq!(build(&[], "pod", true, &[]).unwrap(), strings(&expected));
        assert_eq!(
            build(&strings(&["TERM=vt100"]), "", true, &[]).unwrap(),
            strings(&[DEFAULT_PATH, "TERM=vt100"])
        );
        let own = build(&[], "pod", false, &[kv("HOSTNAME", b"mine")]).unwrap();
        assert_eq!(own, strings(&[DEFAULT_PATH, "HOSTNAME=mine"]));
    }

    #[test]
    fn what_cannot_be_an_entry() {
        let cases: [(v1::KeyValue, &str); 4] = [
            (kv("", b"x"), "envs: \"\" is not a variable's name"),
            (kv("A=B", b"x"), "envs: \"A=B\" is not a variable's name"),
            (kv("A", b"\xff"), "envs: \"A\" has a value that is not UTF-8"),
            (kv("A", b"a\0b"), "envs: \"A\" has a value with a NUL byte"),
        ];
        for (env, message) in cases {
            assert_eq!(build(&[], "", false, &[env]).unwrap_err().to_string(), message);
        }
    }
}
