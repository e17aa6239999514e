// SPDX-License-Identifier: Apache-2.0
//! The fault matrix: each foreign program, each misbehaviour, each lifecycle call that runs it. The call ends within
//! its deadline, nothing that the program started lives on, the kubelet's retry succeeds once it works again, another
//! pod's calls take no more than twice their time, and nothing is left. Needs root.
//!
//! The suites run it on runc, without the misbehaviours that only take long; `HULL_CHAOS_SAMPLE=all` runs all of it, on
//! crun too.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hull_cri_api::v1::{
    ContainerState, LinuxContainerResources, PodSandboxState, UpdateContainerResourcesRequest,
};
use hull_tests::bystander::{Bystander, Times};
use hull_tests::misbehave::{self, Misbehaviour};
use hull_tests::{Cri, Daemon, Pod, Setup, census, eventually, real_runtime_ok, root_tests_enabled, say};
use tokio::time::timeout;

/// What each stage may take here.
const STAGE: &str = "3s";
/// How long a call may take whose every stage hangs until its deadline, on a busy machine.
const CALL: Duration = Duration::from_secs(60);
/// How long what a program started may outlive it.
const LINGER: Duration = Duration::from_secs(10);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A program, the verb at which it misbehaves, and the call that is made then.
const ROWS: [(&str, &str, Call); 9] = [
    ("plugin", "ADD", Call::RunPod),
    ("conmon", "run", Call::Create),
    ("runtime", "create", Call::Create),
    ("runtime", "start", Call::Start),
    ("runtime", "exec", Call::Exec),
    ("runtime", "update", Call::Update),
    ("runtime", "kill", Call::Stop),
    ("runtime", "delete", Call::RemoveContainer),
    ("plugin", "DEL", Call::StopPod),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    RunPod,
    Create,
    Start,
    Exec,
    Update,
    Stop,
    RemoveContainer,
    StopPod,
}

/// Everything that the call needs is there and works.
async fn prepared(
    cri: &Cri,
    pod: &Pod,
    call: Call,
    handler: &str,
) -> Result<(String, String), tonic::Status> {
    let (mut pod_id, mut container_id) = (String::new(), String::new());
    if call != Call::RunPod {
        pod_id = cri.run_pod(&pod.config, handler).await?;
    }
    if !matches!(call, Call::RunPod | Call::Create | Call::StopPod) {
        let container = pod.container("main", &["sleep", "1000"]);
        container_id = cri.create(&pod_id, &container.config, &pod.config).await?;
        if call != Call::Start {
            cri.start(&container_id).await?;
        }
        if call == Call::RemoveContainer {
            cri.stop(&container_id, 0).await?;
        }
    }
    Ok((pod_id, container_id))
}

async fn make(
    cri: &Cri,
    pod: &Pod,
    call: Call,
    handler: &str,
    ids: &(String, String),
) -> Result<(), tonic::Status> {
    let (pod_id, container_id) = ids;
    match call {
        Call::RunPod => cri.run_pod(&pod.config, handler).await.map(drop),
        Call::Create => {
            let container = pod.container("main", &["sleep", "1000"]);
            cri.create(pod_id, &container.config, &pod.config).await.map(drop)
        }
        Call::Start => {
            if cri.container(container_id).await?.state == ContainerState::ContainerCreated as i32 {
                cri.start(container_id).await?;
            }
            Ok(())
        }
        Call::Exec => match cri.exec(container_id, &["true"], 20).await?.exit_code {
            0 => Ok(()),
            code => Err(tonic::Status::unknown(format!("exec ended with {code}"))),
        },
        Call::Update => {
            let request = UpdateContainerResourcesRequest {
                container_id: container_id.clone(),
                linux: Some(LinuxContainerResources { cpu_quota: 50_000, ..Default::default() }),
                ..Default::default()
            };
            cri.runtime.clone().update_container_resources(request).await.map(drop)
        }
        Call::Stop => cri.stop(container_id, 1).await,
        Call::RemoveContainer => cri.remove(container_id).await,
        Call::StopPod => cri.stop_pod(pod_id).await,
    }
}

/// What must be true of a call although its program misbehaves.
fn judge(call: Call, how: Misbehaviour, answer: &Result<(), tonic::Status>) -> Result<(), String> {
    match (call, answer) {
        // A kill goes past the runtime, by the cgroup; a network goes to the ledger.
        (Call::Stop | Call::StopPod, Err(error)) => Err(format!("{call:?} fails: {error}")),
        (Call::RunPod | Call::Create | Call::Start | Call::Exec, Ok(())) if how != Misbehaviour::Garbage => {
            Err(format!("{call:?} succeeds although its program fails"))
        }
        (_, Err(error)) if error.message().len() < 20 => Err(format!("it says too little: {error}")),
        _ => Ok(()),
    }
}

async fn case(
    daemon: &Daemon,
    cri: &Cri,
    bystander: &Bystander,
    (program, verb, call): (&str, &str, Call),
    how: Misbehaviour,
    handler: &str,
    times: &mut Both,
) -> Result<String, String> {
    let pod = Pod::new(daemon, "victim");
    let ids = prepared(cri, &pod, call, handler).await.map_err(|error| format!("before: {error}"))?;
    bystander.live(cri, &mut times.before).await?;
    misbehave::set(daemon.dir(), program, verb, Some(how));
    let (started, ended) = (Instant::now(), AtomicBool::new(false));
    let call_made = async {
        let answer = timeout(CALL, make(cri, &pod, call, handler, &ids)).await;
        ended.store(true, Ordering::SeqCst);
        (answer, started.elapsed())
    };
    let ((answer, took), other) =
        tokio::join!(call_made, bystander.live_while(cri, &mut times.meanwhile, &ended));
    misbehave::set(daemon.dir(), program, verb, None);
    let answer = answer.map_err(|_| format!("no answer within {CALL:?}"))?;
    judge(call, how, &answer)?;
    other?;
    nothing_lives_on(daemon).await?;
    // The kubelet comes again, once or twice: what the fault spoiled for good it makes anew.
    let spoiled = matches!(call, Call::Start | Call::Exec | Call::Update);
    if !spoiled {
        let retry = timeout(LIMIT, make(cri, &pod, call, handler, &ids)).await;
        retry
            .map_err(|_| "the retry hangs".to_owned())?
            .map_err(|error| format!("the retry fails: {error}"))?;
    }
    if call == Call::StopPod {
        let state = cri.pod(&ids.0).await.map_err(|error| error.to_string())?.state;
        if state != PodSandboxState::SandboxNotready as i32 {
            return Err(format!("the stopped pod is in state {state}"));
        }
    }
    let pods = cri.pods().await.map_err(|error| error.to_string())?;
    for pod in pods.into_iter().filter(|it| it.metadata.as_ref().is_some_and(|it| it.name == "victim")) {
        cri.remove_pod(&pod.id).await.map_err(|error| format!("it cannot be removed: {error}"))?;
    }
    let found = eventually_clean(daemon).await;
    if !found.is_empty() {
        return Err(format!("hull check: {}", found.join("; ")));
    }
    let said = match answer {
        Ok(()) => "succeeds".to_owned(),
        Err(error) => format!("{:?}", error.code()),
    };
    Ok(format!("{said} after {:.1} s", took.as_secs_f64()))
}

/// What `hull check` and the ledger still say after a while.
async fn eventually_clean(daemon: &Daemon) -> Vec<String> {
    let end = Instant::now() + LIMIT;
    loop {
        let mut found = daemon.check().await;
        let status = daemon.hull(&["status", "--json"]).await.json();
        found.extend(status["ledger"].as_array().into_iter().flatten().map(|owed| format!("owed: {owed}")));
        if found.is_empty() || Instant::now() > end {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn daemons_of(daemon: &Daemon) -> Vec<(u32, String)> {
    census::processes(daemon).into_iter().filter(|(_, what)| misbehave::is_daemon(what)).collect()
}

/// What the program started has been ended with it, wherever it went.
async fn nothing_lives_on(daemon: &Daemon) -> Result<(), String> {
    let end = Instant::now() + LINGER;
    loop {
        let daemons = daemons_of(daemon);
        let left: Vec<String> = daemons.iter().map(|(pid, what)| format!("{pid} {what}")).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            // The later cases are not to fail for this one.
            daemons_of(daemon).iter().for_each(|(pid, _)| misbehave::end_daemon(*pid));
            return Err(format!("a daemon of the program lives on: {}", left.join(", ")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What another pod's calls took.
#[derive(Debug, Default)]
struct Both {
    before: Times,
    meanwhile: Times,
}

async fn matrix(handler: &str, kinds: &[Misbehaviour]) {
    let setup = Setup::real();
    let dir = setup.dir().to_owned();
    let bad = misbehave::runtime(&dir, handler);
    let well = hull_tests::runtimes::real(&dir, handler);
    misbehave::plugin(&dir);
    let bin = misbehave::conmon(&dir);
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut setup = setup.handler("bad", handler, &bad).handler("well", handler, &well).env("PATH", path);
    for key in ["create", "start", "network", "release", "runtime", "exec_extra", "stop_extra"] {
        setup = setup.timeout(key, STAGE);
    }
    let daemon = setup.start().await;
    let cri = daemon.cri().await;
    let bystander = Bystander::new(&daemon, &cri, "well").await;
    let mut times: BTreeMap<Misbehaviour, Both> = BTreeMap::new();
    let mut table = String::new();
    let mut failed = 0;
    for row in ROWS {
        for &how in kinds {
            let times = times.entry(how).or_default();
            let result = case(&daemon, &cri, &bystander, row, how, "bad", times).await;
            misbehave::set(daemon.dir(), row.0, row.1, None);
            failed += usize::from(result.is_err());
            let outcome = result.unwrap_or_else(|error| format!("FAILED: {error}"));
            let _ = writeln!(
                table,
                "{handler:<6}{:<8} {:<7} {how:?} during {:?}: {outcome}",
                row.0, row.1, row.2
            );
        }
    }
    for (how, times) in times {
        let compared = times.meanwhile.within_twice(&times.before);
        failed += usize::from(compared.is_err());
        let words = compared.unwrap_or_else(|words| format!("FAILED: more than twice: {words}"));
        let _ = writeln!(table, "{handler:<6}another pod, {how:?}: {words}");
    }
    say(&table);
    assert_eq!(failed, 0, "\n{table}");
    eventually(LIMIT, "all pods are removed", async || {
        for pod in cri.pods().await.map_err(|error| error.to_string())? {
            cri.remove_pod(&pod.id).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
    .await;
    daemon.assert_nothing_left().await;
    real_runtime_ok(handler, "fault matrix");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_foreign_program_may_misbehave_at_every_call() {
    if !root_tests_enabled() {
        return;
    }
    if std::env::var("HULL_CHAOS_SAMPLE").as_deref() == Ok("all") {
        matrix("runc", &misbehave::ALL).await;
        matrix("crun", &misbehave::ALL).await;
    } else {
        use Misbehaviour::{Crash, Daemon, Garbage, Hang};
        matrix("runc", &[Hang, Crash, Garbage, Daemon]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_foreign_programs_say_forges_no_line() {
    if !root_tests_enabled() {
        return;
    }
    let setup = Setup::real();
    let dir = setup.dir().to_owned();
    let bad = misbehave::runtime(&dir, "runc");
    misbehave::plugin(&dir);
    let bin = misbehave::conmon(&dir);
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let daemon =
        setup.handler("bad", "runc", &bad).env("PATH", path).env("RUST_LOG", "hull=debug,info").start().await;
    let cri = daemon.cri().await;
    for row in ROWS {
        let pod = Pod::new(&daemon, "victim");
        let ids = prepared(&cri, &pod, row.2, "bad").await.unwrap();
        misbehave::set(daemon.dir(), row.0, row.1, Some(Misbehaviour::Forge));
        let answer = make(&cri, &pod, row.2, "bad", &ids).await;
        for words in ["status", "ops", "check"] {
            let said = daemon.hull(&[words]).await;
            assert!(
                said.stdout.lines().all(|line| !line.contains(hull_escape::is_unsafe)),
                "{row:?}: {said:?}"
            );
        }
        misbehave::set(daemon.dir(), row.0, row.1, None);
        if let Err(error) = answer {
            assert!(!error.message().contains(hull_escape::is_unsafe), "{row:?}: {:?}", error.message());
            assert!(error.message().contains("forged"), "{row:?}: {error}");
        }
        for pod in cri.pods().await.unwrap() {
            cri.remove_pod(&pod.id).await.unwrap();
        }
    }
    daemon.assert_clean(LIMIT).await;
    let log = daemon.log();
    assert!(log.contains(misbehave::FORGED), "their words are in the log: {log}");
    for line in log.lines() {
        assert!(!line.contains(hull_escape::is_unsafe) && !line.starts_with(misbehave::FORGED), "{line:?}");
    }
}
