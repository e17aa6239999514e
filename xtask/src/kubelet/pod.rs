// SPDX-License-Identifier: Apache-2.0
//! What the API server says of a pod.

use serde_json::Value;

/// A pod as a JSON object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pod<'a>(pub(super) &'a Value);

/// The status of one of its containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a>(&'a Value);

// === impl Pod ===

impl<'a> Pod<'a> {
    pub(super) fn is(self, phase: &str) -> bool {
        self.0["status"]["phase"] == phase
    }

    pub(super) fn condition(self, kind: &str) -> bool {
        let conditions = self.0["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|it| it["type"] == kind && it["status"] == "True"))
    }

    pub(super) fn is_ready(self) -> bool {
        self.condition("Ready")
    }

    /// The container, init container or ephemeral container of this name.
    pub(super) fn container(self, name: &str) -> Container<'a> {
        let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        let all = lists.into_iter().filter_map(|list| self.0["status"][list].as_array()).flatten();
        Container(all.into_iter().find(|it| it["name"] == name).unwrap_or(&Value::Null))
    }

    pub(super) fn main(self) -> Container<'a> {
        self.container("main")
    }
}

// === impl Container ===

impl<'a> Container<'a> {
    pub(super) fn id(self) -> &'a str {
        self.0["containerID"].as_str().unwrap_or_default()
    }

    pub(super) fn restarts(self) -> u64 {
        self.0["restartCount"].as_u64().unwrap_or_default()
    }

    pub(super) fn is_running(self) -> bool {
        self.0["state"]["running"].is_object()
    }

    pub(super) fn waits_for(self, reason: &str) -> bool {
        self.0["state"]["waiting"]["reason"] == reason
    }

    /// Whether it has ended so; the last time that it has, when it runs again or waits.
    pub(super) fn ended(self, reason: &str, code: i64) -> bool {
        let so = |state: &Value| state["reason"] == reason && state["exitCode"] == code;
        so(&self.0["state"]["terminated"]) || so(&self.0["lastState"]["terminated"])
    }

    /// The message of its end.
    pub(super) fn message(self) -> &'a str {
        let now = self.0["state"]["terminated"]["message"].as_str();
        now.or_else(|| self.0["lastState"]["terminated"]["message"].as_str()).unwrap_or_default()
    }

    pub(super) fn field(self, name: &str) -> &'a Value {
        &self.0[name]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_read() {
        let value = json!({ "status": { "phase": "Failed",
            "conditions": [{ "type": "Ready", "status": "False" }],
            "containerStatuses": [{ "name": "main", "restartCount": 2, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "reason": "Error", "exitCode": 3, "message": "gone" } } }] } });
        let pod = Pod(&value);
        assert!(pod.is("Failed") && !pod.is_ready());
        let main = pod.main();
        assert!(main.ended("Error", 3) && !main.ended("Error", 4) && main.waits_for("CrashLoopBackOff"));
        assert_eq!((main.restarts(), main.message()), (2, "gone"));
        assert!(!pod.container("other").is_running());
    }
}
