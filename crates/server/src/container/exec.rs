// SPDX-License-Identifier: Apache-2.0
//! What the two kinds of exec share: whether there may be one, and what it runs as.

use std::time::Duration;

use oci_spec::runtime::Spec;

use crate::container::request::POINTER;
use crate::container::words;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::limits;
use crate::model::ContainerPhase;
use crate::operation::OpKind;
use crate::records::blocking;
use crate::sandbox::request::invalid;
use crate::store::Container;

/// Refuses a command that no kernel could run, or that is too large.
pub(crate) fn check_command(operation: &'static str, command: &[String]) -> Result<()> {
    if command.iter().all(String::is_empty) {
        return Err(invalid(operation, "cmd", "must not be empty"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(invalid(operation, "cmd", "contains a NUL byte"));
    }
    limits::bytes(operation, "cmd", command.iter().map(|word| word.len() + POINTER).sum(), limits::COMMAND)
}

/// Refuses work in a container that does not run, or is about to be killed. One that terminates serves until then.
pub(crate) fn admit(operation: &'static str, container: &Container) -> Result<()> {
    let status = container.status();
    let problem = match verdict(status.phase, container.execs.is_cancelled(), is_recovering(container)) {
        Verdict::Serve => return Ok(()),
        Verdict::Recovering => {
            return Err(Error::Recovering { operation, id: container.id().to_owned() });
        }
        Verdict::KillDue => "the container is being killed: its grace period is over".to_owned(),
        Verdict::NotRunning => format!("the container is not running but {}", words(status.phase)),
    };
    Err(Error::FailedPrecondition { operation, id: container.id().to_owned(), problem })
}

/// How long an exec may outlive its container before it is ended by itself. SIGKILL mostly ends both at once, and until
/// then nothing else shall: a process whose input is closed may end as if all were well. One outside the container's pid
/// namespace (a shared one) lives on.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Waits until what still runs in the container has outlived it: SIGKILL was due, or it has exited, a moment ago.
pub(crate) async fn outlives(container: &Container) {
    tokio::select! {
        () = container.execs.cancelled() => {}
        () = container.exited() => {}
    }
    tokio::time::sleep(LAST_MOMENT).await;
}

/// What becomes of an exec in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Serve,
    /// Its start may have been the last thing that the daemon before this one did.
    Recovering,
    KillDue,
    NotRunning,
}

/// A stop that runs is no reason to refuse an exec; that its grace period is over (`kill_due`) is.
fn verdict(phase: ContainerPhase, kill_due: bool, recovering: bool) -> Verdict {
    match phase {
        ContainerPhase::Running if kill_due => Verdict::KillDue,
        ContainerPhase::Running => Verdict::Serve,
        ContainerPhase::Created if recovering => Verdict::Recovering,
        ContainerPhase::Creating | ContainerPhase::Created | ContainerPhase::Exited => Verdict::NotRunning,
    }
}

fn is_recovering(container: &Container) -> bool {
    container.slot.current().is_some_and(|operation| operation.kind == OpKind::RecoverContainer)
}

/// The container's own `config.json`.
pub(crate) async fn spec(ctx: &Context, container: &Container) -> Result<Spec> {
    let path = ctx.layout.container_dir(container.id()).join("config.json");
    blocking(move || {
        let context = || format!("read {}", path.display());
        let bytes = std::fs::read(&path).map_err(|e| Error::io(context(), e))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::io(context(), e.into()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_serves_execs_while_it_runs_and_is_not_about_to_be_killed() {
        use ContainerPhase::{Created, Creating, Exited, Running};
        let rows = [
            (Running, false, false, Verdict::Serve),
            (Running, true, false, Verdict::KillDue),
            (Created, false, true, Verdict::Recovering),
            (Created, false, false, Verdict::NotRunning),
            (Creating, false, false, Verdict::NotRunning),
            (Exited, false, false, Verdict::NotRunning),
            (Exited, true, false, Verdict::NotRunning),
        ];
        for (phase, kill_due, recovering, expected) in rows {
            assert_eq!(verdict(phase, kill_due, recovering), expected, "{phase:?} {kill_due} {recovering}");
        }
    }
}
