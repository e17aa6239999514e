// SPDX-License-Identifier: Apache-2.0
//! The commands that an operator types, on a daemon under test.

use std::process::Command;
use std::time::Duration;

use crate::{Daemon, census, eventually};

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Standard output as a document.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Daemon {
    /// Runs `hull WORDS --config FILE` where the daemon runs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn hull(&self, words: &[&str]) -> Said {
        let hull = self.program();
        let mut command = match self.net() {
            Some(net) => net.command(&hull),
            None => Command::new(&hull),
        };
        command.args(words).arg("--config").arg(self.config_file());
        command
            .env_remove("HULL_FAILPOINTS")
            .env_remove("HULL_FAILPOINTS_TRACE")
            .env(census::MARK, self.dir());
        let mut command = tokio::process::Command::from(command);
        let output = command.kill_on_drop(true).output().await.expect("run hull");
        Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What could not be undone at once has been by the end of this time: `hull check` finds nothing, and nothing is left.
    ///
    /// # Panics
    /// When something is.
    pub async fn assert_clean(&self, within: Duration) {
        eventually(within, "nothing is found", async || match self.check().await {
            found if found.is_empty() => Ok(()),
            found => Err(found.join("; ")),
        })
        .await;
        self.assert_nothing_left().await;
    }

    /// What `hull check` finds.
    ///
    /// # Panics
    /// When it cannot look.
    pub async fn check(&self) -> Vec<String> {
        let said = self.hull(&["check", "--json"]).await;
        assert!(matches!(said.code, Some(0 | 1)), "{said:?}");
        let findings = said.json().as_array().cloned().unwrap_or_default();
        let shown = |it: &serde_json::Value| {
            format!("{} {}: {}", word(it, "kind"), word(it, "what"), word(it, "reason"))
        };
        let shown: Vec<String> = findings.iter().map(shown).collect();
        assert_eq!(
            shown.is_empty(),
            said.code == Some(0),
            "the exit code says whether something was found: {said:?}"
        );
        shown
    }
}

fn word<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
