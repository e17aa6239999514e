// SPDX-License-Identifier: Apache-2.0
//! The real runtimes, and wrappers around them that are slow or fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::tool;

/// The handlers that real daemons get, in this order; the first is the default.
pub const REAL: [&str; 2] = ["runc", "crun"];

/// The program of a handler as the daemon must call it: on a machine with a cgroup2 mount beside the v1
/// hierarchies, crun is wrapped (see [`crun_for_hybrid`]).
///
/// # Panics
/// When the runtime is not installed.
pub fn real(dir: &Path, handler: &str) -> PathBuf {
    let program = tool(handler);
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if handler == "crun" && !controllers.trim().is_empty() { crun_for_hybrid(dir, &program) } else { program }
}

/// A runc that can do what Debian's cannot: named by HULL_RUNC_CURRENT.
///
/// # Panics
/// When it is named and not there.
pub fn current_runc() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HULL_RUNC_CURRENT")?);
    assert!(path.is_file(), "HULL_RUNC_CURRENT={} is not there", path.display());
    Some(path)
}

/// crun 1.8 refuses to create where `/sys/fs/cgroup/unified` offers controllers ("cgroups in hybrid mode
/// not supported"). The wrapper hides that mount behind an empty tmpfs, in a mount namespace of its own;
/// the rest of the tree keeps its propagation, which volumes need.
fn crun_for_hybrid(dir: &Path, crun: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nexec unshare --mount --propagation unchanged sh -c '\n\
         mount --make-rprivate /sys/fs/cgroup &&\n\
         mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup/unified &&\n\
         exec \"$@\"' crun {} \"$@\"\n",
        crun.display()
    );
    write_script(dir, "crun", &script)
}

/// A runtime whose `create` takes this many seconds longer.
///
/// # Panics
/// When the script cannot be written.
pub fn slow_create(dir: &Path, runtime: &Path, seconds: f64) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' create '*) sleep {seconds} ;; esac\nexec {} \"$@\"\n",
        runtime.display()
    );
    write_script(dir, "slow-create", &script)
}

/// A runtime whose `create` fails with this message on stderr.
///
/// # Panics
/// When the script cannot be written.
pub fn failing_create(dir: &Path, runtime: &Path, message: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' create '*) echo '{message}' >&2; exit 1 ;; esac\nexec {} \"$@\"\n",
        runtime.display()
    );
    write_script(dir, "failing-create", &script)
}

/// A runtime whose `create` never ends.
///
/// # Panics
/// When the script cannot be written.
pub fn hanging_create(dir: &Path, runtime: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' create '*) trap '' TERM; while :; do sleep 1000; done ;; esac\nexec {} \"$@\"\n",
        runtime.display()
    );
    write_script(dir, "hanging-create", &script)
}

/// A runtime that writes each of its calls into `told`, with its `oom_score_adj`.
///
/// # Panics
/// When the script cannot be written.
pub fn telling_scores(dir: &Path, runtime: &Path, told: &Path) -> PathBuf {
    // The daemon sets the value of what it has just started: a moment for it.
    let script = format!(
        "#!/bin/sh\nsleep 0.2\necho \"$* $(cat /proc/self/oom_score_adj)\" >>{}\nexec {} \"$@\"\n",
        told.display(),
        runtime.display()
    );
    write_script(dir, "telling-scores", &script)
}

fn write_script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).expect("make the directory of scripts");
    let path = bin.join(name);
    fs::write(&path, text).expect("write the script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make the script executable");
    path
}
