// SPDX-License-Identifier: Apache-2.0
//! Checks of exec.

use std::time::{Duration, Instant};

use super::{Case, Outcome, answers, ensure, process};
use crate::{Error, ExecOutcome, ExecRequest, Result, RuntimeStatus};

/// Far above what any exec here takes, far below the sleeps that must not be waited for.
pub(super) const SOON: Duration = Duration::from_secs(20);

fn request(case: &Case<'_>, id: &str, name: &str, args: &[&str]) -> std::result::Result<ExecRequest, String> {
    Ok(ExecRequest {
        id: id.to_owned(),
        exec_id: name.to_owned(),
        process: process(args)?,
        work_dir: case.fixture.work_dir(),
        cgroup: case.fixture.cgroup(id),
        timeout: Some(SOON),
        max_output: 1 << 20,
    })
}

async fn exec(
    case: &Case<'_>,
    id: &str,
    name: &str,
    args: &[&str],
) -> std::result::Result<ExecOutcome, String> {
    let request = request(case, id, name, args)?;
    case.runtime().exec(&request).await.map_err(|error| format!("exec {args:?}: {error:?}"))
}

/// The container's processes, sorted.
pub(super) async fn pids(case: &Case<'_>, id: &str) -> std::result::Result<Vec<i32>, String> {
    let mut pids = case.runtime().ps(id).await.map_err(|error| format!("ps: {error:?}"))?;
    pids.sort_unstable();
    Ok(pids)
}

/// Nothing but `before` lives in the container, which itself does.
pub(super) async fn only(case: &Case<'_>, id: &str, before: &[i32]) -> Outcome {
    let after = pids(case, id).await?;
    ensure!(after == before, "processes before the exec: {before:?}, after: {after:?}");
    case.is(id, RuntimeStatus::Running).await
}

pub(super) async fn collects_output_and_code(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let said = exec(case, &id, "echo", &["echo", "hello", "there"]).await?;
    ensure!(said.stdout == b"hello there\n" && said.exit_code == 0 && !said.truncated, "echo: {said:?}");
    for (args, code) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "exit 255"], 255),
    ] {
        let said = exec(case, &id, "code", args).await?;
        ensure!(said.exit_code == code && said.stdout.is_empty(), "{args:?}: {said:?}");
    }
    if case.fixture.has_processes() {
        let said = exec(case, &id, "both", &["sh", "-c", "echo out; echo err >&2; kill -9 $$"]).await?;
        ensure!(said.stdout == b"out\n" && said.stderr == b"err\n" && said.exit_code == 137, "{said:?}");
    }
    case.is(&id, RuntimeStatus::Running).await
}

pub(super) async fn caps_output(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let mut asked = request(case, &id, "cap", &["echo", "0123456789"])?;
    asked.max_output = 4;
    let said = case.runtime().exec(&asked).await.map_err(|error| format!("exec: {error:?}"))?;
    ensure!(said.stdout == b"0123" && said.truncated && said.exit_code == 0, "{said:?}");
    Ok(())
}

pub(super) async fn finds_no_program(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.running("a").await?;
    let asked = request(case, &id, "missing", &["/no/such/program"])?;
    let before = pids(case, &id).await?;
    match case.runtime().exec(&asked).await {
        Err(Error::Failed { stderr, .. }) => {
            ensure!(stderr.contains("/no/such/program"), "the error does not name the program: {stderr}");
        }
        other => return Err(format!("expected Failed, got {other:?}")),
    }
    ensure!(before.contains(&pid), "{pid} is not in {before:?}");
    only(case, &id, &before).await
}

pub(super) async fn refuses_what_does_not_run(case: &Case<'_>) -> Outcome {
    let runtime = case.runtime();
    let asked = |id: &str| request(case, id, "x", &["true"]);
    let missing = case.id("nobody");
    answers!("exec in a missing", runtime.exec(&asked(&missing)?).await, Err(Error::NotFound { .. }));
    let (id, _) = case.running("a").await?;
    answers!("pause", runtime.pause(&id).await, Ok(()));
    answers!("exec in a paused", runtime.exec(&asked(&id)?).await, Err(Error::InvalidState { .. }));
    answers!("resume", runtime.resume(&id).await, Ok(()));
    let said = runtime.exec(&asked(&id)?).await;
    ensure!(said.is_ok(), "exec in a resumed: {said:?}");
    let id = case.stopped("b").await?;
    answers!("exec in a stopped", runtime.exec(&asked(&id)?).await, Err(Error::InvalidState { .. }));
    Ok(())
}

pub(super) async fn kills_its_tree_on_timeout(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let mut asked = request(case, &id, "slow", &["sh", "-c", "setsid sleep 1000 & sleep 1000"])?;
    asked.timeout = Some(Duration::from_millis(800));
    let began = Instant::now();
    answers!("exec", case.runtime().exec(&asked).await, Err(Error::TimedOut { .. }));
    ensure!(began.elapsed() < SOON, "the timeout of 800 ms came after {:?}", began.elapsed());
    only(case, &id, &before).await
}

pub(super) async fn kills_its_tree_when_dropped(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    // Dropped at different points of its life: before, while and after the runtime starts it.
    for (number, wait) in [0, 5, 15, 30, 60, 800].into_iter().enumerate() {
        let name = format!("dropped-{number}");
        let mut asked = request(case, &id, &name, &["sh", "-c", "setsid sleep 1000 & sleep 1000"])?;
        asked.timeout = None;
        let runtime = case.runtime();
        let answer = tokio::time::timeout(Duration::from_millis(wait), runtime.exec(&asked)).await;
        ensure!(answer.is_err(), "the exec ended by itself: {answer:?}");
    }
    // Nobody tells when what was dropped has been cleared up: look again for a while.
    let began = Instant::now();
    loop {
        match only(case, &id, &before).await {
            Err(reason) if began.elapsed() > SOON => return Err(reason),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(()) => return Ok(()),
        }
    }
}

pub(super) async fn is_not_held_by_background_children(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let began = Instant::now();
    let said = exec(case, &id, "background", &["sh", "-c", "sleep 1000 & echo done"]).await?;
    ensure!(said.stdout == b"done\n" && said.exit_code == 0, "{said:?}");
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let left = pids(case, &id).await?.len() - before.len();
    let expected = usize::from(case.fixture.has_processes());
    ensure!(left == expected, "expected {expected} background process, found {left}");
    // Another exec is not disturbed by what the first left.
    let said = exec(case, &id, "after", &["echo", "again"]).await?;
    ensure!(said.stdout == b"again\n", "{said:?}");
    Ok(())
}

pub(super) async fn runs_beside_others(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let before = pids(case, &id).await?;
    let one = |name: &'static str| {
        let id = id.clone();
        async move { exec(case, &id, name, &["echo", name]).await.map(|said| said.stdout) }
    };
    let slow = async {
        let mut asked = request(case, &id, "slow", &["sleep", "1000"])?;
        asked.timeout = Some(Duration::from_millis(500));
        let answer: Result<ExecOutcome> = case.runtime().exec(&asked).await;
        answers!("exec", answer, Err(Error::TimedOut { .. }));
        Ok(())
    };
    let (a, b, c, slow) = tokio::join!(one("a"), one("b"), one("c"), slow);
    slow?;
    for (name, said) in [("a", a?), ("b", b?), ("c", c?)] {
        ensure!(said == format!("{name}\n").into_bytes(), "{name} said {said:?}");
    }
    only(case, &id, &before).await
}
