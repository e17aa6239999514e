// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask kubelet`: a real kubelet, API server and etcd on the daemon as users run it.
//!
//! ```text
//! install -> build hull (release), kubelet, kube-apiserver, kubectl, etcd, a current runc [, containerd]
//!   -> private directory and namespaces: network, mounts, processes, ipc, host name
//!        docker-registry <- stand-ins of public images            etcd <- kube-apiserver <- kubectl
//!        node "hull":       hull serve  <- kubelet   pods of `pods.rs`, then the actions of `actions.rs`
//!        node "containerd": containerd  <- kubelet   only with --against-containerd: `compare.rs`
//!   -> every pod is deleted, the kubelet's log is searched for lines that blame the runtime
//! ```
//! Invariants: nothing is asked from outside; every pod reaches the state that its scenario names, or the run
//! fails; logs stay in `target/kubelet`. It is no part of CI: building Kubernetes takes about ten minutes.

mod actions;
mod blame;
mod cluster;
mod compare;
mod files;
mod node;
mod options;
mod pod;
mod pods;
mod tunables;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::cluster::Cluster;
use self::node::{Node, Peer};
use self::options::Options;
use self::tunables::Tunables;
use crate::census::Census;
use crate::conformance::service::Service;
use crate::go::{self, Kubernetes};
use crate::run::{self, PrivateDir, headline};
use crate::{install, test};

/// Set for the part that runs in the private namespaces: its directory.
const INSIDE: &str = "HULL_KUBELET_DIR";
/// The node's address: the API server refuses one on loopback.
const ADDRESS: &str = "10.99.0.1";
/// Where the stand-ins of public images are.
const REGISTRY: &str = "127.0.0.1:5000";

/// The programs of a run.
#[derive(Debug)]
struct Programs {
    hull: PathBuf,
    crictl_lite: PathBuf,
    push_standins: PathBuf,
    runc: PathBuf,
    kubernetes: Kubernetes,
    containerd: Option<PathBuf>,
}

/// Builds everything and runs it in namespaces of its own.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    if let Some(dir) = std::env::var_os(INSIDE) {
        let programs = programs(root, &target, &options)?;
        return inside(&options, &programs, Path::new(&dir), &target.join("kubelet"));
    }
    if run::uid()? != 0 {
        bail!("a kubelet needs root: sudo -E cargo xtask kubelet");
    }
    let own = std::env::current_exe().context("the path of this program")?;
    install::kubelet_packages()?;
    programs(root, &target, &options)?;
    if options.programs.is_none() {
        test::release_daemon(root)?;
        headline("Building the helpers");
        let helpers = ["build", "--workspace", "--all-targets", "--quiet"];
        run::run(Command::new("cargo").current_dir(root).args(helpers))?;
    }
    let before = Census::take();
    let dir = PrivateDir::new("hull-k")?;
    // The kubelet sets some of the machine's tunables and says so; they go back to what they were.
    let _tunables = Tunables::remember();
    let cgroups = node::Cgroups::make(&["hull", "containerd"])?;
    let status = in_private(&own, dir.path(), args)?;
    cgroups.remove()?;
    let mut left = Census::settle(&before);
    left.retain(|line| line.starts_with('+') && line.contains(&*dir.path().to_string_lossy()));
    if !left.is_empty() {
        bail!("the run has left something:\n  {}", left.join("\n  "));
    }
    if !status {
        bail!("not everything is as expected, see above; logs: {}", target.join("kubelet").display());
    }
    Ok(())
}

fn programs(root: &Path, target: &Path, options: &Options) -> Result<Programs> {
    let helpers = options.programs.clone().unwrap_or_else(|| target.join("debug"));
    let daemon = options.programs.clone().unwrap_or_else(|| target.join("release"));
    Ok(Programs {
        hull: daemon.join("hull"),
        crictl_lite: helpers.join("crictl-lite"),
        push_standins: helpers.join("push-standins"),
        runc: go::runc(root)?,
        kubernetes: go::kubernetes(root)?,
        containerd: if options.needs_containerd() { Some(go::containerd(root)?) } else { None },
    })
}

/// Runs this program again with these words, in namespaces of its own. Whether all was as expected.
fn in_private(own: &Path, dir: &Path, words: &[String]) -> Result<bool> {
    // The shell is the first process of the namespace: it reaps whoever is left without a parent.
    let script = format!(
        "ip link set lo up && ip link add node0 type veth peer name node1 && ip link set node1 up && ip address add {ADDRESS}/24 dev node0 && \
         ip link set node0 up && ip route add default via {ADDRESS} dev node0 && hostname hull-node && \
         mkdir -p /var/log/containers /run/netns && mount -t tmpfs tmpfs /var/log/containers && \
         mount -t tmpfs tmpfs /run/netns || exit 1; \
         \"$0\" \"$@\" & wait $!"
    );
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "slave", "--ipc", "--uts"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
        .arg(own)
        .arg("kubelet")
        .args(words)
        .env(INSIDE, dir)
        .status()
        .context("start unshare")?;
    Ok(status.success())
}

/// The whole run, in the private namespaces.
fn inside(options: &Options, programs: &Programs, dir: &Path, logs: &Path) -> Result<()> {
    fs::create_dir_all(logs).with_context(|| format!("make {}", logs.display()))?;
    files::write(dir, programs)?;
    headline(&format!("Kubernetes {}, logs in {}", go::KUBERNETES, logs.display()));
    let _registry = start_registry(dir, logs)?;
    run::capture(Command::new(&programs.push_standins).arg(REGISTRY))?;
    let cluster = Cluster::start(programs, dir, logs)?;
    let peer = if options.on_containerd { Peer::Containerd } else { Peer::Hull };
    let mut node = Node::start(peer, programs, &cluster, dir, logs)?;
    let mut problems = Vec::new();
    if options.pods {
        problems.extend(scenarios(options, &cluster, &mut node)?);
        headline("Deleting every pod");
        cluster.delete_pods()?;
        problems.extend(node.leftovers()?);
    }
    if options.against_containerd && !options.on_containerd {
        let containerd = Node::start(Peer::Containerd, programs, &cluster, dir, logs)?;
        problems.extend(compare::run(options, &cluster, [&node, &containerd])?);
        cluster.delete_pods()?;
        containerd.stop()?;
    }
    node.stop()?;
    problems.extend(blame::search(&logs.join(format!("{}-kubelet.log", peer.name())))?);
    for problem in &problems {
        println!("FAILED: {problem}");
    }
    if !problems.is_empty() {
        bail!("{} results are not as expected", problems.len());
    }
    Ok(())
}

/// The pods and the actions on them. What was not as expected.
fn scenarios(options: &Options, cluster: &Cluster, node: &mut Node) -> Result<Vec<String>> {
    let started = Instant::now();
    let pods: Vec<_> = pods::all(node).into_iter().filter(|it| options.wants(it.name)).collect();
    headline(&format!("{} pods at once", pods.len()));
    let mut problems = pods::run(cluster, node, &pods)?;
    println!("{}", run::elapsed(started));
    headline("What is done to pods and node");
    for action in actions::ALL.iter().filter(|it| options.wants(it.name)) {
        let started = Instant::now();
        match (action.act)(cluster, node) {
            Ok(()) => println!("ok    {} ({})", action.name, run::elapsed(started)),
            Err(error) => {
                println!("FAIL  {} ({}): {error:#}", action.name, run::elapsed(started));
                problems.push(format!("{}: {error:#}", action.name));
            }
        }
    }
    Ok(problems)
}

fn start_registry(dir: &Path, logs: &Path) -> Result<Service> {
    let program = run::which("docker-registry").context("docker-registry is not installed")?;
    let mut command = Command::new(program);
    command.arg("serve").arg(dir.join("registry.yml"));
    Service::start("docker-registry", &mut command, &logs.join("registry.log"), || {
        TcpStream::connect(REGISTRY).is_ok()
    })
}
