// SPDX-License-Identifier: Apache-2.0
//! How containers begin and end: hooks, init containers, sidecars, exit codes, termination messages, failed starts.

use serde_json::json;

use super::{SLEEP, Scenario, named, once, shell, succeeded};

pub(super) fn all() -> Vec<Scenario> {
    let mut all = hooks();
    all.extend(sidecars());
    all.extend(ends());
    all.extend(failed_starts());
    all
}

fn hooks() -> Vec<Scenario> {
    let command = |script: &str| json!({ "exec": { "command": ["sh", "-c", script] } });
    vec![
        Scenario::new(
            "hook-post-start",
            once(
                "Never",
                shell(
                    "while [ ! -f /tmp/hook ]; do sleep 0.1; done",
                    json!({ "lifecycle": { "postStart": command("touch /tmp/hook") } }),
                ),
            ),
            succeeded,
        ),
        Scenario::new(
            "hook-post-start-fails",
            once("Never", shell(SLEEP, json!({ "lifecycle": { "postStart": command("echo no; exit 4") } }))),
            |pod| pod.is("Failed") || pod.is("Succeeded"),
        ),
        Scenario::new(
            "hook-pre-stop",
            json!({ "containers": [shell(SLEEP, json!({ "lifecycle": {
                "preStop": command("echo stopped > /tmp/x; sleep 1") } }))] }),
            |pod| pod.is_ready(),
        ),
        Scenario::new(
            "hook-pre-stop-sleep",
            json!({ "terminationGracePeriodSeconds": 5, "containers": [
                shell(SLEEP, json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 2 } } } }))] }),
            |pod| pod.is_ready(),
        ),
    ]
}

fn sidecars() -> Vec<Scenario> {
    let shared = json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] });
    let volumes = json!([{ "name": "shared", "emptyDir": {} }]);
    let sidecar = |script: &str, probe: serde_json::Value| {
        let mut more = shared.clone();
        more["restartPolicy"] = json!("Always");
        if !probe.is_null() {
            more["startupProbe"] = probe;
        }
        named("side", script, more)
    };
    vec![
        Scenario::new(
            "init-in-order",
            json!({ "restartPolicy": "Never", "volumes": volumes.clone(),
                "initContainers": [
                    named("first", "echo 1 >> /shared/order", shared.clone()),
                    named("second", "echo 2 >> /shared/order", shared.clone())],
                "containers": [shell("[ \"$(cat /shared/order | tr '\\n' .)\" = 1.2. ]", shared.clone())] }),
            succeeded,
        ),
        Scenario::new(
            "init-fails",
            json!({ "restartPolicy": "Never", "initContainers": [named("first", "exit 7", json!({}))],
                "containers": [shell(SLEEP, json!({}))] }),
            |pod| {
                pod.is("Failed")
                    && pod.container("first").ended("Error", 7)
                    && pod.main().waits_for("PodInitializing")
            },
        ),
        Scenario::new(
            "init-retried",
            json!({ "volumes": volumes.clone(),
                "initContainers": [named("first", "[ -f /shared/once ] || { touch /shared/once; exit 1; }", shared.clone())],
                "containers": [shell(SLEEP, json!({}))] }),
            |pod| pod.is_ready() && pod.container("first").restarts() >= 1,
        ),
        Scenario::new(
            "sidecar",
            json!({ "restartPolicy": "Never", "volumes": volumes.clone(),
                "initContainers": [sidecar(&format!("echo up > /shared/side; {SLEEP}"), serde_json::Value::Null)],
                "containers": [shell("while [ ! -f /shared/side ]; do sleep 0.1; done", shared.clone())] }),
            |pod| succeeded(pod) && !pod.container("side").is_running(),
        ),
        Scenario::new(
            "sidecar-startup-probe",
            json!({ "volumes": volumes,
                "initContainers": [sidecar(&format!("sleep 2; touch /shared/up; {SLEEP}"),
                    json!({ "exec": { "command": ["cat", "/shared/up"] }, "periodSeconds": 1, "failureThreshold": 30 }))],
                "containers": [shell(&format!("[ -f /shared/up ] || exit 1; {SLEEP}"), shared)] }),
            |pod| pod.is_ready() && pod.main().restarts() == 0 && pod.container("side").is_running(),
        ),
        Scenario::new(
            "sidecar-restarts",
            json!({ "initContainers": [named("side", "sleep 2; exit 1", json!({ "restartPolicy": "Always" }))],
                "containers": [shell(SLEEP, json!({}))] }),
            |pod| pod.container("side").restarts() >= 1 && pod.main().is_running(),
        ),
    ]
}

fn ends() -> Vec<Scenario> {
    let limits = json!({ "resources": { "limits": { "memory": "24Mi" } } });
    vec![
        Scenario::new("end-well", once("Never", shell("exit 0", json!({}))), succeeded),
        Scenario::new("end-code", once("Never", shell("exit 3", json!({}))), |pod| {
            pod.is("Failed") && pod.main().ended("Error", 3)
        }),
        Scenario::new("end-retried", once("OnFailure", shell("exit 1", json!({}))), |pod| {
            pod.main().restarts() >= 2 && pod.main().ended("Error", 1)
        }),
        Scenario::new("end-crash-loop", once("Always", shell("exit 0", json!({}))), |pod| {
            pod.main().waits_for("CrashLoopBackOff") && pod.main().ended("Completed", 0)
        }),
        Scenario::new("end-signal", once("Never", shell("kill -9 $$; sleep 1; exit 1", json!({}))), |pod| {
            // The first process of a pid namespace is out of its own reach: it ends by itself.
            pod.is("Failed") && pod.main().ended("Error", 1)
        }),
        Scenario::new(
            "end-out-of-memory",
            once("Never", shell("exec dd if=/dev/zero of=/dev/null bs=64M count=100", limits)),
            |pod| pod.is("Failed") && pod.main().ended("OOMKilled", 137),
        ),
        Scenario::new(
            "message-file",
            once("Never", shell("echo -n the reason > /dev/termination-log; exit 2", json!({}))),
            |pod| pod.main().ended("Error", 2) && pod.main().message() == "the reason",
        ),
        Scenario::new(
            "message-own-path",
            once("Never", shell("echo -n here > /tmp/why", json!({ "terminationMessagePath": "/tmp/why" }))),
            |pod| succeeded(pod) && pod.main().message() == "here",
        ),
        Scenario::new(
            "message-from-log",
            once(
                "Never",
                shell(
                    "echo last words; exit 5",
                    json!({ "terminationMessagePolicy": "FallbackToLogsOnError" }),
                ),
            ),
            |pod| pod.main().ended("Error", 5) && pod.main().message() == "last words\n",
        ),
        Scenario::new(
            "deadline",
            json!({ "restartPolicy": "Never", "activeDeadlineSeconds": 5, "containers": [shell(SLEEP, json!({}))] }),
            |pod| pod.is("Failed"),
        ),
    ]
}

fn failed_starts() -> Vec<Scenario> {
    let direct = |words: &[&str]| json!({ "command": words });
    vec![
        Scenario::new("command-missing", once("Never", shell("", direct(&["/no/such/program"]))), |pod| {
            pod.is("Failed") && pod.main().ended("StartError", 128)
        }),
        Scenario::new("command-not-executable", once("Never", shell("", direct(&["/etc/passwd"]))), |pod| {
            pod.is("Failed") && pod.main().ended("StartError", 128)
        }),
        Scenario::new(
            "command-missing-always",
            once("Always", shell("", direct(&["no-such-program"]))),
            |pod| pod.main().restarts() >= 1 && pod.main().ended("StartError", 128),
        ),
        Scenario::new(
            "image-missing",
            once("Never", shell("", json!({ "image": "registry.k8s.io/no/such:1" }))),
            |pod| pod.main().waits_for("ImagePullBackOff") || pod.main().waits_for("ErrImagePull"),
        ),
    ]
}
