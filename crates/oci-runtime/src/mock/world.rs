// SPDX-License-Identifier: Apache-2.0
//! The simulated machine that the mock runtime and the mock monitor share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hull_failpoint::failpoint;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::streams::Attached;
use super::workload::{Workload, log_line};
use crate::lifecycle::{ContainerState, Event};
use crate::{Error, Exit, ExitSource, Result};

/// Deleted containers whose ends and starts are kept.
const KEPT: usize = 256;

/// Beyond the kernel's largest pid (4194304), so that none is ever a real process.
const FIRST_PID: i32 = 5_000_001;

/// A simulated machine: containers that have states, pids, logs and ends, but no processes.
///
/// Cheap to clone; clones are the same machine.
#[derive(Debug, Clone)]
pub struct World {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Mutex<Machine>,
    faults: Mutex<Faults>,
    /// Counts changes: who waits for an exit looks again at each.
    changed: watch::Sender<u64>,
    attached: Attached,
    file: Option<PathBuf>,
}

/// What is saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Machine {
    next_pid: i32,
    containers: BTreeMap<String, Container>,
    starts: BTreeMap<String, u32>,
    /// How deleted containers ended: for who was waiting when one was killed and deleted in one go.
    ends: BTreeMap<String, Exit>,
    /// The deleted ones that are still known, the oldest first.
    #[serde(default)]
    deleted: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Faults {
    errors: HashMap<String, VecDeque<Error>>,
    delays: HashMap<String, VecDeque<Duration>>,
}

/// One simulated container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) state: ContainerState,
    pub(super) bundle: PathBuf,
    pub(super) created: SystemTime,
    log: Option<PathBuf>,
    workload: Workload,
    /// Signals that came while it was frozen.
    pending: Vec<i32>,
    /// Its monitor has ended before it.
    #[serde(default)]
    is_unmonitored: bool,
}

impl Default for Machine {
    fn default() -> Self {
        let (containers, starts, ends, deleted) = Default::default();
        Self { next_pid: FIRST_PID, containers, starts, ends, deleted }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty machine in memory.
    pub fn new() -> Self {
        Self::with(Machine::default(), None)
    }

    /// A machine that is saved as JSON in `path` at each change, and continues from there: simulated
    /// containers survive the daemon as real ones do.
    ///
    /// # Errors
    /// When the file exists and cannot be read, or is not a saved machine.
    pub fn persistent(path: &Path) -> io::Result<Self> {
        let machine = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Machine::default(),
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        Ok(Self::with(machine, Some(path.to_owned())))
    }

    fn with(machine: Machine, file: Option<PathBuf>) -> Self {
        let inner = Inner {
            machine: Mutex::new(machine),
            faults: Mutex::new(Faults::default()),
            changed: watch::Sender::new(0),
            attached: Attached::default(),
            file,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What a runtime's `create` does: reads the bundle, makes the log file, answers the pid.
    /// It does not call [`World::before`]: who simulates `create` does that first.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`]; [`Error::Program`] as its annotation says; [`Error::Failed`] when the bundle's `config.json` is missing or not JSON.
    pub fn create(&self, id: &str, bundle: &Path, log: Option<&Path>) -> Result<i32> {
        let workload = Workload::of_bundle(bundle)?;
        self.change("create", |machine| {
            if machine.containers.contains_key(id) {
                return Err(Error::AlreadyExists { id: id.to_owned() });
            }
            if let Some(fault) = workload.program_fault {
                return Err(Error::Program { id: id.to_owned(), fault, detail: "simulated".to_owned() });
            }
            if let Some(log) = log {
                std::fs::File::options()
                    .create(true)
                    .append(true)
                    .open(log)
                    .map_err(|source| io_error("create", "opening the log", log, source))?;
            }
            let pid = machine.next_pid;
            machine.next_pid += 1;
            let container = Container {
                state: ContainerState::Created { pid },
                bundle: bundle.to_owned(),
                created: SystemTime::now(),
                log: log.map(Path::to_owned),
                workload,
                pending: Vec::new(),
                is_unmonitored: false,
            };
            machine.containers.insert(id.to_owned(), container);
            machine.ends.remove(id);
            machine.deleted.retain(|deleted| deleted != id);
            Ok(pid)
        })
    }

    /// Waits and fails as [`World::delay_next`] and [`World::fail_next`] ordered for `op`. Every
    /// simulated operation calls it first, with its verb (`create`, `start`, `kill`, `delete`, `state`,
    /// `exec`, `update`, `pause`, `resume`, `ps`, `version`, `features`, `checkpoint`).
    ///
    /// # Errors
    /// The ordered one.
    pub async fn before(&self, op: &str) -> Result<()> {
        let delay = self.faults().delays.get_mut(op).and_then(VecDeque::pop_front);
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        match self.faults().errors.get_mut(op).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The next `op` fails with `error`; further orders queue up.
    pub fn fail_next(&self, op: &str, error: Error) {
        self.faults().errors.entry(op.to_owned()).or_default().push_back(error);
    }

    /// The next `op` takes at least this long; further orders queue up.
    pub fn delay_next(&self, op: &str, delay: Duration) {
        self.faults().delays.entry(op.to_owned()).or_default().push_back(delay);
    }

    /// Whether the container's process lives (created, running or paused).
    pub fn is_alive(&self, id: &str) -> bool {
        self.state(id).is_some_and(ContainerState::is_alive)
    }

    /// Waits for the container's end; answers at once if it has ended. A container that does not
    /// exist, or is forgotten meanwhile, is answered with [`ExitSource::Unknown`].
    pub async fn wait_exit(&self, id: &str) -> Exit {
        let mut changed = self.inner.changed.subscribe();
        let mut existed = false;
        loop {
            {
                let machine = self.machine();
                match machine.containers.get(id).map(|container| container.state) {
                    Some(ContainerState::Stopped(exit)) => return exit,
                    Some(_) => existed = true,
                    None if existed => return machine.ends.get(id).copied().unwrap_or_else(unknown_exit),
                    None => return unknown_exit(),
                }
            }
            if changed.changed().await.is_err() {
                return unknown_exit();
            }
        }
    }

    /// The workload ends by itself. Nothing happens to a container that has ended or is not there.
    pub fn exit(&self, id: &str, code: i32) {
        let result = self.change("exit", |machine| {
            if let Some(container) = machine.containers.get_mut(id) {
                container.end(code);
            }
            Ok(())
        });
        if let Err(error) = result {
            tracing::warn!(id, error = &error as &dyn std::error::Error, "the simulated exit was not saved");
        }
    }

    /// The container's monitor ends alone. Nothing happens to a container that has ended or is not there.
    pub fn end_monitor(&self, id: &str) {
        let result = self.change("end of the monitor", |machine| {
            if let Some(container) = machine.containers.get_mut(id) {
                container.is_unmonitored = container.state.is_alive();
            }
            Ok(())
        });
        if let Err(error) = result {
            tracing::warn!(id, error = &error as &dyn std::error::Error, "the simulated end was not saved");
        }
    }

    /// Whether the container's monitor has ended before it.
    pub fn is_unmonitored(&self, id: &str) -> bool {
        self.machine().containers.get(id).is_some_and(|container| container.is_unmonitored)
    }

    /// Waits until the monitor of a container has ended, with it or alone, or there is no such container.
    pub async fn wait_monitor(&self, id: &str) {
        let mut changed = self.inner.changed.subscribe();
        while self.is_alive(id) && !self.is_unmonitored(id) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// What the container is; `None` if there is none.
    pub fn state(&self, id: &str) -> Option<ContainerState> {
        self.machine().containers.get(id).map(|container| container.state)
    }

    /// Every container's id, sorted.
    pub fn ids(&self) -> Vec<String> {
        self.machine().containers.keys().cloned().collect()
    }

    /// How often the workload of a container with this id ran; kept for the last containers that were deleted.
    pub fn start_count(&self, id: &str) -> u32 {
        self.machine().starts.get(id).copied().unwrap_or(0)
    }

    /// Takes the container away, whatever it is.
    pub fn forget(&self, id: &str) {
        let result = self.change("delete", |machine| {
            machine.containers.remove(id);
            machine.keep_deleted(id);
            Ok(())
        });
        self.inner.attached.forget(id);
        if let Err(error) = result {
            tracing::warn!(
                id,
                error = &error as &dyn std::error::Error,
                "the simulated delete was not saved"
            );
        }
    }

    /// The container as the mock runtime sees it.
    pub(super) fn get(&self, id: &str) -> Result<Container> {
        self.machine().containers.get(id).cloned().ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// Lets `event` happen; the workload of a started container acts at once.
    pub(super) fn happen(&self, id: &str, operation: &'static str, event: Event) -> Result<()> {
        let mut printed = None;
        self.change(operation, |machine| {
            let container =
                machine.containers.get_mut(id).ok_or_else(|| Error::NotFound { id: id.to_owned() })?;
            let exit = container.state.exit();
            container.state = container.state.apply(event).map_err(|refused| Error::InvalidState {
                id: id.to_owned(),
                operation,
                detail: refused.to_string(),
            })?;
            match event {
                Event::Started => {
                    *machine.starts.entry(id.to_owned()).or_default() += 1;
                    container.begin()?;
                    printed = container.workload.log.as_ref().map(|text| format!("{text}\n"));
                }
                Event::Resumed => {
                    for signal in std::mem::take(&mut container.pending) {
                        container.signal(signal);
                    }
                }
                Event::Deleted => {
                    machine.containers.remove(id);
                    machine.ends.extend(exit.map(|exit| (id.to_owned(), exit)));
                    machine.keep_deleted(id);
                }
                _ => {}
            }
            Ok(())
        })?;
        match event {
            Event::Started => printed.iter().for_each(|text| self.print_at_start(id, text)),
            Event::Deleted => self.inner.attached.forget(id),
            _ => {}
        }
        Ok(())
    }

    /// Delivers a signal.
    pub(super) fn signal(&self, id: &str, signal: i32) -> Result<()> {
        self.change("kill", |machine| {
            let container =
                machine.containers.get_mut(id).ok_or_else(|| Error::NotFound { id: id.to_owned() })?;
            if !container.state.is_alive() {
                return Err(Error::InvalidState {
                    id: id.to_owned(),
                    operation: "kill",
                    detail: "container not running".to_owned(),
                });
            }
            container.signal(signal);
            Ok(())
        })
    }

    /// Changes the machine, saves it, tells who waits. What was refused changes nothing.
    fn change<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Machine) -> Result<T>,
    ) -> Result<T> {
        let mut machine = self.machine();
        let mut next = machine.clone();
        let answer = change(&mut next)?;
        // Saved under the lock: two changes must not overtake each other on the way to the file.
        // A few kilobytes, and only in simulations.
        if let Some(file) = &self.inner.file {
            save(&next, file).map_err(|source| io_error(operation, "saving", file, source))?;
        }
        *machine = next;
        drop(machine);
        self.inner.changed.send_modify(|count| *count += 1);
        Ok(answer)
    }

    pub(super) fn attached(&self) -> &Attached {
        &self.inner.attached
    }

    /// Appends what the process prints to its log, if it has one.
    pub(super) fn append_to_log(&self, id: &str, text: &str) -> Result<()> {
        let Some(log) = self.get(id)?.log else { return Ok(()) };
        let lines: String = text.lines().map(|line| log_line(SystemTime::now(), line)).collect();
        append(&log, &lines).map_err(|source| io_error("exec", "appending to the log", &log, source))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.inner.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.inner.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    /// Keeps what is known of a deleted container, in place of that of the oldest.
    fn keep_deleted(&mut self, id: &str) {
        self.deleted.retain(|deleted| deleted != id);
        self.deleted.push_back(id.to_owned());
        while self.deleted.len() > KEPT
            && let Some(oldest) = self.deleted.pop_front()
        {
            self.ends.remove(&oldest);
            self.starts.remove(&oldest);
        }
    }
}

impl Container {
    /// The workload's first act: its log line, and its end if it was told to end.
    fn begin(&mut self) -> Result<()> {
        if let (Some(log), Some(text)) = (&self.log, &self.workload.log) {
            append(log, &log_line(SystemTime::now(), text))
                .map_err(|source| io_error("start", "appending to the log", log, source))?;
        }
        if let Some(code) = self.workload.exit_code {
            self.end(code);
        }
        Ok(())
    }

    fn signal(&mut self, signal: i32) {
        const IGNORED_BY_DEFAULT: [i32; 9] = [0, 17, 18, 19, 20, 21, 22, 23, 28];
        const KILL: i32 = 9;
        const TERM: i32 = 15;
        if signal == KILL {
            self.end(128 + KILL);
        } else if IGNORED_BY_DEFAULT.contains(&signal) || (signal == TERM && self.workload.ignore_term) {
        } else if matches!(self.state, ContainerState::Paused { .. }) {
            self.pending.push(signal);
        } else {
            self.end(128 + signal);
        }
    }

    /// Ends the process, if there is one.
    fn end(&mut self, code: i32) {
        let exit = Exit { code, at: SystemTime::now(), oom: false, source: ExitSource::ExitFile };
        if let Ok(stopped) = self.state.apply(Event::Exited(exit)) {
            self.state = stopped;
        }
    }
}

fn unknown_exit() -> Exit {
    Exit { code: 255, at: SystemTime::now(), oom: false, source: ExitSource::Unknown }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    failpoint!("mock.log.append")?;
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    io::Write::write_all(&mut file, line.as_bytes())
}

fn save(machine: &Machine, path: &Path) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    failpoint!("mock.world.write")?;
    hull_files::write(&temporary, &serde_json::to_vec_pretty(machine)?, hull_files::PRIVATE_FILE)?;
    failpoint!("mock.world.rename")?;
    std::fs::rename(&temporary, path)
}

fn io_error(operation: &'static str, doing: &str, path: &Path, source: io::Error) -> Error {
    Error::Io { operation, context: format!("{doing} {}", path.display()), source }
}
