// SPDX-License-Identifier: Apache-2.0
//! How the pods and containers of a bench look: as the kubelet's, with a PID namespace per container.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_cri_api::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};

use super::args::Bench;
use crate::config;
use crate::error::Error;

/// The label that all pods of a run bear; its value is the run's id.
pub(crate) const LABEL: &str = "hull.bench/run";

/// As PID 1 a shell ignores SIGTERM unless it is told; `wait` is what a signal interrupts.
const COMMAND: [&str; 3] = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"];
const EXEC: [&str; 1] = ["true"];

/// What all pods of a run have in common.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Tells this run from all others.
    pub(crate) run: String,
    pub(crate) command: Vec<String>,
    pub(crate) exec: Vec<String>,
    /// Before ExecSync.
    pub(crate) rest: Duration,
    log_dir: PathBuf,
    pod: PodSandboxConfig,
    container: ContainerConfig,
}

impl Recipe {
    /// Reads the files that `args` name.
    pub(crate) fn new(args: &Bench, run: String, log_dir: &Path) -> Result<Self, Error> {
        let pod = args.pod_config.as_deref().map(config::read_pod).transpose()?;
        let container = args.container_config.as_deref().map(config::read_container).transpose()?;
        let mut pod = pod.unwrap_or_default();
        let mut container = container.unwrap_or_else(small);
        let words = |given: &[String], usual: &[&str]| {
            if given.is_empty() {
                usual.iter().map(|word| (*word).to_owned()).collect()
            } else {
                given.to_vec()
            }
        };
        let command = words(&args.command, &COMMAND);
        container.image = Some(ImageSpec { image: args.image.clone(), ..Default::default() });
        container.command.clone_from(&command);
        container.args.clear();
        let namespaces = namespaces(args.host_network);
        let linux = pod.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().namespace_options = Some(namespaces.clone());
        if let Some(parent) = &args.cgroup_parent {
            linux.cgroup_parent.clone_from(parent);
        }
        let linux = container.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().namespace_options = Some(namespaces);
        let (exec, rest) = (words(&args.exec, &EXEC), Duration::from_millis(args.rest));
        Ok(Self { run, command, exec, rest, log_dir: log_dir.to_owned(), pod, container })
    }

    /// The pod of this number on the endpoint of this name.
    pub(crate) fn pod(&self, endpoint: &str, number: u32) -> PodSandboxConfig {
        let mut pod = self.pod.clone();
        let name = format!("bench-{number}");
        pod.metadata = Some(PodSandboxMetadata {
            uid: format!("{}-{endpoint}-{number}", self.run),
            name: name.clone(),
            namespace: "bench".to_owned(),
            attempt: 0,
        });
        if !is_host_network(&pod) {
            pod.hostname.clone_from(&name);
        }
        pod.log_directory = self.log_dir.join(format!("{endpoint}-{number}")).to_string_lossy().into_owned();
        pod.labels.insert(LABEL.to_owned(), self.run.clone());
        pod.labels.insert("io.kubernetes.pod.name".to_owned(), name);
        pod.labels.insert("io.kubernetes.pod.namespace".to_owned(), "bench".to_owned());
        pod
    }

    /// The container of every pod.
    pub(crate) fn container(&self) -> ContainerConfig {
        let mut container = self.container.clone();
        container.metadata = Some(ContainerMetadata { name: "bench".to_owned(), attempt: 0 });
        container.log_path = "bench/0.log".to_owned();
        container.labels.insert(LABEL.to_owned(), self.run.clone());
        container
    }
}

/// Small limits, so that the runtime has them to set.
fn small() -> ContainerConfig {
    ContainerConfig {
        linux: Some(LinuxContainerConfig {
            resources: Some(LinuxContainerResources {
                cpu_shares: 102,
                memory_limit_in_bytes: 64 << 20,
                oom_score_adj: 1000,
                ..Default::default()
            }),
            security_context: Some(LinuxContainerSecurityContext::default()),
        }),
        ..Default::default()
    }
}

fn namespaces(host_network: bool) -> NamespaceOption {
    let network = if host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..Default::default()
    }
}

fn is_host_network(pod: &PodSandboxConfig) -> bool {
    let LinuxPodSandboxConfig { security_context: Some(context), .. } = pod.linux.clone().unwrap_or_default()
    else {
        return false;
    };
    let LinuxSandboxSecurityContext { namespace_options, .. } = context;
    namespace_options.is_some_and(|options| options.network() == NamespaceMode::Node)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn recipe(words: &[&str]) -> Recipe {
        let cli = Cli::try_parse_from(["crictl-lite", "bench"].iter().chain(words)).unwrap();
        let Command::Bench(args) = cli.command else { panic!("not bench") };
        Recipe::new(&args, "run1".into(), Path::new("/logs")).unwrap()
    }

    #[test]
    fn pods_are_made_as_the_kubelet_makes_them() {
        let recipe = recipe(&["--cgroup-parent", "/kubepods"]);
        let (pod, other) = (recipe.pod("a", 1), recipe.pod("b", 1));
        let options = pod.linux.clone().unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!((options.pid(), options.network()), (NamespaceMode::Container, NamespaceMode::Pod));
        assert_eq!(pod.linux.unwrap().cgroup_parent, "/kubepods");
        assert_eq!(pod.log_directory, "/logs/a-1");
        assert_ne!(pod.metadata.unwrap().uid, other.metadata.unwrap().uid);
        assert_eq!(pod.labels[LABEL], "run1");
        let container = recipe.container();
        assert_eq!(container.command, COMMAND);
        let options = container.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
        assert_eq!(options.pid(), NamespaceMode::Container);
    }

    #[test]
    fn what_is_given_is_taken() {
        let recipe = recipe(&["--host-network", "--command", "sleep", "--command", "-1", "--exec", "ls"]);
        assert_eq!((recipe.command.join(" "), recipe.exec.join(" ")), ("sleep -1".into(), "ls".into()));
        let pod = recipe.pod("a", 0);
        assert!(is_host_network(&pod) && pod.hostname.is_empty());
    }
}
