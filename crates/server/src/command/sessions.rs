// SPDX-License-Identifier: Apache-2.0
//! `hull sessions` and `hull sessions kill`.

use anyhow::Result;
use hull_admin_api::v1::{KillSessionRequest, ListSessionsRequest, Session};

use super::client::{self, time};
use super::ops::columns;
use super::{print, say, say_json};
use crate::arguments::Where;

/// How much of a target's id is shown, as `crictl` does.
const ID: usize = 13;
/// How much of a command is shown.
const COMMAND: usize = 80;

/// Prints who is connected to what.
pub(crate) fn list(place: &Where, json: bool) -> Result<()> {
    let sessions = client::block_on(async {
        let answer = client::need(place).await?.list_sessions(ListSessionsRequest {}).await;
        Ok(answer.map_err(|status| client::said(&status))?.into_inner().sessions)
    })?;
    if json {
        return say_json(&sessions.iter().map(document).collect());
    }
    if sessions.is_empty() {
        return say("nobody is connected");
    }
    print(&table(&sessions))
}

/// Ends one.
pub(crate) fn kill(place: &Where, id: u64) -> Result<()> {
    client::block_on(async {
        let answer = client::need(place).await?.kill_session(KillSessionRequest { id }).await;
        answer.map(drop).map_err(|status| client::said(&status))
    })?;
    say(&format!("session {id} is being ended"))
}

fn table(sessions: &[Session]) -> String {
    let head = ["ID", "KIND", "TARGET", "CLIENT", "TRANSPORT", "AGE", "IN", "OUT", "STATE", "COMMAND"];
    let mut lines = vec![head.map(str::to_owned)];
    for it in sessions {
        lines.push([
            it.id.to_string(),
            it.kind.clone(),
            it.target.chars().take(ID).collect(),
            it.client.clone(),
            it.transport.clone(),
            time(it.age_ms),
            it.bytes_in.to_string(),
            it.bytes_out.to_string(),
            if it.ending.is_empty() { "alive".to_owned() } else { it.ending.clone() },
            shortened(&it.command),
        ]);
    }
    columns(&lines)
}

/// The beginning of a command.
fn shortened(command: &[String]) -> String {
    let text = command.join(" ");
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn document(it: &Session) -> serde_json::Value {
    serde_json::json!({
        "id": it.id,
        "kind": it.kind,
        "target": it.target,
        "command": it.command,
        "client": it.client,
        "transport": it.transport,
        "ageMs": it.age_ms,
        "bytesIn": it.bytes_in,
        "bytesOut": it.bytes_out,
        "ending": it.ending,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_in_columns() {
        let session = Session {
            id: 7,
            kind: "exec".into(),
            target: "0123456789abcdef".into(),
            command: vec!["sh".into(), "-c".into(), "a\nb\u{1b}[2J".into()],
            client: "127.0.0.1:5".into(),
            transport: "spdy".into(),
            age_ms: 65_000,
            bytes_in: 3,
            bytes_out: 12345,
            ending: String::new(),
        };
        let killed =
            Session { id: 12, ending: "killed".into(), command: vec!["x".repeat(99)], ..session.clone() };
        let long = format!("{}...", "x".repeat(80));
        let expected = format!(
            "\
ID  KIND  TARGET         CLIENT       TRANSPORT  AGE    IN  OUT    STATE   COMMAND
7   exec  0123456789abc  127.0.0.1:5  spdy       1m05s  3   12345  alive   sh -c a\\nb\\u{{1b}}[2J
12  exec  0123456789abc  127.0.0.1:5  spdy       1m05s  3   12345  killed  {long}"
        );
        assert_eq!(table(&[session, killed]), expected);
    }
}
