// SPDX-License-Identifier: Apache-2.0
//! What of the machine must be the same before and after the root suites.
//!
//! Mounts, pinned network namespaces, links, cgroups that bear our names, processes of ours, firewall
//! rules. Each is a line `KIND: what`; two censuses are compared as multisets of lines.
//!
//! The suites have a census of their own (`hull_tests::census`), per daemon; this one looks at the whole
//! machine from outside and so also sees what the suites themselves leave.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::run;

/// Lines, with how often each occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Census(BTreeMap<String, usize>);

impl Census {
    /// Counts now.
    pub(crate) fn take() -> Self {
        let mut census = Self::default();
        census.mounts();
        census.network_namespaces();
        census.links();
        census.cgroups(Path::new("/sys/fs/cgroup"), 0);
        census.processes();
        census.firewall();
        census
    }

    /// Counts until nothing differs from `before`, at most for some seconds: what a suite has killed needs a
    /// moment to be gone.
    pub(crate) fn settle(before: &Self) -> Vec<String> {
        let mut difference = Vec::new();
        run::wait_until(Duration::from_secs(5), || {
            difference = Self::take().difference(before);
            difference.is_empty()
        });
        difference
    }

    /// What changed since `before`: `+ line` for what is new, `- line` for what is gone.
    pub(crate) fn difference(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (line, count) in &self.0 {
            let was = before.0.get(line).copied().unwrap_or(0);
            lines.extend(std::iter::repeat_n(format!("+ {line}"), count.saturating_sub(was)));
        }
        for (line, count) in &before.0 {
            let is = self.0.get(line).copied().unwrap_or(0);
            lines.extend(std::iter::repeat_n(format!("- {line}"), count.saturating_sub(is)));
        }
        lines
    }

    fn add(&mut self, kind: &str, what: &str) {
        *self.0.entry(format!("{kind}: {what}")).or_default() += 1;
    }

    fn mounts(&mut self) {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for line in text.lines() {
            // Fields: id parent major:minor root mount-point options [tags] - type source super-options
            let fields: Vec<&str> = line.split(' ').collect();
            let kind = line.split(" - ").nth(1).and_then(|tail| tail.split(' ').next()).unwrap_or("?");
            if let [_, _, _, root, point, ..] = fields[..] {
                self.add("mount", &format!("{point} ({kind}, {root})"));
            }
        }
    }

    fn network_namespaces(&mut self) {
        for dir in ["/run/netns", "/run/hull/ns"] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                self.add("namespace", &entry.path().display().to_string());
            }
        }
    }

    fn links(&mut self) {
        // Not /sys/class/net: it shows the namespace of whoever mounted /sys.
        let text = run::capture(Command::new("ip").args(["-o", "link"])).unwrap_or_default();
        for line in text.lines() {
            if let Some(name) = line.split(": ").nth(1) {
                self.add("link", name);
            }
        }
    }

    fn cgroups(&mut self, dir: &Path, depth: usize) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if depth > 12 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            if is_ours(&name.to_string_lossy()) {
                self.add("cgroup", &entry.path().display().to_string());
            }
            self.cgroups(&entry.path(), depth + 1);
        }
    }

    fn processes(&mut self) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let dir = entry.path();
            let Ok(comm) = fs::read_to_string(dir.join("comm")) else { continue };
            // `runc:[2:INIT]` and the like: the part before the colon is the program.
            let name = comm.trim_end().split(':').next().unwrap_or_default();
            // A zombie is nothing but a number that its parent, often init, has yet to read.
            let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
            if status.lines().any(|line| line.starts_with("State:\tZ")) {
                continue;
            }
            let ours =
                ["conmon", "hull", "runc", "crun", "crictl", "crictl-lite", "critest", "docker-registry"];
            if ours.contains(&name) {
                let pid = entry.file_name();
                let arguments = fs::read(dir.join("cmdline")).unwrap_or_default();
                let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
                self.add("process", &format!("{} {}", pid.to_string_lossy(), arguments.trim_end()));
            }
        }
    }

    fn firewall(&mut self) {
        for program in ["iptables-save", "ip6tables-save"] {
            let Some(path) = run::which(program) else { continue };
            let text = run::capture(&mut Command::new(path)).unwrap_or_default();
            for rule in rules(&text) {
                self.add("firewall", &format!("{program} {rule}"));
            }
        }
        if let Some(path) = run::which("nft") {
            let text = run::capture(Command::new(path).args(["list", "tables"])).unwrap_or_default();
            for table in text.lines().filter(|line| !is_table_of_iptables(line)) {
                self.add("firewall", &format!("nft {table}"));
            }
        }
    }
}

/// Names that only Hull, a kubelet or the suites give to cgroups.
fn is_ours(name: &str) -> bool {
    let is_id = |part: &str| part.len() == 64 && part.bytes().all(|b| b.is_ascii_hexdigit());
    name.contains("hull")
        || name.contains("kubepods")
        || name.split(['-', '.', '_', ':']).any(is_id)
        || name.starts_with("conmon")
}

/// The rules in what `iptables-save` prints: no counters, no comments, no chains without rules (they are
/// made by looking), and without the three chains that the `portmap` plugin makes once for all pods and
/// never removes.
fn rules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("-A ") && !line.contains("CNI-HOSTPORT-"))
}

fn is_table_of_iptables(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    matches!(
        (words.next(), words.next()),
        (Some("ip" | "ip6"), Some("nat" | "filter" | "mangle" | "raw" | "security"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(lines: &[&str]) -> Census {
        let mut census = Census::default();
        for line in lines {
            census.add("thing", line);
        }
        census
    }

    #[test]
    fn a_difference_names_what_came_and_what_went_as_often_as_it_did() {
        let before = census(&["kept", "gone", "twice"]);
        let after = census(&["kept", "twice", "twice", "new"]);
        assert_eq!(after.difference(&before), ["+ thing: new", "+ thing: twice", "- thing: gone"]);
        assert!(after.difference(&after).is_empty());
    }

    #[test]
    fn a_counter_or_an_empty_chain_is_no_rule() {
        let text = "# Generated\n*nat\n:PREROUTING ACCEPT [3:180]\n:CNI-HOSTPORT-DNAT - [0:0]\n\
                    -A PREROUTING -m addrtype -j CNI-HOSTPORT-DNAT\n-A POSTROUTING -s 10.1.0.2/32 -j CNI-1\nCOMMIT\n";
        assert_eq!(rules(text).collect::<Vec<_>>(), ["-A POSTROUTING -s 10.1.0.2/32 -j CNI-1"]);
    }

    #[test]
    fn names_of_ours_are_known() {
        let id = "0123456789abcdef".repeat(4);
        for name in ["hull-test-1", "kubepods.slice", &id, &format!("crio-{id}.scope"), "conmon"] {
            assert!(is_ours(name), "{name}");
        }
        for name in ["user.slice", "system.slice", "init.scope"] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
