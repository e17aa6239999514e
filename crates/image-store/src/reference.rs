// SPDX-License-Identifier: Apache-2.0
//! Image references, normalised to full names.
//!
//! ```text
//! reference = [ domain "/" ] path [ ":" tag ] [ "@" digest ]
//! busybox                     -> docker.io/library/busybox:latest
//! example.com:5000/a/b@sha256:... -> as it is
//! ```
//! The part before the first `/` is a domain if it has a `.`, a `:`, an upper-case letter, or is `localhost`;
//! without one, `docker.io/` goes in front, and `library/` if the path has one component. A missing tag
//! and digest mean `latest`. With both, the digest decides and the tag is dropped. 64 hex digits are an
//! image id, never a name.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::digest::{is_hex, is_hex64};
use crate::{Error, Result};

/// The registry of names without a domain.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest domain and path together (distribution grammar).
const MAX_NAME: usize = 255;
/// Longest part of a host name between dots (RFC 1035).
const MAX_LABEL: usize = 63;
/// Longest tag.
const MAX_TAG: usize = 128;

/// A full image name with either a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    Tag(String),
    Digest(String),
}

/// What a caller may have meant by a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// A whole image id: 64 hex digits.
    Id(String),
    /// A name; the hex digits too if it may also be the beginning of an id.
    Name(Reference, Option<String>),
}

/// The shortest id prefix that is looked up.
const MIN_PREFIX: usize = 4;

// === impl Reference ===

impl Reference {
    /// Parses and normalises.
    ///
    /// # Errors
    /// [`Error::InvalidReference`]; an image id (64 hex digits, with `sha256:` or without) is one too.
    pub fn parse(text: &str) -> Result<Self> {
        parse(text).map_err(|problem| Error::InvalidReference { reference: shown(text), problem })
    }

    /// The registry's domain with its port: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `None` if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest with its algorithm: `sha256:...`.
    pub fn digest(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// Registry and repository: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at a digest (`sha256:...`).
    pub fn at_digest(&self, digest: &str) -> Self {
        Self { version: Version::Digest(digest.to_owned()), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

// === impl Query ===

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if is_hex64(hex) {
            return Ok(Self::Id(hex.to_owned()));
        }
        let prefix = (hex.len() >= MIN_PREFIX && hex.len() < 64 && is_hex(hex)).then(|| hex.to_owned());
        Ok(Self::Name(Reference::parse(text)?, prefix))
    }
}

type Parsed<T> = std::result::Result<T, String>;

fn parse(text: &str) -> Parsed<Reference> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text != text.trim() {
        return Err("it begins or ends with white space".to_owned());
    }
    if is_hex64(text.strip_prefix("sha256:").unwrap_or(text)) {
        return Err("64 hex digits are an image id, not a name".to_owned());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(checked_digest(digest)?)),
        None => (text, None),
    };
    // The last colon begins a tag unless a slash follows: then it is the port of the domain.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(checked_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, repository) = split_name(name);
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    check_domain(&registry)?;
    check_path(&repository)?;
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(format!("registry and repository are longer than {MAX_NAME} characters"));
    }
    let version = match (digest, tag) {
        (Some(digest), _) => Version::Digest(digest),
        (None, Some(tag)) => Version::Tag(tag),
        (None, None) => Version::Tag("latest".to_owned()),
    };
    Ok(Reference { registry, repository, version })
}

fn split_name(name: &str) -> (String, &str) {
    let (first, rest) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => return (DEFAULT_REGISTRY.to_owned(), name),
    };
    let registry = if first == "index.docker.io" { DEFAULT_REGISTRY } else { first };
    (registry.to_owned(), rest)
}

fn is_domain(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|b| b.is_ascii_uppercase())
}

/// `host[:port]`, where host is dot-separated labels or an IPv6 address in brackets. What could never be connected to is no
/// name of a registry.
fn check_domain(domain: &str) -> Parsed<()> {
    let bad = || Err(format!("{:?} is not a registry (host or host:port)", shown(domain)));
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if let Some(port) = port {
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return bad();
        }
        if !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(format!("{:?} is not a registry: a port is 1 to 65535", shown(domain)));
        }
    }
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').unwrap_or("");
        return if address.parse::<Ipv6Addr>().is_ok() { Ok(()) } else { bad() };
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b == b'-' || b.is_ascii_alphanumeric())
    };
    if host.split('.').all(label) { Ok(()) } else { bad() }
}

/// Components of `[a-z0-9]+` joined by `.`, `_`, `__` or dashes.
fn check_path(path: &str) -> Parsed<()> {
    for component in path.split('/') {
        if component.is_empty() {
            return Err("the repository has an empty path component".to_owned());
        }
        if component.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(format!("repository {:?} must be lower case", shown(path)));
        }
        if !is_component(component) {
            return Err(format!("{:?} is not a repository path component", shown(component)));
        }
    }
    Ok(())
}

/// Whether the text is one component of a repository path.
pub(crate) fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut runs = bytes.split(|b| alphanumeric(*b)).filter(|run| !run.is_empty());
    bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && runs.all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

fn checked_tag(tag: &str) -> Parsed<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if good { Ok(tag.to_owned()) } else { Err(format!("{:?} is not a tag", shown(tag))) }
}

fn checked_digest(digest: &str) -> Parsed<String> {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha512", _)) => 128,
        Some((algorithm, _)) => return Err(format!("digest algorithm {:?} is not known", shown(algorithm))),
        None => return Err(format!("{:?} is not a digest", shown(digest))),
    };
    let hex = &digest[7..];
    if hex.len() == length && is_hex(hex) {
        Ok(digest.to_owned())
    } else {
        Err(format!("the digest must have {length} lower-case hex digits"))
    }
}

/// Foreign text for a message: not longer than a line.
fn shown(text: &str) -> String {
    if text.chars().count() <= 300 {
        text.to_owned()
    } else {
        text.chars().take(300).chain(['…']).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised() {
        let sha = "a".repeat(64);
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1.36", "docker.io/library/busybox:1.36".to_owned()),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            ("docker.io/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app", "localhost:5000/app:latest".to_owned()),
            ("Host/app", "Host/app:latest".to_owned()),
            ("[::1]:5000/app:x", "[::1]:5000/app:x".to_owned()),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest".to_owned()),
            ("x.io:1/app", "x.io:1/app:latest".to_owned()),
            ("x.io:65535/app", "x.io:65535/app:latest".to_owned()),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9".to_owned()),
            ("a/b__c/d-e---f/g.h_i", "docker.io/a/b__c/d-e---f/g.h_i:latest".to_owned()),
            (&format!("x.io/a:tag@sha256:{sha}"), format!("x.io/a@sha256:{sha}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_a_reason() {
        let id = "0".repeat(64);
        let long = format!("x.io/{}", "a".repeat(251));
        for (text, reason) in [
            ("", "empty"),
            (" busybox", "white space"),
            ("Busybox", "lower case"),
            ("a//b", "empty path component"),
            ("/a", "empty path component"),
            ("a/", "empty path component"),
            ("a:", "not a tag"),
            ("a:-x", "not a tag"),
            ("a..b", "component"),
            ("a___b", "component"),
            ("-x.io/a", "not a registry"),
            ("x.io:port/a", "not a registry"),
            ("x.io:/a", "not a registry"),
            ("x.io:-1/a", "not a registry"),
            ("x.io:+1/a", "not a registry"),
            ("x.io:0/a", "a port is 1 to 65535"),
            ("x.io:65536/a", "a port is 1 to 65535"),
            ("x.io:99999/a:tag", "a port is 1 to 65535"),
            ("x.io:99999999999999999999/a", "a port is 1 to 65535"),
            ("[::1]:99999/a", "a port is 1 to 65535"),
            ("[::1]:/a", "not a registry"),
            ("[::::::1]/a", "not a registry"),
            ("[]/a", "component"),
            ("[1.2.3.4]:80/a", "not a registry"),
            ("[::1/a", "not a registry"),
            (&format!("{}.io/a", "x".repeat(64)), "not a registry"),
            ("a@sha256:12", "64 lower-case hex digits"),
            ("a@md5:12", "not known"),
            ("a@b@c", "not a digest"),
            ("a b", "component"),
            (&id, "image id"),
            (&format!("sha256:{id}"), "image id"),
            (&long, "255"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn ids_and_prefixes_are_told_from_names() {
        let id = "0a".repeat(32);
        assert_eq!(Query::parse(&id).unwrap(), Query::Id(id.clone()));
        assert_eq!(Query::parse(&format!("sha256:{id}")).unwrap(), Query::Id(id));
        let prefix = |text| match Query::parse(text).unwrap() {
            Query::Name(_, prefix) => prefix,
            Query::Id(id) => panic!("{id}"),
        };
        assert_eq!(prefix("cafe"), Some("cafe".to_owned()));
        assert_eq!(prefix("sha256:cafe"), Some("cafe".to_owned()));
        assert_eq!(prefix("caf"), None);
        assert_eq!(prefix("cafe:1"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_a_full_name_is_a_fixed_point(text in "\\PC{0,80}|[a-zA-Z0-9:/@._\\[\\]-]{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string()).unwrap();
                prop_assert_eq!(reference, again);
            }
            let _ = Query::parse(&text);
        }

        #[test]
        fn parts_come_back(
            registry in "[a-z]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{1,3})?",
            repository in "[a-z0-9]{1,9}([._-][a-z0-9]{1,5})?(/[a-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            prop_assume!(registry != "docker.io");
            let reference = Reference::parse(&format!("{registry}/{repository}:{tag}")).unwrap();
            prop_assert_eq!(reference.registry(), registry);
            prop_assert_eq!(reference.repository(), repository);
            prop_assert_eq!(reference.tag(), Some(tag.as_str()));
            prop_assert_eq!(reference.digest(), None);
        }
    }
}
