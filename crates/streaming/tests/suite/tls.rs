// SPDX-License-Identifier: Apache-2.0
//! Certificates of both sides, and files that change while the server runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hull_streaming::{Error, TlsFiles};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http::{Tested, ask, connect, soon, spdy_headers, start};
use crate::spdy::{client, open_exec};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Copies of the files, to be replaced.
fn files(dir: &Path) -> TlsFiles {
    put(dir, "server");
    let files = ["certificate", "key", "authority"].map(|name| dir.join(name));
    std::fs::copy(data("ca.pem"), &files[2]).unwrap();
    let [certificate, key, authority] = files;
    TlsFiles { certificate, key, client_authority: Some(authority) }
}

fn put(dir: &Path, identity: &str) {
    for (from, to) in [("pem", "certificate"), ("key", "key")] {
        let new = dir.join("new");
        std::fs::copy(data(&format!("{identity}.{from}")), &new).unwrap();
        std::fs::rename(new, dir.join(to)).unwrap();
    }
}

async fn dial(url: &str, authority: &str, identity: Option<&str>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data(authority)).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(data(&format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(data(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, connect(url).await).await
}

async fn works(tested: &Tested, authority: &str, identity: Option<&str>) -> bool {
    let url = tested.exec("stdout stderr", "both");
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let Ok(mut stream) = dial(&url, authority, identity).await else { return false };
    // With TLS 1.3 a refused certificate shows at the first read.
    if stream.get_mut().0.peek(&mut [0]).await.is_err() {
        return false;
    }
    let probe = tokio::spawn(async move {
        let answer = ask(&mut stream, "POST", &url, &spdy_headers("v4.channel.k8s.io")).await;
        (answer.status, stream)
    });
    let Ok((status, stream)) = probe.await else { return false };
    assert_eq!(status, 101);
    let (reader, writer) = client(stream);
    open_exec(reader, writer, "error stdout stderr").await.finish().await.stdout == b"to stdout\n"
}

#[tokio::test]
async fn clients_show_a_certificate_of_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let tested = start(|config| config.tls = Some(files(dir.path()))).await;
    assert!(works(&tested, "ca.pem", Some("client")).await);
    assert!(!works(&tested, "ca.pem", Some("stranger")).await);
    assert!(!works(&tested, "ca.pem", None).await);
    assert!(!works(&tested, "other-ca.pem", Some("client")).await, "the server is not the other authority's");
    // Without TLS nothing is answered.
    let mut plain = connect(&tested.exec("stdout", "exit 0")).await;
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn no_certificate_is_demanded_without_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles { client_authority: None, ..files(dir.path()) };
    let tested = start(|config| config.tls = Some(files)).await;
    assert!(works(&tested, "ca.pem", None).await);
}

#[tokio::test]
async fn new_files_are_used_and_broken_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let tested = start(|config| config.tls = Some(files(dir.path()))).await;
    assert!(works(&tested, "ca.pem", Some("client")).await);

    put(dir.path(), "server2");
    assert!(
        works(&tested, "other-ca.pem", Some("client")).await,
        "the new certificate, without a word from us"
    );
    assert!(tested.server.reload_tls().await.is_ok());

    let certificate = dir.path().join("certificate");
    std::fs::write(&certificate, "no certificate").unwrap();
    let broken = tested.server.reload_tls().await.unwrap_err();
    assert!(matches!(&broken, Error::Certificate { path, .. } if *path == certificate), "{broken}");
    assert!(works(&tested, "other-ca.pem", Some("client")).await, "the old ones go on");

    put(dir.path(), "server");
    assert!(works(&tested, "ca.pem", Some("client")).await);
}

#[tokio::test]
async fn files_that_do_not_fit_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let good = files(dir.path());
    for bad in [
        TlsFiles { certificate: dir.path().join("none"), ..good.clone() },
        TlsFiles { key: data("client.key"), ..good.clone() },
        TlsFiles { key: data("ca.pem"), ..good.clone() },
        TlsFiles { client_authority: Some(data("client.key")), ..good.clone() },
    ] {
        let config = hull_streaming::Config { tls: Some(bad.clone()), ..Default::default() };
        let handler = Arc::new(crate::handler::TestHandler::default());
        let refused = hull_streaming::Server::start(config, handler).await.unwrap_err();
        assert!(matches!(refused, Error::Certificate { .. }), "{bad:?}: {refused}");
    }
}
