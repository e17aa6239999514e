// SPDX-License-Identifier: Apache-2.0
//! The URLs that registries are reached by and redirect to.
//!
//! ```text
//! url = ( "http" | "https" ) "://" host [ ":" port ] path [ "?" query ]
//! ```
//! Dot segments are taken out of every path (RFC 3986, section 5.2.4). User names in a URL are refused: they would be credentials that nobody gave us. Fragments are cut off. What
//! a sloppy server leaves unescaped is escaped. [`Display`](std::fmt::Display) leaves the query out: storage services
//! put signatures there.

use std::fmt;
use std::net::IpAddr;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// An absolute http or https URL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Url {
    scheme: Scheme,
    /// `host[:port]`, lower case, as written otherwise.
    authority: String,
    /// Begins with a slash.
    path: String,
    query: Option<String>,
}

// === impl Scheme ===

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

// === impl Url ===

impl Url {
    pub(crate) fn new(scheme: Scheme, authority: &str, path: &str) -> Result<Self, String> {
        Self::parse(&format!("{}://{authority}{path}", scheme.as_str()))
    }

    /// Reads an absolute URL; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, _)) => return Err(format!("scheme {scheme:?} is neither http nor https")),
            None => return Err("it does not begin with https:// or http://".to_owned()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err("it has a user name; credentials do not belong into a URL".to_owned());
        }
        let authority = authority.to_ascii_lowercase();
        check_authority(&authority)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(escape(query))),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/".to_owned() } else { without_dots(&escape(path)) };
        let url = Self { scheme, authority, path, query };
        match url.uri() {
            Some(_) => Ok(url),
            None => Err("it is not a URL".to_owned()),
        }
    }

    /// Where a `Location` leads from here (RFC 3986, section 5.2).
    pub(crate) fn join(&self, location: &str) -> Result<Self, String> {
        let location = location.trim();
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme.as_str()));
        }
        if has_scheme(location) {
            return Self::parse(location);
        }
        let base = format!("{}://{}", self.scheme.as_str(), self.authority);
        if location.starts_with('/') {
            return Self::parse(&format!("{base}{location}"));
        }
        if location.is_empty() || location.starts_with(['?', '#']) {
            return Self::parse(&format!("{base}{}{location}", self.path));
        }
        let end = location.find(['?', '#']).unwrap_or(location.len());
        let (path, rest) = location.split_at(end);
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self::parse(&format!("{base}{folder}/{path}{rest}"))
    }

    /// The same server, another path below this one's. `path` begins with a slash.
    pub(crate) fn below(&self, path: &str) -> Self {
        let path = format!("{}{path}", self.path.trim_end_matches('/'));
        Self { path, query: None, ..self.clone() }
    }

    /// With one more query parameter.
    pub(crate) fn with_parameter(mut self, name: &str, value: &str) -> Self {
        let pair = format!("{name}={}", form_escape(value));
        self.query = match self.query {
            Some(query) if !query.is_empty() => Some(format!("{query}&{pair}")),
            _ => Some(pair),
        };
        self
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host[:port]` as written.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The host without brackets, and the port.
    pub(crate) fn host_and_port(&self) -> (&str, u16) {
        let (host, port) = split_port(&self.authority);
        (host, port.unwrap_or_else(|| self.scheme.port()))
    }

    /// Scheme, host and port: what credentials are for.
    pub(crate) fn origin(&self) -> String {
        let (host, port) = self.host_and_port();
        format!("{}://{host}:{port}", self.scheme.as_str())
    }

    /// What tells two servers apart, however their URLs are written: scheme, host, port and path.
    pub(crate) fn identity(&self) -> String {
        let (host, port) = self.host_and_port();
        let host = host
            .parse::<IpAddr>()
            .map_or_else(|_| host.trim_end_matches('.').to_owned(), |ip| ip.to_string());
        format!("{}://{host}:{port}{}", self.scheme.as_str(), self.path.trim_end_matches('/'))
    }

    /// For the HTTP library. `None` only for what [`parse`](Self::parse) refuses.
    pub(crate) fn uri(&self) -> Option<http::Uri> {
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}://{}{}{query}", self.scheme.as_str(), self.authority, self.path).parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority, self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether the host is this machine by its name or address. Nothing is looked up.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let (host, _) = split_port(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Host without brackets, and the port if one is written.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// As in a form: everything but letters, digits and `-._~` is escaped.
pub(crate) fn form_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Escapes what may not stand in a URL at all; leaves escapes alone.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

fn check_authority(authority: &str) -> Result<(), String> {
    let (host, port) = split_port(authority);
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port && port.is_none() && (!host.contains(':') || authority.starts_with('[')) {
        return Err(format!("the port in {authority:?} is not a number up to 65535"));
    }
    match host.contains(':') {
        true if !authority.starts_with('[') || host.parse::<std::net::Ipv6Addr>().is_err() => {
            Err(format!("{authority:?} is not an address; an IPv6 address stands in brackets"))
        }
        false if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => {
            Err(format!("{host:?} is not a host name"))
        }
        _ => Ok(()),
    }
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full(url: &Url) -> String {
        url.uri().unwrap().to_string()
    }

    #[test]
    fn locations_lead_where_the_standard_says() {
        let base = Url::parse("https://r.io:5000/v2/a/blobs/x?ns=docker.io").unwrap();
        for (location, target) in [
            ("https://cdn.io/b?sig=1", "https://cdn.io/b?sig=1"),
            ("HTTP://cdn.io", "http://cdn.io/"),
            ("//cdn.io/b", "https://cdn.io/b"),
            ("/b?c=d", "https://r.io:5000/b?c=d"),
            ("y", "https://r.io:5000/v2/a/blobs/y"),
            ("../y/./z?q=/../", "https://r.io:5000/v2/a/y/z?q=/../"),
            ("../../../../../y", "https://r.io:5000/y"),
            ("..", "https://r.io:5000/v2/a/"),
            ("/v2/x/../../cdn/y", "https://r.io:5000/cdn/y"),
            ("/./a/./b/.", "https://r.io:5000/a/b/"),
            ("/../../a", "https://r.io:5000/a"),
            ("//cdn.io/a/../b", "https://cdn.io/b"),
            ("https://cdn.io/a/../b?q=/../", "https://cdn.io/b?q=/../"),
            ("/a/%2e%2e/b", "https://r.io:5000/a/%2e%2e/b"),
            ("/a//../b", "https://r.io:5000/a/b"),
            ("/a/...", "https://r.io:5000/a/..."),
            ("?q", "https://r.io:5000/v2/a/blobs/x?q"),
            ("/a b\u{e4}#part", "https://r.io:5000/a%20b%C3%A4"),
            ("/a%20b", "https://r.io:5000/a%20b"),
        ] {
            assert_eq!(full(&base.join(location).unwrap()), target, "{location}");
        }
        for location in ["ftp://x/y", "file:///etc/passwd", "https://", "https://user:pw@x/", "//a:99999/"] {
            assert!(base.join(location).is_err(), "{location}");
        }
    }

    #[test]
    fn hosts_ports_and_origins_are_told_apart() {
        let url = |text| Url::parse(text).unwrap();
        assert_eq!(url("https://R.io/x").origin(), url("https://r.io:443/y").origin());
        assert_ne!(url("https://r.io/x").origin(), url("http://r.io:443/x").origin());
        assert_eq!(url("http://[::1]:5000/").host_and_port(), ("::1", 5000));
        assert_eq!(url("http://[::1]/").host_and_port(), ("::1", 80));
        for yes in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "LOCALHOST"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["localhost.example.com", "128.0.0.1", "r.io:5000", "[fe80::1]"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[test]
    fn a_server_is_the_same_however_its_url_is_written() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().identity() == Url::parse(b).unwrap().identity();
        for (a, b) in [
            ("https://r.io/v2", "https://R.io:443/v2/"),
            ("http://r.io", "http://r.io.:80/"),
            ("http://[::1]:5000/v2", "http://[0:0::1]:5000/v2"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("https://r.io/v2", "http://r.io/v2"),
            ("https://r.io/v2", "https://r.io:5000/v2"),
            ("https://r.io/v2", "https://r.io/a/v2"),
            ("https://r.io/v2", "https://m.io/v2"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_is_shown_has_no_signature() {
        let url = Url::parse("https://cdn.io/blob?X-Amz-Signature=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://cdn.io/blob https://cdn.io/blob");
    }

    #[test]
    fn parameters_are_escaped_and_appended() {
        let url =
            Url::parse("https://auth.io/token?a=b").unwrap().with_parameter("scope", "repository:x/y:pull");
        assert_eq!(full(&url), "https://auth.io/token?a=b&scope=repository%3Ax%2Fy%3Apull");
    }

    proptest! {
        #[test]
        fn no_location_makes_it_panic_and_what_is_taken_is_a_url(location in "\\PC{0,60}|[a-z:/?#.%@\\[\\]]{0,40}") {
            let base = Url::parse("https://r.io/v2/a").unwrap();
            if let Ok(url) = base.join(&location) {
                prop_assert!(url.uri().is_some());
                prop_assert_eq!(Url::parse(&full(&url)).unwrap(), url);
            }
        }
    }
}
