// SPDX-License-Identifier: Apache-2.0
//! The scenarios: pods, and the state that each must reach.

mod lives;
mod probes;
mod settings;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::node::Node;
use super::pod::Pod;

/// What most containers are made of.
pub(super) const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// Seconds for all pods together to become what they should be.
const PATIENCE: Duration = Duration::from_secs(200);
/// Waits for a signal and ends well.
pub(super) const SLEEP: &str = "trap 'exit 0' TERM; sleep 100000 & wait";

/// A pod, and what it must become.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// The pod's `spec`, without what all have in common.
    spec: Value,
    annotations: Value,
    /// What must be there before: config maps, secrets.
    objects: Vec<Value>,
    reached: fn(&Pod<'_>) -> bool,
}

// === impl Scenario ===

impl Scenario {
    fn new(name: &'static str, spec: Value, reached: fn(&Pod<'_>) -> bool) -> Self {
        Self { name, spec, annotations: json!({}), objects: Vec::new(), reached }
    }

    fn with(mut self, object: Value) -> Self {
        self.objects.push(object);
        self
    }

    fn annotated(mut self, annotations: Value) -> Self {
        self.annotations = annotations;
        self
    }

    /// The object that is created.
    fn object(&self, node: &Node) -> Value {
        pod(self.name, node.peer.name(), &self.spec, &self.annotations)
    }
}

/// A pod on a node, with what all have in common.
pub(super) fn pod(name: &str, node: &str, spec: &Value, annotations: &Value) -> Value {
    let mut whole = json!({
        "nodeName": node,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 2,
        "tolerations": [{ "operator": "Exists" }],
    });
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "scenario": name }, "annotations": annotations },
        "spec": whole,
    })
}

/// A container `main` that runs a script, and what else it has.
pub(super) fn shell(script: &str, more: Value) -> Value {
    named("main", script, more)
}

/// A container that runs a script, and what else it has.
pub(super) fn named(name: &str, script: &str, more: Value) -> Value {
    let mut container = json!({ "name": name, "image": IMAGE, "command": ["sh", "-c", script] });
    if let (Some(container), Some(more)) = (container.as_object_mut(), more.as_object()) {
        container.extend(more.clone());
    }
    container
}

/// Containers of a pod that restarts them only when they fail, or never.
fn once(policy: &str, container: Value) -> Value {
    json!({ "restartPolicy": policy, "containers": [container] })
}

/// A script that ends well exactly if this condition holds inside the container.
fn checks(condition: &str) -> Value {
    once("Never", shell(&format!("{condition} && exit 0; id; mount; exit 9"), json!({})))
}

fn succeeded(pod: &Pod<'_>) -> bool {
    pod.is("Succeeded") && pod.main().ended("Completed", 0)
}

/// Every scenario.
pub(super) fn all(node: &Node) -> Vec<Scenario> {
    let mut all = probes::all(node);
    all.extend(lives::all());
    all.extend(settings::all());
    all
}

/// Creates all of them at once and waits until each is what it should be. What was not.
pub(super) fn run(cluster: &Cluster, node: &Node, scenarios: &[Scenario]) -> Result<Vec<String>> {
    let started = Instant::now();
    for scenario in scenarios {
        for object in &scenario.objects {
            cluster.create(object)?;
        }
        cluster.create(&scenario.object(node))?;
    }
    let mut waiting: Vec<&Scenario> = scenarios.iter().collect();
    let mut last: Vec<Value> = Vec::new();
    while !waiting.is_empty() && started.elapsed() < PATIENCE {
        last = cluster.pods()?;
        waiting.retain(|scenario| {
            let pod = last.iter().find(|pod| pod["metadata"]["name"] == scenario.name);
            let reached = pod.is_some_and(|pod| (scenario.reached)(&Pod(pod)));
            if reached {
                println!("ok    {} ({:.1} s)", scenario.name, started.elapsed().as_secs_f64());
            }
            !reached
        });
        std::thread::sleep(Duration::from_millis(500));
    }
    let problem = |scenario: &&Scenario| {
        let pod = last.iter().find(|pod| pod["metadata"]["name"] == scenario.name);
        let status = pod.map_or(Value::Null, |pod| pod["status"].clone());
        println!("FAIL  {}: {status}", scenario.name);
        format!("pod {} did not become what it should be", scenario.name)
    };
    Ok(waiting.iter().map(problem).collect())
}
