// SPDX-License-Identifier: Apache-2.0
//! The files of a run: configurations of the registry, the API server, the daemons and their networks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::node::Peer;
use super::{ADDRESS, Programs, REGISTRY};
use crate::demo::files::runtime_program;
use crate::{install, run};

/// The token of the only user.
const TOKEN: &str = "a-token-of-this-run";

/// Writes those that do not change.
pub(super) fn write(dir: &Path, programs: &Programs) -> Result<()> {
    let plugins = install::cni_bin_dir().context("the CNI plugins are not installed")?;
    let crun = runtime_program(dir, "crun", run::which("crun").context("crun is not installed")?)?;
    put(dir, "certs.d/_default/hosts.toml", &hosts_toml())?;
    put(dir, "registry.yml", &registry_yml(dir))?;
    put(dir, "tokens.csv", &format!("{TOKEN},admin,admin,system:masters\n"))?;
    put(dir, "resolv.conf", &format!("nameserver {ADDRESS}\n"))?;
    put(dir, "kubeconfig", &kubeconfig())?;
    put(dir, "hull.toml", &hull_toml(dir, &programs.runc, &crun, plugins))?;
    put(dir, "containerd.toml", &containerd_toml(dir, &programs.runc, plugins))?;
    for peer in [Peer::Hull, Peer::Containerd] {
        put(dir, &format!("{}/net.d/10-pods.conflist", peer.name()), &conflist(dir, peer))?;
        put(dir, &format!("{}/kubelet.yaml", peer.name()), &kubelet_yaml(dir, peer))?;
        fs::create_dir_all(dir.join(peer.name()).join("manifests"))
            .context("make the manifests' directory")?;
    }
    fs::create_dir_all(dir.join("registry")).context("make the registry's directory")?;
    let key = dir.join("service-accounts.key");
    run::capture(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048")).map(drop)
}

pub(super) fn put(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Whatever registry an image names, this one is asked, and no other.
fn hosts_toml() -> String {
    format!(
        "server = \"http://{REGISTRY}\"\n\n[host.\"http://{REGISTRY}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    )
}

fn registry_yml(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "version: 0.1
storage:
  filesystem:
    rootdirectory: {dir}/registry
http:
  addr: {REGISTRY}
"
    )
}

fn kubeconfig() -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": {
            "server": format!("https://{ADDRESS}:6443"), "insecure-skip-tls-verify": true } }],
        "users": [{ "name": "it", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    })
    .to_string()
}

fn hull_toml(dir: &Path, runc: &Path, crun: &Path, plugins: &str) -> String {
    let (dir, runc, crun) = (dir.display(), runc.display(), crun.display());
    format!(
        "root = \"{dir}/hull/lib\"
run_root = \"{dir}/hull/run\"
listen = \"{dir}/hull/cri.sock\"
log_level = \"debug\"

[runtime]
default = \"runc\"
[runtime.handlers.runc]
kind = \"runc\"
path = \"{runc}\"
[runtime.handlers.crun]
kind = \"crun\"
path = \"{crun}\"

[network]
cni_conf_dir = \"{dir}/hull/net.d\"
cni_bin_dirs = [\"{plugins}\"]
netns_dir = \"{dir}/netns\"

[images]
certs_dir = \"{dir}/certs.d\"
"
    )
}

/// Defaults but for paths, the runtime, and what a machine without CAP_SYS_RESOURCE refuses.
fn containerd_toml(dir: &Path, runc: &Path, plugins: &str) -> String {
    let (dir, runc) = (dir.display(), runc.display());
    format!(
        "version = 3
root = '{dir}/containerd/lib'
state = '{dir}/containerd/run'
[grpc]
address = '{dir}/containerd/cri.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'registry.k8s.io/pause:3.9'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{dir}/certs.d'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{dir}/containerd/net.d'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
"
    )
}

fn conflist(dir: &Path, peer: Peer) -> String {
    let leases = dir.join(peer.name()).join("leases");
    json!({
        "cniVersion": "1.0.0",
        "name": format!("{}-pods", peer.name()),
        "plugins": [
            {
                "type": "bridge", "bridge": format!("pods{}", peer.number()), "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": leases.to_string_lossy(),
                    "ranges": [[{ "subnet": format!("10.{}.0.0/16", 80 + peer.number()) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}

fn kubelet_yaml(dir: &Path, peer: Peer) -> String {
    let own = dir.join(peer.name());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}/cri.sock", own.display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": peer.cgroup(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "address": ADDRESS,
        "port": peer.port(),
        "healthzPort": peer.port() + 1000,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "staticPodPath": own.join("manifests"),
        "podLogsDir": own.join("logs"),
        "resolvConf": dir.join("resolv.conf"),
        "volumePluginDir": own.join("plugins"),
        "serializeImagePulls": false,
        "containerLogMaxSize": "20Ki",
        "containerLogMonitorInterval": "3s",
        "allowedUnsafeSysctls": ["kernel.msgmax"],
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%" },
        "maxPods": 250,
        "registryPullQPS": 0,
        "crashLoopBackOff": { "maxContainerRestartPeriod": "4s" },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_for_a_daemon_is_private() {
        let dir = Path::new("/tmp/private");
        for text in [
            hull_toml(dir, &dir.join("runc"), &dir.join("crun"), "/tmp/private/cni"),
            containerd_toml(dir, &dir.join("runc"), "/tmp/private/cni"),
        ] {
            for line in text.lines().filter(|line| line.contains("= \"/") || line.contains("= '/")) {
                assert!(line.contains("/tmp/private/"), "{line}");
            }
        }
    }
}
