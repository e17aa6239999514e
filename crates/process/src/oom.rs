// SPDX-License-Identifier: Apache-2.0
//! Which processes the kernel ends first when memory is short (proc(5), `oom_score_adj`).
//!
//! A node protects the daemon (`OOMScoreAdjust=-999`). Its children must not inherit that: a plugin that takes all
//! memory would be the last to be ended, after every pod. Monitors protect themselves, containers have values of
//! their own.

use std::fs;
use std::sync::LazyLock;

use rustix::process::Pid;

/// Gives a child, just started, its value: else that of any other process. Raising needs no capability.
pub(crate) fn set(pid: Pid, wanted: Option<i32>) {
    static PROTECTED: LazyLock<bool> = LazyLock::new(|| {
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        is_protected(&own)
    });
    let Some(value) = wanted.or(PROTECTED.then_some(0)) else { return };
    let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    if let Err(error) = fs::write(file, value.to_string()) {
        tracing::debug!(pid = pid.as_raw_nonzero(), value, %error, "the oom_score_adj of a program cannot be set");
    }
}

fn is_protected(value: &str) -> bool {
    value.trim().parse::<i32>().is_ok_and(|value| value < 0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_what_is_below_zero_protects() {
        let protected = ["-999\n", "-1", "0\n", "500", "", "x"].map(super::is_protected);
        assert_eq!(protected, [true, true, false, false, false, false]);
    }
}
