// SPDX-License-Identifier: Apache-2.0
//! What is particular to runc.

use hull_cgroups::{ExecScope, Mode};
use serde_json::Value;

use super::{CliRuntime, Flavor};

/// runc: <https://github.com/opencontainers/runc>.
pub type RuncRuntime = CliRuntime<Runc>;

/// runc's ways. It has had `features` since 1.1; of what is older nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Runc;

impl Flavor for Runc {
    fn exec_scope(&self) -> ExecScope {
        // runc takes one path per controller, and one suffices to find processes again.
        ExecScope::Pids
    }

    fn exec_cgroup(&self, mode: Mode, name: &str) -> String {
        match mode {
            Mode::V1 | Mode::Hybrid => format!("pids:{name}"),
            Mode::V2 => name.to_owned(),
        }
    }

    /// runc refuses by itself what the state does not allow.
    fn refuses_wrong_state(&self) -> bool {
        true
    }

    /// runc before 1.2 protects its own program by a bind mount of it, for the moment of its start.
    fn stale_mounts(&self) -> Option<&'static str> {
        Some("runc.")
    }

    /// "minimum allowed cpu-shares is 2" (cgroup v1); the CRI means 2 where it says less.
    fn adapt_resources(&self, resources: &mut Value) {
        if let Some(shares) = resources.pointer_mut("/cpu/shares")
            && shares.as_u64() == Some(1)
        {
            *shares = 2.into();
        }
    }
}
