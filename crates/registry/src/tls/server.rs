// SPDX-License-Identifier: Apache-2.0
//! Checks the certificate of a server.
//!
//! The rules are webpki's, with one addition. Docker's guide makes a registry's certificate with `openssl req -x509`,
//! which marks it as an authority's (CA:TRUE), and has nodes trust it as `ca.crt`; webpki refuses an authority's
//! certificate of a server whatever is trusted. Programs in Go take it, so it is checked here:
//!
//! ```text
//! refused by webpki, with CA:TRUE ---> names of the certificate: the server's is among them
//!                                      validity:                 now is within it
//!                                      extended key usage:       absent, or with serverAuth
//!                                      issuer:                   a trusted authority that signed it itself
//! ```
//! A self-signed certificate that is trusted is its own issuer. Stricter than in Go: no certificates in between, and no
//! authorities with name constraints, for which there is no code here.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Tag};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage};
use x509_cert::spki::SubjectPublicKeyInfoRef;

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// Trusts the servers of some authorities.
#[derive(Debug)]
pub(super) struct Verifier {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

// === impl Verifier ===

impl Verifier {
    pub(super) fn new(
        webpki: Arc<WebPkiServerVerifier>,
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { webpki, roots, algorithms }
    }

    /// `None` when the certificate is not an authority's: then it is webpki's word that counts.
    fn verify_authority(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Option<Result<(), Error>> {
        let parsed = Certificate::from_der(certificate).ok()?;
        let constraints = parsed.tbs_certificate().get_extension::<BasicConstraints>().ok()??;
        constraints.1.ca.then(|| {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
            verify_validity(&parsed, now)?;
            verify_purpose(&parsed)?;
            let signed =
                self.roots.roots.iter().any(|anchor| self.is_signed_by(&parsed, anchor) == Some(true));
            if signed { Ok(()) } else { Err(CertificateError::UnknownIssuer.into()) }
        })
    }

    /// Whether the authority itself signed the certificate; `None` where that is unknown.
    fn is_signed_by(&self, certificate: &Certificate, anchor: &TrustAnchor<'_>) -> Option<bool> {
        let tbs = certificate.tbs_certificate();
        let issuer = tbs.issuer().to_der().ok()?;
        let unlimited = anchor.name_constraints.is_none();
        if !unlimited || AnyRef::from_der(&issuer).ok()?.value() != anchor.subject.as_ref() {
            return Some(false);
        }
        let algorithm = certificate.signature_algorithm();
        if tbs.signature() != algorithm {
            return Some(false);
        }
        let algorithm = algorithm.to_der().ok()?;
        let algorithm = AnyRef::from_der(&algorithm).ok()?.value().to_owned();
        let key = AnyRef::new(Tag::Sequence, anchor.subject_public_key_info.as_ref()).ok()?;
        let key: SubjectPublicKeyInfoRef<'_> = key.decode_as().ok()?;
        let key_algorithm = key.algorithm.to_der().ok()?;
        let key_algorithm = AnyRef::from_der(&key_algorithm).ok()?.value().to_owned();
        let (key, message) = (key.subject_public_key.as_bytes()?, tbs.to_der().ok()?);
        let signature = certificate.signature().as_bytes()?;
        let fits = self.algorithms.all.iter().filter(|it| {
            it.signature_alg_id().as_ref() == algorithm && it.public_key_alg_id().as_ref() == key_algorithm
        });
        Some(fits.into_iter().any(|it| it.verify_signature(key, &message, signature).is_ok()))
    }
}

fn verify_validity(certificate: &Certificate, now: UnixTime) -> Result<(), Error> {
    let validity = certificate.tbs_certificate().validity();
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

fn verify_purpose(certificate: &Certificate) -> Result<(), Error> {
    match certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, usage))) if usage.0.contains(&SERVER_AUTH) => Ok(()),
        Ok(Some(_)) => Err(CertificateError::InvalidPurpose.into()),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// Whether nothing but the mark of an authority speaks against the certificate. rustls has no variant of its own for it, and
/// wraps other refusals in the same one.
fn is_authority_as_server(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = match self.webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(error) if is_authority_as_server(&error) => error,
            verdict => return verdict,
        };
        match self.verify_authority(certificate, name, now) {
            Some(Ok(())) => Ok(ServerCertVerified::assertion()),
            Some(Err(error)) => Err(error),
            None => Err(refused),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
