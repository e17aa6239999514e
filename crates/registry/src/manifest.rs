// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes: which of the two a document is, and whether it is what was asked for.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use hull_failpoint::failpoint_async;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::endpoint::Server;
use crate::transport::{Downgrade, content, plain};
use crate::{Error, Result, json};

/// Longest manifest or index.
pub const MAX_MANIFEST: usize = 4 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// One line: some registries read only the first.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// What a manifest is asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version<'a> {
    /// A tag: the registry says what it means.
    Tag(&'a str),
    /// `sha256:...`: what comes must have this digest.
    Digest(&'a str),
}

/// A document that a registry has under `manifests`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The bytes as they came: their digest names them.
    pub bytes: Bytes,
    /// `sha256:...` of the bytes.
    pub digest: String,
    /// What it is.
    pub kind: Kind,
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Manifests for several platforms.
    Index,
    /// One image.
    Image,
}

/// Just enough to tell them apart.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Probe {
    schema_version: i64,
    media_type: String,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

// === impl Version ===

impl Version<'_> {
    /// As it stands in a URL.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

/// Asks one server once.
pub(crate) async fn fetch(server: &Server, version: Version<'_>) -> Result<Manifest> {
    let url = server.url("manifests", version.text());
    let wanted = match version {
        Version::Tag(_) => None,
        Version::Digest(digest) => Some(Digest::parse(digest).map_err(|problem| content(&url, problem))?),
    };
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
    let downgrade = if wanted.is_some() { Downgrade::Allowed } else { Downgrade::Refused };
    let answer = server.get(&url, &headers, downgrade).await?;
    failpoint_async!("registry.manifest.read")
        .map_err(|source| Error::Fault { step: "read a manifest", source })?;
    let headers = answer.response.headers().clone();
    if let Some(length) = text(&headers, CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok())
        && length > MAX_MANIFEST as u64
    {
        return Err(content(&url, format!("a manifest of {length} bytes; the limit is {MAX_MANIFEST}")));
    }
    let bytes = server.transport.read(answer, MAX_MANIFEST).await?;
    let actual = Digest::of(&bytes);
    let promised = text(&headers, "docker-content-digest").and_then(|digest| Digest::parse(digest).ok());
    if let Some(promised) = wanted.as_ref().or(promised.as_ref()).filter(|promised| **promised != actual) {
        return Err(content(&url, format!("its content has the digest {actual}, not {promised}")));
    }
    let kind = classify(text(&headers, CONTENT_TYPE), &bytes, wanted.is_some())
        .map_err(|problem| content(&url, problem))?;
    Ok(Manifest { bytes, digest: actual.to_string(), kind })
}

fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What a document is. Content decides; a type that contradicts it is an attack or a mistake, except the
/// header's where a digest says that this is the content that was meant.
fn classify(header: Option<&str>, bytes: &[u8], by_digest: bool) -> std::result::Result<Kind, String> {
    let probe: Probe = json::from_slice(bytes).map_err(|error| {
        let start = plain(&String::from_utf8_lossy(bytes.get(..40).unwrap_or(bytes)));
        format!("not a manifest: {error}; it begins with {start:?}")
    })?;
    let header = header.map(|header| header.split(';').next().unwrap_or_default().trim()).unwrap_or_default();
    let old = "application/vnd.docker.distribution.manifest.v1+";
    if probe.fs_layers.is_some() || probe.schema_version == 1 || header.starts_with(old) {
        let problem =
            "the image has the format of before 2016 (schema 1), which is not supported; push it anew";
        return Err(problem.to_owned());
    }
    let own = probe.media_type;
    let kind = match (probe.manifests.is_some(), probe.config.is_some(), probe.layers.is_some()) {
        (true, false, false) => Kind::Index,
        // No list of layers, or null, is an empty one.
        (false, true, _) => Kind::Image,
        (true, _, _) => return Err("both an index and a manifest; refused".to_owned()),
        (false, false, false) if kind_of(&own) == Some(Kind::Index) => Kind::Index,
        (false, false, _) => return Err("not a manifest: it has no config".to_owned()),
    };
    let contradicts = |name: &str| kind_of(name).is_some_and(|named| named != kind);
    if contradicts(&own) || (contradicts(header) && !by_digest) {
        let named = if contradicts(&own) { &own } else { header };
        return Err(format!("its type {named:?} is not what its content is; refused"));
    }
    Ok(kind)
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Image),
        _ => None,
    }
}

impl Manifest {
    /// A document that is already here. `None` when it is no manifest.
    pub fn of(bytes: Bytes) -> Option<Self> {
        let kind = classify(None, &bytes, true).ok()?;
        let digest = Digest::of(&bytes).to_string();
        Some(Self { bytes, digest, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[]}"#;

    #[test]
    fn content_decides_and_contradictions_are_refused() {
        let of = |header: Option<&str>, text: &str| classify(header, text.as_bytes(), false);
        assert_eq!(of(None, IMAGE), Ok(Kind::Image));
        assert_eq!(of(Some("application/json"), INDEX), Ok(Kind::Index));
        assert_eq!(of(Some(&format!("{OCI_INDEX}; charset=utf-8")), INDEX), Ok(Kind::Index));
        assert_eq!(of(Some(DOCKER_MANIFEST), IMAGE), Ok(Kind::Image));
        assert_eq!(of(None, r#"{"Config":{},"layers":null}"#), Ok(Kind::Image));
        let empty = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
        assert_eq!(of(None, empty), Ok(Kind::Index));
        for (header, text, part) in [
            (Some(OCI_MANIFEST), INDEX, "not what its content is"),
            (Some(DOCKER_LIST), IMAGE, "not what its content is"),
            (
                None,
                r#"{"mediaType":"application/vnd.oci.image.index.v1+json","config":{},"layers":[]}"#,
                "not what",
            ),
            (None, r#"{"manifests":[],"layers":[],"config":{}}"#, "both an index and a manifest"),
            (None, r#"{"manifests":[],"config":{}}"#, "both"),
            (None, r#"{"layers":[]}"#, "no config"),
            (None, r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1"),
            (Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), IMAGE, "schema 1"),
            (None, "<html>no</html>", "begins with \"<html>"),
            (None, "[]", "not a manifest"),
            (None, "", "not a manifest"),
        ] {
            let problem = of(header, text).unwrap_err();
            assert!(problem.contains(part), "{text}: {problem}");
        }
        assert_eq!(
            classify(Some(OCI_MANIFEST), INDEX.as_bytes(), true),
            Ok(Kind::Index),
            "the digest is the word"
        );
    }
}
