// SPDX-License-Identifier: Apache-2.0
//! One life in which the daemon dies.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{CALLS, Call, Case, Ground, Life};
use crate::{Cri, Daemon};

/// How long the daemon may take to die at a point that the call hits.
const DEATH: Duration = Duration::from_secs(60);
/// How long undo and cleanup may go on after a reply.
const SETTLE: Duration = Duration::from_secs(60);

/// Lives, dies, and lives on. `Ok` says how it died.
pub(super) async fn die_at(ground: Ground, case: &Case) -> Result<&'static str, String> {
    let call = case.call;
    let mut daemon = ground.setup().start().await;
    let mut life = Life::new(&daemon, ground);
    let cri = daemon.cri().await;
    for before in CALLS.into_iter().take_while(|before| *before != call) {
        life.call(&cri, before).await?;
    }
    // Rules are read at the start: a daemon that is about to die replaces the healthy one.
    drop(cri);
    daemon.stop().await;
    let off = if case.skip > 0 { format!("{}*off->", case.skip) } else { String::new() };
    let rule = format!("{}={off}kill", case.point);
    daemon.set_env("HULL_FAILPOINTS", Some(&rule));
    let outcome = die_in_call(&mut daemon, &mut life, call).await;
    daemon.set_env("HULL_FAILPOINTS", None);
    let outcome = outcome?;
    daemon.start().await;
    let cri = daemon.cri().await;
    life.call(&cri, call).await.map_err(|error| format!("the retry failed: {error}"))?;
    life.check(&cri, call).await.map_err(|error| format!("after the retry: {error}"))?;
    nothing_left_over(&daemon, "after the retry").await?;
    for after in CALLS.into_iter().skip_while(|after| *after != call).skip(1) {
        life.call(&cri, after).await?;
        life.check(&cri, after).await.map_err(|error| format!("after {after:?}: {error}"))?;
    }
    if life.runs() != 1 {
        return Err(format!("the workload ran {} times", life.runs()));
    }
    nothing_left_over(&daemon, "at the end").await?;
    let left = settled_leftovers(&daemon).await;
    if !left.is_empty() {
        return Err(format!("left behind: {}", left.join(", ")));
    }
    Ok(outcome)
}

/// Starts the doomed daemon and makes the call until it is dead.
async fn die_in_call(daemon: &mut Daemon, life: &mut Life, call: Call) -> Result<&'static str, String> {
    if !daemon.start_or_die().await {
        return Ok("died at its start");
    }
    let Ok(cri) = Cri::connect(&daemon.socket()).await else {
        daemon.ended(DEATH).await.ok_or("nobody listens and the daemon lives")?;
        return Ok("died at its start");
    };
    match timeout(DEATH, life.call(&cri, call)).await {
        Ok(Ok(())) => {
            // The point may come after the reply.
            if daemon.ended(Duration::from_secs(1)).await.is_none() {
                daemon.stop().await;
                return Ok("not hit this time");
            }
            Ok("died after the reply")
        }
        Ok(Err(error)) => match daemon.ended(DEATH).await {
            Some(_) => Ok("died in the call"),
            None => Err(format!("the call failed and the daemon lives: {error}")),
        },
        Err(_) => Err("the call hung and the daemon lives".to_owned()),
    }
}

/// What `hull check` says; undo and cleanup of the start before may still go on.
async fn nothing_left_over(daemon: &Daemon, when: &str) -> Result<(), String> {
    let end = Instant::now() + SETTLE;
    loop {
        let found = daemon.check().await;
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(format!("hull check {when}: {}", found.join("; ")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn settled_leftovers(daemon: &Daemon) -> Vec<String> {
    let end = Instant::now() + SETTLE;
    loop {
        let left = daemon.leftovers();
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
