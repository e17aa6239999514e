// SPDX-License-Identifier: Apache-2.0
//! CHECK: the chain in order, each plugin with the final result of ADD.

use std::time::Duration;

use hull_failpoint::failpoint_async;
use serde_json::value::RawValue;

use super::invoke::{Deadline, Invoker, Verb, failed};
use super::target::{Target, utf8};
use crate::{Error, Result};

/// Runs the chain, where version and configuration know CHECK.
pub(super) async fn check(
    invoker: &Invoker,
    target: &Target,
    result: Option<&RawValue>,
    limit: Duration,
) -> Result<()> {
    if !target.list.version.has_check() || target.list.disable_check {
        return Ok(());
    }
    if result.is_none() {
        return Err(Error::Invalid(format!(
            "network {}: the result of attaching {} is not in the cache, so it cannot be checked",
            target.key.network, target.key.container
        )));
    }
    let _turn = invoker.turn(Verb::Check).await?;
    let deadline = Deadline::after(limit);
    let (netns, args) = (utf8(&target.netns), target.arguments());
    for plugin in &target.list.plugins {
        failpoint_async!("cni.check.plugin")
            .map_err(|e| failed(&target.list.name, &plugin.kind, Verb::Check, None, e.to_string()))?;
        invoker.run(target.call(plugin, Verb::Check, (netns, &args), result, deadline)?).await?;
    }
    Ok(())
}
