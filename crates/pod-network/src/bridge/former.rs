// SPDX-License-Identifier: Apache-2.0
//! Pods of a bridge that had another name: the configuration was changed while they ran. They keep their
//! network until they are released; with the last of them table, bridge and leases of that name go.
//!
//! Their host ports stay in that table until then: a port of a pod that is gone leads nowhere.

use std::fs;
use std::sync::Arc;

use super::config::BridgeConfig;
use super::lease::Leases;
use super::names::check_bridge_name;
use super::rules::Rules;
use super::{Shared, blocking, node, plug};
use crate::{Error, Result};

/// Releases a pod of the bridge `name`. Idempotent.
pub(super) async fn release(shared: &Arc<Shared>, name: &str, sandbox_id: &str) -> Result<()> {
    check_bridge_name(name).map_err(|problem| Error::Invalid(format!("bridge name {name:?} {problem}")))?;
    let turn = shared.turn(sandbox_id).await;
    let config = BridgeConfig { name: name.to_owned(), ..shared.config.clone() };
    let (former, id) = (config.clone(), sandbox_id.to_owned());
    let was_last = blocking("release the pod", move || {
        let _turn = turn;
        let failed =
            |source| Error::Io { context: format!("release pod {id} of the bridge {}", former.name), source };
        plug::unplug(&id).map_err(failed)?;
        let dir = former.state_dir.join(&former.name);
        let leases = Leases::open(&dir, &former.quarantine)?;
        leases.delete(&id)?;
        if !leases.load()?.0.is_empty() {
            return Ok(false);
        }
        hull_failpoint::failpoint!("bridge.former.delete").map_err(failed)?;
        fs::remove_dir_all(&dir).map_err(failed)?;
        // Otherwise the name is another daemon's by now, or the node was rebooted.
        node::is_ours(&former).map_err(failed)
    });
    if was_last.await? {
        tracing::info!(bridge = name, "the last pod of a former bridge is gone: it goes too");
        Rules::default().remove(&config).await?;
        blocking("remove the bridge", move || {
            let context = format!("remove the former bridge {}", config.name);
            node::remove(&config).map_err(|source| Error::Io { context, source })
        })
        .await?;
    }
    Ok(())
}
