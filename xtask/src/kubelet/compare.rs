// SPDX-License-Identifier: Apache-2.0
//! Hull and containerd under the same kubelet, turn about: times that a user waits for.
//!
//! ```text
//! static file -> ready       a file appears in the kubelet's directory; the pod is ready
//! ready -> false (readiness)           a terminating pod's readiness probe fails; as in the NodeConformance spec
//! ready -> false (readiness, liveness) the same with a liveness probe that must be off by then
//! ```

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::node::Node;
use super::options::Options;
use super::pods::{SLEEP, pod, shell};
use crate::run::{self, headline};

const PATIENCE: Duration = Duration::from_secs(120);
/// How much of containerd's time the readiness of terminating pods may take.
const LIMIT: f64 = 1.1;

/// One measurement on a node, in seconds.
type Measure = fn(&Cluster, &Node, usize) -> Result<f64>;

const MEASURES: [(&str, Measure, bool); 3] = [
    ("static file -> ready", static_file, false),
    ("deleted -> not ready, readiness probe", readiness, true),
    ("deleted -> not ready, both probes", both_probes, true),
];

/// Runs each measure so many rounds on both. What is slower than it may be.
pub(super) fn run(options: &Options, cluster: &Cluster, nodes: [&Node; 2]) -> Result<Vec<String>> {
    headline("Beside containerd, turn about");
    let mut problems = Vec::new();
    for (name, measure, bounded) in MEASURES {
        let mut times: [Vec<f64>; 2] = Default::default();
        for round in 0..options.rounds {
            // Who is first changes with each round.
            for turn in 0..2 {
                let which = (round + turn) % 2;
                times[which].push(measure(cluster, nodes[which], round)?);
            }
        }
        let [hull, containerd] = times.each_mut().map(|times| median(times));
        let ratio = hull / containerd;
        println!("{name:40} hull {hull:6.2} s  containerd {containerd:6.2} s  ratio {ratio:.2}");
        if bounded && ratio > LIMIT {
            problems.push(format!("{name}: {ratio:.2} times containerd's, {LIMIT} is allowed"));
        }
    }
    Ok(problems)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds until the pod is as it should be.
fn until(
    cluster: &Cluster,
    name: &str,
    started: Instant,
    good: impl FnMut(&super::pod::Pod<'_>) -> bool,
) -> Result<f64> {
    cluster.wait_for_pod(name, PATIENCE, good)?;
    Ok(started.elapsed().as_secs_f64())
}

fn gone(cluster: &Cluster, name: &str) -> Result<()> {
    let gone = run::wait_until(PATIENCE, || cluster.pod(name).is_ok_and(|pod| pod.is_none()));
    ensure!(gone, "pod {name} is still there after {PATIENCE:?}");
    Ok(())
}

fn static_file(cluster: &Cluster, node: &Node, round: usize) -> Result<f64> {
    let name = format!("static-{round}");
    let file = node.manifests().join("measured.json");
    let spec = json!({ "containers": [shell(SLEEP, json!({}))] });
    let object = pod(&name, node.peer.name(), &spec, &json!({}));
    let started = Instant::now();
    fs::write(&file, object.to_string()).context("write the manifest")?;
    let full = format!("{name}-{}", node.peer.name());
    let time = until(cluster, &full, started, |pod| pod.is_ready());
    fs::remove_file(&file).context("remove the manifest")?;
    gone(cluster, &full)?;
    time
}

fn terminating(cluster: &Cluster, node: &Node, name: &str, script: &str, probes: Value) -> Result<f64> {
    let name = format!("{name}-{}", node.peer.name());
    let spec = json!({ "terminationGracePeriodSeconds": 30, "containers": [shell(script, probes)] });
    cluster.create(&pod(&name, node.peer.name(), &spec, &json!({})))?;
    cluster.wait_for_pod(&name, PATIENCE, |pod| pod.is_ready())?;
    let started = Instant::now();
    cluster.delete_pod(&name)?;
    let time = until(cluster, &name, started, |pod| !pod.is_ready());
    cluster.kubectl(&["delete", "pod", &name, "--grace-period=1", "--wait=false"], None)?;
    gone(cluster, &name)?;
    time
}

fn probe(file: &str, period: u32) -> Value {
    json!({ "exec": { "command": ["cat", file] }, "failureThreshold": 1, "initialDelaySeconds": 5,
            "periodSeconds": period })
}

/// The loop of the specs: the shell heeds SIGTERM when its `sleep 10` has ended.
fn script(files: &str) -> String {
    format!(
        "trap 'rm -f {files}; sleep 20; exit 0' TERM; touch {files}; while true; do echo hello; sleep 10; done"
    )
}

fn readiness(cluster: &Cluster, node: &Node, round: usize) -> Result<f64> {
    let probes = json!({ "readinessProbe": probe("/tmp/ready", 2) });
    terminating(cluster, node, &format!("readiness-{round}"), &script("/tmp/ready"), probes)
}

fn both_probes(cluster: &Cluster, node: &Node, round: usize) -> Result<f64> {
    let probes =
        json!({ "readinessProbe": probe("/tmp/ready", 2), "livenessProbe": probe("/tmp/liveness", 1) });
    let name = format!("liveness-{round}");
    let time = terminating(cluster, node, &name, &script("/tmp/ready /tmp/liveness"), probes)?;
    let filter = format!("involvedObject.name={name}-{}", node.peer.name());
    let events = cluster.kubectl(&["get", "events", "--field-selector", &filter], None)?;
    ensure!(
        !events.contains("failed liveness probe"),
        "a liveness probe ran on a terminating pod:\n{events}"
    );
    Ok(time)
}
