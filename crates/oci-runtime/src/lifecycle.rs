// SPDX-License-Identifier: Apache-2.0
//! The states of one container: pure, no I/O, no clock.
//!
//! ```text
//!             Created{pid}            Started              Paused
//!  Creating ───────────────▶ Created ─────────▶ Running ◀─────────▶ Paused
//!     │                         │                  │      Resumed      │
//!     │                         │ Exited           │ Exited            │ Exited
//!     │                         ▼                  ▼                   │
//!     │                      Stopped(exit) ◀───────────────────────────┘
//!     │ Deleted                 │ Deleted
//!     ▼                         ▼
//!  Deleted ◀────────────────────┘
//! ```
//!
//! Laws, each held by a property test against a second model:
//! - `Deleted` is terminal: no event leaves it.
//! - The pid is set once, by `Created`, and is the same as long as the process lives.
//! - An exit is set once and never changes. It may be observed before the process was started: the
//!   waiting first process can be killed.
//! - Only what has ended is deleted, or what was never made (a create that failed).
//! - A refused event changes nothing.
//!
//! The words are those of <https://github.com/opencontainers/runtime-spec/blob/main/runtime.md#state>;
//! `Paused` and `Deleted` are additions that every runtime makes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Exit, RuntimeStatus};

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// `create` has not returned yet.
    Creating,
    /// Created: its first process waits for `start`.
    Created {
        /// Host pid of the first process.
        pid: i32,
    },
    /// Its process runs.
    Running {
        /// Host pid of the first process.
        pid: i32,
    },
    /// Its processes are frozen.
    Paused {
        /// Host pid of the first process.
        pid: i32,
    },
    /// Its process has ended.
    Stopped(Exit),
    /// The runtime knows it no more.
    Deleted,
}

/// Something that happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `create` returned.
    Created {
        /// Host pid of the first process.
        pid: i32,
    },
    /// `start` returned.
    Started,
    /// `pause` returned.
    Paused,
    /// `resume` returned.
    Resumed,
    /// Its end was observed.
    Exited(Exit),
    /// `delete` returned.
    Deleted,
}

/// An event that the state does not allow. The state is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a container that is {from} cannot be {event}")]
pub struct InvalidTransition {
    /// The state that refused.
    pub from: ContainerState,
    /// The event that was refused.
    pub event: Event,
}

impl ContainerState {
    /// The whole table: what the container is after `event`.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the state does not allow the event.
    pub fn apply(self, event: Event) -> Result<Self, InvalidTransition> {
        use ContainerState as State;
        match (self, event) {
            (State::Creating, Event::Created { pid }) => Ok(State::Created { pid }),
            (State::Created { pid }, Event::Started) => Ok(State::Running { pid }),
            (State::Running { pid }, Event::Paused) => Ok(State::Paused { pid }),
            (State::Paused { pid }, Event::Resumed) => Ok(State::Running { pid }),
            (State::Created { .. } | State::Running { .. } | State::Paused { .. }, Event::Exited(exit)) => {
                Ok(State::Stopped(exit))
            }
            (State::Creating | State::Stopped(_), Event::Deleted) => Ok(State::Deleted),
            (from, event) => Err(InvalidTransition { from, event }),
        }
    }

    /// Host pid of the first process, while it lives.
    pub fn pid(self) -> Option<i32> {
        match self {
            Self::Created { pid } | Self::Running { pid } | Self::Paused { pid } => Some(pid),
            Self::Creating | Self::Stopped(_) | Self::Deleted => None,
        }
    }

    /// How its process ended.
    pub fn exit(self) -> Option<Exit> {
        match self {
            Self::Stopped(exit) => Some(exit),
            _ => None,
        }
    }

    /// Whether its first process lives: created, running or paused.
    pub fn is_alive(self) -> bool {
        self.pid().is_some()
    }

    /// Whether its own program runs (not frozen).
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Whether `delete` without force is allowed.
    pub fn is_deletable(self) -> bool {
        matches!(self, Self::Creating | Self::Stopped(_))
    }

    /// The runtime's status word; `None` for a deleted one, which a runtime does not know.
    pub fn runtime_status(self) -> Option<RuntimeStatus> {
        Some(match self {
            Self::Creating => RuntimeStatus::Creating,
            Self::Created { .. } => RuntimeStatus::Created,
            Self::Running { .. } => RuntimeStatus::Running,
            Self::Paused { .. } => RuntimeStatus::Paused,
            Self::Stopped(_) => RuntimeStatus::Stopped,
            Self::Deleted => return None,
        })
    }
}

impl fmt::Display for ContainerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Creating => f.write_str("creating"),
            Self::Created { pid } => write!(f, "created (pid {pid})"),
            Self::Running { pid } => write!(f, "running (pid {pid})"),
            Self::Paused { pid } => write!(f, "paused (pid {pid})"),
            Self::Stopped(exit) => write!(f, "stopped (exit code {})", exit.code),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created { .. } => "created",
            Self::Started => "started",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Exited(_) => "ended",
            Self::Deleted => "deleted",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::*;
    use crate::ExitSource;

    /// The second model: what happened, as flags; knows nothing of states.
    #[derive(Debug, Clone, Copy, Default)]
    struct Flags {
        pid: Option<i32>,
        started: bool,
        frozen: bool,
        exit: Option<Exit>,
        deleted: bool,
    }

    impl Flags {
        fn try_event(&mut self, event: Event) -> bool {
            let alive = self.pid.is_some() && self.exit.is_none() && !self.deleted;
            match event {
                Event::Created { pid } if self.pid.is_none() && !self.deleted => self.pid = Some(pid),
                Event::Started if alive && !self.started => self.started = true,
                Event::Paused if alive && self.started && !self.frozen => self.frozen = true,
                Event::Resumed if alive && self.frozen => self.frozen = false,
                Event::Exited(exit) if alive => self.exit = Some(exit),
                Event::Deleted if !alive && !self.deleted => self.deleted = true,
                _ => return false,
            }
            true
        }

        fn agrees(&self, state: ContainerState) -> bool {
            let alive = self.pid.is_some() && self.exit.is_none() && !self.deleted;
            let status = match (self.deleted, alive, self.exit, self.started, self.frozen) {
                (true, ..) => None,
                (_, true, _, false, _) => Some(RuntimeStatus::Created),
                (_, true, _, true, false) => Some(RuntimeStatus::Running),
                (_, true, _, true, true) => Some(RuntimeStatus::Paused),
                (_, false, Some(_), ..) => Some(RuntimeStatus::Stopped),
                (_, false, None, ..) => Some(RuntimeStatus::Creating),
            };
            state.runtime_status() == status
                && state.is_alive() == alive
                && state.pid() == self.pid.filter(|_| alive)
                && state.exit() == self.exit.filter(|_| !self.deleted)
        }
    }

    fn any_exit() -> impl Strategy<Value = Exit> {
        (0..256i32, 0..1_000_000u64, any::<bool>()).prop_map(|(code, seconds, oom)| Exit {
            code,
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            oom,
            source: ExitSource::ExitFile,
        })
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (1..1000i32).prop_map(|pid| Event::Created { pid }),
            Just(Event::Started),
            Just(Event::Paused),
            Just(Event::Resumed),
            any_exit().prop_map(Event::Exited),
            Just(Event::Deleted),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_the_flags(events in prop::collection::vec(any_event(), 0..40)) {
            let mut flags = Flags::default();
            let mut state = ContainerState::Creating;
            for event in events {
                let before = state;
                let allowed = flags.try_event(event);
                match state.apply(event) {
                    Ok(next) => { prop_assert!(allowed, "{before} took {event:?}"); state = next; }
                    Err(refused) => {
                        prop_assert!(!allowed, "{before} refused {event:?}");
                        prop_assert_eq!(refused.from, before);
                    }
                }
                prop_assert!(flags.agrees(state), "{state:?} against {flags:?}");
            }
        }

        #[test]
        fn laws(events in prop::collection::vec(any_event(), 0..60)) {
            let (mut state, mut pid, mut exit, mut deleted) = (ContainerState::Creating, None, None, false);
            for event in events {
                if let Ok(next) = state.apply(event) {
                    prop_assert!(!deleted, "an event left Deleted");
                    if let Some(now) = next.pid() { prop_assert_eq!(*pid.get_or_insert(now), now); }
                    if let Some(now) = next.exit() { prop_assert_eq!(*exit.get_or_insert(now), now); }
                    if next == ContainerState::Deleted {
                        prop_assert!(state.is_deletable());
                        deleted = true;
                    }
                    state = next;
                }
            }
        }

        #[test]
        fn survives_being_written_down(events in prop::collection::vec(any_event(), 0..12)) {
            let mut state = ContainerState::Creating;
            for event in events { state = state.apply(event).unwrap_or(state); }
            let text = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<ContainerState>(&text).unwrap(), state);
        }
    }

    #[test]
    fn a_refusal_says_what_and_why() {
        let error = ContainerState::Running { pid: 7 }.apply(Event::Deleted).unwrap_err();
        assert_eq!(error.to_string(), "a container that is running (pid 7) cannot be deleted");
    }
}
