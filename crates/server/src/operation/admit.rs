// SPDX-License-Identifier: Apache-2.0
//! Who wins when an operation comes while another one runs. Pure.
//!
//! ```text
//!  running \ comes   Run/Create           Start      Update     Stop                Remove
//!  Run/Create        same: join           refuse     refuse     cancel              cancel
//!                    other: cancel
//!  Start             wait                 join       wait       cancel              cancel
//!  Update, Recover   wait                 wait       wait       cancel              cancel
//!  Stop              wait                 refuse     refuse     join, shortening    shorten, then on
//!  Remove            wait, then anew      refuse     refuse     join                join
//! ```
//! Execs have no slot: they are served while the container runs, also while a stop waits for it, until SIGKILL is due
//! ([`crate::container::exec::admit`]); a removal kills at once.
//!
//! "cancel" includes its undo: the newcomer is admitted again when the running one has ended. Recover comes before
//! anything can be asked for.

use std::sync::Arc;

use super::Operation;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OpKind {
    RunSandbox,
    StopSandbox,
    RemoveSandbox,
    CreateContainer,
    StartContainer,
    UpdateContainer,
    StopContainer,
    RemoveContainer,
    /// No RPC: a start of the daemon finds out what became of the container.
    RecoverContainer,
}

/// What becomes of an operation that asks to run.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It runs.
    Run(Arc<Operation>),
    /// The running one does the same: take its outcome.
    Join(Arc<Operation>),
    /// As join, but ask the running stop to hurry, then ask again.
    Shorten(Arc<Operation>),
    /// Cancel the running one, wait for its end, ask again.
    Cancel(Arc<Operation>),
    /// Wait for the running one's end, ask again.
    Wait(Arc<Operation>),
    /// No.
    Refuse(Arc<Operation>),
}

/// The pure part of [`Admission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Join,
    Shorten,
    Cancel,
    Wait,
    Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Make,
    Start,
    Update,
    Stop,
    Remove,
    Recover,
}

/// The table above. `same` tells whether both ask for the same thing.
pub(crate) fn decide(running: OpKind, comes: OpKind, same: bool) -> Decision {
    use Verb::{Make, Recover, Remove, Start, Stop, Update};
    match (running.verb(), comes.verb()) {
        (Make, Make) if same => Decision::Join,
        (Make, Make | Stop | Remove) => Decision::Cancel,
        (Make | Stop | Remove, Start | Update) => Decision::Refuse,
        (Start, Start) | (Stop, Stop) | (Remove, Stop | Remove) => Decision::Join,
        (Start | Update | Recover, Stop | Remove) => Decision::Cancel,
        (Start | Update | Stop | Remove, Make)
        | (Start | Update, Update)
        | (Update, Start)
        | (Recover, Make | Start | Update)
        | (_, Recover) => Decision::Wait,
        (Stop, Remove) => Decision::Shorten,
    }
}

// === impl OpKind ===

impl OpKind {
    /// The RPC's name.
    pub(crate) fn rpc(self) -> &'static str {
        match self {
            Self::RunSandbox => "RunPodSandbox",
            Self::StopSandbox => "StopPodSandbox",
            Self::RemoveSandbox => "RemovePodSandbox",
            Self::CreateContainer => "CreateContainer",
            Self::StartContainer => "StartContainer",
            Self::UpdateContainer => "UpdateContainerResources",
            Self::StopContainer => "StopContainer",
            Self::RemoveContainer => "RemoveContainer",
            Self::RecoverContainer => "Recovery",
        }
    }

    fn verb(self) -> Verb {
        match self {
            Self::RunSandbox | Self::CreateContainer => Verb::Make,
            Self::StartContainer => Verb::Start,
            Self::UpdateContainer => Verb::Update,
            Self::StopSandbox | Self::StopContainer => Verb::Stop,
            Self::RemoveSandbox | Self::RemoveContainer => Verb::Remove,
            Self::RecoverContainer => Verb::Recover,
        }
    }
}

// === impl Decision ===

impl Decision {
    pub(crate) fn with(self, running: Arc<Operation>) -> Admission {
        match self {
            Self::Join => Admission::Join(running),
            Self::Shorten => Admission::Shorten(running),
            Self::Cancel => Admission::Cancel(running),
            Self::Wait => Admission::Wait(running),
            Self::Refuse => Admission::Refuse(running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OpKind::*;
    use proptest::prelude::*;

    #[test]
    fn the_table() {
        let rows = [
            (CreateContainer, CreateContainer, true, Decision::Join),
            (CreateContainer, CreateContainer, false, Decision::Cancel),
            (CreateContainer, RemoveContainer, false, Decision::Cancel),
            (CreateContainer, StartContainer, false, Decision::Refuse),
            (StartContainer, StopContainer, false, Decision::Cancel),
            (StartContainer, RemoveContainer, false, Decision::Cancel),
            (StartContainer, StartContainer, false, Decision::Join),
            (CreateContainer, UpdateContainer, false, Decision::Refuse),
            (StartContainer, UpdateContainer, false, Decision::Wait),
            (UpdateContainer, UpdateContainer, true, Decision::Wait),
            (UpdateContainer, StartContainer, false, Decision::Wait),
            (UpdateContainer, StopContainer, false, Decision::Cancel),
            (UpdateContainer, RemoveContainer, false, Decision::Cancel),
            (StopContainer, UpdateContainer, false, Decision::Refuse),
            (RemoveContainer, UpdateContainer, false, Decision::Refuse),
            (StopContainer, StopContainer, false, Decision::Join),
            (StopContainer, RemoveContainer, false, Decision::Shorten),
            (StopContainer, StartContainer, false, Decision::Refuse),
            (RemoveContainer, CreateContainer, false, Decision::Wait),
            (RemoveContainer, StopContainer, false, Decision::Join),
            (RecoverContainer, StartContainer, false, Decision::Wait),
            (RecoverContainer, CreateContainer, true, Decision::Wait),
            (RecoverContainer, StopContainer, false, Decision::Cancel),
            (RecoverContainer, RemoveContainer, false, Decision::Cancel),
            (RunSandbox, StopSandbox, false, Decision::Cancel),
            (RunSandbox, RemoveSandbox, false, Decision::Cancel),
            (StopSandbox, RemoveSandbox, false, Decision::Shorten),
            (StopSandbox, RunSandbox, true, Decision::Wait),
            (RemoveSandbox, RunSandbox, true, Decision::Wait),
        ];
        for (running, comes, same, expected) in rows {
            assert_eq!(decide(running, comes, same), expected, "{running:?} <- {comes:?} same={same}");
        }
    }

    fn kind() -> impl Strategy<Value = OpKind> {
        prop::sample::select(vec![
            RunSandbox,
            StopSandbox,
            RemoveSandbox,
            CreateContainer,
            StartContainer,
            UpdateContainer,
            StopContainer,
            RemoveContainer,
            RecoverContainer,
        ])
    }

    proptest! {
        /// Stop and remove are idempotent for their callers: never refused.
        #[test]
        fn ends_are_never_refused(running in kind(), comes in kind(), same: bool) {
            if matches!(comes.verb(), Verb::Stop | Verb::Remove) {
                prop_assert_ne!(decide(running, comes, same), Decision::Refuse);
            }
        }

        /// What ends a thing is never cancelled by anything.
        #[test]
        fn ends_are_never_cancelled(running in kind(), comes in kind(), same: bool) {
            if matches!(running.verb(), Verb::Stop | Verb::Remove) {
                prop_assert_ne!(decide(running, comes, same), Decision::Cancel);
            }
        }

        /// A recovery is never taken for what was asked, nor refused because of it.
        #[test]
        fn nobody_gets_the_result_of_a_recovery(comes in kind(), same: bool) {
            prop_assert!(matches!(decide(RecoverContainer, comes, same), Decision::Wait | Decision::Cancel));
        }

        /// "Name is reserved" cannot happen: a make is never refused because of another operation.
        #[test]
        fn makes_are_never_refused(running in kind(), comes in kind(), same: bool) {
            if comes.verb() == Verb::Make {
                prop_assert_ne!(decide(running, comes, same), Decision::Refuse);
            }
        }
    }
}
