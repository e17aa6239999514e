// SPDX-License-Identifier: Apache-2.0
//! A chain of CNI plugins, as recorded, each with the result of the one before (CNI spec 1.1, section 3).

use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{command, millis};
use crate::bench::plan::{Call, Plan, Swap};
use crate::run;

/// The result of the last plugin, and the time that all took.
pub(super) fn add(plan: &Plan, swap: &Swap) -> Result<(Value, f64)> {
    let (mut result, mut total) = (Value::Null, 0.0);
    for call in &plan.add {
        let (answer, time) = plugin(plan, call, swap, &result)?;
        result = serde_json::from_slice(&answer)
            .with_context(|| format!("{} answers with something else than JSON", call.program))?;
        total += time;
    }
    Ok((result, total))
}

/// Each plugin is told the result of the whole ADD.
pub(super) fn del(plan: &Plan, swap: &Swap, result: &Value) -> Result<f64> {
    let mut total = 0.0;
    for call in &plan.del {
        total += plugin(plan, call, swap, result)?.1;
    }
    Ok(total)
}

fn plugin(plan: &Plan, call: &Call, swap: &Swap, previous: &Value) -> Result<(Vec<u8>, f64)> {
    let mut document: Value = serde_json::from_str(&swap.apply(&call.stdin))
        .with_context(|| format!("the recorded document for {}", call.program))?;
    if let Some(place) = document.get_mut("prevResult") {
        *place = previous.clone();
    }
    let document = document.to_string();
    let mut command = command(plan, call, swap)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let text = run::shown(&command);
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("start {text}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(document.as_bytes()).with_context(|| format!("write to {text}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("wait for {text}"))?;
    let time = millis(begun);
    if !output.status.success() {
        bail!("{text}: {}: {}", output.status, String::from_utf8_lossy(&output.stdout).trim());
    }
    Ok((output.stdout, time))
}
