// SPDX-License-Identifier: Apache-2.0
//! The bridge's table in the kernel: written by `nft`, as a whole, only when it changes.
//!
//! One lock is held while `nft` runs: transactions on one table must come in the order of their texts. It is
//! bounded by the program's deadline, and who has waited finds the text applied already when a newer one
//! than its own went in meanwhile. No operation without host ports comes here, unless the table is gone.

use std::io;
use std::time::Duration;

use hull_failpoint::failpoint_async;
use hull_process::{Command, Limits};
use tokio::sync::Mutex;

use super::config::BridgeConfig;
use super::names;
use super::netlink::{Netlink, attribute, errno, push_attribute};
use super::ruleset;
use crate::{Error, Result};

/// NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE.
const GET_TABLE: u16 = 10 << 8 | 1;
const NFPROTO_INET: u8 = 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_HANDLE: u16 = 4;

/// The most that is kept of what `nft` says.
const MOST_WORDS: usize = 16 << 10;

/// What this process has applied.
#[derive(Debug, Default)]
pub(super) struct Rules {
    applied: Mutex<Option<Applied>>,
    /// Its handle, for who only looks.
    handle: std::sync::Mutex<Option<u64>>,
}

#[derive(Debug)]
struct Applied {
    text: String,
}

// === impl Rules ===

impl Rules {
    /// Brings the table to what `text` says when it is this call's turn.
    pub(super) async fn sync(&self, config: &BridgeConfig, text: impl Fn() -> String) -> Result<()> {
        let mut applied = self.applied.lock().await;
        let text = text();
        if applied.as_ref().is_some_and(|applied| applied.text == text) && self.is_intact(config)? {
            return Ok(());
        }
        // Until it has ended well nothing is known, also when this future is dropped.
        *applied = None;
        self.set_handle(None);
        run(config, text.clone()).await?;
        self.set_handle(handle(&config.name)?);
        *applied = Some(Applied { text });
        Ok(())
    }

    /// Takes the table away.
    pub(super) async fn remove(&self, config: &BridgeConfig) -> Result<()> {
        let mut applied = self.applied.lock().await;
        *applied = None;
        self.set_handle(None);
        if handle(&config.name)?.is_none() {
            return Ok(());
        }
        run(config, ruleset::removal(&config.name)).await
    }

    /// Whether the kernel's table still is the one that this process has applied. One message, no process.
    pub(super) fn is_intact(&self, config: &BridgeConfig) -> Result<bool> {
        let known = *self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(known.is_some() && handle(&config.name)? == known)
    }

    fn set_handle(&self, handle: Option<u64>) {
        *self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = handle;
    }
}

async fn run(config: &BridgeConfig, text: String) -> Result<()> {
    let network = &config.name;
    let failed = |source| Error::Io { context: format!("network {network}: write firewall rules"), source };
    failpoint_async!("bridge.rules.nft").map_err(failed)?;
    let limits =
        Limits { deadline: config.nft_deadline, max_output: MOST_WORDS, drain: Duration::from_millis(100) };
    let command = Command::new(&config.nft).args(["-f", "-"]);
    let output = match command.output(Some(text.into_bytes()), limits).await {
        Ok(output) => output,
        Err(hull_process::Error::TimedOut { after, .. }) => {
            return Err(Error::TimedOut {
                network: network.clone(),
                plugin: "nft".to_owned(),
                command: "apply",
                after,
            });
        }
        Err(hull_process::Error::Spawn { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NotReady {
                reason: "NetworkPluginNotReady".to_owned(),
                message: format!(
                    "network {network}: the program {} is not there: install the package nftables",
                    config.nft.display()
                ),
            });
        }
        Err(error) => return Err(failed(io::Error::other(error))),
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(failed(io::Error::other(format!("nft failed: {}", words.trim()))))
}

/// The handle of the table; `None`: there is none.
fn handle(bridge: &str) -> Result<Option<u64>> {
    let mut body = vec![NFPROTO_INET, 0, 0, 0];
    let mut name = names::table(bridge).into_bytes();
    name.push(0);
    push_attribute(&mut body, NFTA_TABLE_NAME, &name);
    match Netlink::netfilter().and_then(|mut netlink| netlink.ask_raw(GET_TABLE, &body)) {
        // nfgenmsg comes before the attributes.
        Ok(answer) => Ok(answer
            .get(4..)
            .and_then(|attributes| attribute(attributes, NFTA_TABLE_HANDLE)?.try_into().ok())
            .map(u64::from_be_bytes)),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
        Err(source) => {
            Err(Error::Io { context: format!("network {bridge}: look at the firewall table"), source })
        }
    }
}
