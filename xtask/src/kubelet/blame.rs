// SPDX-License-Identifier: Apache-2.0
//! Lines of the kubelet's log that blame the runtime.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Scenarios that are meant to fail in the runtime, by what stands in the lines about them, and the reason.
const EXPECTED: [(&str, &str); 14] = [
    (r#"cmd=["sleep","30"]"#, "the probe's command outlives its timeout"),
    ("command-missing", "the command is not in the image"),
    ("command-not-executable", "the command is no program"),
    ("image-missing", "the registry has no such image"),
    ("no/such:1", "the registry has no such image"),
    ("probe-exec-times-out", "the probe's command outlives its timeout"),
    ("connection refused", "the runtime was killed"),
    ("error reading from server: EOF", "the runtime was killed"),
    ("no-such-program", "the command is not in the image"),
    ("connection reset by peer", "the runtime was killed"),
    ("desc = container", "the kubelet asks for a container that it has just removed itself"),
    ("not running but exited", "a probe meets a container that has just ended"),
    ("cannot exec in a stopped container", "a probe meets a container that has just ended"),
    ("lost", "the pod's network namespace was taken away"),
];

/// Every line at warning or error level that blames the runtime without a reason, counted by its beginning.
pub(super) fn search(log: &Path) -> Result<Vec<String>> {
    let text = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines().filter(|line| blames(line)) {
        // After the time, the thread and the place: what happened.
        let what = line.split_once("] ").map_or(line, |(_, what)| what);
        *found.entry(without_ids(what).chars().take(400).collect()).or_default() += 1;
    }
    Ok(found.into_iter().map(|(line, count)| format!("the kubelet says {count} times: {line}")).collect())
}

fn blames(line: &str) -> bool {
    let level = line.starts_with('E') || line.starts_with('W');
    let words = ["from runtime service failed", "from image service failed", "rpc error", "runtime service"];
    level
        && words.iter().any(|word| line.contains(word))
        && !EXPECTED.iter().any(|(part, _)| line.contains(part))
}

/// The text with ids of pods and containers left out: what happened to many is one finding.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if is_id(bare) { word.replace(bare, "ID") } else { word.to_owned() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_left_out() {
        let id = "0f".repeat(32);
        let text = format!("container \"{id}\" not found: {id}");
        assert_eq!(without_ids(&text), "container \"ID\" not found: ID");
    }

    #[test]
    fn only_lines_without_a_reason_blame() {
        assert!(blames(
            r#"E1201 15:00:00.1 7 log.go:32] "StartContainer from runtime service failed" err="rpc error"#
        ));
        assert!(!blames(r#"I1201 15:00:00.1 7 log.go:32] "rpc error""#));
        assert!(!blames(r#"E1201 15:00:00.1 7 x.go:1] "rpc error" pod="default/command-missing""#));
        assert!(!blames(r#"E1201 15:00:00.1 7 x.go:1] "nothing to do with it""#));
    }
}
