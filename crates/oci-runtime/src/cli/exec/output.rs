// SPDX-License-Identifier: Apache-2.0
//! Reading the two streams of a process, as much as is wanted.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::Mode;
use tokio::net::unix::pipe::{self, Receiver};

use crate::ExecOutcome;

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Both streams, kept up to a common limit; the rest is read and dropped, so that who writes is never
/// held up.
#[derive(Debug)]
pub(super) struct Collector {
    stdout: Stream,
    stderr: Stream,
    /// Bytes that may still be kept.
    room: usize,
    truncated: bool,
}

#[derive(Debug)]
struct Stream {
    /// `None` at its end.
    pipe: Option<Receiver>,
    kept: Vec<u8>,
}

/// Programs open /dev/stdout by name, and in a user namespace the runtime cannot give it to them. Who has no right to
/// look at the process does not find the pipe, whatever its mode.
pub(super) fn make_openable(pipe: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fchmod(pipe, Mode::from_raw_mode(0o666))?)
}

impl Collector {
    /// Makes the pipes; answers the ends for the process (stdout, stderr), blocking as programs expect.
    pub(super) fn new(room: usize) -> io::Result<(Self, OwnedFd, OwnedFd)> {
        let (out_writer, out) = pipe::pipe()?;
        let (err_writer, err) = pipe::pipe()?;
        let stream = |pipe| Stream { pipe: Some(pipe), kept: Vec::new() };
        let collector = Self { stdout: stream(out), stderr: stream(err), room, truncated: false };
        let (out, err) = (out_writer.into_blocking_fd()?, err_writer.into_blocking_fd()?);
        make_openable(&out)?;
        make_openable(&err)?;
        Ok((collector, out, err))
    }

    /// Reads while `work` goes on. What has not been read at its end is left for [`Collector::drain`].
    pub(super) async fn read_while<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            answer = &mut work => return answer,
            () = self.read_to_end() => {}
        }
        work.await
    }

    /// Reads what is still there: to the end, or until `limit` where somebody holds a pipe open.
    pub(super) async fn drain(&mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.read_to_end()).await;
    }

    /// What was kept of stderr.
    pub(super) fn stderr(&self) -> &[u8] {
        &self.stderr.kept
    }

    pub(super) fn outcome(self, exit_code: i32) -> ExecOutcome {
        let Self { stdout, stderr, truncated, .. } = self;
        ExecOutcome { exit_code, stdout: stdout.kept, stderr: stderr.kept, truncated }
    }

    /// Cancel-safe: what was read is kept before the next wait.
    async fn read_to_end(&mut self) {
        loop {
            let (room, truncated) = (&mut self.room, &mut self.truncated);
            tokio::select! {
                () = self.stdout.readable(), if self.stdout.pipe.is_some() => {
                    self.stdout.read(room, truncated);
                }
                () = self.stderr.readable(), if self.stderr.pipe.is_some() => {
                    self.stderr.read(room, truncated);
                }
                else => return,
            }
        }
    }
}

impl Stream {
    async fn readable(&self) {
        if let Some(pipe) = &self.pipe {
            // An error is told by the read that follows.
            let _ = pipe.readable().await;
        }
    }

    fn read(&mut self, room: &mut usize, truncated: &mut bool) {
        let Some(pipe) = &self.pipe else { return };
        let mut chunk = [0; CHUNK];
        match pipe.try_read(&mut chunk) {
            Ok(0) => self.pipe = None,
            Ok(length) => {
                let keep = length.min(*room);
                self.kept.extend_from_slice(&chunk[..keep]);
                *room -= keep;
                *truncated |= keep < length;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A pipe that cannot be read has nothing more to say.
            Err(_) => self.pipe = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_held_pipe_does_not_hold_us() {
        let (mut collector, out, err) = Collector::new(100).unwrap();
        drop(err);
        let mut out = std::fs::File::from(out);
        out.write_all(b"hello").unwrap();
        let before = std::time::Instant::now();
        collector.drain(Duration::from_millis(50)).await;
        assert!(before.elapsed() < Duration::from_secs(5));
        let outcome = collector.outcome(3);
        assert_eq!(
            (outcome.stdout.as_slice(), outcome.exit_code, outcome.truncated),
            (&b"hello"[..], 3, false)
        );
        drop(out);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn keeps_a_prefix_of_each_up_to_the_limit(
            out in prop::collection::vec(any::<u8>(), 0..40_000),
            err in prop::collection::vec(any::<u8>(), 0..40_000),
            room in 0..90_000usize,
        ) {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = tokio.block_on(async {
                let (mut collector, out_fd, err_fd) = Collector::new(room).unwrap();
                std::fs::File::from(out_fd).write_all(&out).unwrap();
                std::fs::File::from(err_fd).write_all(&err).unwrap();
                collector.drain(Duration::from_secs(20)).await;
                collector.outcome(0)
            });
            prop_assert!(out.starts_with(&outcome.stdout) && err.starts_with(&outcome.stderr));
            prop_assert_eq!(outcome.stdout.len() + outcome.stderr.len(), room.min(out.len() + err.len()));
            prop_assert_eq!(outcome.truncated, out.len() + err.len() > room);
        }
    }
}
