// SPDX-License-Identifier: Apache-2.0
//! Rotation: making conmon write to a new log file.
//!
//! Told to reopen, conmon makes `<log>.tmp` and renames it over `<log>`. If the old log had not been
//! renamed away before, it would be lost. So whether there is anything to do, and whether it is done, is
//! the same question to the kernel: does conmon have the file open that is at the log path now?

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::inotify::Watch;
use super::{ConmonMonitor, files};
use crate::{Error, Monitored, ProcessId, Result};

/// Between two looks where no inotify instance is to be had (the user's limit is 128 by default).
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl ConmonMonitor {
    pub(super) async fn reopen(&self, container: &Monitored) -> Result<()> {
        let Some(log) = container.log_path.clone() else { return Ok(()) };
        let no_monitor = || Error::NoMonitor { id: container.id.clone() };
        let monitor = container.monitor.filter(|monitor| monitor.is_alive()).ok_or_else(no_monitor)?;
        // Two that both find the log renamed away must not both send: the second would throw away what
        // was written to the file that the first one got.
        let _turn = self.ctl.take(&container.id).await;
        if is_open(monitor, &log).await? {
            return Ok(());
        }
        let dir = log.parent().unwrap_or(Path::new("/"));
        let watch = watch(dir)?;
        self.send_reopen(container).await?;
        let deadline = Instant::now() + self.config.ctl_deadline;
        while !is_open(monitor, &log).await? {
            let next_look = async {
                match &watch {
                    Some(watch) => watch.changed().await,
                    None => {
                        tokio::time::sleep(LOOK_AGAIN).await;
                        Ok(())
                    }
                }
            };
            match timeout_at(deadline, next_look).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(Error::io(format!("watch {}", dir.display()))(error)),
                // An event may have been missed, never the file.
                Err(_) if is_open(monitor, &log).await? => break,
                Err(_) if !monitor.is_alive() => return Err(no_monitor()),
                Err(_) => return Err(self.not_reopened(container, &log)),
            }
        }
        Ok(())
    }

    fn not_reopened(&self, container: &Monitored, log: &Path) -> Error {
        Error::Monitor {
            id: container.id.clone(),
            detail: format!(
                "it was told through {} to reopen {}, but did not within {:?}",
                files(container).ctl().display(),
                log.display(),
                self.config.ctl_deadline
            ),
        }
    }
}

/// `None` where inotify is exhausted: the caller then looks now and again, within its bound.
fn watch(dir: &Path) -> Result<Option<Watch>> {
    match Watch::new(dir) {
        Ok(watch) => Ok(Some(watch)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(Error::InvalidPath {
                what: "log directory",
                path: dir.to_owned(),
                problem: "does not exist or is not a directory; conmon does not make it",
            })
        }
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot watch a log directory; looking at it instead");
            Ok(None)
        }
    }
}

/// Whether the monitor has the file open that the log path names now. On a thread of its own, because
/// the log's volume may hang.
async fn is_open(monitor: ProcessId, log: &Path) -> Result<bool> {
    let log = log.to_owned();
    let looked = tokio::task::spawn_blocking(move || has_open(monitor.pid, &log)).await;
    looked.map_err(io::Error::other).flatten().map_err(Error::io("look at the monitor's open files"))
}

fn has_open(pid: i32, log: &Path) -> io::Result<bool> {
    let now = match fs::metadata(log) {
        Ok(metadata) => (metadata.dev(), metadata.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed in between has no metadata.
        if fs::metadata(descriptor?.path()).is_ok_and(|file| (file.dev(), file.ino()) == now) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_file_from_one_that_took_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        let own = std::process::id().cast_signed();
        assert!(!has_open(own, &log).unwrap());
        let _open = fs::File::create(&log).unwrap();
        assert!(has_open(own, &log).unwrap());
        fs::rename(&log, dir.path().join("0.log.1")).unwrap();
        assert!(!has_open(own, &log).unwrap());
        fs::write(&log, "").unwrap();
        assert!(!has_open(own, &log).unwrap(), "a new file of that name is not the open one");
    }

    #[tokio::test]
    async fn a_watch_sees_a_rename_into_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(dir.path()).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(20), watch.changed()).await;
        assert!(quiet.is_err());
        fs::write(dir.path().join("a"), "").unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
        assert!(super::watch(&dir.path().join("missing")).is_err());
    }
}
