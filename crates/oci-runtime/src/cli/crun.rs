// SPDX-License-Identifier: Apache-2.0
//! What is particular to crun.

use hull_cgroups::{ExecScope, Mode};
use serde_json::Value;

use super::{CliRuntime, Flavor};

/// crun: <https://github.com/containers/crun>.
pub type CrunRuntime = CliRuntime<Crun>;

/// crun's ways.
#[derive(Debug, Clone, Copy, Default)]
pub struct Crun;

impl Flavor for Crun {
    fn exec_scope(&self) -> ExecScope {
        // crun joins the path below the container's in every hierarchy, and silently none at all if
        // one is missing: seen with 1.8.1, the process then stays in the daemon's own cgroup.
        ExecScope::All
    }

    fn exec_cgroup(&self, _mode: Mode, name: &str) -> String {
        name.to_owned()
    }

    /// crun says yes to kill, pause, resume and update of an ended container, and a paused ended one
    /// cannot be deleted any more.
    fn refuses_wrong_state(&self) -> bool {
        false
    }

    fn stale_mounts(&self) -> Option<&'static str> {
        None
    }

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
}
