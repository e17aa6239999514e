// SPDX-License-Identifier: Apache-2.0
//! Exec, attach and port-forward: the RPCs that answer URLs, and what is done for who opens one.
//!
//! ```text
//! RPC --issue: checks, URL--> client --URL--> streaming server --handler--> serve: checks again, runs
//! ```
//! Each file has both halves of one verb: `issue` behind the RPC and `serve` behind the URL. Between the two up to a
//! minute passes: a container that ran may have ended, so `serve` looks anew.

pub(crate) mod attach;
pub(crate) mod exec;
pub(crate) mod forward;
mod handler;
pub(crate) mod sessions;
mod talk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hull_streaming::{Config, Request, Server, Stdio, Timeouts, TlsFiles};

use crate::config::StreamingConfig;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::sandbox::request::invalid;
use handler::Streaming;

/// How long a session may take to end once it was told to, beyond the patience with its process.
const END_MARGIN: Duration = Duration::from_secs(20);

/// Listens for the clients of URLs.
///
/// # Errors
/// The address is taken, or the TLS files cannot be used.
pub(crate) async fn start(ctx: &Context) -> Result<()> {
    let settings = &ctx.config.streaming;
    let server = Server::start(server_config(settings), Arc::new(Streaming::new(ctx))).await?;
    let address = server.local_address();
    let demands_certificates = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !address.ip().is_loopback() && !demands_certificates {
        tracing::warn!(%address, "streaming is reachable from other machines, and a URL is all that a client \
            needs: set streaming.tls_client_ca, or streaming.address to a loopback address");
    }
    tracing::info!(%address, tls = settings.tls.is_some(), "streaming");
    // Set once: a daemon starts once.
    let _ = ctx.streaming.set(server);
    Ok(())
}

/// Reads the TLS files again; the old ones stay where the new ones cannot be used.
pub(crate) async fn reload(ctx: &Context) -> Result<()> {
    match ctx.streaming.get() {
        Some(server) => Ok(server.reload_tls().await?),
        None => Ok(()),
    }
}

/// Ends every session.
pub(crate) async fn shutdown(ctx: &Context, deadline: Duration) {
    if let Some(server) = ctx.streaming.get() {
        server.shutdown(deadline).await;
    }
}

/// Ends the sessions of a container or pod sandbox. They are told; nobody waits for them.
pub(crate) fn end_sessions(ctx: &Context, target: &str) {
    let Some(server) = ctx.streaming.get() else { return };
    let ended = server.sessions().kill_target(target);
    if ended > 0 {
        tracing::info!(target, ended, "ended its sessions");
    }
}

fn server_config(settings: &StreamingConfig) -> Config {
    Config {
        address: SocketAddr::new(settings.address, settings.port),
        base_url: settings.base_url.clone(),
        tls: settings.tls.as_ref().map(|tls| TlsFiles {
            certificate: tls.cert.clone(),
            key: tls.key.clone(),
            client_authority: tls.client_ca.clone(),
        }),
        timeouts: Timeouts {
            idle: settings.idle_timeout,
            handler_grace: settings.exec_linger + END_MARGIN,
            ..Timeouts::default()
        },
        ..Config::default()
    }
}

/// A URL for a request that was found good.
fn url(ctx: &Context, operation: &'static str, request: Request) -> Result<String> {
    let server = ctx.streaming.get();
    let server = server.ok_or(Error::Unavailable { operation, problem: "the daemon is starting" })?;
    Ok(server.issue(request)?)
}

/// Which streams the client gets: at least one, and with a terminal no stderr, which is stdout there.
fn stdio(operation: &'static str, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<Stdio> {
    if tty && stderr {
        return Err(invalid(
            operation,
            "stderr",
            "must not be set together with tty: a terminal has one output",
        ));
    }
    if !(stdin || stdout || stderr) {
        return Err(invalid(operation, "stdin", "stdout and stderr are all unset: set at least one"));
    }
    Ok(Stdio { tty, stdin, stdout, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_checked_as_the_kubelet_expects() {
        for (tty, stdin, stdout, stderr, problem) in [
            (false, false, true, true, None),
            (true, true, true, false, None),
            (true, true, false, false, None),
            (
                true,
                false,
                true,
                true,
                Some("Exec: stderr: must not be set together with tty: a terminal has one output"),
            ),
            (
                false,
                false,
                false,
                false,
                Some("Exec: stdin: stdout and stderr are all unset: set at least one"),
            ),
            (
                true,
                false,
                false,
                false,
                Some("Exec: stdin: stdout and stderr are all unset: set at least one"),
            ),
        ] {
            let checked = stdio("Exec", tty, stdin, stdout, stderr);
            match problem {
                None => assert_eq!(checked.unwrap(), Stdio { tty, stdin, stdout, stderr }),
                Some(words) => assert_eq!(checked.unwrap_err().to_string(), words),
            }
        }
    }
}
