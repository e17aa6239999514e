// SPDX-License-Identifier: Apache-2.0
//! What is particular to crun.

use serde_json::Value;

use super::{CliRuntime, Flavor};
use crate::Features;

/// crun: <https://github.com/containers/crun>.
pub type CrunRuntime = CliRuntime<Crun>;

/// crun's ways. It joins the cgroup of an exec in every hierarchy, and silently none at all if one is missing: seen
/// with 1.8.1, the process then stays in the daemon's own cgroup. It says yes to kill, pause, resume and update of an
/// ended container, and a paused ended one cannot be deleted any more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crun;

impl Flavor for Crun {
    fn adapt_resources(&self, resources: &mut Value) {
        // "no limit" fails before 1.13 (EINVAL); the kernel's largest pid number is no limit either.
        const MOST_PIDS: i64 = 4_194_304;
        if let Some(limit) = resources.pointer_mut("/pids/limit")
            && limit.as_i64().is_some_and(|limit| limit < 0)
        {
            *limit = MOST_PIDS.into();
        }
        // Zero means "leave it" to runc and "kill it" to crun.
        if let Some(memory) = resources.pointer_mut("/memory").and_then(Value::as_object_mut)
            && memory.get("limit").and_then(Value::as_i64) == Some(0)
        {
            memory.remove("limit");
        }
        if let Some(pids) = resources.pointer("/pids/limit")
            && pids.as_i64() == Some(0)
            && let Some(resources) = resources.as_object_mut()
        {
            resources.remove("pids");
        }
    }

    /// crun before 1.8.4 reads -1 as a number without a sign ("Numerical result out of range").
    fn lifts_cpu_quota(&self) -> bool {
        false
    }

    /// crun has the sub-command since 1.8.6. Before, the last line of its version tells what is compiled in
    /// (`+SYSTEMD +SELINUX -APPARMOR ...`); recursive mount options came with 1.4, idmapped mounts of
    /// every type only with 1.9.
    fn features_of(&self, version: &str) -> Option<Features> {
        let number = version.split_whitespace().nth(2)?;
        let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next()??, parts.next().flatten().unwrap_or(0));
        let has = |name: &str| version.split_whitespace().any(|word| word.strip_prefix('+') == Some(name));
        let recursive: &[&str] = if (major, minor) >= (1, 4) { &["rro"] } else { &[] };
        let mount_options = ["ro", "rw", "bind", "rbind"].iter().chain(recursive);
        let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
        Some(Features {
            mount_options: mount_options.map(|&option| option.to_owned()).collect(),
            namespaces: namespaces.map(str::to_owned).to_vec(),
            idmap_mounts: false,
            seccomp: has("SECCOMP"),
            apparmor: has("APPARMOR"),
            selinux: has("SELINUX"),
            checkpoint: has("CRIU"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_crun_is_known_by_its_version() {
        let text = "crun version 1.8.1\ncommit: f8a0\nrundir: /run/crun\nspec: 1.0.0\n+SYSTEMD +APPARMOR +CAP +SECCOMP +EBPF +YAJL\n";
        let features = Crun.features_of(text).unwrap();
        assert!(features.mount_options.contains(&"rro".to_owned()));
        assert!(features.seccomp && features.apparmor && !features.selinux && !features.checkpoint);
        assert!(!features.idmap_mounts);
        let older = Crun.features_of("crun version 0.17\n").unwrap();
        assert!(!older.mount_options.contains(&"rro".to_owned()) && !older.seccomp);
        assert_eq!(Crun.features_of("something else"), None);
    }
}
