// SPDX-License-Identifier: Apache-2.0
//! Processes that are not our children, held by pidfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::{Error, ExitStatus, Result, sys};

/// A process named so that a recycled pid is not mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The pid on the host.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks from boot to its start.
    pub start_time: u64,
}

/// A held process.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
}

/// What Hull reads from `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    state: u8,
    threads: u64,
    start_time: u64,
}

impl ProcessId {
    /// Reads the start time of a living (or zombie) process; `None` if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, start_time: stat.start_time })
    }
    /// Whether this very process lives: neither gone, nor recycled, nor a zombie.
    pub fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.lives())
    }
}

impl Pidfd {
    /// Opens the process if it is still that very one; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error::Io`]: no descriptor is free, or the kernel has no pidfds.
    pub fn open(process: ProcessId) -> Result<Option<Self>> {
        let Some(fd) = open(process.pid)? else { return Ok(None) };
        // Looked at after opening: a start time that still matches was that of the opened process.
        Ok((ProcessId::of(process.pid) == Some(process)).then_some(Self { fd }))
    }
    /// Waits until it has ended (it may still be a zombie). Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Io`] where the pidfd cannot be watched.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn exited(&self) -> Result<()> {
        readable(self.fd.as_fd()).await
    }
    /// Sends a signal; `false` if it is gone.
    ///
    /// # Errors
    /// [`Error::Io`]: no such signal, or not permitted.
    pub fn send_signal(&self, signal: i32) -> Result<bool> {
        let sent = hull_failpoint::failpoint!("process.pidfd.signal")
            .and_then(|()| sys::pidfd_send_signal(self.fd.as_fd(), signal, false));
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            Err(source) => Err(Error::Io { step: "cannot signal a process", source }),
        }
    }
    /// How it ended, from the kernel (`PIDFD_GET_INFO` with `PIDFD_INFO_EXIT`, Linux 6.15); `None` where the
    /// kernel does not tell or the process has not been reaped.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        sys::pidfd_exit_status(self.fd.as_fd())
    }
}

/// Opens whatever process has this pid now; `None` if none has.
pub(crate) fn open(pid: i32) -> Result<Option<OwnedFd>> {
    let Some(pid) = valid(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        // The two latter (before and since 6.15): the number now belongs to a thread, not to a process.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::Io { step: "cannot open a pidfd", source: error.into() }),
    }
}

/// A number that can be that of one process: pids read from files may be anything.
pub(crate) fn valid(pid: i32) -> Option<Pid> {
    // In this order: `from_raw` panics below zero.
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

/// Waits until a pidfd tells that its process has ended, all threads of it.
pub(crate) async fn readable(pidfd: BorrowedFd<'_>) -> Result<()> {
    let watch = |source: io::Error| Error::Io { step: "cannot watch a pidfd", source };
    // A copy of its own: epoll takes a descriptor once, and two tasks may wait for one process.
    let copy = pidfd.try_clone_to_owned().map_err(watch)?;
    let fd = sys::watch(copy).map_err(watch)?;
    fd.readable().await.map(|_| ()).map_err(watch)
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        // `/proc/0` and below do not exist, but `/proc/-1` should not even be asked for.
        let pid = u32::try_from(pid).ok()?;
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may hold anything, `)` too.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // After the state, field 3: field 20 is num_threads, field 22 is starttime.
        let threads = fields.nth(16)?.parse().ok()?;
        let start_time = fields.nth(1)?.parse().ok()?;
        Some(Self { state, threads, start_time })
    }

    /// A process whose first thread has ended shows as a zombie while its other threads run.
    fn lives(self) -> bool {
        match self.state {
            b'Z' => self.threads > 1,
            b'X' | b'x' => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(name: &str, state: char, threads: u64, start: u64) -> String {
        format!("42 ({name}) {state} 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 {threads} 0 {start} 9 10 11\n")
    }

    #[test]
    fn a_zombie_with_threads_lives() {
        for (state, threads, lives) in
            [('R', 1, true), ('D', 1, true), ('T', 1, true), ('Z', 1, false), ('Z', 2, true), ('X', 0, false)]
        {
            let stat = Stat::parse(line("sh", state, threads, 5).as_bytes()).unwrap();
            assert_eq!(stat.lives(), lives, "{state} with {threads} threads");
        }
    }

    #[test]
    fn this_process_lives_and_a_recycled_pid_is_not_mistaken_for_it() {
        let me = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(Pidfd::open(me).unwrap().is_some());
        let before = ProcessId { start_time: me.start_time - 1, ..me };
        assert!(!before.is_alive());
        assert!(Pidfd::open(before).unwrap().is_none());
    }

    #[test]
    fn nonsense_pids_are_nobody() {
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(ProcessId::of(pid), None);
            assert!(!ProcessId { pid, start_time: 0 }.is_alive());
            assert!(Pidfd::open(ProcessId { pid, start_time: 0 }).unwrap().is_none());
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_over(name in "[ -~]{0,15}", threads in 1u64..9999, start: u64) {
            let stat = Stat::parse(line(&name, 'S', threads, start).as_bytes());
            prop_assert_eq!(stat, Some(Stat { state: b'S', threads, start_time: start }));
        }
        #[test]
        fn garbage_is_refused_without_panic(text: Vec<u8>) {
            let _ = Stat::parse(&text);
        }
    }
}
