// SPDX-License-Identifier: Apache-2.0
//! Tests of whole specs, and what the tests of the parts start from.

use std::path::{Path, PathBuf};

use hull_cgroups::Mode;
use hull_netns::NetNsPath;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};
use proptest::prelude::*;

use super::*;
use crate::spec::namespaces::{PidNamespace, pid_namespace};

/// A node that can do everything.
pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        capabilities: capabilities::from_mask(u64::MAX),
        oom_score_adj: 0,
        arch: Arch::X86_64,
        kernel: (6, 1),
        cgroup: Mode::V1,
        swap_accounting: true,
        hugetlb: true,
        apparmor: false,
        selinux: false,
    }
}

pub(crate) fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

/// Owns what a [`SpecInput`] borrows.
pub(crate) struct Fixture {
    pub(crate) container: v1::ContainerConfig,
    pub(crate) sandbox: v1::PodSandboxConfig,
    pub(crate) image: ImageConfig,
    pub(crate) namespaces: PodNamespaces,
    pub(crate) files: PodFiles,
    pub(crate) user: ResolvedUser,
    pub(crate) mounts: Vec<ResolvedMount>,
    pub(crate) facts: NodeFacts,
    pub(crate) handler: HandlerFacts,
    pub(crate) policy: HandlerPolicy,
    pub(crate) join_pid: Option<i32>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let options = v1::NamespaceOption { pid: 1, ..Default::default() };
        let sandbox_security =
            v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        Self {
            container: v1::ContainerConfig {
                metadata: Some(v1::ContainerMetadata { name: "web".into(), attempt: 2 }),
                linux: Some(v1::LinuxContainerConfig {
                    resources: Some(v1::LinuxContainerResources::default()),
                    security_context: Some(v1::LinuxContainerSecurityContext::default()),
                }),
                ..Default::default()
            },
            sandbox: v1::PodSandboxConfig {
                linux: Some(v1::LinuxPodSandboxConfig {
                    security_context: Some(sandbox_security),
                    ..Default::default()
                }),
                ..Default::default()
            },
            image: ImageConfig { cmd: strings(&["sh"]), ..Default::default() },
            namespaces: PodNamespaces {
                user: None,
                network: Some(NetNsPath::unverified("/run/netns/hull-pod")),
                ipc: Some("/run/hull/ns/pod/ipc".into()),
                uts: Some("/run/hull/ns/pod/uts".into()),
            },
            files: PodFiles {
                resolv_conf: Some("/run/pod/resolv.conf".into()),
                hostname: Some("/run/pod/hostname".into()),
                hosts: None,
                shm: Some("/run/pod/shm".into()),
            },
            user: ResolvedUser { uid: 5, gid: 6, groups: vec![6, 7] },
            mounts: Vec::new(),
            facts: facts(),
            handler: HandlerFacts::default(),
            policy: HandlerPolicy::default(),
            join_pid: None,
        }
    }

    pub(crate) fn input(&self) -> SpecInput<'_> {
        SpecInput {
            container: &self.container,
            sandbox: &self.sandbox,
            image: &self.image,
            container_id: "c1",
            sandbox_id: "s1",
            rootfs: Path::new("/var/lib/hull/containers/c1/merged"),
            namespaces: &self.namespaces,
            files: &self.files,
            hostname: "pod",
            join_pid: self.join_pid,
            user: &self.user,
            cgroups_path: Path::new("/kubepods/pod1/hull-c1"),
            mounts: &self.mounts,
            devices: &[],
            cdi: None,
            seccomp_localhost: None,
            apparmor_default: None,
            default_capabilities: &[Capability::Chown],
            rlimits: &[],
            pids_limit: None,
            facts: &self.facts,
            handler: &self.handler,
            policy: &self.policy,
        }
    }

    pub(crate) fn security(&mut self) -> &mut v1::LinuxContainerSecurityContext {
        let linux = self.container.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }

    pub(crate) fn sandbox_security(&mut self) -> &mut v1::LinuxSandboxSecurityContext {
        let linux = self.sandbox.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }

    pub(crate) fn resources(&mut self) -> &mut v1::LinuxContainerResources {
        self.container.linux.get_or_insert_default().resources.get_or_insert_default()
    }

    pub(crate) fn make_privileged(&mut self) {
        self.security().privileged = true;
        self.sandbox_security().privileged = true;
    }

    /// As the kubelet asks: 65536 ids.
    pub(crate) fn make_user_namespace(&mut self) {
        let ids = vec![v1::IdMapping { host_id: 100_000, container_id: 0, length: 65536 }];
        let user = v1::UserNamespace { mode: 0, uids: ids.clone(), gids: ids };
        let options = self.sandbox_security().namespace_options.get_or_insert_default();
        options.userns_options = Some(user);
        self.namespaces.user = Some("/run/hull/ns/pod/user".into());
        self.handler.user_namespaces = true;
    }

    fn namespaces(&self) -> Result<Vec<(LinuxNamespaceType, Option<PathBuf>)>, String> {
        let spec = generate(&self.input()).map_err(|error| error.to_string())?;
        let linux = spec.linux().clone().unwrap();
        let list = linux.namespaces().clone().unwrap();
        Ok(list.iter().map(|it| (it.typ(), it.path().clone())).collect())
    }

    fn limits(&self) -> Result<LinuxResources, String> {
        let spec = generate(&self.input()).map_err(|error| error.to_string())?;
        Ok(spec.linux().clone().unwrap().resources().clone().unwrap())
    }

    pub(crate) fn error(&self) -> String {
        generate(&self.input()).unwrap_err().to_string()
    }
}

/// The annotations that steer runc, crun, CRI-O's hooks, Kata and gVisor, one of each kind, and harmless ones.
const ANNOTATIONS: [&str; 11] = [
    "run.oci.handler",
    "run.oci.systemd.subgroup",
    "module.wasm.image/variant",
    "org.systemd.property.ExecStopPost",
    "org.criu.config",
    "io.kubernetes.cri-o.Devices",
    "io.katacontainers.config.hypervisor.path",
    "dev.gvisor.internal.x",
    "io.kubernetes.container.hash",
    "example.com/a",
    "io.hull.sandbox-id",
];

fn annotated(allowed: &[&str]) -> std::collections::BTreeMap<String, String> {
    let mut fixture = Fixture::new();
    let of = |value: &str| ANNOTATIONS.map(|key| (key.to_owned(), value.to_owned())).into();
    fixture.sandbox.annotations = of("pod");
    fixture.container.annotations = of("container");
    fixture.container.annotations.remove("run.oci.handler");
    fixture.policy.allowed_annotations = allowed.iter().map(|it| it.parse().unwrap()).collect();
    generate(&fixture.input()).unwrap().annotations().clone().unwrap().into_iter().collect()
}

#[test]
fn runtimes_are_given_no_annotations_but_ours() {
    let ours = [("io.hull.container-name", "web"), ("io.hull.sandbox-id", "s1")];
    let ours = ours.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(annotated(&[]), ours.clone().into());
    // Whatever is allowed, ours are never replaced.
    assert_eq!(annotated(&["io.hull.*"]), ours.into());
}

#[test]
fn allowed_annotations_come_from_the_pod_and_the_container() {
    let found = annotated(&["run.oci.*", "module.wasm.image/*"]);
    assert_eq!(found.len(), 5, "{found:?}");
    assert_eq!(found["run.oci.handler"], "pod");
    assert_eq!(found["run.oci.systemd.subgroup"], "container", "the container's wins");
    assert_eq!(found["module.wasm.image/variant"], "container");
    assert_eq!(annotated(&["*"]).len(), ANNOTATIONS.len() + 1);
}

#[test]
fn a_plain_container() {
    let fixture = Fixture::new();
    let spec = generate(&fixture.input()).unwrap();
    assert_eq!(spec.version(), "1.0.2");

    let process = spec.process().clone().unwrap();
    assert_eq!(process.args().clone().unwrap(), strings(&["sh"]));
    assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
    assert_eq!(process.user().additional_gids().clone().unwrap(), vec![6, 7]);
    assert_eq!(process.no_new_privileges(), Some(false));
    assert_eq!(process.rlimits(), &None);
    assert_eq!(process.oom_score_adj(), Some(0));
    let linux = spec.linux().clone().unwrap();
    assert_eq!(linux.seccomp(), &None);
    assert_eq!(linux.sysctl(), &None);
    assert_eq!(linux.masked_paths(), &None);
    assert_eq!(linux.cgroups_path().as_deref(), Some(Path::new("/kubepods/pod1/hull-c1")));

    // What is absent is left out: runtimes stumble over null.
    let json = serde_json::to_string(&spec).unwrap();
    assert!(!json.contains("null"), "{json}");
    assert!(serde_json::from_str::<Spec>(&json).is_ok());
}

#[test]
fn nothing_but_an_image() {
    let mut fixture = Fixture::new();
    fixture.container = v1::ContainerConfig::default();
    assert!(generate(&fixture.input()).is_ok());
    fixture.image = ImageConfig::default();
    assert!(matches!(generate(&fixture.input()), Err(SpecError::NoCommand)));
}

#[test]
fn namespaces_of_the_pod_and_the_host() {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let mut fixture = Fixture::new();
    let path = |text: &str| Some(PathBuf::from(text));
    let pods = [
        (Mount, None),
        (Network, path("/run/netns/hull-pod")),
        (Ipc, path("/run/hull/ns/pod/ipc")),
        (Uts, path("/run/hull/ns/pod/uts")),
    ];
    assert_eq!(fixture.namespaces().unwrap(), [&pods[..], &[(Pid, None)]].concat());

    fixture.facts.cgroup = Mode::V2;
    assert_eq!(fixture.namespaces().unwrap().last(), Some(&(Cgroup, None)));
    fixture.make_privileged();
    assert_eq!(fixture.namespaces().unwrap().last(), Some(&(Pid, None)));

    fixture.namespaces = PodNamespaces::default();
    fixture.security().namespace_options =
        Some(v1::NamespaceOption { network: 2, pid: 2, ipc: 2, ..Default::default() });
    assert_eq!(fixture.namespaces().unwrap(), [(Mount, None)]);
}

#[test]
fn pid_namespaces() {
    let mut fixture = Fixture::new();
    let mut set = |own: i32, pods: i32, target: &str| {
        let options = |pid| v1::NamespaceOption { pid, target_id: target.to_owned(), ..Default::default() };
        fixture.security().namespace_options = Some(options(own));
        fixture.sandbox_security().namespace_options = Some(options(pods));
        pid_namespace(&fixture.container, &fixture.sandbox).map_err(|error| error.to_string())
    };
    assert_eq!(set(0, 0, ""), Ok(PidNamespace::Pod));
    assert_eq!(set(0, 1, ""), Ok(PidNamespace::Container));
    assert_eq!(set(0, 2, ""), Ok(PidNamespace::Host));
    assert_eq!(set(1, 0, ""), Ok(PidNamespace::Container));
    assert_eq!(set(2, 1, ""), Ok(PidNamespace::Host));
    assert_eq!(set(3, 1, "abc"), Ok(PidNamespace::Target("abc".into())));
    assert!(set(3, 1, "").is_err());
    assert!(set(0, 3, "").is_err());
    assert!(set(9, 1, "").is_err());

    set(0, 0, "").unwrap();
    let field = "linux.security_context.namespace_options.pid";
    let missing = format!("{field}: the process whose PID namespace is to be joined does not run");
    assert_eq!(fixture.error(), missing);
    fixture.join_pid = Some(77);
    let joined = (LinuxNamespaceType::Pid, Some(PathBuf::from("/proc/77/ns/pid")));
    assert!(fixture.namespaces().unwrap().contains(&joined));
}

#[test]
fn privileged_needs_a_privileged_pod() {
    let mut fixture = Fixture::new();
    fixture.security().privileged = true;
    assert!(fixture.error().contains("no privileged container is allowed"));
    fixture.make_privileged();
    fixture.security().masked_paths = strings(&["/proc/kcore"]);
    fixture.security().no_new_privs = true;
    fixture.security().seccomp = Some(v1::SecurityProfile::default());
    let spec = generate(&fixture.input()).unwrap();
    let linux = spec.linux().clone().unwrap();
    assert_eq!((linux.masked_paths(), linux.seccomp()), (&None, &None));
    let process = spec.process().clone().unwrap();
    assert_eq!(process.no_new_privileges(), Some(true));
    let held = process.capabilities().clone().unwrap();
    assert_eq!(held.bounding().clone().unwrap(), fixture.facts.capabilities);
}

#[test]
fn limits() {
    let mut fixture = Fixture::new();
    let empty = fixture.limits().unwrap();
    assert_eq!((empty.cpu(), empty.memory(), empty.pids()), (&None, &None, &None));

    *fixture.resources() = v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: -1,
        cpu_shares: 1,
        memory_limit_in_bytes: 64 << 20,
        cpuset_cpus: "0-1".into(),
        hugepage_limits: vec![v1::HugepageLimit { page_size: "2MB".into(), limit: u64::MAX }],
        ..Default::default()
    };
    let got = fixture.limits().unwrap();
    let cpu = got.cpu().clone().unwrap();
    assert_eq!((cpu.period(), cpu.quota(), cpu.shares()), (Some(100_000), None, Some(2)));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-1"), None));
    let memory = (*got.memory()).unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(got.hugepage_limits().clone().unwrap()[0].limit(), i64::MAX);

    fixture.facts.swap_accounting = false;
    fixture.facts.hugetlb = false;
    let got = fixture.limits().unwrap();
    assert_eq!((*got.memory()).unwrap().swap(), None);
    assert_eq!(got.hugepage_limits(), &None);
}

#[test]
fn limits_that_cannot_be() {
    type Change = fn(&mut v1::LinuxContainerResources);
    let cases: [(Change, &str); 9] = [
        (|it| it.cpu_period = -1, "linux.resources.cpu_period: -1 is negative"),
        (|it| it.cpu_quota = -2, "linux.resources.cpu_quota: -2 is negative"),
        (|it| it.cpu_shares = -5, "linux.resources.cpu_shares: -5 is negative"),
        (
            |it| it.cpuset_cpus = "all".into(),
            "linux.resources.cpuset_cpus: \"all\" is not a list such as \"0-3,8\"",
        ),
        (
            |it| it.memory_limit_in_bytes = 1000,
            "linux.resources.memory_limit_in_bytes: set memory limit 1000 too low; should be at least 12582912 bytes",
        ),
        (|it| it.memory_limit_in_bytes = -7, "linux.resources.memory_limit_in_bytes: -7 is negative"),
        (
            |it| (it.memory_limit_in_bytes, it.memory_swap_limit_in_bytes) = (20 << 20, 1),
            "linux.resources.memory_swap_limit_in_bytes: 1 is below memory_limit_in_bytes, 20971520: it counts \
             memory and swap",
        ),
        (
            |it| it.hugepage_limits = vec![v1::HugepageLimit { page_size: "big".into(), limit: 1 }],
            "linux.resources.hugepage_limits: \"big\" is not a page size such as \"2MB\"",
        ),
        (
            |it| it.unified = [("memory.high".to_owned(), "1".to_owned())].into(),
            "linux.resources.unified is not supported: this node's cgroups are version 1",
        ),
    ];
    for (change, message) in cases {
        let mut fixture = Fixture::new();
        change(fixture.resources());
        assert_eq!(fixture.error(), message);
    }
}

#[test]
fn what_is_not_done_yet_is_named() {
    let userns = |mode| v1::NamespaceOption {
        pid: 1,
        userns_options: Some(v1::UserNamespace { mode, ..Default::default() }),
        ..Default::default()
    };
    let unsupported = |change: &dyn Fn(&mut Fixture), field: &str| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        match generate(&fixture.input()) {
            Err(SpecError::Unsupported { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    };
    let apparmor = |profile_type| v1::SecurityProfile {
        profile_type,
        localhost_ref: "mine".into(),
        ..Default::default()
    };
    unsupported(&|it| it.security().apparmor = Some(apparmor(2)), "linux.security_context.apparmor");
    unsupported(
        &|it| {
            it.facts.apparmor = true;
            it.security().apparmor = Some(apparmor(0));
        },
        "linux.security_context.apparmor",
    );
    let label = v1::SeLinuxOption { level: "s0".into(), ..Default::default() };
    unsupported(
        &|it| {
            it.facts.selinux = true;
            it.security().selinux_options = Some(label.clone());
        },
        "linux.security_context.selinux_options",
    );

    // Harmless where the node has no such thing.
    let mut fixture = Fixture::new();
    fixture.security().selinux_options = Some(label.clone());
    fixture.security().apparmor = Some(apparmor(0));
    fixture.security().namespace_options = Some(userns(2));
    assert!(generate(&fixture.input()).is_ok());
    // Named where it has.
    fixture.facts.apparmor = true;
    fixture.security().apparmor = Some(apparmor(2));
    let spec = generate(&fixture.input()).unwrap();
    assert_eq!(spec.process().clone().unwrap().apparmor_profile().as_deref(), Some("mine"));
    fixture.security().namespace_options = Some(userns(1));
    assert!(matches!(generate(&fixture.input()), Err(SpecError::Invalid { .. })));
}

#[test]
fn a_container_does_not_leave_its_pods_network() {
    let mut fixture = Fixture::new();
    fixture.security().namespace_options =
        Some(v1::NamespaceOption { network: 2, pid: 1, ..Default::default() });
    assert!(fixture.error().contains("NODE, but the pod has its own network namespace"));
}

#[test]
fn exec_takes_the_containers_process() {
    let mut fixture = Fixture::new();
    fixture.security().no_new_privs = true;
    let spec = generate(&fixture.input()).unwrap();
    let own = spec.process().clone().unwrap();
    let exec = exec_process(&spec, &strings(&["ls", "-l"]), true);
    assert_eq!(exec.args().clone().unwrap(), strings(&["ls", "-l"]));
    assert_eq!(exec.terminal(), Some(true));
    assert!(exec.env().clone().unwrap().contains(&"TERM=xterm".to_owned()));
    assert_eq!(exec.user(), own.user());
    assert_eq!(exec.capabilities(), own.capabilities());
    assert_eq!(exec.no_new_privileges(), Some(true));
    assert_eq!(exec_process(&spec, &strings(&["ls"]), false).env(), own.env());
}

#[test]
fn the_pause_can_do_nothing() {
    let fixture = Fixture::new();
    let spec = pause_spec(&PauseInput {
        sandbox_id: "s1",
        rootfs: Path::new("/var/lib/hull/pause"),
        namespaces: &fixture.namespaces,
        users: None,
        cgroups_path: Path::new("/kubepods/pod1/hull-s1"),
        facts: &fixture.facts,
        seccomp: true,
    })
    .unwrap();
    let process = spec.process().clone().unwrap();
    assert_eq!((process.user().uid(), process.user().gid()), (65534, 65534));
    let capabilities = process.capabilities().clone().unwrap();
    for set in [capabilities.bounding(), capabilities.effective(), capabilities.ambient()] {
        assert!(set.as_ref().unwrap().is_empty());
    }
    assert_eq!(process.no_new_privileges(), Some(true));
    assert_eq!(process.args().clone().unwrap(), strings(&["/pause"]));
    assert_eq!(spec.root().clone().unwrap().readonly(), Some(true));
    let linux = spec.linux().clone().unwrap();
    assert!(linux.seccomp().is_some());
    let pid = (LinuxNamespaceType::Pid, None);
    let list = linux.namespaces().clone().unwrap();
    assert!(list.iter().any(|it| (it.typ(), it.path().clone()) == pid));
}

#[test]
fn the_pause_is_somebody_in_every_user_namespace() {
    let range = |length| hull_netns::IdMapping { container_id: 0, host_id: 100_000, length };
    for (uids, gids, expected) in [(65536, 65536, (65534, 65534)), (1, 1000, (0, 999))] {
        let mut fixture = Fixture::new();
        fixture.make_user_namespace();
        let users = hull_netns::UserMappings { uids: vec![range(uids)], gids: vec![range(gids)] };
        let spec = pause_spec(&PauseInput {
            sandbox_id: "s1",
            rootfs: Path::new("/var/lib/hull/pause"),
            namespaces: &fixture.namespaces,
            users: Some(&users),
            cgroups_path: Path::new("/kubepods/pod1/hull-s1"),
            facts: &fixture.facts,
            seccomp: true,
        })
        .unwrap();
        let user = spec.process().clone().unwrap().user().clone();
        assert_eq!((user.uid(), user.gid()), expected);
        let namespaces = spec.linux().clone().unwrap().namespaces().clone().unwrap();
        assert_eq!(namespaces[0].typ(), LinuxNamespaceType::User);
    }
}

fn security_contexts() -> impl Strategy<Value = v1::LinuxContainerSecurityContext> {
    let options = (-1..5i32, -1..5i32, -1..5i32, ".{0,3}").prop_map(|(network, pid, ipc, target_id)| {
        v1::NamespaceOption { network, pid, ipc, target_id, userns_options: None, ..Default::default() }
    });
    let profile = (-1..5i32, ".{0,8}").prop_map(|(profile_type, localhost_ref)| v1::SecurityProfile {
        profile_type,
        localhost_ref,
        ..Default::default()
    });
    (
        any::<bool>(),
        proptest::option::of(options),
        proptest::option::of(profile.clone()),
        proptest::option::of(profile),
        proptest::collection::vec(".{0,10}", 0..3),
        proptest::collection::vec("[a-zA-Z_]{0,8}", 0..3),
        ".{0,20}",
    )
        .prop_map(|(privileged, namespace_options, seccomp, apparmor, masked_paths, add, old)| {
            let capabilities = v1::Capability { add_capabilities: add, ..Default::default() };
            v1::LinuxContainerSecurityContext {
                privileged,
                namespace_options,
                seccomp,
                apparmor,
                masked_paths,
                capabilities: Some(capabilities),
                seccomp_profile_path: old.clone(),
                apparmor_profile: old,
                ..Default::default()
            }
        })
}

fn resource_requests() -> impl Strategy<Value = v1::LinuxContainerResources> {
    (any::<[i64; 6]>(), ".{0,6}", ".{0,4}", any::<u64>()).prop_map(|(numbers, cpus, page_size, limit)| {
        let [cpu_period, cpu_quota, cpu_shares, memory, swap, oom_score_adj] = numbers;
        v1::LinuxContainerResources {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            oom_score_adj,
            cpuset_cpus: cpus,
            hugepage_limits: vec![v1::HugepageLimit { page_size, limit }],
            ..Default::default()
        }
    })
}

proptest! {
    #[test]
    fn generate_never_panics(
        security in security_contexts(),
        resources in proptest::option::of(resource_requests()),
        command in proptest::collection::vec(".{0,5}", 0..3),
        working_dir in ".{0,12}",
        key in ".{0,5}",
        value in proptest::collection::vec(any::<u8>(), 0..5),
        image_env in proptest::collection::vec(".{0,8}", 0..3),
        held in any::<u64>(),
        join_pid in proptest::option::of(any::<i32>()),
    ) {
        let mut fixture = Fixture::new();
        fixture.facts.capabilities = capabilities::from_mask(held);
        fixture.join_pid = join_pid;
        fixture.sandbox_security().privileged = true;
        *fixture.security() = security;
        fixture.container.linux.as_mut().unwrap().resources = resources;
        fixture.container.command = command;
        fixture.container.working_dir = working_dir;
        fixture.container.envs = vec![v1::KeyValue { key, value }];
        fixture.image.env = image_env;
        if let Ok(spec) = generate(&fixture.input()) {
            // What comes out can be written and read again, and asks for nothing that cannot be given.
            let json = serde_json::to_string(&spec).unwrap();
            prop_assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec.clone());
            let process = spec.process().clone().unwrap();
            prop_assert!(!process.args().clone().unwrap().is_empty());
            prop_assert!(process.cwd().is_absolute());
            let sets = process.capabilities().clone().unwrap();
            prop_assert!(sets.bounding().clone().unwrap().is_subset(&fixture.facts.capabilities));
        }
    }
}
