// SPDX-License-Identifier: Apache-2.0
//! As `snapshot_tests`, for what no request asks for alone: a pod's own process, and what the node's
//! configuration and devices add to containers. Kept in `node-snapshots/`.

use std::path::Path;

use hull_cgroups::Mode;

use super::devices::DeviceKind;
use super::pause::{PauseInput, pause_spec};
use super::snapshot_tests::{broken_rules, compare, shown};
use super::tests::{Fixture, strings};
use super::*;

fn pause(change: fn(&mut Fixture)) -> Spec {
    let mut fixture = Fixture::new();
    change(&mut fixture);
    pause_spec(&PauseInput {
        sandbox_id: "s1",
        rootfs: Path::new("/var/lib/hull/pause"),
        namespaces: &fixture.namespaces,
        users: userns::of_pod(&fixture.sandbox).as_ref(),
        cgroups_path: Path::new("/kubepods/pod1/hull-s1"),
        facts: &fixture.facts,
        seccomp: true,
    })
    .unwrap()
}

fn container(change: fn(&mut Fixture), add: fn(SpecInput<'_>) -> SpecInput<'_>) -> Spec {
    let mut fixture = Fixture::new();
    change(&mut fixture);
    generate(&add(fixture.input())).unwrap()
}

fn device(path: &str, kind: DeviceKind, minor: u32, access: &str) -> ResolvedDevice {
    let access = access.to_owned();
    ResolvedDevice { path: path.into(), kind, major: 195, minor, mode: 0o660, uid: 0, gid: 44, access }
}

fn cases() -> Vec<(&'static str, Spec)> {
    vec![
        ("pause", pause(|_| ())),
        ("pause-on-v2", pause(|f| f.facts.cgroup = Mode::V2)),
        ("pause-host-network", pause(|f| (f.namespaces.network, f.namespaces.uts) = (None, None))),
        ("pause-user-namespace", pause(Fixture::make_user_namespace)),
        (
            "pause-without-extra-rights",
            pause(|f| {
                f.facts.capabilities.remove(&Capability::SysResource);
                f.facts.oom_score_adj = 3;
            }),
        ),
        (
            "ulimits-and-pids",
            container(
                |_| (),
                |input| {
                    let limits =
                        ["nofile=1024:65536", "core=0"].map(|text| rlimits::Rlimit::parse(text).unwrap());
                    SpecInput { rlimits: Box::leak(Box::new(limits)), pids_limit: Some(4096), ..input }
                },
            ),
        ),
        (
            "devices",
            container(
                |_| (),
                |input| {
                    let devices = [
                        device("/dev/gpu0", DeviceKind::Char, 0, "rw"),
                        device("/dev/disk", DeviceKind::Block, 1, "r"),
                    ];
                    SpecInput { devices: Box::leak(Box::new(devices)), ..input }
                },
            ),
        ),
        (
            "apparmor",
            container(
                |f| f.facts.apparmor = true,
                |input| SpecInput { apparmor_default: Some("node-default"), ..input },
            ),
        ),
        (
            "annotations",
            container(
                |f| {
                    let pairs =
                        [("example.com/kept", "1"), ("run.oci.handler", "wasm"), ("io.hull.sandbox-id", "x")];
                    f.container.annotations =
                        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                    f.policy.allowed_annotations = vec!["example.com/*".parse().unwrap()];
                },
                |input| input,
            ),
        ),
        (
            "another-user-by-image",
            container(
                |f| {
                    f.image.user = "ada".into();
                    f.user = ResolvedUser { uid: 1000, gid: 1001, groups: vec![7, 1001, 4242] };
                    f.image.working_dir = "/home/ada".into();
                    f.image.cmd = strings(&["/app", "--serve"]);
                },
                |input| input,
            ),
        ),
    ]
}

#[test]
fn snapshots_are_as_reviewed() {
    let specs = cases();
    let shown: Vec<_> = specs.iter().map(|(name, spec)| (*name, shown(spec))).collect();
    compare("node-snapshots", &shown);
}

#[test]
fn snapshots_obey_the_rules_of_the_oci() {
    for (name, spec) in cases() {
        let broken = broken_rules(&serde_json::to_value(spec).unwrap());
        assert!(broken.is_empty(), "{name}: {broken:?}");
    }
}
