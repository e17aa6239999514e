// SPDX-License-Identifier: Apache-2.0
//! Garbage: attachments that the cache knows and nobody else does, and what plugins hold beyond that.
//!
//! The first are released with DEL, always. The GC verb lets a plugin drop everything that is not in
//! a list, so it is used only where no other runtime shares the network (`exclusive`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::conf::NetworkList;
use super::del::del;
use super::invoke::{Call, Deadline, Invoker, Verb};
use super::target::{Key, Target, bytes, document, insert};
use super::{Shared, blocking};
use crate::{Error, Result};

/// Releases what is neither valid nor attached by this process. Every network is tried; the first
/// failure is returned, further ones are logged.
pub(super) async fn gc(shared: &Arc<Shared>, valid: &BTreeSet<Key>) -> Result<()> {
    let mut stale: BTreeMap<String, Vec<Target>> = BTreeMap::new();
    let cache = shared.cache.clone();
    for target in blocking("list the CNI results", move || cache.targets()).await? {
        if !valid.contains(&target.key) && !shared.is_live(&target.key) {
            stale.entry(target.key.network.clone()).or_default().push(target);
        }
    }
    let exclusive = match shared.known.current().0 {
        Some(list) if shared.config.exclusive && list.version.has_status() && !list.disable_gc => Some(list),
        _ => None,
    };
    if let Some(list) = &exclusive {
        stale.entry(list.name.clone()).or_default();
    }
    let mut first = Ok(());
    for (network, targets) in stale {
        let list = exclusive.as_deref().filter(|list| list.name == network);
        keep_first(&mut first, collect(shared, &network, &targets, list, valid).await);
    }
    first
}

/// One network, while nothing else runs on it.
async fn collect(
    shared: &Arc<Shared>,
    network: &str,
    targets: &[Target],
    exclusive: Option<&NetworkList>,
    valid: &BTreeSet<Key>,
) -> Result<()> {
    let patience = shared.config.del_deadline;
    let _alone = tokio::time::timeout(patience, shared.gates.enter_alone(network))
        .await
        .map_err(|_| Error::Busy { network: network.to_owned(), after: patience })?;
    // One limit for all: pods that want the network wait meanwhile.
    let deadline = Deadline::after(patience);
    let mut first = Ok(());
    for target in targets {
        // Looked at again: it may have been attached anew while the gate was waited for.
        if shared.is_live(&target.key) {
            continue;
        }
        if deadline.remaining().is_zero() {
            keep_first(&mut first, Err(Error::Busy { network: network.to_owned(), after: patience }));
            break;
        }
        tracing::info!(network, sandbox = target.key.container, "releasing an attachment that nobody knows");
        keep_first(&mut first, release(shared, target, deadline).await);
    }
    if let Some(list) = exclusive {
        let valid = still_valid(shared, network, valid).await?;
        keep_first(&mut first, verb(&shared.invoker, list, &valid, deadline).await);
    }
    first
}

async fn release(shared: &Arc<Shared>, target: &Target, deadline: Deadline) -> Result<()> {
    let result = shared.cached_result(&target.key).await?;
    del(&shared.invoker, target, result.as_deref(), deadline.remaining()).await?;
    shared.forget(&target.key).await
}

/// What the plugins must keep: the caller's, this process's, and what could not be released just now.
async fn still_valid(shared: &Arc<Shared>, network: &str, valid: &BTreeSet<Key>) -> Result<BTreeSet<Key>> {
    let cache = shared.cache.clone();
    let cached = blocking("list the CNI results", move || cache.targets()).await?;
    let mut keys: BTreeSet<Key> = cached.into_iter().map(|target| target.key).collect();
    keys.extend(valid.iter().cloned());
    keys.extend(shared.live());
    keys.retain(|key| key.network == network);
    Ok(keys)
}

/// The GC verb, on every plugin whatever the others say (CNI spec 1.1.0, "GC").
async fn verb(
    invoker: &Invoker,
    list: &NetworkList,
    valid: &BTreeSet<Key>,
    deadline: Deadline,
) -> Result<()> {
    let valid: Vec<Value> =
        valid.iter().map(|key| json!({ "containerID": key.container, "ifname": key.interface })).collect();
    let mut first = Ok(());
    for plugin in &list.plugins {
        let mut document = document(list, plugin)?;
        insert(&mut document, "cni.dev/valid-attachments", &valid)?;
        // The key's name before the specification was finished; plugins of that time look for it.
        insert(&mut document, "cni.dev/attachments", &valid)?;
        let call = Call {
            network: &list.name,
            plugin: &plugin.kind,
            verb: Verb::Gc,
            container: None,
            stdin: bytes(&document)?,
            deadline,
        };
        keep_first(&mut first, invoker.run(call).await.map(drop));
    }
    first
}

fn keep_first(first: &mut Result<()>, result: Result<()>) {
    match result {
        Err(error) if first.is_err() => tracing::warn!(%error, "collecting garbage failed further"),
        Err(error) => *first = Err(error),
        Ok(()) => {}
    }
}
