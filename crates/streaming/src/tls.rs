// SPDX-License-Identifier: Apache-2.0
//! The server's identity, read again when its files change.
//!
//! The files are looked at when a client comes, so nothing polls. A change that cannot be used is logged once, and the
//! identity that was good before goes on serving: a certificate is usually replaced file by file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;
use crate::{Error, Result};

/// Which version of the files: device, inode, size and change time of each.
type Version = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// The identity and where it comes from.
#[derive(Debug)]
pub(crate) struct Identity {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The version that was last tried, good or not.
    tried: Version,
}

impl Identity {
    /// Reads the files. Blocks.
    pub(crate) fn load(files: TlsFiles) -> Result<Self> {
        let tried = version(&files);
        let config = Arc::new(read(&files)?);
        Ok(Self { files, current: Mutex::new(Current { config, tried }) })
    }

    /// Reads the files again; on error the old identity stays. Blocks.
    pub(crate) fn reload(&self) -> Result<()> {
        let tried = version(&self.files);
        let config = read(&self.files);
        let mut current = self.lock();
        current.tried = tried;
        current.config = Arc::new(config?);
        Ok(())
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept(self: &Arc<Self>, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let identity = Arc::clone(self);
        // Files may be on a volume that hangs; the caller has a deadline.
        let config =
            tokio::task::spawn_blocking(move || identity.fresh()).await.map_err(std::io::Error::other)?;
        TlsAcceptor::from(config).accept(tcp).await
    }

    fn fresh(&self) -> Arc<ServerConfig> {
        if self.lock().tried != version(&self.files) {
            match self.reload() {
                Ok(()) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "TLS files read again")
                }
                Err(error) => {
                    tracing::warn!(%error, "TLS files have changed and cannot be used; the old ones stay")
                }
            }
        }
        Arc::clone(&self.lock().config)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(files: &TlsFiles) -> Version {
    let of = |path: &Path| {
        let facts = |file: Metadata| (file.dev(), file.ino(), file.size(), file.ctime(), file.ctime_nsec());
        std::fs::metadata(path).ok().map(facts)
    };
    [Some(&files.certificate), Some(&files.key), files.client_authority.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| of(path))
        .collect()
}

fn read(files: &TlsFiles) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(failed(&files.key))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed(&files.certificate))?;
    let builder = match &files.client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(failed(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(failed(path))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(failed(&files.certificate))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(failed(path))?;
    if certificates.is_empty() {
        return Err(failed(path)("it holds no PEM certificate"));
    }
    Ok(certificates)
}

fn failed<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Error {
    move |problem| Error::Certificate { path: path.to_owned(), problem: problem.to_string() }
}
