// SPDX-License-Identifier: Apache-2.0
//! A registry on loopback that does what it is told, also the wrong thing.
//!
//! ```no_run
//! # async fn example() {
//! use hull_registry::testing::{Fault, TestRegistry};
//! let registry = TestRegistry::start().await;
//! let blob = registry.put_blob(b"layer");
//! registry.on("/blobs/", Fault::Status(503, Vec::new(), String::new()));   // the next request of a blob
//! assert_eq!(registry.count("/blobs/"), 0);
//! # }
//! ```
//! Every repository has every blob. Like every test helper, these functions panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod body;
mod serve;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::digest::Digest;

/// The authority that signed the certificates of [`TestRegistry::start_tls`], in PEM.
pub const CA: &str = include_str!("../tests/data/ca.pem");
/// A client certificate that it signed.
pub const CLIENT_CERTIFICATE: &str = include_str!("../tests/data/client.pem");
/// The key of the client certificate.
pub const CLIENT_KEY: &str = include_str!("../tests/data/client.key");
/// A server's certificate as Docker's guide makes it for a registry: its own authority (CA:TRUE), in PEM.
pub const SELF_SIGNED: &str = include_str!("../tests/data/self.pem");

/// What happens to one request in place of the right answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// As [`Cut`](Self::Cut), and every further request of it is answered from the start: ranges are not known.
    CutWithoutRanges(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// So many bytes, and then one each of these milliseconds.
    Trickle(usize, u64),
    /// This body with a right length in place of the real one.
    Body(Vec<u8>),
    /// The real body without a length, and more behind it.
    Longer(Vec<u8>),
    /// 206 that starts elsewhere.
    WrongRange,
    /// The answer waits for a permit.
    Gate(Arc<Semaphore>),
}

/// How the registry wants its clients to prove themselves.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    Open,
    /// With this name and password.
    Basic(String, String),
    /// With a token from its own token server.
    Bearer {
        /// Who gets a token by name and password.
        user: Option<(String, String)>,
        /// Who gets one by a refresh token.
        identity: Option<String>,
        /// Whether anybody gets one.
        anonymous: bool,
        /// The scope that a token must have, if it is another than the first challenge names.
        wider: Option<String>,
        /// The token server; `None`: its own, at `/token`.
        realm: Option<String>,
    },
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers; names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

/// The registry. It ends when it is dropped.
#[derive(Debug)]
pub struct TestRegistry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    address: String,
    /// By `repository/tag` and `repository/digest`: type and content.
    manifests: HashMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
    /// Part of a path, and what happens to requests that have it, one after the other.
    faults: Vec<(String, Fault)>,
    /// Blobs whose ranges are not known.
    no_ranges: bool,
    auth: Auth,
    tokens: Vec<String>,
    seen: Vec<Seen>,
}

// === impl TestRegistry ===

impl TestRegistry {
    /// Starts one that speaks plain http.
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// Starts one that speaks https with a certificate of [`CA`]; `clients`: and wants one of its clients.
    pub async fn start_tls(clients: bool) -> Self {
        let (chain, key) =
            (include_str!("../tests/data/server.pem"), include_str!("../tests/data/server.key"));
        Self::serve(Some(TlsAcceptor::from(Arc::new(server_config(clients, chain, key))))).await
    }

    /// Starts one that speaks https with [`SELF_SIGNED`].
    pub async fn start_self_signed() -> Self {
        let config = server_config(false, SELF_SIGNED, include_str!("../tests/data/self.key"));
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { address: address.to_string(), ..State::default() }));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, state, serving }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// `127.0.0.1:port`: the registry's part of image names.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:port` followed by the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Keeps a blob; its digest.
    pub fn put_blob(&self, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        self.state().blobs.insert(digest.clone(), bytes.to_vec());
        digest
    }

    /// Loses a blob.
    pub fn remove_blob(&self, digest: &str) {
        self.state().blobs.remove(digest);
    }

    /// Keeps a manifest under a tag and under its digest, which it returns.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = Digest::of(bytes).to_string();
        let mut state = self.state();
        for name in [tag, &digest] {
            state.manifests.insert(format!("{repository}/{name}"), (media_type.to_owned(), bytes.to_vec()));
        }
        digest
    }

    /// Lets something else happen to the next request whose path and query contain `part`. Several wait in line.
    pub fn on(&self, part: &str, fault: Fault) {
        self.state().faults.push((part.to_owned(), fault));
    }

    /// Sets how clients must prove themselves; forgets all tokens.
    pub fn require(&self, auth: Auth) {
        let mut state = self.state();
        state.auth = auth;
        state.tokens.clear();
    }

    /// Forgets all tokens that were given out.
    pub fn revoke(&self) {
        self.state().tokens.clear();
    }

    /// Requests that came, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// How many requests came whose path and query contain `part`.
    pub fn count(&self, part: &str) -> usize {
        self.state().seen.iter().filter(|seen| seen.path.contains(part)).count()
    }

    /// Writes `<certs_dir>/<registry>/hosts.toml`.
    pub fn write_hosts(certs_dir: &Path, registry: &str, text: &str) {
        let dir = certs_dir.join(registry);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request| serve::answer(Arc::clone(&state), request));
    // How a connection ends is the client's business.
    let _ = match tls {
        None => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
            Err(_) => Ok(()),
        },
    };
}

fn server_config(clients: bool, chain: &'static str, key: &str) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let pem = |text: &'static str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let chain = vec![pem(chain)];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if clients {
        let mut roots = RootCertStore::empty();
        roots.add(pem(CA)).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    builder.with_single_cert(chain, key).unwrap()
}
