// SPDX-License-Identifier: Apache-2.0
//! Where a container's volatile files are.
//!
//! ```text
//! <state_dir>/pid            the container's first process, written by the runtime
//! <state_dir>/monitor.pid    the monitor, written by conmon's launcher
//! <state_dir>/persist/exit   the exit code, written by conmon: decimal, no newline
//! <state_dir>/persist/oom    empty; there if the kernel killed a process for lack of memory
//! <state_dir>/exits/<id>     the exit code once more
//! <state_dir>/exit.kernel    the exit code where Hull learned it from the kernel; see [`crate::exit`]
//! <state_dir>/runtime.log    what the runtime had to say when it made the container
//! <bundle>/{attach,ctl,winsz}    conmon's socket and fifos
//! <bundle>/oom               the marker again: conmon 2.1.6 writes it to its working directory
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hull_failpoint::failpoint;

use crate::{Error, Result};

/// The files of one container.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    id: String,
    state_dir: PathBuf,
    bundle: PathBuf,
}

impl Files {
    pub(crate) fn new(id: &str, state_dir: &Path, bundle: &Path) -> Self {
        Self { id: id.to_owned(), state_dir: state_dir.to_owned(), bundle: bundle.to_owned() }
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }
    pub(crate) fn pid(&self) -> PathBuf {
        self.state_dir.join("pid")
    }
    pub(crate) fn monitor_pid(&self) -> PathBuf {
        self.state_dir.join("monitor.pid")
    }
    pub(crate) fn persist_dir(&self) -> PathBuf {
        self.state_dir.join("persist")
    }
    pub(crate) fn exits_dir(&self) -> PathBuf {
        self.state_dir.join("exits")
    }
    pub(crate) fn kernel_exit(&self) -> PathBuf {
        self.state_dir.join("exit.kernel")
    }
    pub(crate) fn runtime_log(&self) -> PathBuf {
        self.state_dir.join("runtime.log")
    }
    /// The end of what the runtime wrote into its log. Blocks.
    pub(crate) fn runtime_words(&self) -> Vec<u8> {
        hull_oci_runtime::cli::end_of(&self.runtime_log())
    }
    pub(crate) fn ctl(&self) -> PathBuf {
        self.bundle.join("ctl")
    }
    pub(crate) fn winsz(&self) -> PathBuf {
        self.bundle.join("winsz")
    }
    /// The exit files, the surest first: conmon writes the persistent one before the other.
    pub(crate) fn exits(&self) -> [PathBuf; 2] {
        [self.persist_dir().join("exit"), self.exits_dir().join(&self.id)]
    }
    pub(crate) fn ooms(&self) -> [PathBuf; 2] {
        [self.persist_dir().join("oom"), self.bundle.join("oom")]
    }

    /// Makes the directories, and removes what an earlier attempt left: an old exit or pid file must
    /// not be taken for the new one.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.clear()?;
        for dir in [self.persist_dir(), self.exits_dir()] {
            failpoint!("monitor.create.dir")
                .and_then(|()| hull_files::own_dir(&dir, hull_files::PRIVATE_DIR))
                .map_err(Error::io(format!("make {}", dir.display())))?;
        }
        Ok(())
    }

    /// Takes away the right to read that monitor and runtime gave everybody: the log may quote the configuration.
    pub(crate) fn make_private(&self) -> Result<()> {
        for path in [self.pid(), self.monitor_pid(), self.runtime_log()] {
            match hull_files::set_mode(&path, hull_files::PRIVATE_FILE) {
                // Without a word of the runtime's there is no log.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                set => set.map_err(Error::io(format!("set the mode of {}", path.display())))?,
            }
        }
        Ok(())
    }

    /// Removes every file named here. What is not there is a success; all steps are tried, the first
    /// failure is told.
    pub(crate) fn clear(&self) -> Result<()> {
        let own = [self.pid(), self.monitor_pid(), self.kernel_exit(), self.runtime_log()];
        let conmons = ["attach", "ctl", "winsz", "oom"].map(|name| self.bundle.join(name));
        let files = own.into_iter().chain(conmons);
        let mut outcome = Ok(());
        for file in files {
            outcome = outcome.and(remove(&file, |path| fs::remove_file(path)));
        }
        for dir in [self.persist_dir(), self.exits_dir()] {
            outcome = outcome.and(remove(&dir, |path| fs::remove_dir_all(path)));
        }
        outcome
    }
}

/// Removes `path`; success when it is not there.
pub(crate) fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    match failpoint!("monitor.remove.file").and_then(|()| how(path)) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(error) => Err(Error::io(format!("remove {}", path.display()))(error)),
    }
}

/// Reads a pid file: a decimal greater than 1.
pub(crate) fn read_pid(path: &Path) -> io::Result<i32> {
    let text = fs::read_to_string(path)?;
    match text.trim().parse::<i32>() {
        Ok(pid) if pid > 1 => Ok(pid),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("not a process id: {:?}", text.chars().take(40).collect::<String>()),
        )),
    }
}
