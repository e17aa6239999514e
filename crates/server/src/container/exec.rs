// SPDX-License-Identifier: Apache-2.0
//! What the two kinds of exec share: whether there may be one, and what it runs as.

use oci_spec::runtime::Spec;

use crate::container::words;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::model::ContainerPhase;
use crate::operation::OpKind;
use crate::records::blocking;
use crate::sandbox::request::invalid;
use crate::store::Container;

/// Refuses a command that no kernel could run.
pub(crate) fn check_command(operation: &'static str, command: &[String]) -> Result<()> {
    if command.iter().all(String::is_empty) {
        return Err(invalid(operation, "cmd", "must not be empty"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(invalid(operation, "cmd", "contains a NUL byte"));
    }
    Ok(())
}

/// Refuses work in a container that does not run, or not for much longer.
pub(crate) fn admit(operation: &'static str, container: &Container) -> Result<()> {
    if container.execs.is_cancelled() {
        return Err(stopping(operation, container));
    }
    match container.status().phase {
        ContainerPhase::Running => Ok(()),
        // Its start may have been the last thing that the daemon before this one did.
        ContainerPhase::Created if is_recovering(container) => {
            Err(Error::Recovering { operation, id: container.id().to_owned() })
        }
        phase => Err(Error::FailedPrecondition {
            operation,
            id: container.id().to_owned(),
            problem: format!("the container is not running but {}", words(phase)),
        }),
    }
}

fn is_recovering(container: &Container) -> bool {
    container.slot.current().is_some_and(|operation| operation.kind == OpKind::RecoverContainer)
}

pub(crate) fn stopping(operation: &'static str, container: &Container) -> Error {
    Error::FailedPrecondition {
        operation,
        id: container.id().to_owned(),
        problem: "the container is stopping".to_owned(),
    }
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
