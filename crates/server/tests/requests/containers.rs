// SPDX-License-Identifier: Apache-2.0
//! What a container's configuration becomes: in the specification that its runtime gets, and in its status.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

type Change = fn(&mut ContainerConfig);
type Check = fn(&Value) -> bool;

/// Whether the daemon, which is this process, holds a capability: no container gets more.
fn holds(bit: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    mask("CapPrm:") & mask("CapBnd:") & 1 << bit != 0
}

const NET_RAW: u32 = 13;
const KILL: u32 = 5;

fn set<'a>(spec: &'a Value, name: &str) -> &'a Value {
    &spec["process"]["capabilities"][name]
}

pub(crate) fn profile() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile.json")
}

fn capabilities(config: &mut ContainerConfig) -> &mut Capability {
    security(config).capabilities.get_or_insert_default()
}

/// Fields, a request that has them, and what must be in the specification.
pub(crate) const ROWS: &[(&[&str], Change, Check)] = &[
    (
        &["ContainerConfig.command"],
        |c| c.command = words(&["/app", "serve"]),
        |s| s["process"]["args"] == json!(["/app", "serve"]),
    ),
    (
        &["ContainerConfig.args"],
        |c| c.args = words(&["7"]),
        |s| s["process"]["args"] == json!(["sleep", "1000", "7"]),
    ),
    (
        &["ContainerConfig.working_dir"],
        |c| c.working_dir = "/srv/app".into(),
        |s| s["process"]["cwd"] == "/srv/app",
    ),
    (
        &["ContainerConfig.envs", "KeyValue.key", "KeyValue.value"],
        |c| c.envs = vec![KeyValue { key: "A".into(), value: "b=c".into() }],
        |s| has(&s["process"]["env"], "A=b=c"),
    ),
    (&["ContainerConfig.tty"], |c| (c.tty, c.stdin) = (true, true), |s| s["process"]["terminal"] == true),
    (
        &["ContainerConfig.mounts", "Mount.container_path", "Mount.host_path", "Mount.readonly"],
        |c| {
            let (container_path, host_path) = ("/volume".into(), "/proc/self/../../usr".into());
            c.mounts = vec![Mount { container_path, host_path, readonly: true, ..Default::default() }];
        },
        |s| {
            let mount = mount(s, "/volume");
            mount["source"] == "/usr" && has(&mount["options"], "ro") && has(&mount["options"], "rprivate")
        },
    ),
    (
        &["ContainerConfig.devices", "Device.container_path", "Device.host_path", "Device.permissions"],
        |c| {
            let (container_path, host_path) = ("/dev/nothing".into(), "/dev/null".into());
            c.devices = vec![Device { container_path, host_path, permissions: "r".into() }];
        },
        |s| {
            let rules = s["linux"]["resources"]["devices"].as_array().unwrap();
            s["linux"]["devices"].as_array().unwrap().iter().any(|it| it["path"] == "/dev/nothing")
                && rules.iter().any(|it| it["access"] == "r" && it["major"] == 1 && it["minor"] == 3)
        },
    ),
    (
        &["LinuxContainerConfig.resources", "LinuxContainerResources.cpu_period"],
        |c| resources(c).cpu_period = 50_000,
        |s| s["linux"]["resources"]["cpu"]["period"] == 50_000,
    ),
    (
        &["LinuxContainerResources.cpu_quota"],
        |c| resources(c).cpu_quota = 20_000,
        |s| s["linux"]["resources"]["cpu"]["quota"] == 20_000,
    ),
    (
        &["LinuxContainerResources.cpu_shares"],
        |c| resources(c).cpu_shares = 512,
        |s| s["linux"]["resources"]["cpu"]["shares"] == 512,
    ),
    (
        &["LinuxContainerResources.cpuset_cpus"],
        |c| resources(c).cpuset_cpus = "0-1".into(),
        |s| s["linux"]["resources"]["cpu"]["cpus"] == "0-1",
    ),
    (
        &["LinuxContainerResources.cpuset_mems"],
        |c| resources(c).cpuset_mems = "0".into(),
        |s| s["linux"]["resources"]["cpu"]["mems"] == "0",
    ),
    (
        &["LinuxContainerResources.memory_limit_in_bytes"],
        |c| resources(c).memory_limit_in_bytes = 64 << 20,
        |s| s["linux"]["resources"]["memory"]["limit"] == 64 << 20,
    ),
    (
        &["LinuxContainerResources.memory_swap_limit_in_bytes"],
        |c| {
            resources(c).memory_limit_in_bytes = 64 << 20;
            resources(c).memory_swap_limit_in_bytes = 96 << 20;
        },
        |s| {
            let accounted = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
            let swap = &s["linux"]["resources"]["memory"]["swap"];
            if accounted { *swap == 96 << 20 } else { swap.is_null() }
        },
    ),
    (
        &["LinuxContainerResources.hugepage_limits", "HugepageLimit.page_size", "HugepageLimit.limit"],
        |c| {
            let limit = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
            resources(c).hugepage_limits = vec![limit];
        },
        |s| {
            let limits = &s["linux"]["resources"]["hugepageLimits"];
            let there = Path::new("/sys/fs/cgroup/hugetlb").is_dir();
            let wanted = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
            if there { *limits == wanted } else { limits.is_null() }
        },
    ),
    (
        &["LinuxContainerResources.oom_score_adj"],
        |c| resources(c).oom_score_adj = 999,
        |s| s["process"]["oomScoreAdj"] == 999,
    ),
    (
        &[
            "ContainerConfig.linux",
            "LinuxContainerConfig.security_context",
            "LinuxContainerSecurityContext.capabilities",
            "Capability.add_capabilities",
        ],
        |c| capabilities(c).add_capabilities = words(&["NET_RAW"]),
        |s| {
            ["bounding", "effective", "permitted"]
                .iter()
                .all(|it| has(set(s, it), "CAP_NET_RAW") == holds(NET_RAW))
                && !has(set(s, "ambient"), "CAP_NET_RAW")
        },
    ),
    (
        &["Capability.drop_capabilities"],
        |c| capabilities(c).drop_capabilities = words(&["KILL"]),
        |s| !has(set(s, "bounding"), "CAP_KILL") && has(set(s, "bounding"), "CAP_CHOWN") == holds(0),
    ),
    (
        &["Capability.add_ambient_capabilities"],
        |c| capabilities(c).add_ambient_capabilities = words(&["KILL"]),
        |s| ["ambient", "inheritable"].iter().all(|it| has(set(s, it), "CAP_KILL") == holds(KILL)),
    ),
    (
        &["LinuxContainerSecurityContext.privileged", "LinuxSandboxSecurityContext.privileged"],
        |c| {
            security(c).privileged = true;
            security(c).masked_paths = words(&["/proc/kcore"]);
        },
        |s| {
            let rules = s["linux"]["resources"]["devices"].as_array().unwrap();
            s["linux"]["maskedPaths"].is_null()
                && rules.iter().any(|it| it["allow"] == true && it["type"].is_null())
        },
    ),
    (
        &["LinuxContainerSecurityContext.run_as_user", "Int64Value.value"],
        |c| security(c).run_as_user = Some(Int64Value { value: 1234 }),
        |s| s["process"]["user"]["uid"] == 1234,
    ),
    (
        &["LinuxContainerSecurityContext.run_as_group"],
        |c| {
            security(c).run_as_user = Some(Int64Value { value: 1234 });
            security(c).run_as_group = Some(Int64Value { value: 77 });
        },
        |s| s["process"]["user"]["gid"] == 77,
    ),
    (
        &["LinuxContainerSecurityContext.run_as_username"],
        |c| security(c).run_as_username = "1234".into(),
        |s| s["process"]["user"]["uid"] == 1234,
    ),
    (
        &["LinuxContainerSecurityContext.supplemental_groups"],
        |c| security(c).supplemental_groups = vec![88],
        |s| s["process"]["user"]["additionalGids"].as_array().unwrap().iter().any(|it| it == 88),
    ),
    (
        &["LinuxContainerSecurityContext.readonly_rootfs"],
        |c| security(c).readonly_rootfs = true,
        |s| s["root"]["readonly"] == true,
    ),
    (
        &["LinuxContainerSecurityContext.no_new_privs"],
        |c| security(c).no_new_privs = true,
        |s| s["process"]["noNewPrivileges"] == true,
    ),
    (
        &["LinuxContainerSecurityContext.masked_paths"],
        |c| security(c).masked_paths = words(&["/proc/kcore"]),
        |s| has(&s["linux"]["maskedPaths"], "/proc/kcore"),
    ),
    (
        &["LinuxContainerSecurityContext.readonly_paths"],
        |c| security(c).readonly_paths = words(&["/proc/sys"]),
        |s| s["linux"]["readonlyPaths"] == json!(["/proc/sys"]),
    ),
    (
        &["LinuxContainerSecurityContext.seccomp", "SecurityProfile.profile_type"],
        |c| security(c).seccomp = Some(SecurityProfile::default()),
        |s| s["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO",
    ),
    (
        &["SecurityProfile.localhost_ref"],
        |c| {
            std::fs::write(profile(), r#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
            let localhost_ref = profile().to_str().unwrap().to_owned();
            security(c).seccomp =
                Some(SecurityProfile { profile_type: 2, localhost_ref, ..Default::default() });
        },
        |s| s["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_LOG",
    ),
    (
        &["LinuxContainerSecurityContext.seccomp_profile_path"],
        |c| security(c).seccomp_profile_path = "runtime/default".into(),
        |s| s["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO",
    ),
    (
        &["LinuxContainerSecurityContext.namespace_options", "NamespaceOption.pid"],
        |c| security(c).namespace_options.get_or_insert_default().pid = NamespaceMode::Container as i32,
        |s| namespace(s, "pid").is_some_and(|it| it["path"].is_null()),
    ),
];

#[tokio::test]
async fn become_what_the_runtime_gets() {
    let mut fixture = Fixture::new().await;
    let pod_id = fixture.run(pod("web")).await.unwrap();
    let plain = fixture.create(&pod_id, container("plain")).await.unwrap();
    let plain = fixture.spec(&plain).await;
    let mut wrong = Vec::new();
    for (number, (fields, change, check)) in ROWS.iter().enumerate() {
        let mut config = container(&format!("c{number}"));
        change(&mut config);
        match fixture.create(&pod_id, config).await {
            Ok(id) => {
                let spec = fixture.spec(&id).await;
                if !check(&spec) {
                    wrong.push(format!("{fields:?}: {spec:#}"));
                }
            }
            Err(error) => wrong.push(format!("{fields:?}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A check that holds for any container shows nothing. (These depend on what the machine has, or hold always.)
    let vague = ["memory_swap", "hugepage", "Capability.", "NamespaceOption.pid", "ContainerConfig.linux"];
    for (fields, _, check) in ROWS {
        if !fields.iter().any(|it| vague.iter().any(|part| it.contains(part))) {
            let fooled = std::panic::catch_unwind(|| check(&plain)).unwrap_or(false);
            assert!(!fooled, "{fields:?} is seen in a container that did not ask for it");
        }
    }
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn are_told_again_by_the_status() {
    let mut fixture = Fixture::new().await;
    let mut sandbox = pod("web");
    sandbox.log_directory = "/var/log/pods/web".into();
    let pod_id = fixture.run(sandbox).await.unwrap();
    let mut config = container("app");
    config.metadata.as_mut().unwrap().attempt = 3;
    config.labels = [("a".to_owned(), "b".to_owned())].into();
    config.annotations = [("c".to_owned(), "d".to_owned())].into();
    config.log_path = "app/3.log".into();
    config.stop_signal = Signal::Sigquit as i32;
    let image = config.image.as_mut().unwrap();
    image.annotations = [("e".to_owned(), "f".to_owned())].into();
    image.user_specified_image = "busybox:mine".into();
    let id = fixture.create(&pod_id, config.clone()).await.unwrap();
    let answer = fixture.status(&id, false).await;
    assert!(answer.info.is_empty(), "more is told only when asked for");
    let status = answer.status.unwrap();
    assert_eq!(status.metadata, config.metadata);
    assert_eq!((status.labels, status.annotations), (config.labels, config.annotations));
    assert_eq!(status.log_path, "/var/log/pods/web/app/3.log");
    assert_eq!(status.stop_signal, Signal::Sigquit as i32);
    let (told, asked) = (status.image.unwrap(), config.image.unwrap());
    assert_eq!(
        (&told.annotations, &told.user_specified_image),
        (&asked.annotations, &asked.user_specified_image)
    );
    assert!(fixture.status(&id, true).await.info.contains_key("info"));
    fixture.server.shutdown().await;
}

/// AppArmor is what the machine has or has not: then a profile's name is passed on, else refused.
#[tokio::test]
async fn name_an_apparmor_profile_where_there_is_one() {
    let mut fixture = Fixture::new().await;
    let pod_id = fixture.run(pod("web")).await.unwrap();
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    let changes: [Change; 2] = [
        |c| {
            security(c).apparmor =
                Some(SecurityProfile { profile_type: 2, localhost_ref: "mine".into(), ..Default::default() })
        },
        |c| security(c).apparmor_profile = "localhost/mine".into(),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut config = container(&format!("c{number}"));
        change(&mut config);
        match fixture.create(&pod_id, config).await {
            Ok(id) => assert_eq!(fixture.spec(&id).await["process"]["apparmorProfile"], "mine"),
            Err(error) => {
                assert_ne!(enabled.trim(), "Y", "{error}");
                assert!(error.message().contains("apparmor"), "{error}");
            }
        }
    }
    fixture.server.shutdown().await;
}

#[tokio::test]
async fn share_what_their_pod_shares_or_another_container_has() {
    let mut fixture = Fixture::new().await;
    let pod_id = fixture.run(pod("web")).await.unwrap();
    let target = fixture.create(&pod_id, container("target")).await.unwrap();
    fixture.start(&target).await;
    let info = fixture.status(&target, true).await.info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    let mut config = container("debugger");
    let options = security(&mut config).namespace_options.get_or_insert_default();
    (options.pid, options.target_id) = (NamespaceMode::Target as i32, target);
    let id = fixture.create(&pod_id, config).await.unwrap();
    let joined = fixture.spec(&id).await;
    assert_eq!(namespace(&joined, "pid").unwrap()["path"], format!("/proc/{}/ns/pid", info["pid"]));
    assert!(namespace(&joined, "network").unwrap()["path"].is_string());

    let node = NamespaceMode::Node as i32;
    let mut sandbox = pod("host");
    let options = pod_namespaces(&mut sandbox);
    (options.network, options.pid, options.ipc) = (node, node, node);
    let pod_id = fixture.run(sandbox).await.unwrap();
    let mut config = container("app");
    let options = security(&mut config).namespace_options.get_or_insert_default();
    (options.network, options.pid, options.ipc) = (node, node, node);
    let id = fixture.create(&pod_id, config).await.unwrap();
    let spec = fixture.spec(&id).await;
    for kind in ["network", "pid", "ipc", "uts"] {
        assert_eq!(namespace(&spec, kind), None, "{kind}: the node's");
    }
    fixture.server.shutdown().await;
}
