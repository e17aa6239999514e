// SPDX-License-Identifier: Apache-2.0
//! The points that no life passes, with the reason for each: a new point is passed by a life, or explained here.

use super::Case;
use crate::points;

/// Points by name, and why no life passes them.
const REASONS: &[(&[&str], &str)] = &[
    (
        &[
            "image-store.blob.unlink",
            "image-store.blob.write",
            "image-store.import.scratch",
            "image-store.layer.collect",
            "image-store.layer.entry",
            "image-store.layer.mkdir",
            "image-store.layer.rename",
            "image-store.layer.sync",
            "image-store.layer.sync_dir",
            "image-store.pull.config",
            "image-store.pull.layer",
            "image-store.pull.manifest",
            "image-store.pull.open",
            "image-store.pull.record",
            "registry.blob.open",
            "registry.blob.read",
            "registry.connect",
            "registry.hosts.read",
            "registry.manifest.read",
            "registry.request",
            "registry.token",
            "spec.volumes.mkdir",
        ],
        "images come before a pod's life and go after it, and the life's image has no volumes: root_pull",
    ),
    (
        &[
            "monitor.attach.connect",
            "netns.dial.connect",
            "oci.session.console",
            "oci.session.spawn",
            "streaming.accept",
            "streaming.attach.joined",
            "streaming.forward.dial",
            "streaming.read",
            "streaming.tls.accept",
            "streaming.token.issue",
            "streaming.write",
        ],
        "sessions end with the daemon, nothing is asked for again: root_streaming, `cargo xtask soak`",
    ),
    (
        &[
            "image-store.root.attach",
            "image-store.root.detached",
            "image-store.root.idmap",
            "netns.user.map",
            "netns.user.open",
            "netns.user.spawn",
            "node.streams.chown",
        ],
        "user namespaces need a newer runtime than Debian's: root_userns",
    ),
    (
        &[
            "cgroups.kill.signal",
            "container.create.unstartable",
            "container.start.failed",
            "container.stop.leftovers",
            "container.stop.unstartable",
            "monitor.exit.note",
            "node.cgroup.kill",
            "node.cgroup.restore",
            "oci.exec.leftover",
            "sandbox.recover.network",
            "sandbox.run.former",
            "undo",
        ],
        "only where something failed or outlived its end before: root_misbehave, recovery, storms",
    ),
    (
        &[
            "check.directory.delete",
            "check.monitor.kill",
            "check.quarantine.unlink",
            "cni.check.plugin",
            "record.quarantine.move",
            "record.quarantine.return",
            "recovery.orphan.delete",
        ],
        "only with damage to look for and to repair: root_check, recovery",
    ),
    (
        &["bridge.node.remove", "wipe.delete", "wipe.unmount"],
        "only `hull wipe`, without a daemon: root_check",
    ),
    (&["daemon.owner.write"], "only the first start on a run_root: operators"),
    (&["bridge.former.delete", "pod-cidr.write"], "only with another network configuration: root_bridge"),
    (
        &["container.update.hugepages", "node.cgroup.hugepages", "oci-runtime.update.quota"],
        "only updates of huge pages, or that take a quota away: root_fields",
    ),
    (
        &["server.health.ask", "systemd.bus.connect", "systemd.notify.send"],
        "only as a service of systemd: root_systemd, mock_notify",
    ),
    (
        &["mock.log.append", "monitor.direct.log", "monitor.direct.spawn", "monitor.version.spawn"],
        "of backends, or of their parts, that the daemon of the lives does not use: contract suites",
    ),
];

/// What no case is at and no reason is given for, with its place in the sources.
pub fn unexplained(cases: &[Case]) -> Vec<String> {
    let explained = |name: &str| REASONS.iter().any(|(names, _)| names.contains(&name));
    let missing = points::all().into_iter().filter(|point| !cases.iter().any(|case| point.is(&case.point)));
    missing
        .filter(|point| !explained(point.name))
        .map(|point| format!("{} ({})", point.name, point.place))
        .collect()
}

/// What is passed by no case, with the reason.
pub fn explained(cases: &[Case]) -> String {
    let mut text = String::new();
    for (names, reason) in REASONS {
        let missing: Vec<&str> =
            names.iter().copied().filter(|name| !cases.iter().any(|case| case.point == **name)).collect();
        if !missing.is_empty() {
            text.push_str(&format!("  {reason}: {}\n", missing.join(" ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_for_a_point_that_there_is_and_each_has_one() {
        let all: BTreeSet<&str> = points::all().into_iter().map(|point| point.name).collect();
        let mut seen = BTreeSet::new();
        for name in REASONS.iter().flat_map(|(names, _)| names.iter().copied()) {
            assert!(all.contains(name), "{name} is in no source");
            assert!(seen.insert(name), "{name} has two reasons");
        }
    }
}
