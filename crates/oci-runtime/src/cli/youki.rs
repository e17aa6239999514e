// SPDX-License-Identifier: Apache-2.0
//! What is particular to youki.

use hull_cgroups::{ExecScope, Mode};
use serde_json::Value;

use super::{CliRuntime, Flavor};
use crate::Features;

/// youki: <https://github.com/youki-dev/youki>.
pub type YoukiRuntime = CliRuntime<Youki>;

/// youki's ways (0.7).
#[derive(Debug, Clone, Copy, Default)]
pub struct Youki;

impl Flavor for Youki {
    fn exec_scope(&self) -> ExecScope {
        // youki joins the path below the container's in every hierarchy.
        ExecScope::All
    }

    fn exec_cgroup(&self, _mode: Mode, name: &str) -> String {
        name.to_owned()
    }

    /// youki updates what has ended.
    fn refuses_wrong_state(&self) -> bool {
        false
    }

    fn stale_mounts(&self) -> Option<&'static str> {
        None
    }

    fn adapt_resources(&self, _resources: &mut Value) {}

    fn lifts_cpu_quota(&self) -> bool {
        true
    }

    /// youki has had the sub-command since 0.4.
    fn features_of(&self, _version: &str) -> Option<Features> {
        None
    }
}
