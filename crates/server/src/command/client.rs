// SPDX-License-Identifier: Apache-2.0
//! How the commands reach the daemon, and how they show times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hull_admin_api::v1::admin_client::AdminClient;
use hull_server::config::Config;
use tonic::transport::{Channel, Endpoint};

use crate::arguments::Where;

/// A client of a daemon that answers.
pub(crate) type Client = AdminClient<Channel>;

/// The client, or `None` when no daemon answers.
pub(crate) async fn connect(socket: &Path) -> Option<Client> {
    let channel = Endpoint::try_from(format!("unix://{}", socket.display())).ok()?.connect().await.ok()?;
    Some(AdminClient::new(channel))
}

/// The client; an error that says where none answers.
pub(crate) async fn need(place: &Where) -> Result<Client> {
    let socket = socket(place)?;
    match connect(&socket).await {
        Some(client) => Ok(client),
        None => bail!("no daemon answers on {}: is hull running?", socket.display()),
    }
}

/// The daemon's socket.
pub(crate) fn socket(place: &Where) -> Result<PathBuf> {
    match &place.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(config(place)?.listen),
    }
}

pub(crate) fn config(place: &Where) -> Result<Config> {
    Ok(Config::load(place.config.as_deref())?)
}

/// Runs a command's async part.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// What a daemon answered, without the wrapping.
pub(crate) fn said(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// `350ms`, `12s`, `3m05s`, `2h40m`, `5d3h`.
pub(crate) fn time(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        for (ms, text) in
            [(350, "350ms"), (12_900, "12s"), (185_000, "3m05s"), (9_600_000, "2h40m"), (442_800_000, "5d3h")]
        {
            assert_eq!(time(ms), text);
        }
    }
}
