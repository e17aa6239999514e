// SPDX-License-Identifier: Apache-2.0
//! Blobs from a registry that misbehaves.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::{IMAGE, IMAGE_TYPE, bytes, config, open, read, with_hosts};
use hull_registry::testing::{Fault, TestRegistry};
use hull_registry::{Config, Error, Version, Wanted};

const SIZE: usize = 3 << 20;

async fn registry() -> (TestRegistry, Vec<u8>, String) {
    let registry = TestRegistry::start().await;
    let content = bytes(SIZE);
    let digest = registry.put_blob(&content);
    (registry, content, digest)
}

#[tokio::test]
async fn a_cut_stream_is_taken_up_where_it_broke() {
    let (registry, content, digest) = registry().await;
    let session = open(config(), &registry.host(), None).await;
    for cut in [0, 1, 100_000, SIZE - 1] {
        registry.on("/blobs/", Fault::Cut(cut));
        assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content, "cut at {cut}");
    }
    let last = registry.seen().pop().unwrap();
    let range = last.headers.get("range").expect("a range is asked for");
    assert!(range.starts_with("bytes=") && range != "bytes=0-", "{range}");
}

#[tokio::test]
async fn many_cuts_with_progress_between_them_are_survived() {
    let (registry, content, digest) = registry().await;
    let session = open(Config { resumes: 1, ..config() }, &registry.host(), None).await;
    for _ in 0..3 {
        registry.on("/blobs/", Fault::Cut((1 << 20) - 64));
    }
    // Less than a MiB each time: two breaks in a row are one too many.
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    let (fresh, _, _) = self::registry().await;
    let session = open(Config { resumes: 1, ..config() }, &fresh.host(), None).await;
    for _ in 0..2 {
        fresh.on("/blobs/", Fault::Cut((1 << 20) + 64));
    }
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
}

#[tokio::test]
async fn without_ranges_what_is_here_already_is_skipped() {
    let (registry, content, digest) = registry().await;
    let session = open(config(), &registry.host(), None).await;
    registry.on("/blobs/", Fault::CutWithoutRanges(1_000_000));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
    assert_eq!(registry.count("/blobs/"), 2);
}

#[tokio::test]
async fn a_range_that_starts_elsewhere_is_refused() {
    let (registry, _, digest) = registry().await;
    let session = open(config(), &registry.host(), None).await;
    registry.on("/blobs/", Fault::Cut(1000));
    registry.on("/blobs/", Fault::WrongRange);
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("bytes 1-2/3"), "{error}");
}

#[tokio::test]
async fn a_stall_and_a_trickle_are_breaks() {
    let (registry, content, digest) = registry().await;
    let session = open(Config { stall: Duration::from_secs(1), ..config() }, &registry.host(), None).await;
    registry.on("/blobs/", Fault::Stall(70_000));
    registry.on("/blobs/", Fault::Trickle(1000, 20));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
    assert!(registry.count("/blobs/") >= 3, "each is taken up again");
    let impatient = Config { stall: Duration::from_millis(200), resumes: 0, ..config() };
    let session = open(impatient, &registry.host(), None).await;
    registry.on("/blobs/", Fault::Stall(0));
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { what: "the next bytes", .. }), "{error}");
}

#[tokio::test]
async fn a_slow_reader_is_not_a_stall() {
    let (registry, content, digest) = registry().await;
    let stall = Duration::from_secs(2);
    let session = open(Config { stall, resumes: 0, ..config() }, &registry.host(), None).await;
    let wanted = Wanted { digest: &digest, size: SIZE as u64, urls: &[] };
    let mut blob = session.blob(&wanted).await.unwrap();
    let mut all = Vec::new();
    let mut pauses = 0;
    while let Some(data) = blob.chunk().await.unwrap() {
        all.extend_from_slice(&data);
        if pauses < 2 {
            tokio::time::sleep(stall + stall / 4).await;
            pauses += 1;
        }
    }
    assert_eq!(all, content);
}

#[tokio::test]
async fn wrong_content_is_told_before_the_end() {
    let (registry, content, digest) = registry().await;
    let session = open(config(), &registry.host(), None).await;
    let mut other = content.clone();
    other[SIZE / 2] ^= 1;
    registry.on("/blobs/", Fault::Body(other));
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(matches!(error, Error::Content { .. }) && error.to_string().contains(&digest), "{error}");

    registry.on("/blobs/", Fault::Body(content[..1000].to_vec()));
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(error.to_string().contains("1000 bytes; its descriptor says"), "{error}");
    assert_eq!(registry.count("/blobs/"), 2, "a wrong length is not worth a second try");

    registry.on("/blobs/", Fault::Longer([content, vec![0; 10]].concat()));
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn failures_that_pass_are_tried_again_and_others_are_not() {
    let (registry, content, digest) = registry().await;
    let session = open(config(), &registry.host(), None).await;
    let busy = |wait: &str| Fault::Status(429, vec![("retry-after", wait.to_owned())], String::new());
    registry.on("/blobs/", busy("0"));
    registry.on("/blobs/", Fault::Status(500, Vec::new(), String::new()));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
    assert_eq!(registry.count("/blobs/"), 3);

    registry.on("/blobs/", busy("3600"));
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    let hour = Some(Duration::from_secs(3600));
    assert!(matches!(error, Error::TooManyRequests { retry_after, .. } if retry_after == hour), "{error}");

    for _ in 0..3 {
        registry.on("/blobs/", Fault::Status(503, Vec::new(), "<html>".to_owned()));
    }
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(matches!(error, Error::Server { status: 503, .. }), "{error}");

    let before = registry.count("/blobs/");
    let missing = format!("sha256:{}", "0".repeat(64));
    let error = read(&session, &missing, 10).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("BLOB_UNKNOWN: said the test registry"), "{error}");
    assert_eq!(registry.count("/blobs/"), before + 1);
}

#[tokio::test]
async fn redirects_are_followed_not_for_ever() {
    let (registry, content, digest) = registry().await;
    let storage = TestRegistry::start().await;
    storage.put_blob(&content);
    let session = open(config(), &registry.host(), None).await;
    let to = |location: String| Fault::Status(307, vec![("location", location)], String::new());
    registry.on("/blobs/", to(storage.url(&format!("/deep/v2/x/blobs/{digest}?signature=1"))));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
    assert_eq!(storage.count("signature=1"), 1);

    registry.on("/blobs/", to(format!("../other/{digest}")));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content, "a relative location");
    assert_eq!(registry.count("/v2/team/app/other/"), 1);

    for _ in 0..20 {
        registry.on("/blobs/", to(format!("/v2/team/app/blobs/{digest}")));
    }
    let before = registry.count("/blobs/");
    let error = read(&session, &digest, SIZE).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
    assert_eq!(registry.count("/blobs/") - before, 11);
}

#[tokio::test]
async fn a_foreign_layer_comes_from_its_url_and_else_from_the_registry() {
    let (registry, content, digest) = registry().await;
    let elsewhere = TestRegistry::start().await;
    let session = open(config(), &registry.host(), Some(&common::password("ann", "secret"))).await;
    let urls = ["ftp://x/y".to_owned(), elsewhere.url(&format!("/layers/{digest}"))];
    let all = async || {
        let wanted = Wanted { digest: &digest, size: SIZE as u64, urls: &urls };
        let mut blob = session.blob(&wanted).await.unwrap();
        let mut all = Vec::new();
        while let Some(data) = blob.chunk().await.unwrap() {
            all.extend_from_slice(&data);
        }
        all
    };
    assert_eq!(all().await, content, "the URL does not have it");
    assert_eq!((elsewhere.count("/layers/"), registry.count("/blobs/")), (1, 1));
    elsewhere.put_blob(&content);
    assert_eq!(all().await, content);
    assert_eq!((elsewhere.count("/layers/"), registry.count("/blobs/")), (2, 1));
    assert!(elsewhere.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
}

/// An image of many layers would wait for a mirror that stalls with each of them.
#[tokio::test]
async fn a_server_that_failed_for_a_blob_is_asked_last_from_then_on() {
    let (origin, mirror) = (TestRegistry::start().await, TestRegistry::start().await);
    let contents = [bytes(100_000), bytes(90_000), bytes(80_000)];
    mirror.put_manifest("team/app", "1", IMAGE_TYPE, IMAGE.as_bytes());
    let digests = contents.each_ref().map(|content| {
        mirror.put_blob(content);
        origin.put_blob(content)
    });
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("server = \"{}\"\n[host.\"{}\"]\n", origin.url(""), mirror.url(""));
    TestRegistry::write_hosts(dir.path(), "example.com", &hosts);
    let config = Config { resumes: 0, ..with_hosts(dir.path()) };
    let session = open(config, "example.com", None).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    let asked = || (mirror.count("/blobs/"), origin.count("/blobs/"));
    // It has not everything: that is no failure of the server.
    mirror.remove_blob(&digests[0]);
    for (index, cut, expected) in [(0, false, (1, 1)), (1, true, (2, 2)), (2, false, (2, 3))] {
        if cut {
            mirror.on("/blobs/", Fault::Cut(10_000));
        }
        let content = read(&session, &digests[index], contents[index].len()).await.unwrap();
        assert_eq!(content, contents[index]);
        assert_eq!(asked(), expected, "blob {index}");
    }
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_for_what_a_digest_protects() {
    let (storage, content, digest) = registry().await;
    let registry = TestRegistry::start_tls(false).await;
    registry.put_blob(&content);
    let dir = tempfile::tempdir().unwrap();
    TestRegistry::write_hosts(dir.path(), &registry.host(), "skip_verify = true");
    let session = open(common::with_hosts(dir.path()), &registry.host(), None).await;
    let to = |path: &str| Fault::Status(302, vec![("location", storage.url(path))], String::new());
    registry.on("/blobs/", to(&format!("/x/{digest}")));
    assert_eq!(read(&session, &digest, SIZE).await.unwrap(), content);
    registry.on("/manifests/", to("/v2/team/app/manifests/1"));
    let error = session.manifest(Version::Tag("1")).await.unwrap_err();
    assert!(error.to_string().contains("a redirect from https to http"), "{error}");
    assert_eq!(storage.count("/manifests/"), 0);
}
