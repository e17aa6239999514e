// SPDX-License-Identifier: Apache-2.0
//! TLS with the machine's authorities, those of a host's configuration, and client certificates.
//!
//! The cryptography is named here, never a process's default: whoever embeds this crate may have none, or another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::hosts::TlsFiles;
use crate::{Error, Result};

mod server;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The configuration for one server. Blocks.
pub(crate) fn config(files: &TlsFiles) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let failed = |error: rustls::Error| Error::File {
        file: files.authorities.first().cloned().unwrap_or_else(|| PathBuf::from("TLS")),
        problem: error.to_string(),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let keys = files
        .client
        .iter()
        .map(|(certificate, key)| certified_key(certificate, key, &provider))
        .collect::<Result<Vec<_>>>()?;
    let verifier: Arc<dyn ServerCertVerifier> = if files.skip_verify {
        Arc::new(NoVerifier(provider))
    } else {
        let roots = Arc::new(authorities(&files.authorities)?);
        if roots.is_empty() {
            let problem = "this machine trusts no certificate authority; install its CA certificates, or name \
                           the registry's as `ca` in its hosts.toml";
            return Err(Error::File { file: PathBuf::from("TLS"), problem: problem.to_owned() });
        }
        let algorithms = provider.signature_verification_algorithms;
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider)
            .build()
            .map_err(|error| Error::File { file: PathBuf::from("TLS"), problem: error.to_string() })?;
        Arc::new(server::Verifier::new(webpki, roots, algorithms))
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = if keys.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(Arc::new(Keys(keys)))
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(files: &[PathBuf]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate authority of the machine cannot be read");
    }
    // Machines carry certificates that no standard allows; the others are good all the same.
    roots.add_parsable_certificates(native.certs);
    for file in files {
        add_file(&mut roots, file)?;
    }
    Ok(roots)
}

/// Adds the certificates of a file. One that is damaged, or that no standard allows, does not spoil the others; a file
/// without any that is good is an error.
fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<()> {
    let bad = |problem: String| Error::File { file: file.to_owned(), problem };
    let text = std::fs::read(file).map_err(|error| bad(format!("it cannot be read: {error}")))?;
    let text = String::from_utf8_lossy(&text);
    let (mut added, mut problem) = (false, "it has no certificate in PEM form".to_owned());
    // Block by block: one without an end would take the next along.
    for (at, _) in text.match_indices(BEGIN) {
        let rest = &text[at..];
        let end = rest[BEGIN.len()..].find(BEGIN).map_or(rest.len(), |next| BEGIN.len() + next);
        let block = &rest[..end];
        let certificate = CertificateDer::from_pem_slice(block.as_bytes()).map_err(|error| error.to_string());
        let result = certificate.and_then(|it| roots.add(it).map_err(|error| error.to_string()));
        match result {
            Ok(()) => added = true,
            Err(error) => {
                let line = text[..at].lines().count() + 1;
                tracing::warn!(file = %file.display(), line, %error, "a certificate of an authority is skipped");
                problem = format!("line {line}: no usable certificate: {error}");
            }
        }
    }
    if added { Ok(()) } else { Err(bad(problem)) }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |problem: String| Error::File { file: file.to_owned(), problem };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|items| items.collect::<std::result::Result<Vec<_>, _>>())
        .map_err(|error| bad(format!("no certificates can be read from it: {error}")))?;
    if certificates.is_empty() {
        return Err(bad("it has no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

fn certified_key(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let chain = certificates(certificate)?;
    let bad = |problem: String| Error::File { file: key.to_owned(), problem };
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| bad(format!("no private key can be read from it: {error}")))?;
    let certified = CertifiedKey::from_der(chain, private, provider)
        .map_err(|error| bad(format!("it does not go with {}: {error}", certificate.display())))?;
    Ok(Arc::new(certified))
}

/// Several client certificates: the first that the server can check.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Keys {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// `skip_verify`: anybody may answer, but he must hold the key of the certificate that he shows.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
