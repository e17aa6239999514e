// SPDX-License-Identifier: Apache-2.0
//! TCP connections that begin inside a network namespace.
//!
//! ```text
//! spawn_blocking ── fresh thread: setns, socket; ends ── the socket, which stays in that namespace
//!                                                              └ connect, read, write: any thread
//! ```
//! A socket belongs to the namespace that it was made in, whoever uses it. So a thread is in the pod's namespace for
//! two system calls, and waiting for the other side costs none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use hull_failpoint::failpoint_async;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::{blocking, enter};
use crate::{Connection, DialRequest, Error, Result};

/// What `localhost` means, in the order in which it is tried; no name is looked up.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Threads that make sockets at a time. They are needed for microseconds; more would take the blocking pool from others.
const THREADS: usize = 16;

/// Makes sockets in namespaces.
#[derive(Debug, Clone)]
pub(super) struct Dialer {
    threads: Arc<Semaphore>,
}

// === impl Dialer ===

impl Default for Dialer {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS)) }
    }
}

impl Dialer {
    pub(super) async fn dial(&self, request: &DialRequest) -> Result<Connection> {
        match tokio::time::timeout(request.deadline, self.try_all(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::TimedOut { port: request.port, after: request.deadline }),
        }
    }

    async fn try_all(&self, request: &DialRequest) -> Result<Connection> {
        let mut failures = Vec::new();
        for address in LOCALHOST {
            match self.try_one(request, address).await? {
                Ok(stream) => return Ok(Connection::tcp(stream)),
                Err(error) => failures.push((address, error)),
            }
        }
        Err(Error::NotConnected { port: request.port, failures })
    }

    /// The outer error: there is no such namespace. The inner one: this address did not do.
    async fn try_one(&self, request: &DialRequest, address: IpAddr) -> Result<io::Result<TcpStream>> {
        let socket = match &request.network {
            None => socket(address),
            Some(network) => self.socket_in(network.as_path(), address).await?,
        };
        let connect = async {
            failpoint_async!("netns.dial.connect")?;
            socket?.connect(SocketAddr::new(address, request.port)).await
        };
        Ok(connect.await.and_then(checked))
    }

    async fn socket_in(&self, network: &Path, address: IpAddr) -> Result<io::Result<TcpSocket>> {
        // It is never closed.
        let _thread = self.threads.acquire().await;
        let network = network.to_owned();
        blocking("make a socket in", network.clone(), move || {
            enter(&network, move || socket(address)).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::NotFound { path: network.clone() },
                _ => Error::Io { step: "make a socket in", path: network.clone(), source },
            })
        })
        .await
    }
}

fn checked(stream: TcpStream) -> io::Result<TcpStream> {
    // Where nobody listens on a port of the range that outgoing connections get theirs from, the kernel may give a
    // connection its own target's port; it then talks to itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One in the namespace of the calling thread.
fn socket(address: IpAddr) -> io::Result<TcpSocket> {
    match address {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
}
