// SPDX-License-Identifier: Apache-2.0
//! What is done to pods and to the node, one after another.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::ADDRESS;
use super::cluster::Cluster;
use super::node::Node;
use super::pods::{IMAGE, SLEEP, pod, shell};
use crate::run;

/// How long most things may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long until the kubelet has replaced a sandbox.
const REPLACED: Duration = Duration::from_secs(120);

/// One thing that is done.
#[derive(Debug)]
pub(super) struct Action {
    pub(super) name: &'static str,
    pub(super) act: fn(&Cluster, &mut Node) -> Result<()>,
}

/// All of them, in their order.
pub(super) const ALL: [Action; 15] = [
    Action { name: "exec-exit-code", act: exec_exit_code },
    Action { name: "exec-while-terminating", act: exec_while_terminating },
    Action { name: "not-ready-while-terminating", act: not_ready_while_terminating },
    Action { name: "grace-period-kept", act: grace_period_kept },
    Action { name: "grace-period-ends", act: grace_period_ends },
    Action { name: "logs", act: logs },
    Action { name: "log-rotation", act: log_rotation },
    Action { name: "port-forward", act: port_forward },
    Action { name: "host-port-answers", act: host_port },
    Action { name: "debug-container", act: debug_container },
    Action { name: "resize", act: resize },
    Action { name: "static-pod", act: static_pod },
    Action { name: "kubelet-restart", act: kubelet_restart },
    Action { name: "runtime-kill-9", act: runtime_kill },
    Action { name: "lost-network-namespace", act: lost_namespace },
];

fn start(cluster: &Cluster, node: &Node, name: &str, spec: &Value) -> Result<()> {
    cluster.create(&pod(name, node.peer.name(), spec, &json!({})))?;
    cluster.wait_for_pod(name, PATIENCE, |pod| pod.is_ready())
}

fn one(script: &str, more: Value) -> Value {
    json!({ "containers": [shell(script, more)] })
}

fn wait_until_gone(cluster: &Cluster, name: &str, deadline: Duration) -> Result<()> {
    let gone = run::wait_until(deadline, || cluster.pod(name).is_ok_and(|pod| pod.is_none()));
    ensure!(gone, "pod {name} is still there after {deadline:?}");
    Ok(())
}

fn exec_exit_code(cluster: &Cluster, node: &mut Node) -> Result<()> {
    start(cluster, node, "exec", &one(SLEEP, json!({})))?;
    let good = cluster.exec("exec", "main", &["sh", "-c", "echo out; echo err >&2"])?;
    ensure!(good.success && good.stdout == "out\n" && good.stderr.contains("err"), "{good:?}");
    let bad = cluster.exec("exec", "main", &["sh", "-c", "exit 7"])?;
    ensure!(!bad.success && bad.stderr.contains("exit code 7"), "{bad:?}");
    cluster.delete_pod("exec")
}

/// Ends 12 seconds after SIGTERM.
const SLOW_END: &str =
    "trap 'rm -f /tmp/ready; sleep 12; exit 0' TERM; touch /tmp/ready; sleep 100000 & wait";

fn exec_while_terminating(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let mut spec = one(SLOW_END, json!({}));
    spec["terminationGracePeriodSeconds"] = json!(30);
    start(cluster, node, "terminating", &spec)?;
    cluster.delete_pod("terminating")?;
    let signalled = run::wait_until(PATIENCE, || {
        cluster.exec("terminating", "main", &["test", "!", "-e", "/tmp/ready"]).is_ok_and(|it| it.success)
    });
    ensure!(signalled, "no exec has seen the container's handler of SIGTERM at work");
    let answer = cluster.exec("terminating", "main", &["sh", "-c", "sleep 2; echo served"])?;
    ensure!(answer.success && answer.stdout == "served\n", "{answer:?}");
    wait_until_gone(cluster, "terminating", PATIENCE)
}

fn not_ready_while_terminating(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let probe = json!({ "readinessProbe": { "exec": { "command": ["cat", "/tmp/ready"] },
                                            "periodSeconds": 1, "failureThreshold": 1 } });
    let mut spec = one(SLOW_END, probe);
    spec["terminationGracePeriodSeconds"] = json!(30);
    start(cluster, node, "unready", &spec)?;
    cluster.delete_pod("unready")?;
    cluster.wait_for_pod("unready", Duration::from_secs(8), |pod| !pod.is_ready())?;
    wait_until_gone(cluster, "unready", PATIENCE)
}

fn grace_period_kept(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let mut spec = one("trap 'sleep 4; exit 0' TERM; sleep 100000 & wait", json!({}));
    spec["terminationGracePeriodSeconds"] = json!(30);
    start(cluster, node, "gracious", &spec)?;
    cluster.delete_pod("gracious")?;
    wait_until_gone(cluster, "gracious", Duration::from_secs(20))
}

fn grace_period_ends(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let spec = one("trap '' TERM; while :; do sleep 1; done", json!({}));
    start(cluster, node, "stubborn", &spec)?;
    cluster.delete_pod("stubborn")?;
    wait_until_gone(cluster, "stubborn", Duration::from_secs(20))
}

fn logs(cluster: &Cluster, node: &mut Node) -> Result<()> {
    start(cluster, node, "logs", &one(&format!("echo one; echo two >&2; {SLEEP}"), json!({})))?;
    let text = cluster.kubectl(&["logs", "logs"], None)?;
    ensure!(text.contains("one\n") && text.contains("two\n"), "{text:?}");
    cluster.delete_pod("logs")
}

fn log_rotation(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let script =
        format!("for i in $(seq 3000); do echo a line that is long enough, number $i; done; {SLEEP}");
    start(cluster, node, "rotation", &one(&script, json!({})))?;
    let rotated = || -> bool {
        let pods = fs::read_dir(node.pod_logs()).into_iter().flatten().flatten();
        let mut dirs = pods.filter(|dir| dir.file_name().to_string_lossy().contains("rotation"));
        let files = dirs.next().map(|dir| fs::read_dir(dir.path().join("main")));
        let files = files.into_iter().flatten().flatten().flatten();
        files.map(|file| file.file_name()).any(|name| name.to_string_lossy().starts_with("0.log."))
    };
    ensure!(run::wait_until(PATIENCE, rotated), "the kubelet did not rotate the log");
    let answer = cluster.exec("rotation", "main", &["sh", "-c", "echo after the rotation > /proc/1/fd/1"])?;
    ensure!(answer.success, "{answer:?}");
    let seen = run::wait_until(PATIENCE, || {
        cluster.kubectl(&["logs", "rotation"], None).is_ok_and(|text| text.contains("after the rotation"))
    });
    ensure!(seen, "what was written after the rotation is not in the log");
    cluster.delete_pod("rotation")
}

/// What a web server on this port answers.
fn fetch(address: (&str, u16)) -> Result<String> {
    let mut stream = TcpStream::connect(address).context("connect")?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).context("set a timeout")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("read the answer")?;
    Ok(answer)
}

fn port_forward(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let script = "mkdir /www; echo forwarded > /www/index.html; exec httpd -f -p 8080 -h /www";
    start(cluster, node, "forward", &one(script, json!({})))?;
    let mut command = cluster.command(&["port-forward", "pod/forward", "18081:8080"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("start kubectl")?;
    let served =
        run::wait_until(PATIENCE, || fetch(("127.0.0.1", 18081)).is_ok_and(|it| it.contains("forwarded")));
    child.kill().context("end kubectl")?;
    child.wait().context("wait for kubectl")?;
    ensure!(served, "nothing was forwarded");
    cluster.delete_pod("forward")
}

/// The scenario `host-port` serves.
fn host_port(cluster: &Cluster, _: &mut Node) -> Result<()> {
    if cluster.pod("host-port")?.is_none() {
        bail!("the pod host-port does not run: this action needs its scenario");
    }
    let served =
        run::wait_until(PATIENCE, || fetch((ADDRESS, 18080)).is_ok_and(|answer| answer.contains("port")));
    ensure!(served, "port 18080 of the node does not answer");
    Ok(())
}

fn debug_container(cluster: &Cluster, node: &mut Node) -> Result<()> {
    start(cluster, node, "debugged", &one(SLEEP, json!({})))?;
    let script = "ps | grep -v grep | grep -q 'sleep 10000[0]' && exit 0; exit 1";
    let image = format!("--image={IMAGE}");
    let words = ["debug", "debugged", "-c", "debugger", "--target=main", &image, "--", "sh", "-c", script];
    cluster.kubectl(&words, None)?;
    cluster.wait_for_pod("debugged", PATIENCE, |pod| pod.container("debugger").ended("Completed", 0))?;
    cluster.delete_pod("debugged")
}

fn resize(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let more = json!({ "resources": { "requests": { "cpu": "100m", "memory": "32Mi" },
                                      "limits": { "cpu": "200m", "memory": "64Mi" } } });
    start(cluster, node, "resized", &one(SLEEP, more))?;
    let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": {
        "requests": { "cpu": "150m", "memory": "48Mi" }, "limits": { "cpu": "300m", "memory": "96Mi" } } }] } });
    let patch = patch.to_string();
    cluster.kubectl(&["patch", "pod", "resized", "--subresource", "resize", "--patch", &patch], None)?;
    cluster.wait_for_pod("resized", PATIENCE, |pod| {
        pod.main().field("resources")["limits"] == json!({ "cpu": "300m", "memory": "96Mi" })
    })?;
    let read = ["cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"];
    let answer = cluster.exec("resized", "main", &read)?;
    ensure!(answer.stdout == "100663296\n30000\n", "{answer:?}");
    cluster.wait_for_pod("resized", PATIENCE, |pod| pod.main().restarts() == 0 && pod.is_ready())?;
    cluster.delete_pod("resized")
}

fn static_pod(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let file = node.manifests().join("static.json");
    let object = pod("static", node.peer.name(), &one(SLEEP, json!({})), &json!({}));
    fs::write(&file, object.to_string()).context("write the manifest")?;
    let name = format!("static-{}", node.peer.name());
    cluster.wait_for_pod(&name, PATIENCE, |pod| pod.is_ready())?;
    fs::remove_file(&file).context("remove the manifest")?;
    wait_until_gone(cluster, &name, PATIENCE)
}

/// Pods of the scenarios that run on, whatever happens to the kubelet and the runtime.
const STAY: [&str; 4] = ["two-containers", "user-namespace-stays", "crun", "probe-ready-exec"];

/// Ids and restarts of the pods that stay.
fn identities(cluster: &Cluster) -> Result<Vec<(String, String, u64)>> {
    let mut all = Vec::new();
    for name in STAY {
        let Some(value) = cluster.pod(name)? else { continue };
        let main = super::pod::Pod(&value).main();
        all.push((name.to_owned(), main.id().to_owned(), main.restarts()));
    }
    ensure!(!all.is_empty(), "none of {STAY:?} runs: this action needs their scenarios");
    Ok(all)
}

fn same_pods_are_ready(cluster: &Cluster, before: &[(String, String, u64)]) -> Result<()> {
    for (name, id, restarts) in before {
        cluster.wait_for_pod(name, PATIENCE, |pod| {
            pod.is_ready() && pod.main().id() == id && pod.main().restarts() == *restarts
        })?;
    }
    Ok(())
}

fn kubelet_restart(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let before = identities(cluster)?;
    node.stop_kubelet()?;
    node.start_kubelet()?;
    cluster.wait_for_node(node.peer.name())?;
    start(cluster, node, "after-kubelet", &one(SLEEP, json!({})))?;
    same_pods_are_ready(cluster, &before)?;
    cluster.delete_pod("after-kubelet")
}

fn runtime_kill(cluster: &Cluster, node: &mut Node) -> Result<()> {
    let before = identities(cluster)?;
    // In the middle of work, too.
    for name in ["during-a", "during-b", "during-c"] {
        cluster.create(&pod(name, node.peer.name(), &one(SLEEP, json!({})), &json!({})))?;
    }
    for _ in 0..3 {
        node.kill_runtime()?;
        std::thread::sleep(Duration::from_millis(700));
    }
    for name in ["during-a", "during-b", "during-c"] {
        cluster.wait_for_pod(name, REPLACED, |pod| pod.is_ready())?;
        cluster.delete_pod(name)?;
    }
    same_pods_are_ready(cluster, &before)
}

fn lost_namespace(cluster: &Cluster, node: &mut Node) -> Result<()> {
    start(cluster, node, "lost", &one(SLEEP, json!({})))?;
    let before = node.sandboxes("lost")?;
    let [sandbox] = &before[..] else { bail!("one ready sandbox was expected: {before:?}") };
    let path = node.netns(sandbox)?;
    run::capture(Command::new("umount").arg(&path))?;
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    let replaced = run::wait_until(REPLACED, || {
        node.sandboxes("lost").is_ok_and(|now| matches!(&now[..], [id] if id != sandbox))
    });
    ensure!(replaced, "the sandbox was not replaced within {REPLACED:?}");
    cluster.wait_for_pod("lost", PATIENCE, |pod| pod.is_ready())?;
    cluster.delete_pod("lost")
}
