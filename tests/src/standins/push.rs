// SPDX-License-Identifier: Apache-2.0
//! Pushing to a registry on loopback: as much of the distribution API's HTTP as that needs.
//!
//! ```text
//! HEAD /v2/NAME/blobs/DIGEST               200: it is there already
//! POST /v2/NAME/blobs/uploads/             202, Location: where to
//! PUT  LOCATION?digest=DIGEST   the blob   201
//! PUT  /v2/NAME/manifests/TAG   the text   201
//! ```
//! One connection a request; its end is the end of the answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hull_image_store::Digest;

use super::document::Document;

/// For each read and write.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of an answer: these are short.
const MOST: u64 = 1 << 20;

/// A registry that speaks plain http.
#[derive(Debug)]
pub(super) struct Registry {
    address: String,
}

struct Answer {
    status: u16,
    location: Option<String>,
    text: String,
}

// === impl Registry ===

impl Registry {
    /// The one at `HOST:PORT`.
    pub(super) fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    pub(super) fn blob(&self, repository: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes);
        let known = format!("/v2/{repository}/blobs/{digest}");
        if self.ask("HEAD", &known, "", b"").status == 200 {
            return;
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.demand(202, "POST", &uploads, "", b"");
        let location =
            opened.location.unwrap_or_else(|| panic!("POST {uploads}: no Location: {}", opened.text));
        let own = format!("http://{}", self.address);
        let path = location.strip_prefix(&own).unwrap_or(&location);
        let mark = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{mark}digest={digest}");
        self.demand(201, "PUT", &path, "application/octet-stream", bytes);
    }

    /// Puts a document under a tag or its digest.
    pub(super) fn manifest(&self, repository: &str, version: &str, document: &Document) {
        let path = format!("/v2/{repository}/manifests/{version}");
        self.demand(201, "PUT", &path, document.media_type, &document.bytes);
    }

    fn demand(&self, status: u16, method: &str, path: &str, media_type: &str, body: &[u8]) -> Answer {
        let answer = self.ask(method, path, media_type, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answer
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Answer {
        let bytes = self
            .exchange(method, path, media_type, body)
            .unwrap_or_else(|error| panic!("{method} {path} at {}: {error}", self.address));
        Answer::parse(&bytes).unwrap_or_else(|| panic!("{method} {path}: no answer of HTTP"))
    }

    fn exchange(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        if !media_type.is_empty() {
            head += &format!("Content-Type: {media_type}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.take(MOST).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

// === impl Answer ===

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let head = text.split("\r\n\r\n").next()?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        Some(Self { status, location, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_location_are_read_whatever_the_case() {
        let answer =
            Answer::parse(b"HTTP/1.1 202 Accepted\r\nlocation:  /a?b=c\r\n\r\nLocation: no").unwrap();
        assert_eq!((answer.status, answer.location.as_deref()), (202, Some("/a?b=c")));
        assert!(Answer::parse(b"SSH-2.0").is_none());
        assert!(Answer::parse(b"HTTP/1.1 2").is_none());
    }
}
