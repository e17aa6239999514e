// SPDX-License-Identifier: Apache-2.0
//! The standard streams of simulated processes.
//!
//! A simulated process that gets input is a small shell: each line is done as in [`super::exec`], what it prints goes
//! to the log and to everybody who is attached, `exit N` ends the container with that code, and so does the end of
//! the input, with 0. Writes to who is attached block, as those of a real monitor do.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::World;
use super::exec::{Step, plan};
use crate::{Error, Result};

/// Pieces of output that wait for one who is attached.
const QUEUE: usize = 16;

/// The most bytes of a line, and of a piece of output.
const LONGEST: usize = 4096;

/// Who is attached to what, and lines that have no end yet. Not saved: connections do not survive a daemon.
#[derive(Debug, Default)]
pub(super) struct Attached(Mutex<HashMap<String, Process>>);

#[derive(Debug, Default)]
struct Process {
    clients: Vec<mpsc::Sender<Bytes>>,
    line: Vec<u8>,
}

/// A connection to a simulated process's standard streams, as to a monitor's attach socket.
#[derive(Debug)]
pub struct Streams {
    world: World,
    id: String,
    output: tokio::sync::Mutex<mpsc::Receiver<Bytes>>,
}

impl Attached {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self, id: &str) -> Vec<mpsc::Sender<Bytes>> {
        let mut processes = self.lock();
        let Some(process) = processes.get_mut(id) else { return Vec::new() };
        process.clients.retain(|client| !client.is_closed());
        process.clients.clone()
    }

    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Adds input to what waits for its line's end; the whole lines. Lines that are too long are cut.
    fn lines(&self, id: &str, bytes: &[u8]) -> Vec<String> {
        let mut processes = self.lock();
        let waiting = &mut processes.entry(id.to_owned()).or_default().line;
        let mut lines = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => lines.push(String::from_utf8_lossy(&std::mem::take(waiting)).into_owned()),
                byte if waiting.len() < LONGEST => waiting.push(*byte),
                _ => {}
            }
        }
        lines
    }
}

impl World {
    /// Connects to the standard streams of a container's process.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::InvalidState`] if it has ended.
    pub fn attach(&self, id: &str) -> Result<Streams> {
        self.get(id)?;
        if !self.is_alive(id) {
            let detail = "container not running".to_owned();
            return Err(Error::InvalidState { id: id.to_owned(), operation: "attach", detail });
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.attached().lock().entry(id.to_owned()).or_default().clients.push(sender);
        Ok(Streams { world: self.clone(), id: id.to_owned(), output: tokio::sync::Mutex::new(receiver) })
    }

    async fn print(&self, id: &str, text: &str) -> Result<()> {
        self.append_to_log(id, text)?;
        for client in self.attached().clients(id) {
            for piece in text.as_bytes().chunks(LONGEST) {
                // It left meanwhile.
                let _ = client.send(Bytes::copy_from_slice(piece)).await;
            }
        }
        Ok(())
    }

    /// What the process prints at its start; those that have no room miss it.
    pub(super) fn print_at_start(&self, id: &str, text: &str) {
        for client in self.attached().clients(id) {
            let _ = client.try_send(Bytes::copy_from_slice(text.as_bytes()));
        }
    }

    async fn act(&self, id: &str, line: &str) -> Result<()> {
        let mut words = line.split_whitespace();
        if words.next() == Some("exit") {
            self.exit(id, words.next().and_then(|code| code.parse().ok()).unwrap_or(0) & 0xff);
            return Ok(());
        }
        let arguments = ["sh", "-c", line].map(str::to_owned);
        for step in plan(&arguments).unwrap_or_default() {
            match step {
                Step::Print(text) | Step::Complain(text) => self.print(id, &text).await?,
                Step::Sleep(time) => tokio::time::sleep(time).await,
                // What a shell would start and what reads its input itself is not simulated here.
                Step::Exit(_) | Step::Repeat(_) | Step::Copy | Step::Size | Step::Shell | Step::Deaf => {}
            }
        }
        Ok(())
    }
}

impl Streams {
    /// The next output, at most 4096 bytes; `None` once the process has ended and all was told. Cancel-safe.
    pub async fn read(&self) -> Option<Bytes> {
        let mut output = self.output.lock().await;
        tokio::select! {
            biased;
            piece = output.recv() => piece,
            _ = self.world.wait_exit(&self.id) => output.try_recv().ok(),
        }
    }

    /// Gives input to the process; waits while those who are attached do not take its output.
    ///
    /// # Errors
    /// `BrokenPipe` when it has ended.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        for line in self.world.attached().lines(&self.id, bytes) {
            if !self.world.is_alive(&self.id) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.world.act(&self.id, &line).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Ends the process's input.
    pub fn close(&self) {
        self.world.exit(&self.id, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Event;

    fn shell() -> (tempfile::TempDir, World) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        let world = World::new();
        world.create("c1", dir.path(), Some(&dir.path().join("log"))).unwrap();
        (dir, world)
    }

    #[tokio::test]
    async fn lines_are_done_and_everybody_sees_what_they_print() {
        let (dir, world) = shell();
        let (first, second) = (world.attach("c1").unwrap(), world.attach("c1").unwrap());
        world.happen("c1", "start", Event::Started).unwrap();
        first.write(b"echo one; echo").await.unwrap();
        first.write(b" two\nexit 5\n").await.unwrap();
        for streams in [&first, &second] {
            assert_eq!(streams.read().await.unwrap(), "one\n");
            assert_eq!(streams.read().await.unwrap(), "two\n");
            assert_eq!(streams.read().await, None);
        }
        assert_eq!(world.wait_exit("c1").await.code, 5);
        assert_eq!(second.write(b"echo x\n").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(world.attach("c1"), Err(Error::InvalidState { .. })));
        assert!(matches!(world.attach("c2"), Err(Error::NotFound { .. })));
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(log.contains(" F one\n") && log.contains(" F two\n"), "{log}");
    }

    #[tokio::test]
    async fn the_end_of_the_input_ends_it() {
        let (_dir, world) = shell();
        let streams = world.attach("c1").unwrap();
        world.happen("c1", "start", Event::Started).unwrap();
        streams.close();
        assert_eq!(streams.read().await, None);
        assert_eq!(world.wait_exit("c1").await.code, 0);
    }
}
