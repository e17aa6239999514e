// SPDX-License-Identifier: Apache-2.0
//! The API server with its etcd, asked through kubectl.

use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{ADDRESS, Programs};
use crate::conformance::service::Service;
use crate::run;

/// Seconds that one question may take.
const DEADLINE: &str = "60";

/// A running API server.
#[derive(Debug)]
pub(super) struct Cluster {
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    _etcd: Service,
    _apiserver: Service,
}

/// How a command in a container ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) success: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

// === impl Cluster ===

impl Cluster {
    /// Starts both and makes the objects that a controller manager would make.
    pub(super) fn start(programs: &Programs, dir: &Path, logs: &Path) -> Result<Self> {
        let mut etcd = Command::new(&programs.kubernetes.etcd);
        etcd.arg("--data-dir").arg(dir.join("etcd"));
        etcd.args(["--listen-client-urls", "http://127.0.0.1:2379"]);
        etcd.args(["--advertise-client-urls", "http://127.0.0.1:2379"]);
        // What is lost with the run is no loss: syncing its log would be what a busy disk makes slow.
        etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
        let serves = || TcpStream::connect("127.0.0.1:2379").is_ok();
        let etcd = Service::start("etcd", &mut etcd, &logs.join("etcd.log"), serves)?;
        let apiserver = Self::start_apiserver(programs, dir, logs)?;
        let cluster = Self {
            kubectl: programs.kubernetes.kubectl.clone(),
            kubeconfig: dir.join("kubeconfig"),
            _etcd: etcd,
            _apiserver: apiserver,
        };
        let ready = run::wait_until(Duration::from_secs(120), || {
            cluster.kubectl(&["get", "--raw", "/readyz"], None).is_ok()
                && cluster.kubectl(&["get", "namespace", "default"], None).is_ok()
        });
        if !ready {
            bail!("the API server is not ready after two minutes: see apiserver.log");
        }
        for handler in ["runc", "crun"] {
            cluster.create(&json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
                "metadata": { "name": handler }, "handler": handler,
            }))?;
        }
        Ok(cluster)
    }

    fn start_apiserver(programs: &Programs, dir: &Path, logs: &Path) -> Result<Service> {
        let key = dir.join("service-accounts.key");
        let mut command = Command::new(&programs.kubernetes.apiserver);
        command.args(["--etcd-servers", "http://127.0.0.1:2379", "--secure-port", "6443"]);
        command.args(["--advertise-address", ADDRESS, "--service-cluster-ip-range", "10.96.0.0/16"]);
        command.args(["--authorization-mode", "AlwaysAllow", "--allow-privileged=true"]);
        command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        command.arg("--service-account-key-file").arg(&key);
        command.arg("--service-account-signing-key-file").arg(&key);
        command.arg("--token-auth-file").arg(dir.join("tokens.csv"));
        command.arg("--cert-dir").arg(dir.join("apiserver"));
        // No controller makes service accounts or removes taints here.
        command.args(["--disable-admission-plugins", "ServiceAccount,TaintNodesByCondition"]);
        command.args(["--kubelet-preferred-address-types", "InternalIP"]);
        let serves = || TcpStream::connect((ADDRESS, 6443)).is_ok();
        Service::start("kube-apiserver", &mut command, &logs.join("apiserver.log"), serves)
    }

    /// Runs kubectl; fails, with its words, when it fails.
    pub(super) fn kubectl(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let answer = self.ask(args, input)?;
        if !answer.success {
            bail!("kubectl {}: {}", args.join(" "), answer.stderr.trim());
        }
        Ok(answer.stdout)
    }

    fn ask(&self, args: &[&str], input: Option<&str>) -> Result<Answer> {
        let mut command = self.command(args);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start kubectl")?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).context("write to kubectl")?;
        }
        let output = child.wait_with_output().context("wait for kubectl")?;
        Ok(Answer {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// kubectl with these words, to be started.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.arg(DEADLINE).arg(&self.kubectl).arg("--kubeconfig").arg(&self.kubeconfig);
        // It would keep what it learns of the server below the home directory.
        command.arg("--cache-dir").arg(self.kubeconfig.with_file_name("kubectl-cache")).args(args);
        command
    }

    pub(super) fn create(&self, object: &Value) -> Result<()> {
        self.kubectl(&["create", "-f", "-"], Some(&object.to_string())).map(drop)
    }

    /// The pods of the namespace `default`.
    pub(super) fn pods(&self) -> Result<Vec<Value>> {
        let text = self.kubectl(&["get", "pods", "-o", "json"], None)?;
        let mut list: Value = serde_json::from_str(&text).context("the list of pods")?;
        Ok(list["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
    }

    /// One pod; `None` when there is none of this name.
    pub(super) fn pod(&self, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", "pod", name, "--ignore-not-found", "-o", "json"], None)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text).context("a pod")?))
    }

    /// Runs a command in a container of a pod.
    pub(super) fn exec(&self, pod: &str, container: &str, words: &[&str]) -> Result<Answer> {
        let mut args = vec!["exec", pod, "-c", container, "--"];
        args.extend(words);
        self.ask(&args, None)
    }

    /// Deletes one pod without waiting for its end.
    pub(super) fn delete_pod(&self, name: &str) -> Result<()> {
        self.kubectl(&["delete", "pod", name, "--wait=false"], None).map(drop)
    }

    /// Deletes all pods and waits for their end.
    pub(super) fn delete_pods(&self) -> Result<()> {
        self.kubectl(&["delete", "pods", "--all", "--wait=false"], None)?;
        let gone = run::wait_until(Duration::from_secs(180), || {
            // Static pods come back as long as their file is there; the caller removes the files.
            self.pods().is_ok_and(|pods| pods.is_empty())
        });
        if !gone {
            let names: Vec<String> = self
                .pods()?
                .iter()
                .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
                .collect();
            bail!("these pods do not go: {}", names.join(", "));
        }
        Ok(())
    }

    pub(super) fn wait_for_node(&self, name: &str) -> Result<()> {
        let path = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let ready = run::wait_until(Duration::from_secs(120), || {
            self.kubectl(&["get", "node", name, path], None).is_ok_and(|text| text == "True")
        });
        if !ready {
            bail!("node {name} is not ready after two minutes: see its kubelet's log");
        }
        Ok(())
    }

    /// Waits until a pod is as it should be, looking twice a second.
    pub(super) fn wait_for_pod(
        &self,
        name: &str,
        deadline: Duration,
        mut good: impl FnMut(&super::pod::Pod<'_>) -> bool,
    ) -> Result<()> {
        let mut last = Value::Null;
        let reached = run::wait_until(deadline, || {
            match self.pod(name) {
                Ok(Some(pod)) if good(&super::pod::Pod(&pod)) => return true,
                Ok(Some(pod)) => last = pod["status"].clone(),
                Ok(None) | Err(_) => {}
            }
            std::thread::sleep(Duration::from_millis(100));
            false
        });
        if !reached {
            bail!("pod {name} is not as it should be after {deadline:?}: {last}");
        }
        Ok(())
    }
}
