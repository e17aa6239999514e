// SPDX-License-Identifier: Apache-2.0
//! From a [`Command`] to a running [`Child`].

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::strays::Strays;
use crate::sys::{self, Image};
use crate::{Child, Command, Error, Result, Stdio, nofile, oom, table};

/// Sources of descriptors are moved up to this number at least, away from any target.
const LIFTED_MIN: RawFd = 100;

/// What systemd tells this very process by its environment. A program that we start would take it for its own: runc
/// would hand the socket on to the container, and wait for its answer.
const OURS_ALONE: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

impl Command {
    /// Starts it. Synchronous and quick (one vfork).
    ///
    /// # Errors
    /// [`Error::Spawn`]: no such program or directory, not executable, an argument with a NUL byte, a
    /// descriptor number below 3 or given twice, no descriptor or process left. Nothing was started.
    pub fn spawn(self) -> Result<Child> {
        let program = self.program.clone();
        self.start().map_err(|source| Error::Spawn { program, source })
    }

    fn start(mut self) -> io::Result<Child> {
        let (dir, oom_score_adj) = (self.dir.clone(), self.oom_score_adj);
        let strays = Strays::new();
        self.env.push(strays.variable());
        let image = self.image()?;
        hull_failpoint::failpoint!("process.spawn.exec")?;
        let since = table::sequence();
        let pid = sys::posix_spawn(&image).map_err(|error| explain(error, dir))?;
        drop(image);
        let (slot, pidfd) = table::register(pid, since, |pid| {
            nofile::restore(pid);
            oom::set(pid, oom_score_adj);
        });
        match pidfd {
            Ok(pidfd) => Ok(Child::new(pid, pidfd, slot, strays)),
            Err(error) => {
                // Without a pidfd nobody could wait for it: dropping kills it, and its pid is still its own.
                drop(Child::new(pid, None, slot, strays));
                Err(annotate(&error, "started, but no pidfd could be opened and it was killed"))
            }
        }
    }

    fn image(mut self) -> io::Result<Image> {
        let envp = self.environment()?;
        let argv = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str))
            .map(|arg| c_string(arg, "an argument"))
            .collect::<io::Result<_>>()?;
        let program = c_string(self.program.as_os_str(), "the path of the program")?;
        if program.is_empty() {
            return Err(invalid("the path of the program is empty"));
        }
        let dir = self.dir.as_deref().map(Path::as_os_str);
        let dir = dir.map(|dir| c_string(dir, "the working directory")).transpose()?;
        Ok(Image { program, argv, envp, dir, fds: self.descriptors()? })
    }

    fn environment(&mut self) -> io::Result<Vec<CString>> {
        let inherited = (!self.env_clear).then(std::env::vars_os).into_iter().flatten();
        let meant_for_others = |(key, _): &(OsString, OsString)| !OURS_ALONE.iter().any(|own| key == own);
        let mut variables: BTreeMap<OsString, OsString> = inherited.filter(meant_for_others).collect();
        for (key, value) in self.env.drain(..) {
            if key.is_empty() || key.as_bytes().contains(&b'=') {
                return Err(invalid(format!("{key:?} cannot be the name of an environment variable")));
            }
            variables.insert(key, value);
        }
        let join = |(mut key, value): (OsString, OsString)| {
            key.push("=");
            key.push(value);
            c_string(&key, "an environment variable")
        };
        variables.into_iter().map(join).collect()
    }

    /// Duplicates every source to a number above all targets, so that placing one descriptor cannot
    /// overwrite the source of another, and `dup2` never meets source equal to target (which would
    /// leave close-on-exec set). The duplicates are close-on-exec themselves.
    fn descriptors(&mut self) -> io::Result<Vec<(OwnedFd, RawFd)>> {
        let mut wanted = Vec::new();
        for (stdio, at) in std::mem::take(&mut self.stdio).into_iter().zip(0..) {
            match stdio.unwrap_or(Stdio::Null) {
                Stdio::Inherit => {}
                Stdio::Null => {
                    let null = File::options().read(true).write(true).open("/dev/null");
                    wanted.push((null.map_err(|error| annotate(&error, "/dev/null"))?.into(), at));
                }
                Stdio::Fd(fd) => wanted.push((fd, at)),
            }
        }
        let mut taken = HashSet::new();
        for (fd, at) in self.fds.drain(..) {
            if at < 3 {
                return Err(invalid(format!("descriptor number {at} is not 3 or more")));
            }
            if !taken.insert(at) {
                return Err(invalid(format!("descriptor number {at} is given twice")));
            }
            wanted.push((fd, at));
        }
        let above = wanted.iter().map(|(_, at)| at.saturating_add(1)).max().unwrap_or(0).max(LIFTED_MIN);
        let lift = |(fd, at): (OwnedFd, RawFd)| {
            // EINVAL: the number is beyond the limit.
            let lifted = rustix::io::fcntl_dupfd_cloexec(fd.as_fd(), above).map_err(|errno| match errno {
                rustix::io::Errno::INVAL => io::Error::from(rustix::io::Errno::MFILE),
                errno => errno.into(),
            });
            Ok((lifted.map_err(|error| annotate(&error, "no room to pass a descriptor on"))?, at))
        };
        wanted.into_iter().map(lift).collect()
    }
}

/// `posix_spawn` has one error number for all steps: tells a missing directory from a missing program.
fn explain(error: io::Error, dir: Option<PathBuf>) -> io::Error {
    match dir {
        Some(dir) if !dir.is_dir() => annotate(&error, &format!("working directory {}", dir.display())),
        _ => error,
    }
}

fn annotate(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn c_string(text: &OsStr, what: &str) -> io::Result<CString> {
    CString::new(text.to_owned().into_vec()).map_err(|_| invalid(format!("{what} contains a NUL byte")))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
