// SPDX-License-Identifier: Apache-2.0
//! Attach and port-forward from the client's side.

use std::time::Duration;

use hull_cri_api::v1::{AttachRequest, PortForwardRequest};
use hull_stream_client::http::parts;
use tokio::net::TcpStream;
use tonic::Status;

use crate::{Cri, Daemon, HostNet, eventually};

/// What a session says that went well.
pub const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

impl Daemon {
    /// A connection to the server of a URL, from where the daemon runs.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(&self, url: &str) -> TcpStream {
        let stream = match self.net() {
            None => std::net::TcpStream::connect(parts(url).0).map(ready),
            Some(net) => net.dial(url),
        };
        stream.unwrap_or_else(|error| panic!("connect to {url}: {error}"))
    }
}

impl HostNet {
    /// A connection to the server of a URL, from inside.
    ///
    /// # Errors
    /// Those of the connection.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn dial(&self, url: &str) -> std::io::Result<TcpStream> {
        let address = parts(url).0.to_owned();
        hull_netns::enter(&self.path(), move || std::net::TcpStream::connect(address))
            .expect("enter the node's network namespace")
            .map(ready)
    }
}

fn ready(stream: std::net::TcpStream) -> TcpStream {
    stream.set_nonblocking(true).expect("a socket that does not block");
    stream.set_nodelay(true).expect("a socket that does not delay");
    TcpStream::from_std(stream).expect("an async socket")
}

impl Cri {
    /// Attach with these of `tty`, `stdin`, `stdout` and `stderr`; the URL.
    pub async fn attach(&self, id: &str, streams: &str) -> Result<String, Status> {
        let has = |name| streams.split(' ').any(|own| own == name);
        let request = AttachRequest {
            container_id: id.to_owned(),
            tty: has("tty"),
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        };
        Ok(self.runtime.clone().attach(request).await?.into_inner().url)
    }

    /// PortForward; the URL.
    pub async fn forward(&self, pod: &str) -> Result<String, Status> {
        let request = PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: Vec::new() };
        Ok(self.runtime.clone().port_forward(request).await?.into_inner().url)
    }
}

/// Waits until the daemon has as few open descriptors as it had before.
///
/// # Panics
/// When it does not come back to that.
pub async fn descriptors_are_back(daemon: &Daemon, before: usize) {
    eventually(Duration::from_secs(60), "descriptors are back", async || {
        let now = descriptors(daemon);
        if now <= before { Ok(()) } else { Err(format!("{before} before, {now} now")) }
    })
    .await;
}

/// How many descriptors the daemon has open.
///
/// # Panics
/// When it does not run.
pub fn descriptors(daemon: &Daemon) -> usize {
    let pid = daemon.pid().expect("the daemon runs");
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon's descriptors").count()
}
