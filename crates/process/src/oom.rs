// SPDX-License-Identifier: Apache-2.0
//! Which processes the kernel ends first when memory is short (proc(5), `oom_score_adj`).
//!
//! A node protects the daemon (`OOMScoreAdjust=-999`). Its children must not inherit that: a plugin that takes all
//! memory would be the last to be ended, after every pod. Monitors protect themselves, containers have values of
//! their own.
//!
//! The child already runs, as with the limit of open files: what it does within its first moment (conmon protects
//! itself, and remembers the value of before for its runtime) is left as it is.

use std::fs;
use std::sync::OnceLock;

use rustix::process::Pid;

/// Gives a child, just started, its value: else that of any other process. Raising needs no capability.
pub(crate) fn set(pid: Pid, wanted: Option<i32>) {
    let file = format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero());
    let value = match (wanted, own()) {
        (Some(value), _) => value,
        // It has the daemon's still, and not one that it has chosen meanwhile.
        (None, Some(own)) if own < 0 && read(&file) == Some(own) => 0,
        _ => return,
    };
    if let Err(error) = fs::write(file, value.to_string()) {
        tracing::debug!(pid = pid.as_raw_nonzero(), value, %error, "the oom_score_adj of a program cannot be set");
    }
}

/// The daemon's own, which does not change; asked again where it cannot be read now.
fn own() -> Option<i32> {
    static OWN: OnceLock<i32> = OnceLock::new();
    OWN.get().copied().or_else(|| read("/proc/self/oom_score_adj").map(|value| *OWN.get_or_init(|| value)))
}

fn read(file: &str) -> Option<i32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lowering needs a capability that a test need not have; raising none.
    #[test]
    fn a_child_gets_what_is_wanted_for_it_and_keeps_its_own_else() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let file = format!("/proc/{}/oom_score_adj", child.id());
        let own = own().unwrap();
        set(pid, None);
        assert_eq!(read(&file), Some(own.max(0)));
        set(pid, Some(1000));
        assert_eq!(read(&file), Some(1000));
        set(pid, None);
        assert_eq!(read(&file), Some(1000), "what it has chosen itself is left");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
