// SPDX-License-Identifier: Apache-2.0
//! Whole specs of named containers, kept in `snapshots/` for reviewers, and checked by the rules of the OCI
//! runtime specification. `HULL_UPDATE_SNAPSHOTS=1 cargo test -p hull-server snapshots` writes them anew; the
//! difference is then what a reviewer reads.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::tests::{Fixture, strings};
use super::*;

type Change = fn(&mut Fixture);

fn resources(fixture: &mut Fixture) -> &mut v1::LinuxContainerResources {
    fixture.container.linux.get_or_insert_default().resources.get_or_insert_default()
}

fn capabilities(fixture: &mut Fixture) -> &mut v1::Capability {
    fixture.security().capabilities.get_or_insert_default()
}

fn mounted(fixture: &mut Fixture, mount: ResolvedMount) {
    fixture.container.mounts.push(v1::Mount::default());
    fixture.mounts.push(mount);
}

fn volume(destination: &str) -> ResolvedMount {
    ResolvedMount {
        destination: destination.into(),
        source: "/var/lib/kubelet/volume".into(),
        readonly: false,
        recursive_read_only: false,
        propagation: Propagation::Private,
        ids: None,
        options: Vec::new(),
    }
}

const CASES: [(&str, Change); 33] = [
    ("plain", |_| ()),
    ("command-and-args", |f| {
        f.container.command = strings(&["/app", "serve"]);
        f.container.args = strings(&["--port", "80"]);
    }),
    ("image-entrypoint", |f| f.image.entrypoint = strings(&["/entry"])),
    ("environment", |f| {
        f.image.env = strings(&["PATH=/opt/bin", "A=image"]);
        f.container.envs = vec![v1::KeyValue { key: "A".into(), value: "own".into() }];
    }),
    ("terminal", |f| (f.container.tty, f.container.stdin) = (true, true)),
    ("working-directory", |f| f.container.working_dir = "/srv/app".into()),
    ("root-user", |f| f.user = ResolvedUser { uid: 0, gid: 0, groups: vec![0] }),
    ("kubelet-defaults", |f| {
        let security = f.security();
        security.seccomp = Some(v1::SecurityProfile::default());
        security.masked_paths = strings(&["/proc/kcore", "/proc/keys"]);
        security.readonly_paths = strings(&["/proc/sys", "/proc/sysrq-trigger"]);
        security.no_new_privs = true;
    }),
    ("unmasked", |f| {
        f.security().seccomp = Some(v1::SecurityProfile { profile_type: 1, ..Default::default() })
    }),
    ("capabilities-added", |f| capabilities(f).add_capabilities = strings(&["NET_ADMIN", "cap_sys_time"])),
    ("capabilities-dropped", |f| capabilities(f).drop_capabilities = strings(&["ALL"])),
    ("capabilities-ambient", |f| capabilities(f).add_ambient_capabilities = strings(&["NET_BIND_SERVICE"])),
    ("privileged", Fixture::make_privileged),
    ("privileged-on-v2", |f| {
        f.make_privileged();
        f.facts.cgroup = hull_cgroups::Mode::V2;
    }),
    ("read-only-root", |f| f.security().readonly_rootfs = true),
    ("guaranteed", |f| {
        *resources(f) = v1::LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 200_000,
            cpu_shares: 2048,
            memory_limit_in_bytes: 1 << 30,
            oom_score_adj: -997,
            cpuset_cpus: "2-3".into(),
            cpuset_mems: "0".into(),
            ..Default::default()
        };
    }),
    ("best-effort", |f| (resources(f).cpu_shares, resources(f).oom_score_adj) = (1, 1000)),
    ("swap", |f| {
        resources(f).memory_limit_in_bytes = 1 << 30;
        resources(f).memory_swap_limit_in_bytes = 3 << 29;
    }),
    ("huge-pages", |f| {
        resources(f).hugepage_limits = vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 }];
    }),
    ("unified-on-v2", |f| {
        f.facts.cgroup = hull_cgroups::Mode::V2;
        resources(f).unified = [("memory.high".to_owned(), "900000000".to_owned())].into();
    }),
    ("without-extra-rights", |f| {
        f.facts.capabilities.remove(&Capability::SysResource);
        f.facts.oom_score_adj = -5;
        resources(f).oom_score_adj = -998;
    }),
    ("volumes", |f| {
        mounted(f, volume("/data/deep"));
        mounted(f, ResolvedMount { readonly: true, ..volume("/data") });
    }),
    ("volume-recursive-read-only", |f| {
        mounted(f, ResolvedMount { readonly: true, recursive_read_only: true, ..volume("/data") });
    }),
    ("volume-from-host", |f| {
        mounted(f, ResolvedMount { propagation: Propagation::HostToContainer, ..volume("/data") });
    }),
    ("volume-both-ways", |f| {
        mounted(f, ResolvedMount { propagation: Propagation::Bidirectional, ..volume("/data") });
    }),
    ("own-dev-and-shm", |f| {
        mounted(f, volume("/dev"));
        mounted(f, volume("/dev/shm"));
    }),
    ("host-network", |f| {
        (f.namespaces.network, f.namespaces.uts) = (None, None);
        f.files.hosts = Some("/etc/hosts".into());
    }),
    ("host-namespaces", |f| {
        f.namespaces = PodNamespaces::default();
        f.sandbox_security().namespace_options = Some(v1::NamespaceOption { pid: 2, ..Default::default() });
        f.files.shm = Some("/dev/shm".into());
        f.security().namespace_options =
            Some(v1::NamespaceOption { network: 2, pid: 2, ipc: 2, ..Default::default() });
    }),
    ("user-namespace", Fixture::make_user_namespace),
    ("user-namespace-volume", |f| {
        f.make_user_namespace();
        let ids = userns::of_pod(&f.sandbox);
        mounted(f, ResolvedMount { readonly: true, ids, ..volume("/data") });
    }),
    ("user-namespace-host-network", |f| {
        f.make_user_namespace();
        (f.namespaces.network, f.namespaces.uts) = (None, None);
        f.files.hosts = Some("/etc/hosts".into());
        f.handler.recursive_read_only = true;
    }),
    ("shared-pid", |f| {
        f.sandbox_security().namespace_options = None;
        f.join_pid = Some(4242);
    }),
    ("debugging-another", |f| {
        f.security().namespace_options =
            Some(v1::NamespaceOption { pid: 3, target_id: "other".into(), ..Default::default() });
        f.join_pid = Some(77);
    }),
];

/// The spec as it is kept: without what an image's or runtime's order decides, and the filter in one word.
pub(super) fn shown(spec: &Spec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap();
    if let Some(sets) = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut() {
            let mut names: Vec<String> = serde_json::from_value(set.clone()).unwrap();
            names.sort();
            *set = json!(names);
        }
    }
    if let Some(rules) = value.pointer_mut("/linux/seccomp/syscalls") {
        let list = rules.as_array().unwrap();
        let names: usize = list.iter().map(|rule| rule["names"].as_array().unwrap().len()).sum();
        *rules = json!(format!("{} rules for {names} names", list.len()));
    }
    value
}

#[test]
fn snapshots_are_as_reviewed() {
    let specs = CASES.map(|(name, change)| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        let spec = generate(&fixture.input()).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, shown(&spec))
    });
    compare("snapshots", &specs);
}

/// Compares specs with those that are kept in a directory, or writes them there.
pub(super) fn compare(dir: &str, specs: &[(&str, Value)]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spec").join(dir);
    let update = std::env::var_os("HULL_UPDATE_SNAPSHOTS").is_some();
    let mut changed = Vec::new();
    for (name, spec) in specs {
        let text = serde_json::to_string_pretty(spec).unwrap() + "\n";
        let path = dir.join(format!("{name}.json"));
        if update {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &text).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            changed.push(*name);
        }
    }
    assert!(changed.is_empty(), "not as in {}: {changed:?}; see the head of this file", dir.display());
    let kept = std::fs::read_dir(&dir).unwrap().count();
    assert_eq!(kept, specs.len(), "a snapshot of no case is in {}", dir.display());
}

#[test]
fn snapshots_obey_the_rules_of_the_oci() {
    for (name, change) in CASES {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        let value = serde_json::to_value(generate(&fixture.input()).unwrap()).unwrap();
        let broken = broken_rules(&value);
        assert!(broken.is_empty(), "{name}: {broken:?}");
    }
    // The checker can tell.
    let bad = json!({"ociVersion": "x", "root": {"path": null}, "process": {"cwd": "x", "args": []}, "mounts": [{"destination": "x"}]});
    assert!(broken_rules(&bad).len() >= 5, "{:?}", broken_rules(&bad));
    let limit = json!({"type": "RLIMIT_CORE", "soft": 2, "hard": 1});
    let device = json!({"path": "dev/x", "type": "x"});
    let odd = json!({
        "process": {"rlimits": [limit, limit], "user": {"additionalGids": [7, 7]}},
        "linux": {"devices": [device]},
        "hooks": {"createRuntime": [{"path": "hook"}]},
    });
    let broken = broken_rules(&odd).join("\n");
    for words in
        ["of each kind", "no soft limit", "absolute paths, each", "type that exists", "no group", "hooks"]
    {
        assert!(broken.contains(words), "{words}: {broken}");
    }
}

/// What in a spec breaks the words of <https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md> and
/// config-linux.md.
pub(super) fn broken_rules(spec: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, words: &str| {
        if !holds {
            broken.push(words.to_owned());
        }
    };
    let text = |path: &str| spec.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let list = |path: &str| spec.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_absolute = |value: &Value| value.as_str().is_some_and(|it| it.starts_with('/'));
    let distinct = |values: &[&Value]| {
        values.iter().map(|it| it.to_string()).collect::<BTreeSet<_>>().len() == values.len()
    };

    rule(!has_null(spec), "nothing is null: old runtimes stumble over it");
    rule(
        text("/ociVersion").split('.').filter(|it| it.parse::<u32>().is_ok()).count() == 3,
        "ociVersion is a version",
    );
    rule(text("/root/path").starts_with('/'), "root.path is there, and absolute for us");
    rule(text("/process/cwd").starts_with('/'), "process.cwd is absolute");
    let args = list("/process/args");
    rule(args.first().and_then(Value::as_str).is_some_and(|it| !it.is_empty()), "process.args has a program");
    rule(
        list("/process/env").iter().all(|it| it.as_str().is_some_and(|it| it.contains('='))),
        "process.env is NAME=value",
    );
    let set = |name: &str| {
        let names = list(&format!("/process/capabilities/{name}"));
        names.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    rule(set("effective").is_subset(&set("permitted")), "effective capabilities are permitted");
    rule(set("permitted").is_subset(&set("bounding")), "permitted capabilities are bounded");
    rule(
        set("ambient").is_subset(&set("permitted")) && set("ambient").is_subset(&set("inheritable")),
        "ambient capabilities are permitted and inheritable",
    );
    rule(set("bounding").iter().all(|it| it.starts_with("CAP_")), "capabilities have the kernel's names");
    let oom = spec.pointer("/process/oomScoreAdj").and_then(Value::as_i64).unwrap_or(0);
    rule((-1000..=1000).contains(&oom), "oomScoreAdj is in range");

    let mounts = list("/mounts");
    let destinations: Vec<&Value> = mounts.iter().map(|it| &it["destination"]).collect();
    rule(destinations.iter().all(|it| is_absolute(it)), "mounts have absolute destinations");
    rule(distinct(&destinations), "no destination is mounted twice");
    for (at, mount) in mounts.iter().enumerate() {
        let path = PathBuf::from(mount["destination"].as_str().unwrap_or_default());
        let covers = |later: &Value| PathBuf::from(later["destination"].as_str().unwrap_or_default());
        rule(mounts[..at].iter().all(|it| !covers(it).starts_with(&path)), "no mount covers an earlier one");
        let is_bind = mount["type"] == "bind";
        rule(!is_bind || is_absolute(&mount["source"]), "a bind mount has an absolute source");
    }

    let namespaces = list("/linux/namespaces");
    let kinds: Vec<&Value> = namespaces.iter().map(|it| &it["type"]).collect();
    rule(distinct(&kinds), "no namespace is there twice");
    rule(kinds.contains(&&json!("mount")), "a container has its own mounts");
    let known = ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"];
    rule(kinds.iter().all(|it| it.as_str().is_some_and(|it| known.contains(&it))), "namespaces are known");
    rule(
        namespaces.iter().all(|it| it.get("path").is_none_or(is_absolute)),
        "namespaces have absolute paths",
    );
    rule(text("/linux/cgroupsPath").starts_with('/'), "cgroupsPath is absolute");
    for path in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        rule(list(path).iter().all(is_absolute), "masked and read-only paths are absolute");
    }
    let limits = list("/process/rlimits");
    rule(distinct(&limits.iter().map(|it| &it["type"]).collect::<Vec<_>>()), "a limit of each kind at most");
    rule(
        limits.iter().all(|it| it["soft"].as_u64() <= it["hard"].as_u64()),
        "no soft limit is above its hard one",
    );
    let devices = list("/linux/devices");
    let paths: Vec<&Value> = devices.iter().map(|it| &it["path"]).collect();
    rule(
        distinct(&paths) && paths.iter().all(|it| is_absolute(it)),
        "devices have absolute paths, each its own",
    );
    rule(
        devices.iter().all(|it| it["type"].as_str().is_some_and(|it| ["c", "b", "u", "p"].contains(&it))),
        "devices have a type that exists",
    );
    let groups = list("/process/user/additionalGids");
    rule(distinct(&groups.iter().collect::<Vec<_>>()), "no group is there twice");
    let hooks = spec.get("hooks").and_then(Value::as_object).into_iter().flat_map(|it| it.values());
    let mut hooks = hooks.filter_map(Value::as_array).flatten();
    rule(hooks.all(|it| is_absolute(&it["path"])), "hooks have absolute paths");
    let rules = list("/linux/resources/devices");
    rule(rules.iter().all(|it| it["allow"].is_boolean()), "device rules allow or deny");
    let filter = list("/linux/seccomp/syscalls");
    rule(
        filter.iter().all(|it| it["names"].as_array().is_some_and(|names| !names.is_empty())),
        "rules of the filter name calls",
    );
    broken
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}
