// SPDX-License-Identifier: Apache-2.0
//! Finds and ends every process of a create that went wrong.
//!
//! conmon's launcher forks the monitor and exits; the monitor makes its own session, becomes a child of
//! whoever reaps, and runs the runtime, whose children make sessions of their own. So neither the
//! process group nor the launcher's children hold them together. What does:
//!
//! - an environment variable ([`MARK`]) that conmon hands down to the runtime;
//! - the sync pipe's write end, which the monitor holds until its end;
//! - descent: the monitor is a subreaper, so what it started stays below it while it lives.
//!
//! A process that forks while it is looked for could slip away, and a parent that dies first would
//! lose its children. So everything found is stopped first, until a look finds nothing new, and only
//! then is everything killed. All of it is synchronous and needs no async runtime: it also runs when a
//! future is dropped.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use hull_process::Pidfd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::ProcessId;

/// The variable that marks a monitor and the runtime below it.
pub(crate) const MARK: &str = "HULL_MONITOR";

/// How often is looked for new processes before killing those that were found; a process that is stuck
/// in the kernel never stands still.
const ROUNDS: usize = 64;

/// How often all this is done.
const PASSES: usize = 4;

/// How long is waited for killed processes to be gone; only a process stuck in the kernel takes longer.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// What tells the processes of one create from all others.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    /// The value of [`MARK`].
    pub mark: OsString,
    /// The program that was started, when it is not known since when.
    pub program: Option<OsString>,
    /// Nothing older than this belongs to it. Keeps the search from touching the memory of unrelated
    /// processes, which can block for as long as those hang.
    pub since: u64,
    /// Processes that surely belong to it.
    pub roots: Vec<ProcessId>,
    /// The inode of the sync pipe.
    pub pipe: Option<u64>,
}

impl Trace {
    /// Ends everything and waits, within a bound, until it is gone.
    pub(crate) async fn end(self) {
        let killed = tokio::task::spawn_blocking(move || self.kill()).await.unwrap_or_default();
        let gone = async {
            for process in killed {
                if let Ok(Some(pidfd)) = Pidfd::open(process.into()) {
                    let _ = pidfd.exited().await;
                }
            }
        };
        if tokio::time::timeout(GONE_WITHIN, gone).await.is_err() {
            tracing::warn!(
                "processes of a create that was given up are stuck in the kernel; they were sent SIGKILL"
            );
        }
    }

    /// Sends SIGKILL to everything; tells to whom.
    pub(crate) fn kill(&self) -> Vec<ProcessId> {
        let mut caught = Caught::new();
        // A second pass finds what a process gave birth to at the very moment it was stopped.
        for _ in 0..PASSES {
            let before: Vec<i32> = caught.keys().copied().collect();
            self.stop_all(&mut caught);
            let fresh: Vec<_> = caught.iter().filter(|(pid, _)| !before.contains(pid)).collect();
            if fresh.is_empty() {
                break;
            }
            for (_, (_, held)) in fresh {
                let _ = pidfd_send_signal(held, Signal::KILL);
            }
        }
        caught.into_values().map(|(process, _)| process).collect()
    }

    /// Catches and stops processes until all of them stand still and no new one is found.
    fn stop_all(&self, caught: &mut Caught) {
        for _ in 0..ROUNDS {
            let fresh = self.find(caught);
            if fresh.is_empty() && caught.values().all(|(process, _)| stands_still(*process)) {
                return;
            }
            if fresh.is_empty() {
                // A signal takes effect when its process next returns from the kernel; no event tells.
                std::thread::sleep(Duration::from_millis(1));
            }
            for process in fresh {
                if let Some(held) = hold(process) {
                    let _ = pidfd_send_signal(&held, Signal::STOP);
                    caught.insert(process.pid, (process, held));
                }
            }
        }
    }

    /// Processes that belong to it and were not caught yet. Children of those found are found too.
    fn find(&self, caught: &Caught) -> Vec<ProcessId> {
        let own = std::process::id().cast_signed();
        let table: Vec<Row> =
            rows().into_iter().filter(|row| row.process.pid != own && row.process.pid > 1).collect();
        let mut ours: BTreeMap<i32, ProcessId> =
            table.iter().filter(|row| self.owns(row)).map(|row| (row.process.pid, row.process)).collect();
        loop {
            let more: Vec<&Row> = table
                .iter()
                .filter(|row| !ours.contains_key(&row.process.pid))
                .filter(|row| ours.contains_key(&row.parent) || caught.contains_key(&row.parent))
                .collect();
            if more.is_empty() {
                break;
            }
            ours.extend(more.into_iter().map(|row| (row.process.pid, row.process)));
        }
        ours.into_values()
            .filter(|process| caught.get(&process.pid).is_none_or(|(known, _)| known != process))
            .collect()
    }

    fn owns(&self, row: &Row) -> bool {
        if self.roots.contains(&row.process) {
            return true;
        }
        if row.process.start_time < self.since
            || self.program.as_deref().is_some_and(|name| !row.is_named(name))
        {
            return false;
        }
        has_mark(row.process.pid, &self.mark)
            || self.pipe.is_some_and(|inode| writes_to(row.process.pid, inode))
    }
}

/// Processes that were found, by pid, each held so that its pid cannot name another one.
type Caught = BTreeMap<i32, (ProcessId, OwnedFd)>;

/// A living process of `/proc`.
struct Row {
    process: ProcessId,
    parent: i32,
    name: String,
}

impl Row {
    /// Whether this is the program with that file name. The kernel keeps 15 bytes of a name. A wrapper
    /// script that executes conmon leaves conmon's own name.
    fn is_named(&self, program: &OsStr) -> bool {
        let bytes = program.as_bytes();
        self.name.as_bytes() == &bytes[..bytes.len().min(15)] || self.name == "conmon"
    }
}

fn rows() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|entry| fs::read(entry.path().join("stat")).ok())
        .filter_map(|stat| parse_stat(&String::from_utf8_lossy(&stat)))
        .collect()
}

/// Reads a line of `/proc/PID/stat`, `pid (name) state ppid ...`; the name may hold anything, also
/// brackets. `None` for the dead.
fn parse_stat(stat: &str) -> Option<Row> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (pid, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // Counted from field 3, the state: 22 is the start time.
    let (state, parent, start_time) = (fields.first()?, fields.get(1)?, fields.get(19)?);
    (!matches!(*state, "Z" | "X" | "x")).then_some(())?;
    let process = ProcessId { pid: pid.trim().parse().ok()?, start_time: start_time.parse().ok()? };
    Some(Row { process, parent: parent.parse().ok()?, name: name.to_owned() })
}

pub(crate) fn has_mark(pid: i32, mark: &OsStr) -> bool {
    hull_process::started_with(pid, &[MARK.as_bytes(), b"=", mark.as_bytes()].concat())
}

/// Whether the process holds the write end of that pipe. A child that the daemon is just about to start
/// (between vfork and exec) has copies of the daemon's descriptors, but it still runs the daemon's file.
fn writes_to(pid: i32, inode: u64) -> bool {
    let is_daemon = || {
        let own = fs::metadata("/proc/self/exe").map(|file| (file.dev(), file.ino()));
        let other = fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino()));
        matches!((own, other), (Ok(own), Ok(other)) if own == other)
    };
    let link = format!("pipe:[{inode}]");
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(&link)))
        .any(|entry| is_write_end(pid, &entry.file_name()))
        && !is_daemon()
}

fn is_write_end(pid: i32, descriptor: &OsStr) -> bool {
    let path = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(descriptor);
    let Ok(info) = fs::read_to_string(path) else { return false };
    // `flags` is octal; the last digit holds the access mode: 0 read, 1 write, 2 both.
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_some_and(|flags| flags & 3 != 0)
}

/// Whether it is stopped, or dead, or waits where no signal reaches it.
fn stands_still(process: ProcessId) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{}/stat", process.pid)) else { return true };
    let stat = String::from_utf8_lossy(&stat);
    let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
    state.is_none_or(|state| "TtDZXx".contains(state))
}

/// Holds exactly that process: the pid may have been given to another since it was read.
fn hold(process: ProcessId) -> Option<OwnedFd> {
    let held = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    (hull_process::ProcessId::of(process.pid)?.start_time == process.start_time).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_names_with_brackets_and_skips_the_dead() {
        let line = "42 (a) b (c)) S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let row = parse_stat(line).unwrap();
        assert_eq!((row.process, row.parent), (ProcessId { pid: 42, start_time: 4711 }, 7));
        assert_eq!(row.name, "a) b (c)");
        assert!(parse_stat(&line.replace(" S ", " Z ")).is_none());
    }

    #[test]
    fn knows_the_names_the_kernel_cuts() {
        let row =
            |name: &str| Row { process: ProcessId { pid: 2, start_time: 1 }, parent: 1, name: name.into() };
        assert!(row("a-long-wrapper-").is_named(OsStr::new("a-long-wrapper-for-conmon")));
        assert!(row("conmon").is_named(OsStr::new("wrapper")));
        assert!(!row("other").is_named(OsStr::new("conmon")));
    }

    #[test]
    fn finds_itself_in_the_table_but_never_as_prey() {
        let own = std::process::id().cast_signed();
        let me = rows().into_iter().find(|row| row.process.pid == own).expect("this process is listed");
        let trace =
            Trace { mark: "none".into(), program: None, since: 0, roots: vec![me.process], pipe: None };
        assert!(trace.find(&Caught::new()).iter().all(|process| process.pid != own));
    }

    proptest! {
        #[test]
        fn no_stat_line_panics(line in "\\PC{0,80}") {
            let _ = parse_stat(&line);
        }
    }
}
