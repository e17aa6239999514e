// SPDX-License-Identifier: Apache-2.0
//! Following a log: new lines as they come, across rotation, to the container's exit.
//!
//! ```text
//!            inotify: something changed beside the log
//!          +-------------------------------------------+
//!          v                                           |
//!   read to the end --> another file at the path? --> wait --> container has exited
//!          ^                 | yes: read the old one    |            |
//!          +-----------------+ to its end, open the new |            v
//!                                                                read to the end, done
//! ```
//!
//! Invariants: the watch stands before the first read, so no line falls between; the exit is known
//! before the last read, and monitors drain a container's output before its exit is told.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use hull_cri_api::v1::{ContainerEventType, ContainerState, ContainerStatusRequest, GetEventsRequest};
use inotify::{EventStream, Inotify, WatchMask};
use tonic::Code;

use crate::client::{Runtime, call, rpc_error};
use crate::error::Error;
use crate::logs::lines::Lines;
use crate::logs::print::{Printer, Start};
use crate::logs::{drain, open, read_error};

/// How long to wait before asking again a runtime that offers no events, or is restarting.
const RETRY: Duration = Duration::from_secs(2);

/// Prints the log and what is added to it, until `exited` ends.
pub(crate) async fn follow(
    path: &Path,
    tail: Option<usize>,
    printer: &mut Printer<impl Write, impl Write>,
    exited: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let mut watch = Watch::new(path)?;
    let mut log = Followed::open(path, tail, printer, &mut watch)?;
    let mut exited = pin!(exited);
    loop {
        log.read(printer, &mut watch)?;
        tokio::select! {
            result = &mut exited => {
                log.read(printer, &mut watch)?;
                log.finish(printer);
                return result;
            }
            result = watch.changed() => result?,
        }
    }
}

/// The log that is being followed; there may be none yet, or none for a moment.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    lines: Option<Lines>,
}

impl Followed {
    fn open(
        path: &Path,
        tail: Option<usize>,
        printer: &mut Printer<impl Write, impl Write>,
        watch: &mut Watch,
    ) -> Result<Self, Error> {
        let lines = match open(path, tail) {
            Ok((lines, start)) => {
                printer.start_at(start);
                watch.add_file(path)?;
                Some(lines)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(read_error(path, cause)),
        };
        Ok(Self { path: path.to_owned(), lines })
    }

    /// Prints everything up to now, in the old file and in those that took its place.
    fn read(
        &mut self,
        printer: &mut Printer<impl Write, impl Write>,
        watch: &mut Watch,
    ) -> Result<(), Error> {
        loop {
            if let Some(lines) = &mut self.lines {
                drain(&self.path, lines, printer)?;
            }
            let found = match std::fs::metadata(&self.path) {
                Ok(found) => found,
                // Renamed, and the new one is not there yet.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(cause) => return Err(read_error(&self.path, cause)),
            };
            if let Some(lines) = &mut self.lines {
                if is_unchanged(lines, &found).map_err(|cause| read_error(&self.path, cause))? {
                    return Ok(());
                }
                // Written between our last read and the rename: the old file is complete now.
                drain(&self.path, lines, printer)?;
                printer.unterminated(lines.offset(), lines.rest());
            }
            self.lines = match File::open(&self.path).and_then(Lines::new) {
                Ok(lines) => Some(lines),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(cause) => return Err(read_error(&self.path, cause)),
            };
            printer.start_at(Start::beginning());
            watch.add_file(&self.path)?;
        }
    }

    fn finish(&self, printer: &mut Printer<impl Write, impl Write>) {
        if let Some(lines) = &self.lines {
            printer.unterminated(lines.offset(), lines.rest());
        }
    }
}

/// Whether the file at the path is the one that we read, and has not been emptied.
fn is_unchanged(lines: &Lines, found: &Metadata) -> io::Result<bool> {
    let ours = lines.file().metadata()?;
    Ok((ours.dev(), ours.ino()) == (found.dev(), found.ino()) && found.len() >= lines.position())
}

/// Tells that something happened to the log or beside it.
struct Watch {
    events: EventStream<[u8; 4096]>,
    path: PathBuf,
}

impl Watch {
    /// Watches the folder of the log: it sees writes, a rename, and the new file.
    fn new(path: &Path) -> Result<Self, Error> {
        let failed = |cause| watch_error(path, cause);
        let folder = path.parent().unwrap_or(Path::new("/"));
        let inotify = Inotify::init().map_err(failed)?;
        let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::MODIFY;
        inotify.watches().add(folder, mask).map_err(failed)?;
        let events = inotify.into_event_stream([0; 4096]).map_err(failed)?;
        Ok(Self { events, path: path.to_owned() })
    }

    /// Watches the file itself too, which may lie elsewhere behind a symbolic link.
    fn add_file(&mut self, path: &Path) -> Result<(), Error> {
        match self.events.watches().add(path, WatchMask::MODIFY) {
            Ok(_) => Ok(()),
            // Renamed meanwhile: the folder's watch tells of its successor.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(watch_error(path, cause)),
        }
    }

    /// Ends when something has changed. Which thing does not matter: reading finds out.
    async fn changed(&mut self) -> Result<(), Error> {
        match self.events.next().await {
            Some(Ok(_)) => Ok(()),
            Some(Err(cause)) => Err(watch_error(&self.path, cause)),
            None => Err(watch_error(&self.path, io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn watch_error(path: &Path, cause: io::Error) -> Error {
    let what =
        format!("watch log {} (limits: fs.inotify.max_user_instances, max_user_watches)", path.display());
    Error::Io { what, cause }
}

/// Ends when the container `id`, a full id, has exited or is gone.
///
/// The runtime's events tell when. One that offers none is asked every two seconds: there is nothing
/// else to wait for. A runtime that restarts is waited for; its containers go on.
pub(crate) async fn container_exit(
    mut runtime: Runtime,
    limit: Option<Duration>,
    id: String,
) -> Result<(), Error> {
    loop {
        if has_exited(&mut runtime, limit, &id).await? {
            return Ok(());
        }
        // Some servers answer only with the first event: then ask for the state every now and then.
        let answer = tokio::time::timeout(RETRY, runtime.get_container_events(GetEventsRequest {})).await;
        match answer {
            Ok(Ok(events)) => {
                // It may have exited before the stream began.
                if has_exited(&mut runtime, limit, &id).await? {
                    return Ok(());
                }
                let mut events = events.into_inner();
                while let Ok(Some(event)) = events.message().await {
                    let over = matches!(
                        event.container_event_type(),
                        ContainerEventType::ContainerStoppedEvent | ContainerEventType::ContainerDeletedEvent
                    );
                    if over && event.container_id == id && has_exited(&mut runtime, limit, &id).await? {
                        return Ok(());
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
            Ok(Err(_)) => tokio::time::sleep(RETRY).await,
            Err(_) => {}
        }
    }
}

async fn has_exited(runtime: &mut Runtime, limit: Option<Duration>, id: &str) -> Result<bool, Error> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    match call(limit, request, |request| runtime.container_status(request)).await {
        Ok(response) => Ok(response.status.is_none_or(|status| {
            matches!(status.state(), ContainerState::ContainerExited | ContainerState::ContainerUnknown)
        })),
        Err(status) if status.code() == Code::NotFound => Ok(true),
        // Restarting.
        Err(status) if status.code() == Code::Unavailable => Ok(false),
        Err(status) => Err(rpc_error("logs", id)(status)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;

    /// What was printed, seen from outside.
    #[derive(Clone, Debug, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        async fn wait_for(&self, want: &str) {
            for _ in 0..500 {
                if self.text() == want {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("want {want:?}, have {:?}", self.text());
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        writeln!(file, "2026-11-23T18:00:00.0Z stdout {text}").unwrap();
    }

    struct Following {
        folder: tempfile::TempDir,
        out: Shared,
        exit: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<Result<(), Error>>,
    }

    /// Starts to follow `0.log` in a folder of its own.
    fn start(prepare: impl FnOnce(&Path), tail: Option<usize>) -> Following {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        prepare(&path);
        let out = Shared::default();
        let (exit, exited) = oneshot::channel::<()>();
        let to = out.clone();
        let task = tokio::spawn(async move {
            let mut printer = Printer::new(to, io::sink(), false);
            follow(&path, tail, &mut printer, async {
                let _ = exited.await;
                Ok(())
            })
            .await
        });
        Following { folder, out, exit, task }
    }

    #[tokio::test]
    async fn new_lines_come_and_the_exit_ends_it() {
        let f = start(|path| append(path, "F one"), None);
        f.out.wait_for("one\n").await;
        let path = f.folder.path().join("0.log");
        append(&path, "P tw");
        append(&path, "F o");
        f.out.wait_for("one\ntwo\n").await;
        f.exit.send(()).unwrap();
        f.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn lines_written_just_before_the_exit_are_printed() {
        let f = start(|path| append(path, "F one"), Some(0));
        let path = f.folder.path().join("0.log");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for number in 0..1000 {
            append(&path, &format!("F {number}"));
        }
        f.exit.send(()).unwrap();
        f.task.await.unwrap().unwrap();
        assert_eq!(f.out.text().lines().count(), 1000);
        assert!(f.out.text().ends_with("999\n"));
    }

    #[tokio::test]
    async fn rotation_loses_no_line_on_either_side() {
        let f = start(|path| append(path, "F one"), None);
        f.out.wait_for("one\n").await;
        let (path, old) = (f.folder.path().join("0.log"), f.folder.path().join("0.log.20261123"));
        fs::rename(&path, &old).unwrap();
        append(&old, "F two");
        f.out.wait_for("one\ntwo\n").await;
        append(&old, "F three");
        append(&path, "F four");
        f.out.wait_for("one\ntwo\nthree\nfour\n").await;
        append(&path, "F five");
        f.out.wait_for("one\ntwo\nthree\nfour\nfive\n").await;
        f.exit.send(()).unwrap();
        f.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_log_that_comes_later_or_is_emptied_is_followed() {
        let f = start(|_| (), Some(3));
        let path = f.folder.path().join("0.log");
        tokio::time::sleep(Duration::from_millis(50)).await;
        append(&path, "F one long line");
        f.out.wait_for("one long line\n").await;
        fs::write(&path, "").unwrap();
        append(&path, "F 2");
        f.out.wait_for("one long line\n2\n").await;
        f.exit.send(()).unwrap();
        f.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_link_to_another_folder_is_followed() {
        let other = tempfile::tempdir().unwrap();
        let target = other.path().join("real.log");
        append(&target, "F one");
        let f = start(|path| std::os::unix::fs::symlink(&target, path).unwrap(), None);
        f.out.wait_for("one\n").await;
        append(&target, "F two");
        f.out.wait_for("one\ntwo\n").await;
        f.exit.send(()).unwrap();
        f.task.await.unwrap().unwrap();
    }
}
