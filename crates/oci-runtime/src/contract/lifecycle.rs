// SPDX-License-Identifier: Apache-2.0
//! Checks of a container's way from create to delete.

use oci_spec::runtime::LinuxResources;

use super::{Case, Outcome, answers, ensure};
use crate::{CheckpointRequest, Error, KillTarget, RuntimeStatus, UpdateRequest};

const TERM: i32 = 15;
const KILL: i32 = 9;

pub(super) async fn tells_about_itself(case: &Case<'_>) -> Outcome {
    let runtime = case.runtime();
    ensure!(!runtime.name().is_empty(), "the name is empty");
    let version = runtime.version().await.map_err(|error| format!("version: {error:?}"))?;
    ensure!(!version.name.is_empty() && !version.version.is_empty(), "version is {version:?}");
    // Not every runtime tells its features; none fails.
    runtime.features().await.map_err(|error| format!("features: {error:?}"))?;
    Ok(())
}

pub(super) async fn lives_and_ends(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.created("a").await?;
    let state = case.runtime().state(&id).await.map_err(|error| format!("state: {error:?}"))?;
    ensure!(state.id == id && state.pid == Some(pid), "expected {id} with pid {pid}, got {state:?}");
    case.is(&id, RuntimeStatus::Created).await?;
    case.start(&id).await?;
    case.is(&id, RuntimeStatus::Running).await?;
    answers!("kill", case.kill(&id, TERM, KillTarget::Init).await, Ok(()));
    let code = case.fixture.ended(&id, pid).await;
    ensure!(code == Some(143), "expected exit code 143, got {code:?}");
    case.is(&id, RuntimeStatus::Stopped).await?;
    let state = case.runtime().state(&id).await.map_err(|error| format!("state: {error:?}"))?;
    ensure!(state.pid.is_none(), "an ended container has pid {:?}", state.pid);
    answers!("delete", case.delete(&id, false).await, Ok(()));
    answers!("state of a deleted", case.runtime().state(&id).await, Err(Error::NotFound { .. }));
    Ok(())
}

pub(super) async fn is_missing_to_every_verb(case: &Case<'_>) -> Outcome {
    let (runtime, id) = (case.runtime(), case.id("nobody"));
    let update = UpdateRequest { id: id.clone(), resources: LinuxResources::default(), cgroup: None };
    answers!("state", runtime.state(&id).await, Err(Error::NotFound { .. }));
    answers!("start", runtime.start(&id).await, Err(Error::NotFound { .. }));
    answers!("kill", case.kill(&id, TERM, KillTarget::Init).await, Err(Error::NotFound { .. }));
    answers!("kill all", case.kill(&id, TERM, KillTarget::All).await, Err(Error::NotFound { .. }));
    answers!("pause", runtime.pause(&id).await, Err(Error::NotFound { .. }));
    answers!("resume", runtime.resume(&id).await, Err(Error::NotFound { .. }));
    answers!("ps", runtime.ps(&id).await, Err(Error::NotFound { .. }));
    answers!("update", runtime.update(&update).await, Err(Error::NotFound { .. }));
    answers!("delete", case.delete(&id, false).await, Err(Error::NotFound { .. }));
    answers!("delete by force", case.delete(&id, true).await, Ok(()));
    Ok(())
}

pub(super) async fn is_created_once(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.created("a").await?;
    answers!("create again", case.create(&id).await, Err(Error::AlreadyExists { .. }));
    let state = case.runtime().state(&id).await.map_err(|error| format!("state: {error:?}"))?;
    ensure!(state.pid == Some(pid), "the first container changed: {state:?}");
    case.start(&id).await?;
    Ok(())
}

pub(super) async fn starts_once(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    answers!("start of a running", case.runtime().start(&id).await, Err(Error::InvalidState { .. }));
    case.is(&id, RuntimeStatus::Running).await?;
    let id = case.stopped("b").await?;
    answers!("start of a stopped", case.runtime().start(&id).await, Err(Error::InvalidState { .. }));
    case.is(&id, RuntimeStatus::Stopped).await
}

pub(super) async fn can_be_killed_before_its_start(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.created("a").await?;
    answers!("kill", case.kill(&id, KILL, KillTarget::Init).await, Ok(()));
    let code = case.fixture.ended(&id, pid).await;
    ensure!(code == Some(137), "expected exit code 137, got {code:?}");
    case.is(&id, RuntimeStatus::Stopped).await?;
    answers!("start", case.runtime().start(&id).await, Err(Error::InvalidState { .. }));
    answers!("delete", case.delete(&id, false).await, Ok(()));
    Ok(())
}

pub(super) async fn is_not_killed_twice(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.running("a").await?;
    answers!("kill all", case.kill(&id, KILL, KillTarget::All).await, Ok(()));
    let code = case.fixture.ended(&id, pid).await;
    ensure!(code == Some(137), "expected exit code 137, got {code:?}");
    for target in [KillTarget::Init, KillTarget::All] {
        let answer = case.kill(&id, TERM, target).await;
        answers!("kill", answer, Err(Error::InvalidState { .. } | Error::NotFound { .. }));
    }
    Ok(())
}

pub(super) async fn is_deleted_without_force_only_when_ended(case: &Case<'_>) -> Outcome {
    let (id, _) = case.created("a").await?;
    answers!("delete of a created", case.delete(&id, false).await, Err(Error::InvalidState { .. }));
    case.is(&id, RuntimeStatus::Created).await?;
    case.start(&id).await?;
    answers!("delete of a running", case.delete(&id, false).await, Err(Error::InvalidState { .. }));
    case.is(&id, RuntimeStatus::Running).await?;
    answers!("pause", case.runtime().pause(&id).await, Ok(()));
    answers!("delete of a paused", case.delete(&id, false).await, Err(Error::InvalidState { .. }));
    case.is(&id, RuntimeStatus::Paused).await?;
    let id = case.stopped("b").await?;
    answers!("delete of a stopped", case.delete(&id, false).await, Ok(()));
    answers!("delete of a deleted", case.delete(&id, false).await, Err(Error::NotFound { .. }));
    Ok(())
}

pub(super) async fn is_deleted_by_force_in_every_state(case: &Case<'_>) -> Outcome {
    let (created, _) = case.created("created").await?;
    let (running, _) = case.running("running").await?;
    let (paused, _) = case.running("paused").await?;
    answers!("pause", case.runtime().pause(&paused).await, Ok(()));
    let stopped = case.stopped("stopped").await?;
    for id in [&created, &running, &paused, &stopped] {
        answers!(id, case.delete(id, true).await, Ok(()));
        answers!(id, case.runtime().state(id).await, Err(Error::NotFound { .. }));
        answers!(id, case.delete(id, true).await, Ok(()));
    }
    Ok(())
}

pub(super) async fn pauses_and_resumes(case: &Case<'_>) -> Outcome {
    let runtime = case.runtime();
    let (id, pid) = case.running("a").await?;
    answers!("resume of a running", runtime.resume(&id).await, Err(Error::InvalidState { .. }));
    answers!("pause", runtime.pause(&id).await, Ok(()));
    case.is(&id, RuntimeStatus::Paused).await?;
    answers!("pause of a paused", runtime.pause(&id).await, Err(Error::InvalidState { .. }));
    answers!("resume", runtime.resume(&id).await, Ok(()));
    case.is(&id, RuntimeStatus::Running).await?;
    // What was sent while it was frozen arrives when it thaws.
    answers!("pause", runtime.pause(&id).await, Ok(()));
    answers!("kill", case.kill(&id, TERM, KillTarget::Init).await, Ok(()));
    case.is(&id, RuntimeStatus::Paused).await?;
    answers!("resume", runtime.resume(&id).await, Ok(()));
    let code = case.fixture.ended(&id, pid).await;
    ensure!(code == Some(143), "expected exit code 143, got {code:?}");
    answers!("pause of a stopped", runtime.pause(&id).await, Err(Error::InvalidState { .. }));
    answers!("resume of a stopped", runtime.resume(&id).await, Err(Error::InvalidState { .. }));
    answers!("delete", case.delete(&id, false).await, Ok(()));
    Ok(())
}

pub(super) async fn lists_processes(case: &Case<'_>) -> Outcome {
    let (id, pid) = case.running("a").await?;
    let pids = case.runtime().ps(&id).await.map_err(|error| format!("ps: {error:?}"))?;
    ensure!(pids.contains(&pid), "expected {pid} in {pids:?}");
    let id = case.stopped("b").await?;
    let pids = case.runtime().ps(&id).await.map_err(|error| format!("ps of a stopped: {error:?}"))?;
    ensure!(pids.is_empty(), "an ended container has processes: {pids:?}");
    Ok(())
}

pub(super) async fn updates_limits(case: &Case<'_>) -> Outcome {
    let resources = || -> Result<LinuxResources, String> {
        let wanted = serde_json::json!({ "memory": { "limit": 134_217_728 }, "cpu": { "shares": 512 } });
        serde_json::from_value(wanted).map_err(|error| error.to_string())
    };
    let (id, _) = case.running("a").await?;
    let cgroup = case.fixture.cgroup(&id);
    let update = UpdateRequest { id, resources: resources()?, cgroup };
    answers!("update", case.runtime().update(&update).await, Ok(()));
    let unlimited = serde_json::json!({ "pids": { "limit": -1 }, "cpu": { "quota": -1 } });
    let unlimited = serde_json::from_value(unlimited);
    let update = UpdateRequest { resources: unlimited.map_err(|error| error.to_string())?, ..update };
    answers!("update to no limit", case.runtime().update(&update).await, Ok(()));
    let update = UpdateRequest { id: case.stopped("b").await?, resources: resources()?, cgroup: None };
    answers!("update of a stopped", case.runtime().update(&update).await, Err(Error::InvalidState { .. }));
    Ok(())
}

pub(super) async fn is_checkpointed_or_says_why_not(case: &Case<'_>) -> Outcome {
    let (id, _) = case.running("a").await?;
    let dir = case.fixture.work_dir().join(&id);
    std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
    let request = CheckpointRequest {
        id: id.clone(),
        image_path: dir.clone(),
        work_path: dir.clone(),
        leave_running: true,
    };
    let answer = case.runtime().checkpoint(&request).await;
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    match answer {
        // criu refuses what it cannot write down, such as streams that lie outside of the container.
        Err(Error::Failed { stderr, .. }) if stderr.contains("Dumping FAILED") => {}
        other => answers!("checkpoint", other, Ok(()) | Err(Error::Unsupported { .. })),
    }
    case.is(&id, RuntimeStatus::Running).await
}

pub(super) async fn lives_beside_others(case: &Case<'_>) -> Outcome {
    async fn life(case: &Case<'_>, suffix: &str) -> Outcome {
        let (id, pid) = case.running(suffix).await?;
        case.is(&id, RuntimeStatus::Running).await?;
        answers!("kill", case.kill(&id, TERM, KillTarget::Init).await, Ok(()));
        let code = case.fixture.ended(&id, pid).await;
        ensure!(code == Some(143), "{id}: expected exit code 143, got {code:?}");
        answers!("delete", case.delete(&id, false).await, Ok(()));
        Ok(())
    }
    let (a, b, c, d) = tokio::join!(life(case, "a"), life(case, "b"), life(case, "c"), life(case, "d"));
    a.and(b).and(c).and(d)
}
