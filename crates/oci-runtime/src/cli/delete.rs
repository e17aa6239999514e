// SPDX-License-Identifier: Apache-2.0
//! Delete: only what has ended; what has not is ended first, by force alone.
//!
//! A runtime's own `delete` kills a container that waits for its start (both programs), and its kill
//! then sleeps 100 ms at a time (runc). So neither is left to it: the process is killed here and its
//! end awaited by pidfd, then `delete` has nothing left to wait for.

use std::path::Path;

use hull_process::{Pidfd, ProcessId};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::command::Call;
use super::{ALIVE, CliRuntime, Flavor, wrong_state};
use crate::{DeleteRequest, Error, Result, RuntimeState, RuntimeStatus};

const SIGKILL: &str = "9";
/// What a container that is created waits at (runc and crun; youki), in its state directory.
const WAITS_FOR_START: [&str; 2] = ["exec.fifo", "notify.sock"];

pub(super) async fn delete<F: Flavor>(runtime: &CliRuntime<F>, request: &DeleteRequest) -> Result<()> {
    if request.force { forced(runtime, &request.id).await } else { ended(runtime, &request.id).await }
}

async fn ended<F: Flavor>(runtime: &CliRuntime<F>, id: &str) -> Result<()> {
    // One of them exists from create to start. Then the programs would kill and delete; without it they
    // refuse by themselves, and one run of the program is saved.
    let state_dir = runtime.runner.config.root.join(id);
    if WAITS_FOR_START.iter().any(|name| state_dir.join(name).exists()) {
        let state = runtime.read_state(id).await?;
        if ALIVE.contains(&state.status) {
            return Err(wrong_state(id, "delete", state.status));
        }
    }
    run(runtime, id, false).await
}

async fn forced<F: Flavor>(runtime: &CliRuntime<F>, id: &str) -> Result<()> {
    match runtime.read_state(id).await {
        Ok(state) if ALIVE.contains(&state.status) => end(runtime, &state).await?,
        Ok(_) => {}
        Err(Error::NotFound { .. }) if !runtime.runner.config.root.join(id).exists() => return Ok(()),
        // A create that was killed leaves a directory without a state, a crash one with half a state.
        Err(Error::NotFound { .. } | Error::Failed { .. } | Error::Garbled { .. }) => {
            return run(runtime, id, true).await;
        }
        Err(error) => return Err(error),
    }
    match run(runtime, id, false).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error @ (Error::TimedOut { .. } | Error::Io { .. })) => Err(error),
        Err(_) => run(runtime, id, true).await,
    }
}

/// Kills the container's process and waits for its end.
async fn end<F: Flavor>(runtime: &CliRuntime<F>, state: &RuntimeState) -> Result<()> {
    let id = state.id.as_str();
    let held = match state.pid.and_then(ProcessId::of) {
        Some(process) => {
            Pidfd::open(process).map_err(|error| runtime.runner.process_error("delete", error))?
        }
        None => None,
    };
    let kill = Call::new("kill", id, runtime.deadlines().kill).with_id().arg(SIGKILL);
    ended_is_fine(runtime.runner.run(kill).await)?;
    if state.status == RuntimeStatus::Paused {
        // On cgroup v1 a frozen process does not die before it thaws.
        let resume = Call::new("resume", id, runtime.deadlines().pause).with_id();
        ended_is_fine(runtime.runner.run(resume).await)?;
    }
    let Some(held) = held else { return Ok(()) };
    let limit = runtime.deadlines().delete;
    match tokio::time::timeout(limit, held.exited()).await {
        Ok(exited) => exited.map_err(|error| runtime.runner.process_error("delete", error)),
        // Still there after SIGKILL: in the kernel's hands. It must not be deleted.
        Err(_) => Err(Error::TimedOut { operation: "delete", after: limit }),
    }
}

fn ended_is_fine(answer: Result<Vec<u8>>) -> Result<()> {
    match answer {
        Ok(_) | Err(Error::NotFound { .. } | Error::InvalidState { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn run<F: Flavor>(runtime: &CliRuntime<F>, id: &str, force: bool) -> Result<()> {
    if let Some(prefix) = runtime.flavor.stale_mounts() {
        unmount_stale(&runtime.runner.config.root.join(id), prefix);
    }
    if let Some(cgroups) = &runtime.runner.config.cgroups {
        // youki removes a container's cgroup alone, and fails where those of execs are left in it.
        runtime.execs.sweep(id, cgroups);
    }
    let mut call = Call::new("delete", id, runtime.deadlines().delete);
    if force {
        call = call.arg("--force");
    }
    runtime.runner.run(call.with_id()).await?;
    // What a runtime says is not yet so: a container that it still knows would be in the way of nobody, and stay for ever.
    let state = runtime.runner.config.root.join(id);
    if state.exists() {
        return Err(Error::Failed {
            runtime: runtime.runner.config.name.clone(),
            operation: "delete",
            status: "it says that it succeeded".to_owned(),
            stderr: format!("it still keeps {}", state.display()),
        });
    }
    Ok(())
}

/// Takes away the mounts that a killed runtime left in its state directory: they would make its
/// `delete` fail half way. One that is in use by a runtime at work is held open by it and not missed.
fn unmount_stale(dir: &Path, prefix: &str) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        // EINVAL: a file that nothing is mounted on; the runtime removes it.
        match unmount(entry.path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {
                tracing::info!(path = %entry.path().display(), "removed a mount that a killed runtime left")
            }
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), %error, "cannot remove a mount that a killed runtime left");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mounted_stays_for_the_runtime() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("runc.abc"), "").unwrap();
        unmount_stale(dir.path(), "runc.");
        assert!(dir.path().join("runc.abc").exists());
        unmount_stale(&dir.path().join("missing"), "runc.");
    }
}
