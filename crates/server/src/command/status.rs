// SPDX-License-Identifier: Apache-2.0
//! `hull status`: how the daemon is, and what it could not give back.

use std::fmt::Write;

use anyhow::Result;
use hull_admin_api::v1::{StatusRequest, StatusResponse};

use super::client::{self, time};
use super::{print, say_json};
use crate::arguments::Where;

/// Prints it.
pub(crate) fn status(place: &Where, json: bool) -> Result<()> {
    let status = client::block_on(async {
        let answer = client::need(place).await?.status(StatusRequest {}).await;
        Ok(answer.map_err(|status| client::said(&status))?.into_inner())
    })?;
    if json { say_json(&document(&status)) } else { print(text(&status).trim_end()) }
}

fn text(status: &StatusResponse) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12}{}", hull_escape::escape(&value));
    };
    line("hull", format!("{}, process {}, up {}", status.version, status.pid, time(status.uptime_ms)));
    line("root", format!("{} and {}", status.root, status.run_root));
    for handler in &status.handlers {
        let default = if handler.is_default { " (default)" } else { "" };
        let path = if handler.path.is_empty() { "mock" } else { &handler.path };
        line("handler", format!("{} {path}{default}", handler.name));
    }
    let network = status.network.clone().unwrap_or_default();
    let ready = if network.ready { "ready".to_owned() } else { format!("not ready: {}", network.message) };
    line("network", format!("{}, {ready}", network.backend));
    let counts = status.counts.unwrap_or_default();
    line("pods", format!("{}, {} ready", counts.sandboxes, counts.sandboxes_ready));
    line("containers", format!("{}, {} running", counts.containers, counts.containers_running));
    line(
        "monitors",
        match status.unmonitored.len() {
            0 => "every running container has its own".to_owned(),
            n => format!("{n} ended before their containers, whose output is lost: restart these"),
        },
    );
    for it in &status.unmonitored {
        line("", format!("{} {}: process {}, {} ago", it.id, it.name, it.monitor_pid, time(it.age_ms)));
    }
    line("images", counts.images.to_string());
    line("operations", counts.operations.to_string());
    if counts.recovering > 0 {
        line(
            "recovering",
            format!("{} of an earlier daemon; `hull ops` tells what they wait for", counts.recovering),
        );
    }
    line(
        "ledger",
        match status.ledger.len() {
            0 => "nothing is owed".to_owned(),
            n => format!("{n} not given back yet"),
        },
    );
    for owed in &status.ledger {
        let ports = match owed.host_ports.as_slice() {
            [] => String::new(),
            ports => format!(", holds host ports {}", ports.join(" ")),
        };
        line(
            "",
            format!(
                "{} {}: {} tries in {}, next in {}{ports}",
                owed.kind,
                owed.id,
                owed.tries,
                time(owed.age_ms),
                time(owed.next_ms)
            ),
        );
        line("", format!("  {}", owed.error));
    }
    line(
        "quarantine",
        match status.quarantine.len() {
            0 => "empty".to_owned(),
            n => format!("{n} records that cannot be read; `hull check` tells more"),
        },
    );
    for record in &status.quarantine {
        line("", format!("{}: {}", record.path, record.reason));
    }
    text
}

fn document(status: &StatusResponse) -> serde_json::Value {
    let network = status.network.clone().unwrap_or_default();
    let counts = status.counts.unwrap_or_default();
    serde_json::json!({
        "version": status.version,
        "pid": status.pid,
        "uptimeMs": status.uptime_ms,
        "root": status.root,
        "runRoot": status.run_root,
        "bootId": status.boot_id,
        "handlers": status.handlers.iter().map(|it| serde_json::json!({
            "name": it.name, "path": it.path, "default": it.is_default,
        })).collect::<Vec<_>>(),
        "network": { "backend": network.backend, "ready": network.ready, "message": network.message },
        "counts": {
            "sandboxes": counts.sandboxes, "sandboxesReady": counts.sandboxes_ready,
            "containers": counts.containers, "containersRunning": counts.containers_running,
            "images": counts.images, "operations": counts.operations, "recovering": counts.recovering,
        },
        "unmonitored": status.unmonitored.iter().map(|it| serde_json::json!({
            "id": it.id, "name": it.name, "monitorPid": it.monitor_pid, "ageMs": it.age_ms,
        })).collect::<Vec<_>>(),
        "ledger": status.ledger.iter().map(|it| serde_json::json!({
            "kind": it.kind, "id": it.id, "hostPorts": it.host_ports, "ageMs": it.age_ms,
            "tries": it.tries, "error": it.error, "nextMs": it.next_ms,
        })).collect::<Vec<_>>(),
        "quarantine": status.quarantine.iter().map(|it| serde_json::json!({
            "path": it.path, "reason": it.reason,
        })).collect::<Vec<_>>(),
    })
}
