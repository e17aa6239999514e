// SPDX-License-Identifier: Apache-2.0
//! `hull ops` and `hull ops cancel`.

use anyhow::Result;
use hull_admin_api::v1::{CancelOperationRequest, ListOperationsRequest, Operation};

use super::client::{self, time};
use super::{print, say, say_json};
use crate::arguments::Where;

/// How much of an id is shown, as `crictl` does.
const ID: usize = 13;

/// Prints what the daemon does now.
pub(crate) fn list(place: &Where, json: bool) -> Result<()> {
    let operations = client::block_on(async {
        let answer = client::need(place).await?.list_operations(ListOperationsRequest {}).await;
        Ok(answer.map_err(|status| client::said(&status))?.into_inner().operations)
    })?;
    if json {
        return say_json(&operations.iter().map(document).collect());
    }
    if operations.is_empty() {
        return say("nothing runs");
    }
    print(&table(&operations))
}

/// Cancels one.
pub(crate) fn cancel(place: &Where, key: &str) -> Result<()> {
    let cancelled = client::block_on(async {
        let request = CancelOperationRequest { key: key.to_owned() };
        let answer = client::need(place).await?.cancel_operation(request).await;
        Ok(answer.map_err(|status| client::said(&status))?.into_inner().operation)
    })?;
    let cancelled = cancelled.unwrap_or_default();
    say(&format!("cancelled {} of {}; what it made is being undone", cancelled.kind, cancelled.key))
}

fn table(operations: &[Operation]) -> String {
    let mut lines =
        vec![["OPERATION", "ID", "KEY", "STAGE", "AGE", "CALLERS", "WAITING FOR"].map(str::to_owned)];
    for it in operations {
        let stage = match (it.stage.as_str(), it.stage_deadline_ms) {
            ("", _) => "-".to_owned(),
            (stage, 0) => format!("{stage} ({})", time(it.stage_age_ms)),
            (stage, deadline) => format!("{stage} ({} of {})", time(it.stage_age_ms), time(deadline)),
        };
        let undone = if it.cancelled { "its undo: it was cancelled; " } else { "" };
        lines.push([
            it.kind.clone(),
            it.id.chars().take(ID).collect(),
            it.key.clone(),
            stage,
            time(it.age_ms),
            match it.caller_pid {
                0 => it.callers.to_string(),
                pid => format!("process {pid}"),
            },
            format!("{undone}{}", it.waiting_for),
        ]);
    }
    columns(&lines)
}

/// Widest column: one huge cell must not be paid for in spaces by all others.
const WIDEST: usize = 120;

/// Rows under each other, their cells escaped.
pub(super) fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let escaped = |line: &[String; N]| line.each_ref().map(|cell| hull_escape::escape(cell).into_owned());
    let lines: Vec<[String; N]> = lines.iter().map(escaped).collect();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0).min(WIDEST);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let row = |line: &[String; N]| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn document(it: &Operation) -> serde_json::Value {
    serde_json::json!({
        "operation": it.kind,
        "key": it.key,
        "id": it.id,
        "stage": it.stage,
        "waitingFor": it.waiting_for,
        "ageMs": it.age_ms,
        "stageAgeMs": it.stage_age_ms,
        "stageDeadlineMs": it.stage_deadline_ms,
        "callers": it.callers,
        "cancelled": it.cancelled,
        "cancellable": it.cancellable,
        "callerPid": it.caller_pid,
    })
}
