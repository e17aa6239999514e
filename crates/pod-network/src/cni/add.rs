// SPDX-License-Identifier: Apache-2.0
//! ADD: the chain in order, each plugin with the result of the one before.

use std::time::Duration;

use hull_failpoint::failpoint_async;
use serde_json::value::RawValue;

use super::conf::{get, object};
use super::invoke::{Deadline, Invoker, Verb, failed};
use super::result::CniResult;
use super::target::{Target, insert, utf8};
use crate::{Error, Result};

/// What the last plugin of the chain answered.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) raw: Box<RawValue>,
    pub(super) result: CniResult,
}

/// Runs the chain. On error the caller releases the whole.
pub(super) async fn add(invoker: &Invoker, target: &Target, limit: Duration) -> Result<Added> {
    let _turn = invoker.turn(Verb::Add).await?;
    let deadline = Deadline::after(limit);
    let (netns, args) = (utf8(&target.netns), target.arguments());
    let mut last: Option<Added> = None;
    for plugin in &target.list.plugins {
        let network = &target.list.name;
        failpoint_async!("cni.add.plugin")
            .map_err(|e| failed(network, &plugin.kind, Verb::Add, None, e.to_string()))?;
        let previous = last.as_ref().map(|added| &*added.raw);
        let call = target.call(plugin, Verb::Add, (netns, &args), previous, deadline)?;
        let answer = invoker.run(call).await?;
        let added = read(target, &answer)
            .map_err(|problem| failed(network, &plugin.kind, Verb::Add, None, problem))?;
        last = Some(added);
    }
    match last {
        Some(added) if !added.result.pod_ips().is_empty() => Ok(added),
        _ => {
            let kind = target.list.plugins.last().map_or("", |plugin| &plugin.kind);
            let problem = "its result has no address for the pod".to_owned();
            Err(failed(&target.list.name, kind, Verb::Add, None, problem))
        }
    }
}

/// Reads an answer and makes sure that it says its version: the next plugin needs it.
fn read(target: &Target, answer: &[u8]) -> std::result::Result<Added, String> {
    if answer.iter().all(u8::is_ascii_whitespace) {
        return Err("it succeeded without a result".to_owned());
    }
    let unusable = |problem: String| format!("its result cannot be used: {problem}");
    let result = CniResult::parse(answer, target.list.version).map_err(unusable)?;
    let mut object = object(answer).map_err(unusable)?;
    if get::<String>(&object, "cniVersion").map_err(unusable)?.is_none_or(|text| text.is_empty()) {
        insert(&mut object, "cniVersion", target.list.version.as_str())
            .map_err(|e: Error| unusable(e.to_string()))?;
    }
    let raw = serde_json::value::to_raw_value(&object).map_err(|e| unusable(e.to_string()))?;
    Ok(Added { raw, result })
}
