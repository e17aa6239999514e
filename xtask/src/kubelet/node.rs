// SPDX-License-Identifier: Apache-2.0
//! A node: a kubelet and the runtime under it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cluster::Cluster;
use super::{ADDRESS, Programs};
use crate::conformance::service::Service;
use crate::run;

/// The runtime of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Hull,
    Containerd,
}

/// A running node. Its processes end with the namespaces when it is not stopped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) peer: Peer,
    dir: PathBuf,
    logs: PathBuf,
    runtime: Option<Service>,
    kubelet: Option<Service>,
    programs: Paths,
}

/// What is started.
#[derive(Debug)]
struct Paths {
    runtime: PathBuf,
    kubelet: PathBuf,
    crictl_lite: PathBuf,
    etcd: PathBuf,
}

/// The cgroups in which the kubelets make their pods', in every hierarchy.
#[derive(Debug)]
pub(super) struct Cgroups(Vec<PathBuf>);

// === impl Peer ===

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hull => "hull",
            Self::Containerd => "containerd",
        }
    }

    pub(super) fn number(self) -> u16 {
        match self {
            Self::Hull => 1,
            Self::Containerd => 2,
        }
    }

    /// The kubelet's port.
    pub(super) fn port(self) -> u16 {
        10250 + self.number()
    }

    /// Below which the kubelet makes its pods' cgroups.
    pub(super) fn cgroup(self) -> String {
        format!("/xtask-kubelet-{}", self.name())
    }
}

// === impl Node ===

impl Node {
    /// Starts the runtime and the kubelet, and waits until the API server calls the node ready.
    pub(super) fn start(
        peer: Peer,
        programs: &Programs,
        cluster: &Cluster,
        dir: &Path,
        logs: &Path,
    ) -> Result<Self> {
        let runtime = match peer {
            Peer::Hull => programs.hull.clone(),
            Peer::Containerd => programs.containerd.clone().context("containerd was not built")?,
        };
        let paths = Paths {
            runtime,
            kubelet: programs.kubernetes.kubelet.clone(),
            crictl_lite: programs.crictl_lite.clone(),
            etcd: programs.kubernetes.etcd.clone(),
        };
        let mut node = Self {
            peer,
            dir: dir.to_owned(),
            logs: logs.to_owned(),
            runtime: None,
            kubelet: None,
            programs: paths,
        };
        node.start_runtime()?;
        node.start_kubelet()?;
        cluster.wait_for_node(peer.name())?;
        println!("node {} is ready", peer.name());
        Ok(node)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{}-{program}.log", self.peer.name()))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join(self.peer.name()).join("cri.sock")
    }

    /// Where the kubelet looks for static pods.
    pub(super) fn manifests(&self) -> PathBuf {
        self.dir.join(self.peer.name()).join("manifests")
    }

    /// Where the kubelet keeps the logs of pods.
    pub(super) fn pod_logs(&self) -> PathBuf {
        self.dir.join(self.peer.name()).join("logs")
    }

    /// A static program that serves gRPC health checks, for pods to mount.
    pub(super) fn etcd(&self) -> &Path {
        &self.programs.etcd
    }

    pub(super) fn start_runtime(&mut self) -> Result<()> {
        let mut command = Command::new(&self.programs.runtime);
        match self.peer {
            Peer::Hull => command.args(["serve", "--config"]).arg(self.dir.join("hull.toml")),
            Peer::Containerd => {
                // Its shim is looked for in PATH.
                let beside = self.programs.runtime.parent().context("a program without a directory")?;
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{}:{path}", beside.display()));
                command.arg("--config").arg(self.dir.join("containerd.toml"))
            }
        };
        let socket = self.socket();
        let serves = || UnixStream::connect(&socket).is_ok();
        self.runtime = Some(Service::start("the runtime", &mut command, &self.log("runtime"), serves)?);
        Ok(())
    }

    pub(super) fn start_kubelet(&mut self) -> Result<()> {
        let own = self.dir.join(self.peer.name());
        let mut command = Command::new(&self.programs.kubelet);
        command.arg("--config").arg(own.join("kubelet.yaml"));
        command.arg("--kubeconfig").arg(self.dir.join("kubeconfig"));
        command.arg("--root-dir").arg(own.join("kubelet"));
        command.arg("--cert-dir").arg(own.join("pki"));
        command.args(["--node-ip", ADDRESS, "--hostname-override", self.peer.name(), "--v", "4"]);
        let port = self.peer.port();
        let serves = || TcpStream::connect((ADDRESS, port)).is_ok();
        self.kubelet = Some(Service::start("kubelet", &mut command, &self.log("kubelet"), serves)?);
        Ok(())
    }

    pub(super) fn stop_kubelet(&mut self) -> Result<()> {
        self.kubelet.take().context("the kubelet does not run")?.stop().map(drop)
    }

    /// SIGKILL, and a new one.
    pub(super) fn kill_runtime(&mut self) -> Result<()> {
        // A service that is dropped is killed.
        drop(self.runtime.take());
        self.start_runtime()
    }

    /// What `crictl-lite` prints.
    pub(super) fn crictl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("timeout");
        command.arg("60").arg(&self.programs.crictl_lite).arg("--runtime-endpoint");
        command.arg(format!("unix://{}", self.socket().display())).args(args);
        run::capture(&mut command)
    }

    /// The pod sandboxes of this name that are ready.
    pub(super) fn sandboxes(&self, pod: &str) -> Result<Vec<String>> {
        let text = self.crictl(&["pods", "--name", pod, "--state", "ready", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("the list of pod sandboxes")?;
        let items = value["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().filter_map(|it| it["id"].as_str().map(str::to_owned)).collect())
    }

    /// Where the network namespace of a pod sandbox is pinned.
    pub(super) fn netns(&self, sandbox: &str) -> Result<PathBuf> {
        let dir = self.dir.join("netns");
        let entries = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
        let mut paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let found = paths.find(|path| path.to_string_lossy().contains(sandbox));
        found.with_context(|| format!("{} has no namespace of {sandbox}", dir.display()))
    }

    /// What the runtime still knows or keeps after every pod was deleted.
    pub(super) fn leftovers(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let gone = run::wait_until(Duration::from_secs(90), || {
            left = match self.crictl(&["pods", "-q"]) {
                Ok(text) => text.lines().map(|id| format!("pod sandbox {id} is still there")).collect(),
                Err(error) => vec![format!("{error:#}")],
            };
            left.is_empty()
        });
        if gone && self.peer == Peer::Hull {
            let mut check = Command::new(&self.programs.runtime);
            check.args(["check", "--config"]).arg(self.dir.join("hull.toml"));
            if let Err(error) = run::capture(&mut check) {
                left.push(format!("{error:#}"));
            }
        }
        Ok(left)
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.stop_kubelet()?;
        let status = self.runtime.take().context("the runtime does not run")?.stop()?;
        if !status.success() {
            bail!("{} ended badly: {status}", self.peer.name());
        }
        Ok(())
    }
}

// === impl Cgroups ===

impl Cgroups {
    /// Makes one for each peer in every hierarchy.
    pub(super) fn make(peers: &[&str]) -> Result<Self> {
        let mut made = Vec::new();
        let entries = fs::read_dir("/sys/fs/cgroup").context("list /sys/fs/cgroup")?;
        for entry in entries.flatten() {
            let hierarchy = entry.path();
            // Two names of one hierarchy are links; what has no processes file is no hierarchy.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                || !hierarchy.join("cgroup.procs").exists()
            {
                continue;
            }
            for peer in peers {
                let path = hierarchy.join(format!("xtask-kubelet-{peer}"));
                fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
                // An empty cpuset takes no processes.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                        fs::write(path.join(file), value)
                            .with_context(|| format!("set {file} of {}", path.display()))?;
                    }
                }
                made.push(path);
            }
        }
        Ok(Self(made))
    }

    /// Removes them with what is below: empty cgroups of the kubelet's.
    pub(super) fn remove(&self) -> Result<()> {
        for path in &self.0 {
            let gone = run::wait_until(Duration::from_secs(10), || remove_tree(path).is_ok());
            if !gone {
                bail!("{} still has processes or cannot be removed", path.display());
            }
        }
        Ok(())
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
