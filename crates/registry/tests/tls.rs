// SPDX-License-Identifier: Apache-2.0
//! TLS, its authorities and client certificates; proxies.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::{IMAGE, IMAGE_TYPE, open, with_hosts};
use hull_registry::testing::{CA, CLIENT_CERTIFICATE, CLIENT_KEY, SELF_SIGNED, TestRegistry};
use hull_registry::{Config, Error, Proxy, Result, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

async fn registry(clients: bool) -> TestRegistry {
    let registry = TestRegistry::start_tls(clients).await;
    registry.put_manifest("team/app", "1", IMAGE_TYPE, IMAGE.as_bytes());
    registry
}

async fn pull(dir: &std::path::Path, registry: &str) -> Result<()> {
    let session = open(with_hosts(dir), registry, None).await;
    session.manifest(Version::Tag("1")).await.map(drop)
}

#[tokio::test]
async fn an_authority_is_trusted_when_the_configuration_names_it() {
    let registry = registry(false).await;
    let dir = tempfile::tempdir().unwrap();
    let host = registry.host();
    let server = format!("server = \"https://{host}\"\n");
    TestRegistry::write_hosts(dir.path(), &host, &server);
    let error = pull(dir.path(), &host).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(error.to_string().contains("hosts.toml") || error.to_string().contains("authority"), "{error}");

    std::fs::write(dir.path().join(&host).join("ca.pem"), CA).unwrap();
    TestRegistry::write_hosts(dir.path(), &host, &format!("{server}ca = \"ca.pem\""));
    pull(dir.path(), &host).await.unwrap();
    TestRegistry::write_hosts(dir.path(), &host, &format!("{server}skip_verify = true"));
    pull(dir.path(), &host).await.unwrap();
    TestRegistry::write_hosts(dir.path(), &host, &format!("{server}ca = \"absent.pem\""));
    let error = pull(dir.path(), &host).await.unwrap_err().to_string();
    assert!(error.contains("absent.pem"), "{error}");

    // As docker has it: no hosts.toml, a *.crt.
    std::fs::remove_file(dir.path().join(&host).join("hosts.toml")).unwrap();
    std::fs::rename(dir.path().join(&host).join("ca.pem"), dir.path().join(&host).join("ca.crt")).unwrap();
    pull(dir.path(), &host).await.unwrap();
}

/// Docker's guide: `openssl req -x509`, and the certificate as `ca.crt` on the nodes.
#[tokio::test]
async fn a_self_signed_certificate_serves_where_it_is_trusted() {
    let registry = TestRegistry::start_self_signed().await;
    registry.put_manifest("team/app", "1", IMAGE_TYPE, IMAGE.as_bytes());
    let (dir, host) = (tempfile::tempdir().unwrap(), registry.host());
    let files = dir.path().join(&host);
    std::fs::create_dir(&files).unwrap();
    let trust = |text: &str| std::fs::write(files.join("ca.crt"), text).unwrap();
    trust(SELF_SIGNED);
    pull(dir.path(), &host).await.unwrap();
    trust(CA);
    let error = pull(dir.path(), &host).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(
        error.to_string().contains("UnknownIssuer") && error.to_string().contains("hosts.toml"),
        "{error}"
    );

    // Damaged blocks before and behind, one of them without an end.
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let end = "-----END CERTIFICATE-----\n";
    let bad = format!("{begin}bm90IG9uZQ==\n{end}");
    for text in [
        format!("{bad}{SELF_SIGNED}"),
        format!("{SELF_SIGNED}{bad}"),
        format!("{begin}%%%\n{end}words\n{SELF_SIGNED}{begin}cut"),
        format!("{begin}cut\n{SELF_SIGNED}"),
        format!("{CLIENT_KEY}{SELF_SIGNED}"),
    ] {
        trust(&text);
        pull(dir.path(), &host).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    for text in ["", "words", &bad, CLIENT_KEY] {
        trust(text);
        let error = pull(dir.path(), &host).await.unwrap_err().to_string();
        assert!(error.contains("ca.crt") && error.contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn client_certificates_are_shown() {
    let registry = registry(true).await;
    let dir = tempfile::tempdir().unwrap();
    let host = registry.host();
    let server = format!("server = \"https://{host}\"\nca = \"ca.pem\"\n");
    TestRegistry::write_hosts(dir.path(), &host, &server);
    let files = [
        ("ca.pem", CA.to_owned()),
        ("client.pem", CLIENT_CERTIFICATE.to_owned()),
        ("key.pem", CLIENT_KEY.to_owned()),
        ("both.pem", format!("{CLIENT_CERTIFICATE}{CLIENT_KEY}")),
    ];
    for (name, text) in files {
        std::fs::write(dir.path().join(&host).join(name), text).unwrap();
    }
    assert!(pull(dir.path(), &host).await.is_err());
    for client in ["\"both.pem\"", "[[\"client.pem\", \"key.pem\"]]"] {
        TestRegistry::write_hosts(dir.path(), &host, &format!("{server}client = {client}"));
        pull(dir.path(), &host).await.unwrap();
    }
    TestRegistry::write_hosts(dir.path(), &host, &format!("{server}client = \"key.pem\""));
    let error = pull(dir.path(), &host).await.unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("no certificate"), "{error}");
}

#[tokio::test]
async fn https_to_a_server_of_plain_http_says_what_to_do() {
    let registry = common::with_image().await;
    let dir = tempfile::tempdir().unwrap();
    let hosts = format!("server = \"https://{}\"\nskip_verify = true", registry.host());
    TestRegistry::write_hosts(dir.path(), &registry.host(), &hosts);
    let error = pull(dir.path(), &registry.host()).await.unwrap_err().to_string();
    assert!(error.contains("write its URL with http://"), "{error}");
}

/// A proxy that lets everything through to one address; the heads of the requests it got.
async fn proxy(target: String) -> (String, JoinHandle<()>, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (heads, seen) = tokio::sync::mpsc::channel(16);
    let task = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if client.read_exact(&mut byte).await.is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut server = TcpStream::connect(&target).await.unwrap();
            if text.starts_with("CONNECT ") {
                client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            } else {
                server.write_all(&head).await.unwrap();
            }
            heads.send(text).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    });
    (address, task, seen)
}

#[tokio::test]
async fn proxies_are_gone_through_except_for_this_machine() {
    for secure in [true, false] {
        let registry = if secure { registry(false).await } else { common::with_image().await };
        let (address, task, mut seen) = proxy(registry.host()).await;
        let dir = tempfile::tempdir().unwrap();
        let scheme = if secure { "https" } else { "http" };
        let hosts = format!("server = \"{scheme}://registry.test:5000\"\nca = \"ca.pem\"");
        TestRegistry::write_hosts(dir.path(), "registry.test:5000", &hosts);
        std::fs::write(dir.path().join("registry.test:5000/ca.pem"), CA).unwrap();
        let url = format!("http://bob:pw@{address}");
        let proxy = |no: &str| Proxy::Explicit { https: url.clone(), http: url.clone(), no: no.to_owned() };
        let config = Config { proxy: proxy(""), ..with_hosts(dir.path()) };
        let session = open(config.clone(), "registry.test:5000", None).await;
        session.manifest(Version::Tag("1")).await.unwrap();
        let head = seen.recv().await.unwrap().to_ascii_lowercase();
        let first =
            if secure { "connect registry.test:5000 " } else { "get http://registry.test:5000/v2/team/app" };
        assert!(head.starts_with(first), "{head}");
        assert!(head.contains("proxy-authorization: basic ym9iOnB3".to_ascii_lowercase().as_str()), "{head}");

        // The name cannot be looked up: who goes directly fails.
        let direct = Config { proxy: proxy("registry.test"), ..config.clone() };
        let session = open(direct, "registry.test:5000", None).await;
        assert!(matches!(session.manifest(Version::Tag("1")).await, Err(Error::Connect { .. })));
        if !secure {
            let session = open(config, &registry.host(), None).await;
            session.manifest(Version::Tag("1")).await.unwrap();
            assert!(seen.try_recv().is_err(), "this machine is reached directly");
        }
        task.abort();
    }
}
