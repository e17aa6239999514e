// SPDX-License-Identifier: Apache-2.0
//! DEL: the chain in reverse, up to the first plugin that fails.
//!
//! The plugins before a failing one are not run: the one that owns the address commonly comes first
//! in the list, and an address that is free again while something still points at it would get
//! another pod's traffic. DEL is idempotent, so the whole chain is run again later.

use std::time::Duration;

use hull_failpoint::failpoint_async;
use serde_json::value::RawValue;

use super::invoke::{Deadline, Invoker, Verb, failed};
use super::target::Target;
use crate::Result;

/// Runs the chain. `result`: what ADD gave, if that is known.
pub(super) async fn del(
    invoker: &Invoker,
    target: &Target,
    result: Option<&RawValue>,
    limit: Duration,
) -> Result<()> {
    let _turn = invoker.turn(Verb::Del).await?;
    let deadline = Deadline::after(limit);
    let (netns, args) = (target.living_netns(), target.arguments());
    let previous = result.filter(|_| target.list.version.has_check());
    for plugin in target.list.plugins.iter().rev() {
        failpoint_async!("cni.del.plugin")
            .map_err(|e| failed(&target.list.name, &plugin.kind, Verb::Del, None, e.to_string()))?;
        let call = target.call(plugin, Verb::Del, (netns, &args), previous, deadline)?;
        invoker.run(call).await?;
    }
    Ok(())
}
