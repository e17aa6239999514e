// SPDX-License-Identifier: Apache-2.0
//! Probes of each kind, good and bad.

use serde_json::{Value, json};

use super::super::node::Node;
use super::{SLEEP, Scenario, shell};

const SERVES: &str = "mkdir -p /www && echo fine > /www/index.html && httpd -f -p 8080 -h /www";

fn probe(kind: &str, what: &Value, more: Value) -> Value {
    let mut probe = json!({ kind: what, "periodSeconds": 1, "timeoutSeconds": 5 });
    if let (Some(probe), Some(more)) = (probe.as_object_mut(), more.as_object()) {
        probe.extend(more.clone());
    }
    probe
}

fn one(container: Value) -> Value {
    json!({ "containers": [container] })
}

pub(super) fn all(node: &Node) -> Vec<Scenario> {
    let exec = |words: &[&str]| json!({ "command": words });
    let http = json!({ "path": "/", "port": 8080 });
    let tcp = json!({ "port": 8080 });
    let grpc = json!({ "port": 2379 });
    let quick = json!({ "failureThreshold": 1 });
    let mut all = vec![
        Scenario::new(
            "probe-ready-exec",
            one(shell(
                &format!("touch /tmp/ready; {SLEEP}"),
                json!({ "readinessProbe": probe("exec", &exec(&["cat", "/tmp/ready"]), json!({})) }),
            )),
            |pod| pod.is_ready(),
        ),
        Scenario::new(
            "probe-ready-http",
            one(shell(SERVES, json!({ "readinessProbe": probe("httpGet", &http, json!({})) }))),
            |pod| pod.is_ready(),
        ),
        Scenario::new(
            "probe-ready-tcp",
            one(shell(SERVES, json!({ "readinessProbe": probe("tcpSocket", &tcp, json!({})) }))),
            |pod| pod.is_ready(),
        ),
        Scenario::new(
            "probe-never-ready",
            one(shell(SLEEP, json!({ "readinessProbe": probe("exec", &exec(&["false"]), json!({})) }))),
            |pod| pod.main().is_running() && !pod.is_ready(),
        ),
        Scenario::new(
            "probe-live-exec",
            one(shell(
                &format!("touch /tmp/alive; (sleep 4; rm /tmp/alive) & {SLEEP}"),
                json!({ "livenessProbe": probe("exec", &exec(&["cat", "/tmp/alive"]), quick.clone()) }),
            )),
            |pod| pod.main().restarts() >= 1 && pod.main().ended("Completed", 0),
        ),
        Scenario::new(
            "probe-live-http",
            one(shell(
                &format!("(sleep 4; rm /www/index.html) & {SERVES}"),
                json!({ "livenessProbe": probe("httpGet", &http, json!({ "failureThreshold": 1, "initialDelaySeconds": 2 })) }),
            )),
            |pod| pod.main().restarts() >= 1,
        ),
        Scenario::new(
            "probe-live-tcp",
            one(shell(SLEEP, json!({ "livenessProbe": probe("tcpSocket", &tcp, quick.clone()) }))),
            |pod| pod.main().restarts() >= 1,
        ),
        Scenario::new(
            "probe-startup",
            one(shell(
                &format!("sleep 3; touch /tmp/up; {SLEEP}"),
                json!({
                    "startupProbe": probe("exec", &exec(&["cat", "/tmp/up"]), json!({ "failureThreshold": 30 })),
                    "livenessProbe": probe("exec", &exec(&["cat", "/tmp/up"]), quick.clone()),
                    "readinessProbe": probe("exec", &exec(&["true"]), json!({})),
                }),
            )),
            |pod| pod.is_ready() && pod.main().restarts() == 0 && pod.main().field("started") == true,
        ),
        Scenario::new(
            "probe-startup-fails",
            one(shell(
                SLEEP,
                json!({ "startupProbe": probe("exec", &exec(&["false"]), json!({ "failureThreshold": 2 })) }),
            )),
            |pod| pod.main().restarts() >= 1,
        ),
        Scenario::new(
            "probe-exec-times-out",
            one(shell(
                SLEEP,
                json!({ "livenessProbe": { "exec": { "command": ["sleep", "30"] }, "periodSeconds": 1,
                                           "timeoutSeconds": 1, "failureThreshold": 1 } }),
            )),
            |pod| pod.main().restarts() >= 1,
        ),
    ];
    // etcd serves the health service of gRPC; it is a static program, mounted from the node.
    let serves = json!({
        "command": ["/node/etcd", "--data-dir=/tmp/etcd", "--listen-client-urls=http://0.0.0.0:2379",
                    "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380"],
        "volumeMounts": [{ "name": "etcd", "mountPath": "/node/etcd", "readOnly": true }],
        "readinessProbe": probe("grpc", &grpc, json!({})),
    });
    let volumes = json!([{ "name": "etcd", "hostPath": { "path": node.etcd(), "type": "File" } }]);
    let mut spec = one(shell("", serves));
    spec["volumes"] = volumes;
    all.push(Scenario::new("probe-ready-grpc", spec, |pod| pod.is_ready()));
    all.push(Scenario::new(
        "probe-live-grpc",
        one(shell(SLEEP, json!({ "livenessProbe": probe("grpc", &grpc, quick) }))),
        |pod| pod.main().restarts() >= 1,
    ));
    all
}
