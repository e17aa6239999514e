// SPDX-License-Identifier: Apache-2.0
//! What critest did, read from the JSON report of its test framework (`--ginkgo.json-report`).
//!
//! ```text
//! [ { SuiteConfig.RandomSeed, SpecialSuiteFailureReasons: [text],
//!     SpecReports: [ { LeafNodeType, ContainerHierarchyTexts: [text], LeafNodeText, State,
//!                      Failure: { Message, Location: { FileName, LineNumber } } } ] } ]
//! ```

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) specs: Vec<Spec>,
    /// What went wrong outside any spec.
    pub(crate) problems: Vec<String>,
    /// With it, the specs run in the same order again.
    pub(crate) seed: i64,
}

/// One spec.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) state: State,
}

/// How a spec ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Passed,
    /// By itself, with its reason.
    Skipped(String),
    /// It was not to run.
    LeftOut,
    /// With what it says, and where.
    Failed(String),
}

// === impl Report ===

impl Report {
    /// Reads the file.
    ///
    /// # Errors
    /// When there is none (critest died) or it is not such a report.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path)
            .with_context(|| format!("critest left no report {}: it died", path.display()))?;
        let value: Value =
            serde_json::from_slice(&text).with_context(|| format!("parse {}", path.display()))?;
        Self::of(&value).with_context(|| format!("{} is no report of critest", path.display()))
    }

    fn of(value: &Value) -> Result<Self> {
        let [suite] = value.as_array().map(Vec::as_slice).unwrap_or_default() else {
            bail!("not a list of one suite");
        };
        let mut report = Self {
            seed: suite["SuiteConfig"]["RandomSeed"].as_i64().unwrap_or_default(),
            problems: texts(&suite["SpecialSuiteFailureReasons"]),
            ..Self::default()
        };
        for node in suite["SpecReports"].as_array().context("no SpecReports")? {
            let state = state(node)?;
            let mut words = texts(&node["ContainerHierarchyTexts"]);
            words.push(text(&node["LeafNodeText"]));
            let name = words.join(" ");
            // Others are what runs before and after all specs; they are news only when they fail.
            match (node["LeafNodeType"] == "It", state) {
                (true, state) => report.specs.push(Spec { name, state }),
                (false, State::Failed(message)) => {
                    report.problems.push(format!("{}: {message}", text(&node["LeafNodeType"])));
                }
                (false, _) => {}
            }
        }
        Ok(report)
    }
}

fn state(node: &Value) -> Result<State> {
    let message = text(&node["Failure"]["Message"]);
    Ok(match node["State"].as_str() {
        Some("passed") => State::Passed,
        Some("skipped") if message.is_empty() => State::LeftOut,
        Some("skipped") => State::Skipped(message),
        Some(word @ ("failed" | "panicked" | "interrupted" | "aborted" | "timedout" | "pending")) => {
            let place = &node["Failure"]["Location"];
            let file = text(&place["FileName"]);
            let file = file.rsplit('/').next().unwrap_or_default();
            let line = place["LineNumber"].as_i64().unwrap_or_default();
            State::Failed(format!("{word} at {file}:{line}: {}", message.trim()))
        }
        other => bail!("a spec with state {other:?}"),
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn specs_are_told_apart_by_how_they_ended() {
        let spec = |state: &str, message: &str| {
            json!({ "LeafNodeType": "It", "ContainerHierarchyTexts": ["[k8s.io] A", "b"], "LeafNodeText": "c",
                    "State": state, "Failure": { "Message": message, "Location": { "FileName": "/x/a.go", "LineNumber": 7 } } })
        };
        let report = Report::of(&json!([{
            "SuiteConfig": { "RandomSeed": 42 },
            "SpecialSuiteFailureReasons": ["suite timed out"],
            "SpecReports": [
                spec("passed", ""), spec("skipped", ""), spec("skipped", "no AppArmor"), spec("failed", "boom\n"),
                { "LeafNodeType": "BeforeSuite", "State": "passed" },
                { "LeafNodeType": "BeforeSuite", "State": "panicked", "Failure": { "Message": "no socket" } },
            ],
        }]))
        .unwrap();
        assert_eq!(report.seed, 42);
        assert_eq!(report.problems, ["suite timed out", "BeforeSuite: panicked at :0: no socket"]);
        assert!(report.specs.iter().all(|spec| spec.name == "[k8s.io] A b c"));
        let states: Vec<_> = report.specs.into_iter().map(|spec| spec.state).collect();
        let failed = State::Failed("failed at a.go:7: boom".to_owned());
        assert_eq!(states, [State::Passed, State::LeftOut, State::Skipped("no AppArmor".to_owned()), failed]);
    }

    #[test]
    fn something_else_is_refused() {
        for value in [json!([]), json!({}), json!([{}]), json!([{ "SpecReports": [{ "State": "odd" }] }])] {
            assert!(Report::of(&value).is_err(), "{value}");
        }
    }
}
