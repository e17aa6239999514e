// SPDX-License-Identifier: Apache-2.0
//! Manifests, and which server they come from.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{IMAGE, IMAGE_TYPE, bytes, config, open, read, with_hosts, with_image};
use hull_registry::testing::{Fault, TestRegistry};
use hull_registry::{Error, Kind, MAX_MANIFEST, Registry, Repository, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A port that nobody listens on: bound once, so that the kernel does not give it out again soon.
async fn dead() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_manifest_comes_by_tag_and_by_digest() {
    let registry = with_image().await;
    let session = open(config(), &registry.host(), None).await;
    let manifest = session.manifest(Version::Tag("1")).await.unwrap();
    assert_eq!((&manifest.bytes[..], manifest.kind), (IMAGE.as_bytes(), Kind::Image));
    let again = session.manifest(Version::Digest(&manifest.digest)).await.unwrap();
    assert_eq!(again, manifest);
    let seen = registry.seen().remove(0);
    assert!(seen.headers["accept"].contains("oci.image.index"), "{seen:?}");
    assert!(seen.headers["user-agent"].starts_with("hull/"), "{seen:?}");
    assert_eq!(seen.path, "/v2/team/app/manifests/1", "the registry itself is not told its name");
    let error = session.manifest(Version::Tag("2")).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_manifest_or_not_the_one_is_refused() {
    let registry = with_image().await;
    let session = open(config(), &registry.host(), None).await;
    let digest = session.manifest(Version::Tag("1")).await.unwrap().digest;
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    for (fault, part) in [
        (Fault::Body(b"<html>".to_vec()), "has the digest"),
        (Fault::Status(200, Vec::new(), "<html>".to_owned()), "begins with \"<html>\""),
        (Fault::Status(200, Vec::new(), r#"{"manifests":[],"layers":[]}"#.to_owned()), "both an index"),
        (
            Fault::Status(200, vec![("content-type", IMAGE_TYPE.to_owned())], index.to_owned()),
            "not what its content is",
        ),
        (Fault::Status(200, Vec::new(), " ".repeat(MAX_MANIFEST + 1)), "the limit is"),
        (Fault::Longer(vec![b' '; MAX_MANIFEST + 1]), "longer than the limit"),
        (Fault::Status(418, Vec::new(), String::new()), "unexpected status 418"),
    ] {
        registry.on("/manifests/", fault);
        let error = session.manifest(Version::Tag("1")).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    registry.on("/manifests/", Fault::Status(200, Vec::new(), index.to_owned()));
    let error = session.manifest(Version::Digest(&digest)).await.unwrap_err();
    assert!(matches!(error, Error::Content { .. }), "{error}");
    // A body that breaks is worth another try.
    registry.on("/manifests/", Fault::Cut(3));
    session.manifest(Version::Tag("1")).await.unwrap();
}

#[tokio::test]
async fn mirrors_come_first_and_are_told_whom_they_stand_for() {
    let (origin, mirror) = (with_image().await, with_image().await);
    let layer = bytes(1000);
    let digest = mirror.put_blob(&layer);
    let dir = tempfile::tempdir().unwrap();
    let text = format!("server = \"{}\"\n[host.\"{}\"]\n", origin.url(""), mirror.url("/docker"));
    TestRegistry::write_hosts(dir.path(), "docker.io", &text);
    let session = open(with_hosts(dir.path()), "docker.io", None).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    assert_eq!(read(&session, &digest, 1000).await.unwrap(), layer);
    let paths: Vec<_> = mirror.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths[0], "/docker/v2/team/app/manifests/1?ns=docker.io");
    assert_eq!(paths[1], format!("/docker/v2/team/app/blobs/{digest}?ns=docker.io"));
    assert_eq!(origin.seen().len(), 0);
    // What the mirror has lost, the registry still has.
    mirror.remove_blob(&digest);
    origin.put_blob(&layer);
    assert_eq!(read(&session, &digest, 1000).await.unwrap(), layer);
}

#[tokio::test]
async fn a_mirror_that_fails_or_lies_is_passed_over() {
    let (origin, mirror) = (with_image().await, with_image().await);
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!(
        "server = \"{}\"\n[host.\"http://{}\"]\n[host.\"{}\"]\n",
        origin.url(""),
        dead().await,
        mirror.url("")
    );
    TestRegistry::write_hosts(dir.path(), "_default", &hosts);
    let session = open(with_hosts(dir.path()), "example.com", None).await;
    let digest = session.manifest(Version::Tag("1")).await.unwrap().digest;
    assert_eq!((mirror.count("/manifests/"), origin.count("/manifests/")), (1, 0));
    for fault in [
        Fault::Status(503, Vec::new(), String::new()),
        Fault::Status(429, vec![("retry-after", "1".to_owned())], String::new()),
        Fault::Status(200, Vec::new(), r#"{"config":{},"layers":[],"lie":1}"#.to_owned()),
    ] {
        let before = origin.count("/manifests/");
        mirror.on("/manifests/", fault);
        let session = open(with_hosts(dir.path()), "example.com", None).await;
        session.manifest(Version::Digest(&digest)).await.unwrap();
        assert_eq!(origin.count("/manifests/"), before + 1);
    }
}

#[tokio::test]
async fn when_all_fail_the_registrys_own_error_comes_first() {
    let (origin, mirror) = (with_image().await, with_image().await);
    let dir = tempfile::tempdir().unwrap();
    let dead = dead().await;
    let text =
        format!("server = \"{}\"\n[host.\"{}\"]\n[host.\"http://{dead}\"]\n", origin.url(""), mirror.url(""));
    TestRegistry::write_hosts(dir.path(), "example.com", &text);
    mirror.on("/manifests/", Fault::Status(500, Vec::new(), String::new()));
    let session = open(with_hosts(dir.path()), "example.com", None).await;
    let error = session.manifest(Version::Tag("absent")).await.unwrap_err();
    assert!(matches!(error.cause(), Error::NotFound { .. }), "{error}");
    let text = error.to_string();
    let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(place("not found") < place("status 500") && place("status 500") < place(&dead), "{text}");
}

#[tokio::test]
async fn servers_out_of_reach_do_not_hide_that_the_others_do_not_have_it() {
    let (mirror, origin) = (with_image().await, with_image().await);
    let dir = tempfile::tempdir().unwrap();
    let (dead, hosts) = (dead().await, |server: &str, mirrors: &[String]| {
        let mirrors: String = mirrors.iter().map(|mirror| format!("[host.\"{mirror}\"]\n")).collect();
        TestRegistry::write_hosts(dir.path(), "example.com", &format!("server = \"{server}\"\n{mirrors}"));
    });
    let gone = format!("http://{dead}");
    let ask = async || {
        let session = open(with_hosts(dir.path()), "example.com", None).await;
        session.manifest(Version::Tag("absent")).await.unwrap_err()
    };
    for (server, mirrors) in [
        (&gone, vec![mirror.url("")]),
        (&gone, vec![gone.clone(), mirror.url("")]),
        (&origin.url(""), vec![gone.clone(), mirror.url("")]),
    ] {
        hosts(server, &mirrors);
        let error = ask().await;
        assert!(matches!(error.cause(), Error::NotFound { .. }), "{error}");
        let text = error.to_string();
        assert!(text.find("not found").unwrap() < text.find(&dead).unwrap(), "{text}");
    }
    // Nobody says that it is not there, or one says something else.
    hosts(&gone, std::slice::from_ref(&gone));
    assert!(matches!(ask().await.cause(), Error::Connect { .. }));
    hosts(&gone, &[mirror.url("")]);
    mirror.on("/manifests/", Fault::Status(403, Vec::new(), String::new()));
    assert!(matches!(ask().await.cause(), Error::Connect { .. }));
}

#[tokio::test]
async fn odd_heads_are_taken_and_codings_are_not_asked_for() {
    let registry = with_image().await;
    let many = (0..150).map(|n| ("x-header", n.to_string())).collect();
    registry.on("/manifests/", Fault::Status(200, many, IMAGE.to_owned()));
    let session = open(config(), &registry.host(), None).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    let digest = registry.put_blob(b"layer");
    read(&session, &digest, 5).await.unwrap();
    for seen in registry.seen() {
        assert_eq!(seen.headers["accept-encoding"], "identity", "{}", seen.path);
    }

    // A folded line, which no library writes any more.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Security-Policy: default-src 'self';\r\n  img-src *\r\n\
             Content-Type: {IMAGE_TYPE}\r\nContent-Length: {}\r\n\r\n{IMAGE}",
            IMAGE.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let session = open(config(), &address, None).await;
    session.manifest(Version::Tag("1")).await.unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn capabilities_say_who_is_asked_for_what() {
    let (origin, resolver, content) = (with_image().await, with_image().await, with_image().await);
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"{}\"\ncapabilities = []\n[host.\"{}\"]\ncapabilities = [\"resolve\"]\n\
         [host.\"{}\"]\ncapabilities = [\"pull\"]\n",
        origin.url(""),
        resolver.url(""),
        content.url("")
    );
    TestRegistry::write_hosts(dir.path(), "example.com", &text);
    let session = open(with_hosts(dir.path()), "example.com", None).await;
    let digest = session.manifest(Version::Tag("1")).await.unwrap().digest;
    session.manifest(Version::Digest(&digest)).await.unwrap();
    let counts = [&origin, &resolver, &content].map(|registry| registry.count("/manifests/"));
    assert_eq!(counts, [0, 1, 1]);
}

#[tokio::test]
async fn a_bad_configuration_is_an_error_and_a_mended_one_needs_no_restart() {
    let registry = with_image().await;
    let dir = tempfile::tempdir().unwrap();
    let client = Registry::new(with_hosts(dir.path()));
    let repository = || Repository::new(registry.host(), "team/app");
    TestRegistry::write_hosts(dir.path(), &registry.host(), "\nsrever = \"x\"");
    let error = client.open(repository(), None).await.unwrap_err();
    assert!(matches!(error, Error::Hosts { line: 2, .. }), "{error}");
    TestRegistry::write_hosts(dir.path(), &registry.host(), "");
    client.open(repository(), None).await.unwrap().manifest(Version::Tag("1")).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let dead = dead().await;
    let session = open(config(), &dead, None).await;
    let error = session.manifest(Version::Tag("1")).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}
