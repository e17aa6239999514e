// SPDX-License-Identifier: Apache-2.0
//! Containers, one file per verb.

pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod exec_sync;
pub(crate) mod list;
pub(crate) mod make;
pub(crate) mod remove;
pub(crate) mod reopen_log;
pub(crate) mod request;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod teardown;
pub(crate) mod update;
pub(crate) mod watch;

use crate::model::ContainerPhase;

/// What a container is, in words for messages.
pub(crate) fn words(phase: ContainerPhase) -> &'static str {
    match phase {
        ContainerPhase::Creating => "still being created",
        ContainerPhase::Created => "created",
        ContainerPhase::Running => "running",
        ContainerPhase::Exited => "exited",
    }
}
