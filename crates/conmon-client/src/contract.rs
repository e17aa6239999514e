// SPDX-License-Identifier: Apache-2.0
//! What every [`Monitor`] backend must do, as a suite that runs on any of them.
//!
//! A backend's test implements [`Fixture`], which knows how to make bundles for it and to start, signal
//! and delete its containers, and calls [`suite`]. What a backend cannot do, its [`Capabilities`] say;
//! the suite then checks that it says so in the way the trait demands.

#![expect(clippy::expect_used, clippy::panic, reason = "a suite fails by panicking")]

mod attach;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use hull_oci_runtime::{Exit, ExitSource, ProgramFault};

use crate::{CreateRequest, Error, Monitor, Monitored};

/// How long anything in the suite may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// "At once", on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What the container's process does once it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// Writes this line to stdout, then ends with this code.
    Print {
        /// Without a line end.
        line: String,
        /// 0 to 255.
        code: i32,
    },
    /// Runs until a signal ends it; SIGTERM does.
    Run,
    /// A shell that does what it reads from stdin, and ends with that.
    Shell {
        /// Its stdin is made so.
        stdin_once: bool,
    },
}

/// What a backend can do besides what all must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The log file has CRI lines, and a new one is made by `reopen_log`.
    pub cri_log: bool,
    /// An exit that nobody waited for is known to a later daemon.
    pub remembers_exits: bool,
    /// Clients can join the standard streams, and stdin can be kept open for them.
    pub attach: bool,
}

/// What the suite needs to know of a backend. Methods panic on failure.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new instance of the backend, as a restarted daemon would make it.
    fn monitor(&self) -> Box<dyn Monitor>;
    /// What it can do.
    fn capabilities(&self) -> Capabilities;
    /// Makes the bundle, the state directory and the log directory of a container.
    fn request(&self, id: &str, workload: &Workload) -> CreateRequest;
    /// As [`Fixture::request`], of a container whose program does not exist.
    fn refused(&self, id: &str) -> CreateRequest;
    /// Starts a created container.
    async fn start(&self, id: &str);
    /// Signals the container's process.
    async fn kill(&self, id: &str, signal: i32);
    /// Deletes an ended container.
    async fn delete(&self, id: &str);
}

/// Runs everything; panics at the first thing that is not as it must be.
pub async fn suite(fixture: &dyn Fixture) {
    exit_codes(fixture).await;
    signals(fixture).await;
    many_waiters(fixture).await;
    adoption(fixture).await;
    an_exit_nobody_waited_for(fixture).await;
    refusal(fixture).await;
    log_rotation(fixture).await;
    removal(fixture).await;
    attach::all(fixture).await;
}

/// A container of the suite.
struct Subject<'f> {
    fixture: &'f dyn Fixture,
    monitor: Box<dyn Monitor>,
    request: CreateRequest,
    container: Monitored,
}

impl<'f> Subject<'f> {
    async fn create(fixture: &'f dyn Fixture, id: &str, workload: &Workload) -> Self {
        let monitor = fixture.monitor();
        let request = fixture.request(id, workload);
        let container = bounded("create", monitor.create(&request)).await.expect("create");
        assert_eq!(container.id, id);
        assert!(container.process.pid > 1, "{id}: {:?}", container.process);
        assert!(monitor.is_alive(&container), "{id}: a created container lives");
        Self { fixture, monitor, request, container }
    }

    async fn run(fixture: &'f dyn Fixture, id: &str) -> Self {
        let subject = Self::create(fixture, id, &Workload::Run).await;
        fixture.start(id).await;
        subject
    }

    async fn wait(&self) -> Exit {
        bounded("wait", self.monitor.wait(&self.container)).await
    }

    async fn kill(&self) {
        self.fixture.kill(&self.container.id, 9).await;
    }

    async fn end(self) {
        let id = &self.container.id;
        bounded("remove", self.monitor.remove(id, Some(&self.container))).await.expect("remove");
        self.fixture.delete(id).await;
    }
}

async fn bounded<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} hangs"),
    }
}

async fn exit_codes(fixture: &dyn Fixture) {
    for code in [0, 3, 255] {
        let id = format!("contract-code-{code}");
        let line = format!("ends with {code}");
        let subject = Subject::create(fixture, &id, &Workload::Print { line: line.clone(), code }).await;
        let started = SystemTime::now();
        fixture.start(&id).await;
        let exit = subject.wait().await;
        assert_eq!(exit.code, code);
        assert!(!exit.oom);
        assert_ne!(exit.source, ExitSource::Unknown);
        // File times come from a clock that ticks in steps.
        let slack = Duration::from_millis(50);
        assert!(exit.at + slack >= started && exit.at <= SystemTime::now() + slack, "{:?}", exit.at);
        assert!(!subject.monitor.is_alive(&subject.container));

        let asked = Instant::now();
        let again = subject.wait().await;
        assert!(asked.elapsed() < AT_ONCE, "wait after the end took {:?}", asked.elapsed());
        assert_eq!((again.code, again.source), (code, exit.source), "the same answer every time");
        if fixture.capabilities().cri_log {
            let lines = log_lines(subject.request.log_path.as_deref().expect("a log"));
            assert_eq!(lines, [("stdout".to_owned(), 'F', line)]);
        }
        subject.end().await;
    }
}

async fn signals(fixture: &dyn Fixture) {
    for (signal, code) in [(9, 137), (15, 143)] {
        let subject = Subject::run(fixture, &format!("contract-signal-{signal}")).await;
        subject.fixture.kill(&subject.container.id, signal).await;
        assert_eq!(subject.wait().await.code, code);
        subject.end().await;
    }
    let subject = Subject::create(fixture, "contract-never-started", &Workload::Run).await;
    subject.kill().await;
    assert_eq!(subject.wait().await.code, 137, "killed before it was started");
    subject.end().await;
}

async fn many_waiters(fixture: &dyn Fixture) {
    let subject = Subject::run(fixture, "contract-waiters").await;
    let early =
        tokio::time::timeout(Duration::from_millis(50), subject.monitor.wait(&subject.container)).await;
    assert!(early.is_err(), "no answer while it lives");
    let wait = || subject.wait();
    let ((), a, b, c, d, e) = tokio::join!(subject.kill(), wait(), wait(), wait(), wait(), wait());
    assert!([a, b, c, d, e].iter().all(|exit| exit.code == 137), "{:?}", [a, b, c, d, e]);
    subject.end().await;
}

async fn adoption(fixture: &dyn Fixture) {
    let mut subject = Subject::run(fixture, "contract-adopted").await;
    let record = serde_json::to_vec(&subject.container).expect("a record can be written");
    subject.monitor = fixture.monitor();
    let adopted: Monitored = serde_json::from_slice(&record).expect("a record can be read");
    assert_eq!(adopted, subject.container);
    assert!(subject.monitor.is_alive(&adopted));
    let ((), exit) = tokio::join!(subject.kill(), subject.monitor.wait(&adopted));
    assert_eq!(exit.code, 137);
    subject.end().await;
}

async fn an_exit_nobody_waited_for(fixture: &dyn Fixture) {
    let workload = Workload::Print { line: "unseen".to_owned(), code: 4 };
    let mut subject = Subject::create(fixture, "contract-unseen", &workload).await;
    subject.monitor = fixture.monitor();
    fixture.start("contract-unseen").await;
    let waited = Instant::now();
    while subject.monitor.is_alive(&subject.container) && waited.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let exit = subject.wait().await;
    if fixture.capabilities().remembers_exits {
        assert_eq!(exit.code, 4);
    } else {
        assert!(exit.code == 4 || (exit.source, exit.code) == (ExitSource::Unknown, 255), "{exit:?}");
    }
    subject.end().await;
}

async fn refusal(fixture: &dyn Fixture) {
    let monitor = fixture.monitor();
    let request = fixture.refused("contract-refused");
    match bounded("create", monitor.create(&request)).await {
        Err(Error::Program { id, fault, message }) => {
            assert_eq!((id.as_str(), fault), ("contract-refused", ProgramFault::NotFound));
            assert!(!message.trim().is_empty() && !message.contains('\n'), "{message:?}");
        }
        other => panic!("that the program is missing must be told as such: {other:?}"),
    }
    bounded("remove", monitor.remove("contract-refused", None)).await.expect("remove after a failed create");
    fixture.delete("contract-refused").await;
}

async fn log_rotation(fixture: &dyn Fixture) {
    let subject = Subject::run(fixture, "contract-log").await;
    let (monitor, container) = (&subject.monitor, &subject.container);
    let log = subject.request.log_path.clone().expect("a log");
    if fixture.capabilities().cri_log {
        fs::File::options()
            .append(true)
            .open(&log)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"kept\n"))
            .expect("append");
        bounded("reopen", monitor.reopen_log(container)).await.expect("reopen of a log that was not renamed");
        assert_eq!(fs::read(&log).expect("read the log"), b"kept\n", "an open log is left alone");
        let rotated = log.with_extension("rotated");
        fs::rename(&log, &rotated).expect("rename");
        bounded("reopen", monitor.reopen_log(container)).await.expect("reopen");
        assert_eq!(fs::read(&log).expect("the new log is there"), b"");
        assert_eq!(fs::read(&rotated).expect("read the old log"), b"kept\n");
    } else {
        let outcome = bounded("reopen", monitor.reopen_log(container)).await;
        assert!(matches!(outcome, Ok(()) | Err(Error::Unsupported { .. })), "{outcome:?}");
    }
    subject.kill().await;
    subject.wait().await;
    if fixture.capabilities().cri_log {
        let outcome = bounded("reopen", monitor.reopen_log(container)).await;
        assert!(matches!(outcome, Err(Error::NoMonitor { .. })), "after the end: {outcome:?}");
    }
    subject.end().await;
}

async fn removal(fixture: &dyn Fixture) {
    let monitor = fixture.monitor();
    monitor.remove("contract-never-there", None).await.expect("an id that never was");
    let subject = Subject::run(fixture, "contract-removed").await;
    subject.kill().await;
    subject.wait().await;
    for monitor in [&subject.monitor, &monitor] {
        monitor
            .remove("contract-removed", Some(&subject.container))
            .await
            .expect("remove, again and by another");
        monitor.remove("contract-removed", None).await.expect("remove by id alone");
    }
    let gone = Monitored {
        state_dir: "/nonexistent/state".into(),
        bundle: "/nonexistent/bundle".into(),
        ..subject.container.clone()
    };
    monitor.remove("contract-removed", Some(&gone)).await.expect("remove after its directories");
    subject.end().await;
}

/// Stream, tag and content of each line of a CRI log; panics on a line that is none.
///
/// `2026-11-23T18:54:17.123456789+00:00 stdout F content`
pub fn log_lines(log: &Path) -> Vec<(String, char, String)> {
    let text = fs::read_to_string(log).expect("the log can be read");
    let parse = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let is_time = time.len() >= 20 && time.as_bytes()[10] == b'T' && time.contains('.');
        let is_good = is_time && matches!(stream, "stdout" | "stderr") && matches!(tag, "F" | "P");
        is_good.then_some((
            stream.to_owned(),
            tag.chars().next()?,
            parts.next().unwrap_or_default().to_owned(),
        ))
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("not a CRI log line: {line:?}"))).collect()
}
