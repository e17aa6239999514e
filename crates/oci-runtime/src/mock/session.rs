// SPDX-License-Identifier: Apache-2.0
//! Sessions of the simulated machine: a task where there would be a process, pipes in memory.
//!
//! A simulated terminal does what a program sees of a real one: it echoes, ends lines with CR LF, tells its size, and
//! takes control-D for the end of input.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::World;
use super::exec::{Step, plan_line};
use crate::{ExecSession, ProcessInput, ProcessOutput, Result, SessionRequest, SessionStreams, TerminalSize};

/// What a pipe holds: as much as the kernel's.
const PIPE: usize = 64 << 10;
const END_OF_FILE: u8 = 4;
const SIGHUP: i32 = 1;
const SIGKILL: i32 = 9;

/// A simulated process that somebody talks to.
#[derive(Debug)]
pub(super) struct MockSession {
    streams: SessionStreams,
    terminal: bool,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    size: Mutex<Option<TerminalSize>>,
    /// The last signal that ends a process.
    signal: watch::Sender<Option<i32>>,
    end: watch::Sender<Option<i32>>,
}

/// The process's ends of its streams.
#[derive(Debug, Default)]
struct Process {
    terminal: bool,
    stdin: Option<DuplexStream>,
    stdout: Option<DuplexStream>,
    stderr: Option<DuplexStream>,
}

/// Starts it in a container that runs.
pub(super) fn start(world: &World, request: &SessionRequest, steps: Vec<Step>) -> MockSession {
    let mut streams = SessionStreams::default();
    let mut process = Process { terminal: request.terminal, ..Process::default() };
    if request.stdin {
        let (ours, its) = tokio::io::duplex(PIPE);
        (streams.stdin, process.stdin) = (Some(ProcessInput::simulated(ours)), Some(its));
    }
    if request.stdout || request.terminal {
        let (ours, its) = tokio::io::duplex(PIPE);
        (streams.stdout, process.stdout) = (Some(ProcessOutput::simulated(ours)), Some(its));
    }
    if request.stderr && !request.terminal {
        let (ours, its) = tokio::io::duplex(PIPE);
        (streams.stderr, process.stderr) = (Some(ProcessOutput::simulated(ours)), Some(its));
    }
    let shared = Arc::new(Shared {
        size: Mutex::new(request.size),
        signal: watch::Sender::new(None),
        end: watch::Sender::new(None),
    });
    let (world, id, its) = (world.clone(), request.id.clone(), Arc::clone(&shared));
    // Here, so that a signal that comes before the task's first step is seen.
    let mut signals = its.signal.subscribe();
    let task = tokio::spawn(async move {
        let deaf = watch::Sender::new(false);
        let work = process.run(steps, &its, &deaf);
        tokio::pin!(work);
        let code = loop {
            tokio::select! {
                code = &mut work => break code,
                // The container's end takes its other processes along.
                _ = world.wait_exit(&id) => break 128 + SIGKILL,
                _ = signals.changed() => match *signals.borrow_and_update() {
                    Some(signal) if signal == SIGKILL || !*deaf.borrow() => break 128 + signal,
                    _ => {}
                },
            }
        };
        its.end.send_replace(Some(code));
    });
    MockSession { streams, terminal: request.terminal, shared, _task: AbortOnDropHandle::new(task) }
}

impl Process {
    /// To its end. A stream whose other end is gone ends it as SIGPIPE would.
    async fn run(mut self, steps: Vec<Step>, shared: &Shared, deaf: &watch::Sender<bool>) -> i32 {
        const SIGPIPE: i32 = 13;
        match self.steps(steps, shared, deaf).await {
            Ok(code) => code,
            Err(_) => 128 + SIGPIPE,
        }
    }

    async fn steps(
        &mut self,
        steps: Vec<Step>,
        shared: &Shared,
        deaf: &watch::Sender<bool>,
    ) -> io::Result<i32> {
        for step in steps {
            match step {
                Step::Print(text) => self.say(text.as_bytes()).await?,
                Step::Complain(text) => self.complain(text.as_bytes()).await?,
                Step::Sleep(time) => tokio::time::sleep(time).await,
                Step::Exit(code) => return Ok(code),
                Step::Deaf => drop(deaf.send_replace(true)),
                Step::Repeat(text) => loop {
                    self.say(text.repeat(512).as_bytes()).await?;
                },
                Step::Copy => {
                    while let Some(bytes) = self.hear().await? {
                        self.say(&bytes).await?;
                    }
                }
                Step::Size => {
                    let size = *shared.size.lock().unwrap_or_else(PoisonError::into_inner);
                    match size.filter(|_| self.terminal) {
                        Some(size) => {
                            self.say(format!("{} {}\n", size.height, size.width).as_bytes()).await?
                        }
                        None if self.terminal => self.say(b"0 0\n").await?,
                        None => return Ok(1),
                    }
                }
                Step::Shell => return self.shell(shared, deaf).await,
            }
        }
        Ok(0)
    }

    /// Does what each line of its input says.
    async fn shell(&mut self, shared: &Shared, deaf: &watch::Sender<bool>) -> io::Result<i32> {
        let (mut rest, mut last) = (Vec::new(), 0);
        while let Some(bytes) = self.hear().await? {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim().to_owned();
                if let Some(code) = line.strip_prefix("exit") {
                    return Ok(code.trim().parse().unwrap_or(last) & 0xff);
                }
                if !line.is_empty() {
                    last = Box::pin(self.steps(plan_line(&line), shared, deaf)).await?;
                }
            }
        }
        Ok(last)
    }

    /// What was typed or sent; `None` at its end.
    async fn hear(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(stdin) = &mut self.stdin else {
            // Without an input a terminal is silent, anything else is at its end.
            if self.terminal {
                std::future::pending::<()>().await;
            }
            return Ok(None);
        };
        let mut bytes = vec![0; 4096];
        let count = stdin.read(&mut bytes).await?;
        bytes.truncate(count);
        if !self.terminal {
            return Ok((count > 0).then_some(bytes));
        }
        let end = bytes.iter().position(|byte| *byte == END_OF_FILE);
        bytes.truncate(end.unwrap_or(bytes.len()));
        for byte in &mut bytes {
            if *byte == b'\r' {
                *byte = b'\n';
            }
        }
        self.say(&bytes).await?;
        if end == Some(0) || count == 0 {
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stdout) = &mut self.stdout else { return Ok(()) };
        if !self.terminal {
            return stdout.write_all(bytes).await;
        }
        let mut cooked = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == b'\n' {
                cooked.push(b'\r');
            }
            cooked.push(*byte);
        }
        stdout.write_all(&cooked).await
    }

    async fn complain(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.terminal {
            return self.say(bytes).await;
        }
        match &mut self.stderr {
            Some(stderr) => stderr.write_all(bytes).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl ExecSession for MockSession {
    fn pid(&self) -> Option<i32> {
        None
    }

    fn take_streams(&mut self) -> SessionStreams {
        std::mem::take(&mut self.streams)
    }

    fn resize(&self, size: TerminalSize) -> io::Result<()> {
        *self.shared.size.lock().unwrap_or_else(PoisonError::into_inner) = Some(size);
        Ok(())
    }

    async fn wait(&self) -> Result<i32> {
        let mut end = self.shared.end.subscribe();
        // The sender lives in `self`.
        let code = end.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        Ok(code.unwrap_or(128 + SIGKILL))
    }

    fn hang_up(&mut self) {
        if self.terminal {
            self.signal(SIGHUP);
        }
    }

    fn signal(&self, signal: i32) {
        const IGNORED_BY_DEFAULT: [i32; 4] = [0, 17, 18, 28];
        if !IGNORED_BY_DEFAULT.contains(&signal) {
            self.shared.signal.send_replace(Some(signal));
        }
    }

    fn is_populated(&self) -> bool {
        self.shared.end.borrow().is_none()
    }

    async fn retire(self: Box<Self>) {}

    async fn destroy(self: Box<Self>) {
        self.signal(SIGKILL);
        let _ = self.wait().await;
    }
}
