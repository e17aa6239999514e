// SPDX-License-Identifier: Apache-2.0
//! A second client beside critest: two pods at a time are made, asked about and removed, from the suite's first
//! spec to its last, by `crictl-lite bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// One that critest does not remove.
const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// How long it may take to remove its last pods.
const PATIENCE: Duration = Duration::from_secs(120);

/// The client at work; killed when dropped.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    results: PathBuf,
}

// === impl Load ===

impl Load {
    /// Pulls the image and starts.
    ///
    /// # Errors
    /// When the image cannot be had, or the client does not start.
    pub(super) fn start(crictl_lite: &Path, dir: &Path, logs: &Path) -> Result<Self> {
        let endpoint = format!("unix://{}/hull.sock", dir.display());
        let client = || {
            let mut command = Command::new(crictl_lite);
            command.args(["--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint]);
            command
        };
        run::capture(client().args(["pull", IMAGE])).context("the second client's image")?;
        let results = logs.join("load.json");
        let log = logs.join("load.log");
        let file = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = client();
        command
            .args(["bench", "--reads", "--warmup=0", "--pods=100000", "--parallel=2", "--image", IMAGE])
            .arg(format!("--log-dir={}", dir.join("load").display()))
            .arg("--json")
            .arg(&results)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share a log")?)
            .stderr(file);
        let child = command.spawn().with_context(|| format!("start {}", run::shown(&command)))?;
        Ok(Self { child, results })
    }

    /// Lets it remove its pods and end; what went wrong for it.
    ///
    /// # Errors
    /// When it does not end, or tells nothing.
    pub(super) fn end(mut self) -> Result<Vec<String>> {
        if let Some(status) = self.child.try_wait().context("look after the second client")? {
            bail!("the second client ended before critest: {status}");
        }
        run::capture(Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]))?;
        if !run::wait_until(PATIENCE, || !matches!(self.child.try_wait(), Ok(None))) {
            bail!("the second client does not end within {PATIENCE:?} after SIGINT");
        }
        let text = fs::read(&self.results).with_context(|| format!("read {}", self.results.display()))?;
        let value = serde_json::from_slice(&text).context("parse the second client's results")?;
        let (pods, problems) = judged(&value);
        println!("\nbeside critest, a second client has run {pods} pods; {} problems", problems.len());
        Ok(problems)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How many pods lived their whole life, and what failed.
fn judged(value: &Value) -> (u64, Vec<String>) {
    let endpoint = &value["endpoints"][0];
    let pods = endpoint["pods"]["good"].as_u64().unwrap_or_default();
    let failures = endpoint["failures"].as_array().into_iter().flatten();
    let mut problems: Vec<String> = failures
        .map(|it| format!("the second client: {}: {}", text(&it["operation"]), text(&it["message"])))
        .collect();
    if pods == 0 {
        problems.push("the second client has run no pod".to_owned());
    }
    (pods, problems)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_that_did_nothing_is_no_load() {
        let results =
            |good, failures| json!({ "endpoints": [{ "pods": { "good": good }, "failures": failures }] });
        assert_eq!(judged(&results(7, json!([]))), (7, vec![]));
        assert_eq!(judged(&results(0, json!([]))).1.len(), 1);
        let failed = results(7, json!([{ "operation": "ExecSync", "message": "no" }]));
        assert_eq!(judged(&failed).1, ["the second client: ExecSync: no"]);
        assert_eq!(judged(&Value::Null).1.len(), 1);
    }
}
