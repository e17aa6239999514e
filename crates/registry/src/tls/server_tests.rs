// SPDX-License-Identifier: Apache-2.0
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;

use super::*;

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// The verdict on a certificate where some authorities are trusted, in the year 2030.
fn verdict(certificate: &str, trusted: &[&str], name: &str) -> Result<(), Error> {
    verdict_at(certificate, trusted, name, 1_900_000_000)
}

fn verdict_at(certificate: &str, trusted: &[&str], name: &str, now: u64) -> Result<(), Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        roots.add(der(authority)).unwrap();
    }
    let (roots, algorithms) = (Arc::new(roots), provider.signature_verification_algorithms);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().unwrap();
    let verifier = Verifier::new(webpki, roots, algorithms);
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let (name, now) =
        (ServerName::try_from(name).unwrap(), UnixTime::since_unix_epoch(Duration::from_secs(now)));
    verifier.verify_server_cert(&certificates[0], &certificates[1..], &name, &[], now).map(drop)
}

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../../tests/data/", $name, ".pem"))
    };
}

const SELF: &str = data!("self");
const OTHER: &str = data!("other");
const OWN_CA: &str = data!("own-ca");
const OWN_LEAF: &str = data!("own-leaf");

#[test]
fn certificates_of_authorities_serve_where_a_trusted_authority_signed_them() {
    for name in ["127.0.0.1", "registry.test"] {
        verdict(SELF, &[SELF], name).unwrap();
        verdict(SELF, &[OTHER, SELF], name).unwrap();
        verdict(OWN_LEAF, &[OWN_CA], name).unwrap();
    }
    // What webpki takes by itself stays as it is.
    verdict(data!("server"), &[data!("ca")], "127.0.0.1").unwrap();
}

#[test]
fn all_others_stay_refused() {
    use CertificateError as E;
    let deep = format!("{}{}", data!("deep-leaf"), data!("middle"));
    for (certificate, trusted, name, expected) in [
        (SELF, OTHER, "127.0.0.1", E::UnknownIssuer),
        (SELF, OWN_CA, "127.0.0.1", E::UnknownIssuer),
        (OWN_LEAF, SELF, "127.0.0.1", E::UnknownIssuer),
        // That a leaf is an authority does not make it one that is trusted.
        (OWN_CA, OWN_LEAF, "127.0.0.1", E::NotValidForName),
        (data!("own-purpose"), OWN_CA, "127.0.0.1", E::InvalidPurpose),
        (data!("narrow-leaf"), data!("narrow-ca"), "127.0.0.1", E::UnknownIssuer),
        (&deep, OWN_CA, "127.0.0.1", E::UnknownIssuer),
    ] {
        match verdict(certificate, &[trusted], name) {
            Err(Error::InvalidCertificate(E::NotValidForNameContext { .. })) => {
                assert_eq!(expected, E::NotValidForName);
            }
            verdict => assert_eq!(verdict, Err(expected.into())),
        }
    }
    for name in ["127.0.0.2", "other.test", "registry.test.evil.test"] {
        for (certificate, trusted) in [(SELF, SELF), (OWN_LEAF, OWN_CA)] {
            assert!(verdict(certificate, &[trusted], name).is_err(), "{name}");
        }
    }
    for (certificate, trusted) in [(SELF, SELF), (OWN_LEAF, OWN_CA)] {
        assert!(verdict_at(certificate, &[trusted], "127.0.0.1", 1_500_000_000).is_err(), "not yet");
        assert!(verdict_at(certificate, &[trusted], "127.0.0.1", 9_999_999_999).is_err(), "no longer");
    }
}

#[test]
fn validity_does_not_depend_on_the_library() {
    let certificate = Certificate::from_der(&der(SELF)).unwrap();
    let at =
        |seconds| verify_validity(&certificate, UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    assert_eq!(at(1_900_000_000), Ok(()));
    assert_eq!(at(1_500_000_000), Err(CertificateError::NotValidYet.into()));
    assert_eq!(at(9_999_999_999), Err(CertificateError::Expired.into()));
}

/// No byte of a certificate can be changed.
#[test]
fn a_changed_certificate_is_refused() {
    let good = der(OWN_LEAF);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(der(OWN_CA)).unwrap();
    let (roots, algorithms) = (Arc::new(roots), provider.signature_verification_algorithms);
    let webpki = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().unwrap();
    let verifier = Verifier::new(webpki, roots, algorithms);
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000));
    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        let changed = CertificateDer::from(bytes);
        assert!(verifier.verify_server_cert(&changed, &[], &name, &[], now).is_err(), "byte {at}");
    }
}
