// SPDX-License-Identifier: Apache-2.0
//! Checks of sessions.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::exec::{SOON, only, pids};
use super::{Case, Outcome, answers, ensure, process};
use crate::{
    Error, ExecSession, LeftoverRequest, Leftovers, OciRuntime, ProcessOutput, RuntimeStatus, SessionRequest,
    TerminalSize,
};

const SIGTERM: i32 = 15;

fn request(
    case: &Case<'_>,
    id: &str,
    name: &str,
    args: &[&str],
    terminal: bool,
) -> std::result::Result<SessionRequest, String> {
    Ok(SessionRequest {
        id: id.to_owned(),
        exec_id: name.to_owned(),
        process: process(args)?,
        work_dir: case.fixture.work_dir(),
        cgroup: case.fixture.cgroup(id),
        terminal,
        size: terminal.then_some(TerminalSize { width: 101, height: 33 }),
        stdin: true,
        stdout: true,
        stderr: !terminal,
    })
}

async fn start(
    case: &Case<'_>,
    id: &str,
    name: &str,
    args: &[&str],
    terminal: bool,
) -> std::result::Result<Box<dyn ExecSession>, String> {
    let request = request(case, id, name, args, terminal)?;
    case.runtime().start_session(&request).await.map_err(|error| format!("session {args:?}: {error:?}"))
}

/// How it ended, soon.
async fn ended(session: &dyn ExecSession) -> std::result::Result<i32, String> {
    let end = timeout(SOON, session.wait()).await.map_err(|_| "it does not end".to_owned())?;
    end.map_err(|error| format!("wait: {error:?}"))
}

/// All of a stream, soon.
async fn all(stream: Option<ProcessOutput>) -> std::result::Result<String, String> {
    let mut stream = stream.ok_or("a stream is missing")?;
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes)).await;
    read.map_err(|_| "a stream does not end".to_owned())?.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads until `text` has come.
async fn expect(stream: &mut ProcessOutput, text: &str) -> Outcome {
    let mut said = String::new();
    let mut buffer = [0; 1024];
    while !said.contains(text) {
        let read = timeout(SOON, stream.read(&mut buffer)).await;
        let read = read.map_err(|_| format!("expected {text:?} in {said:?}"))?;
        let count = read.map_err(|error| error.to_string())?;
        ensure!(count > 0, "expected {text:?}, the stream ended after {said:?}");
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    Ok(())
}

async fn gone(case: &Case<'_>, id: &str, before: &[i32]) -> Outcome {
    let began = Instant::now();
    loop {
        match only(case, id, before).await {
            Err(reason) if began.elapsed() > SOON => return Err(reason),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(()) => return Ok(()),
        }
    }
}

pub(super) async fn carries_streams_and_code(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let mut session = start(case, &id, "cat", &["sh", "-c", "cat; echo err >&2; exit 3"], false).await?;
    let streams = session.take_streams();
    let mut stdin = streams.stdin.ok_or("stdin is missing")?;
    stdin.write_all(b"to cat\n").await.map_err(|error| error.to_string())?;
    stdin.shutdown().await.map_err(|error| error.to_string())?;
    let (out, err) = tokio::join!(all(streams.stdout), all(streams.stderr));
    let (out, err) = (out?, err?);
    ensure!(out == "to cat\n" && err == "err\n", "stdout {out:?}, stderr {err:?}");
    let code = ended(&*session).await?;
    ensure!(code == 3 && ended(&*session).await? == 3, "it ended with {code}");
    session.retire().await;
    only(case, &id, &before).await
}

pub(super) async fn has_a_terminal_with_a_size(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    // A program may begin before the terminal is handed over (crun): the size is promised for when `start` returns.
    let script = ["sh", "-c", "cat; stty size"];
    let mut session = start(case, &id, "first", &script, true).await?;
    let streams = session.take_streams();
    let mut stdin = streams.stdin.ok_or("stdin is missing")?;
    stdin.shutdown().await.map_err(|error| error.to_string())?;
    let said = all(streams.stdout).await?;
    ensure!(said.contains("33 101\r\n"), "the first size: {said:?}");
    ensure!(ended(&*session).await? == 0, "stty failed");
    session.retire().await;

    let mut session = start(case, &id, "shell", &["sh"], true).await?;
    let mut streams = session.take_streams();
    ensure!(streams.stderr.is_none(), "a terminal has one output");
    let stdout = streams.stdout.as_mut().ok_or("stdout is missing")?;
    let stdin = streams.stdin.as_mut().ok_or("stdin is missing")?;
    session.resize(TerminalSize { width: 132, height: 50 }).map_err(|error| error.to_string())?;
    stdin.write_all(b"stty size\n").await.map_err(|error| error.to_string())?;
    expect(stdout, "50 132").await?;
    stdin.write_all(b"exit 7\n").await.map_err(|error| error.to_string())?;
    let code = ended(&*session).await?;
    ensure!(code == 7, "the shell ended with {code}");
    session.retire().await;
    only(case, &id, &before).await
}

pub(super) async fn ends_a_terminals_input(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    for (name, typed) in [("line", &b"abc\n"[..]), ("rest", b"abc")] {
        let mut session = start(case, &id, name, &["cat"], true).await?;
        let streams = session.take_streams();
        let mut stdin = streams.stdin.ok_or("stdin is missing")?;
        stdin.write_all(typed).await.map_err(|error| error.to_string())?;
        stdin.shutdown().await.map_err(|error| error.to_string())?;
        let said = all(streams.stdout).await?;
        ensure!(said.matches("abc").count() == 2, "the echo and cat's copy: {said:?}");
        ensure!(ended(&*session).await? == 0, "cat failed");
        session.retire().await;
    }
    Ok(())
}

pub(super) async fn hangs_up(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let mut session = start(case, &id, "hup", &["sh", "-c", "sleep 1000"], true).await?;
    drop(session.take_streams());
    session.hang_up();
    let code = ended(&*session).await?;
    ensure!(code == 129, "hung up: expected 129, got {code}");
    session.destroy().await;
    only(case, &id, &before).await
}

pub(super) async fn is_signalled_and_destroyed_whole(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let session = start(case, &id, "term", &["sh", "-c", "sleep 1000"], false).await?;
    ensure!(session.is_populated(), "it is said not to live");
    session.signal(SIGTERM);
    let code = ended(&*session).await?;
    ensure!(code == 143, "SIGTERM: expected 143, got {code}");
    session.destroy().await;
    only(case, &id, &before).await?;

    let script = "trap '' TERM; echo ready; setsid sleep 1000 & sleep 1000";
    let mut session = start(case, &id, "deaf", &["sh", "-c", script], false).await?;
    let mut streams = session.take_streams();
    expect(streams.stdout.as_mut().ok_or("stdout is missing")?, "ready").await?;
    session.signal(SIGTERM);
    let still = timeout(Duration::from_millis(200), session.wait()).await;
    ensure!(still.is_err(), "a process that ignores SIGTERM ended: {still:?}");
    session.destroy().await;
    only(case, &id, &before).await
}

pub(super) async fn is_killed_when_dropped(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    for (number, wait) in [0, 5, 15, 30, 60].into_iter().enumerate() {
        let script = ["sh", "-c", "setsid sleep 1000 & sleep 1000"];
        let asked = request(case, &id, &format!("early-{number}"), &script, number % 2 == 0)?;
        let runtime = case.runtime();
        // Whether it was started by then does not matter.
        drop(timeout(Duration::from_millis(wait), runtime.start_session(&asked)).await);
    }
    drop(start(case, &id, "late", &["sh", "-c", "setsid sleep 1000 & sleep 1000"], true).await?);
    gone(case, &id, &before).await
}

pub(super) async fn leaves_the_background_alone(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let mut session = start(case, &id, "back", &["sh", "-c", "sleep 1000 & echo done"], false).await?;
    let mut streams = session.take_streams();
    expect(streams.stdout.as_mut().ok_or("stdout is missing")?, "done\n").await?;
    ensure!(ended(&*session).await? == 0, "the shell failed");
    session.retire().await;
    let left = pids(case, &id).await?.len() - before.len();
    let expected = usize::from(case.fixture.has_processes());
    ensure!(left == expected, "expected {expected} background process, found {left}");
    Ok(())
}

pub(super) async fn is_refused_as_execs_are(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    for terminal in [false, true] {
        let asked = request(case, &id, "missing", &["/no/such/program"], terminal)?;
        match case.runtime().start_session(&asked).await {
            Err(Error::Failed { stderr, .. }) => {
                ensure!(stderr.contains("/no/such/program"), "the error does not name the program: {stderr}");
            }
            other => return Err(format!("expected Failed, got {other:?}")),
        }
    }
    only(case, &id, &before).await?;
    let missing = request(case, &case.id("nobody"), "x", &["true"], false)?;
    answers!("in a missing", case.runtime().start_session(&missing).await, Err(Error::NotFound { .. }));
    let id = case.stopped("b").await?;
    let stopped = request(case, &id, "x", &["true"], true)?;
    answers!("in a stopped", case.runtime().start_session(&stopped).await, Err(Error::InvalidState { .. }));
    Ok(())
}

async fn end_leftovers(runtime: &dyn OciRuntime, request: &LeftoverRequest) -> Result<Leftovers, String> {
    let found = runtime.find_leftover_execs(request).map_err(|error| format!("{error:?}"))?;
    runtime.end_leftover_execs(&found).await.map_err(|error| format!("{error:?}"))
}

pub(super) async fn ends_what_a_dead_daemon_left(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let runtime = case.runtime();
    let containers = case.fixture.cgroup(&id).map(|cgroup| (id.clone(), cgroup)).into_iter().collect();
    let work_dir = case.fixture.work_dir();
    let leftovers = LeftoverRequest { work_dir, containers };
    let back = start(case, &id, "back", &["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"], false).await?;
    ended(&*back).await?;
    back.retire().await;
    let with_background = pids(case, &id).await?;

    // One that its daemon never saw to again, as far as the next one can tell.
    let lost = start(case, &id, "lost", &["sh", "-c", "setsid sleep 1000 & sleep 1000"], true).await?;
    let left = end_leftovers(&*runtime, &leftovers).await?;
    ensure!(left.failed.is_empty(), "{left:?}");
    if case.fixture.has_processes() {
        ensure!(left.ended == 1, "{left:?}");
        let code = ended(&*lost).await?;
        ensure!(code == 137, "the lost one ended with {code}");
    }
    lost.destroy().await;
    gone(case, &id, &with_background).await?;
    let again = end_leftovers(&*runtime, &leftovers).await?;
    ensure!(again == Leftovers::default(), "nothing was left: {again:?}");
    case.is(&id, RuntimeStatus::Running).await
}
