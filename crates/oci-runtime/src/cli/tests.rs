// SPDX-License-Identifier: Apache-2.0
//! Driving a program without the program: arguments, answers, errors.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hull_process::{ExitStatus, Output};

use super::command::Program;
use super::crun::Crun;
use super::runc::Runc;
use super::*;

/// Answers what it was told to and remembers what it was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<(i32, &'static str, &'static str)>>,
    asked: Mutex<Vec<Program>>,
}

#[async_trait]
impl Spawner for Script {
    async fn run(&self, program: Program) -> hull_process::Result<Output> {
        let path = program.path.clone();
        let after = program.deadline;
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(program);
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((code, stdout, stderr)) = answer else {
            return Err(hull_process::Error::TimedOut { program: path, after });
        };
        let status = if code < 0 { ExitStatus::Signaled(-code) } else { ExitStatus::Exited(code) };
        Ok(Output { status, stdout: stdout.into(), stderr: stderr.into(), truncated: false })
    }
}

/// A runtime with a script: exit code (negative: signal), stdout, stderr of each run.
fn scripted<F: Flavor + Default>(
    answers: &[(i32, &'static str, &'static str)],
) -> (CliRuntime<F>, Arc<Script>) {
    let script =
        Arc::new(Script { answers: Mutex::new(answers.iter().copied().collect()), ..Script::default() });
    let config = RuntimeConfig {
        name: "fast".to_owned(),
        path: PathBuf::from("/bin/rt"),
        root: PathBuf::from("/no/such/root"),
        cgroups: None,
        deadlines: Deadlines::default(),
    };
    (CliRuntime::with_spawner(config, F::default(), script.clone()), script)
}

impl Script {
    /// The command lines after the global options, which must be there.
    fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |program: &Program| {
            let words: Vec<_> = program.args.iter().map(|arg| arg.to_string_lossy()).collect();
            let line = words.join(" ");
            line.strip_prefix("--root=/no/such/root --log-format=json ").expect("global options").to_owned()
        };
        asked.iter().map(line).collect()
    }
}

const RUNNING: (i32, &str, &str) = (0, r#"{"id":"a","pid":1,"status":"running","bundle":"/b"}"#, "");
const STOPPED: (i32, &str, &str) = (0, r#"{"id":"a","pid":0,"status":"stopped","bundle":"/b"}"#, "");
const MISSING: (i32, &str, &str) = (1, "", r#"{"level":"error","msg":"container does not exist"}"#);
const OK: (i32, &str, &str) = (0, "", "");

fn kill(target: KillTarget) -> KillRequest {
    KillRequest { id: "a".to_owned(), signal: 15, target, process: None }
}

fn update(resources: serde_json::Value) -> UpdateRequest {
    let resources = serde_json::from_value(resources).unwrap();
    UpdateRequest { id: "a".to_owned(), resources, cgroup: None }
}

#[test]
fn says_how_to_create_and_restore() {
    let (runtime, _) = scripted::<Runc>(&[]);
    let create = CreateRequest { id: "a".to_owned(), bundle: PathBuf::from("/b"), systemd_cgroup: true };
    let command = runtime.create_command(&create);
    assert_eq!(command.program, Path::new("/bin/rt"));
    assert_eq!(command.global_args, ["--root=/no/such/root"]);
    assert_eq!((command.subcommand, command.options.len(), command.systemd_cgroup), ("create", 0, true));
    let command = runtime.restore_command(&RestoreRequest { create, image_path: PathBuf::from("/i") });
    assert_eq!(command.subcommand, "restore");
    assert_eq!(command.options, ["--detach", "--image-path", "/i", "--work-path", "/b"]);
}

#[tokio::test]
async fn builds_the_command_line_of_each_verb() {
    let (runtime, script) = scripted::<Runc>(&[OK, OK, RUNNING, OK, OK, OK, RUNNING, (0, "[1]", ""), OK]);
    runtime.start("a").await.unwrap();
    runtime.kill(&kill(KillTarget::Init)).await.unwrap();
    runtime.kill(&kill(KillTarget::All)).await.unwrap();
    runtime.pause("a").await.unwrap();
    runtime.resume("a").await.unwrap();
    runtime.state("a").await.unwrap();
    assert_eq!(runtime.ps("a").await.unwrap(), [1]);
    let (image_path, work_path) = (PathBuf::from("/i"), PathBuf::from("/w"));
    let request = CheckpointRequest { id: "a".to_owned(), image_path, work_path, leave_running: true };
    runtime.checkpoint(&request).await.unwrap();
    let expected = [
        "start a",
        "kill a 15",
        "state a",
        "kill --all a 15",
        "pause a",
        "resume a",
        "state a",
        "ps --format=json a",
        "checkpoint --image-path /i --work-path /w --leave-running a",
    ];
    assert_eq!(script.lines(), expected);
}

#[tokio::test]
async fn a_known_process_is_signalled_without_a_program() {
    let (runtime, script) = scripted::<Crun>(&[]);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let process = ProcessId::of(child.id().cast_signed()).unwrap();
    // Another process has the number by now: it must not be hit.
    let stale = ProcessId { start_time: process.start_time + 1, ..process };
    let at = |process| KillRequest { process: Some(process), ..kill(KillTarget::Init) };
    assert!(matches!(runtime.kill(&at(stale)).await, Err(Error::InvalidState { .. })));
    assert!(child.try_wait().unwrap().is_none());
    runtime.kill(&at(process)).await.unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15));
    assert!(matches!(runtime.kill(&at(process)).await, Err(Error::InvalidState { .. })), "it is gone");
    assert_eq!(script.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn update_speaks_each_dialect() {
    let asked = serde_json::json!({
        "cpu": { "shares": 1 }, "memory": { "limit": 0, "swap": 5 }, "pids": { "limit": -1 },
    });
    let (runc, script) = scripted::<Runc>(&[OK]);
    runc.update(&update(asked.clone())).await.unwrap();
    assert_eq!(script.lines(), ["update --resources - a"]);
    let written = |script: &Script| -> serde_json::Value {
        let asked = script.asked.lock().unwrap();
        serde_json::from_slice(asked.last().unwrap().stdin.as_deref().unwrap()).unwrap()
    };
    assert_eq!(
        written(&script),
        serde_json::json!({ "cpu": { "shares": 2 }, "memory": { "limit": 0, "swap": 5 }, "pids": { "limit": -1 } })
    );
    let (crun, script) = scripted::<Crun>(&[RUNNING, OK]);
    crun.update(&update(asked)).await.unwrap();
    assert_eq!(script.lines(), ["state a", "update --resources - a"]);
    assert_eq!(
        written(&script),
        serde_json::json!({ "cpu": { "shares": 1 }, "memory": { "swap": 5 }, "pids": { "limit": 4_194_304 } })
    );
}

#[tokio::test]
async fn a_quota_that_the_program_cannot_take_away_needs_the_cgroup() {
    let endless = || update(serde_json::json!({ "cpu": { "quota": -1, "shares": 7 } }));
    let (runc, script) = scripted::<Runc>(&[OK]);
    runc.update(&endless()).await.unwrap();
    assert_eq!(script.lines(), ["update --resources - a"]);
    let (crun, script) = scripted::<Crun>(&[RUNNING]);
    let answer = crun.update(&endless()).await;
    assert!(matches!(answer, Err(Error::Unsupported { operation: "update", .. })), "{answer:?}");
    assert_eq!(script.lines(), ["state a"], "nothing was changed");
}

#[tokio::test]
async fn asks_the_state_where_the_program_would_say_yes() {
    let (crun, script) = scripted::<Crun>(&[STOPPED, STOPPED, STOPPED, STOPPED, MISSING]);
    assert!(matches!(crun.kill(&kill(KillTarget::Init)).await, Err(Error::InvalidState { .. })));
    assert!(matches!(crun.pause("a").await, Err(Error::InvalidState { .. })));
    assert!(matches!(crun.resume("a").await, Err(Error::InvalidState { .. })));
    let answer = crun.update(&update(serde_json::json!({}))).await;
    assert!(matches!(answer, Err(Error::InvalidState { operation: "update", .. })));
    assert!(matches!(crun.kill(&kill(KillTarget::Init)).await, Err(Error::NotFound { .. })));
    assert_eq!(script.lines(), ["state a"; 5], "nothing but the state was asked");
}

#[tokio::test]
async fn kills_what_outlives_the_first_process() {
    let (runtime, script) = scripted::<Runc>(&[STOPPED, (0, "[7]", ""), OK, STOPPED, (0, "null", "")]);
    runtime.kill(&kill(KillTarget::All)).await.unwrap();
    assert!(matches!(runtime.kill(&kill(KillTarget::All)).await, Err(Error::InvalidState { .. })));
    let expected = ["state a", "ps --format=json a", "kill --all a 15", "state a", "ps --format=json a"];
    assert_eq!(script.lines(), expected);
}

#[tokio::test]
async fn ps_survives_a_crash_of_the_program() {
    let (runtime, _) = scripted::<Crun>(&[(-11, "", "")]);
    assert_eq!(runtime.ps("a").await.unwrap(), [0; 0]);
    let (runtime, _) = scripted::<Crun>(&[(1, "", "no cgroup"), STOPPED, (1, "", "no cgroup"), RUNNING]);
    assert_eq!(runtime.ps("a").await.unwrap(), [0; 0]);
    assert!(matches!(runtime.ps("a").await, Err(Error::Failed { .. })));
}

#[tokio::test]
async fn deletes_only_what_has_ended() {
    let request = |force| DeleteRequest { id: "a".to_owned(), force };
    let (runtime, script) = scripted::<Runc>(&[OK]);
    runtime.delete(&request(false)).await.unwrap();
    assert_eq!(script.lines(), ["delete a"]);

    let (runtime, script) = scripted::<Runc>(&[MISSING]);
    runtime.delete(&request(true)).await.unwrap();
    assert_eq!(script.lines(), ["state a"], "there is nothing to delete");

    let (runtime, script) = scripted::<Runc>(&[STOPPED, (1, "", "busy"), OK]);
    runtime.delete(&request(true)).await.unwrap();
    assert_eq!(script.lines(), ["state a", "delete a", "delete --force a"]);

    let paused = (0, r#"{"id":"a","pid":2147483647,"status":"paused","bundle":"/b"}"#, "");
    let (runtime, script) = scripted::<Runc>(&[paused, OK, OK, OK]);
    runtime.delete(&request(true)).await.unwrap();
    assert_eq!(script.lines(), ["state a", "kill a 9", "resume a", "delete a"]);

    // A state that cannot be had in time is no reason to delete.
    let (runtime, script) = scripted::<Runc>(&[]);
    assert!(matches!(runtime.delete(&request(true)).await, Err(Error::TimedOut { operation: "state", .. })));
    assert_eq!(script.lines(), ["state a"]);
}

#[tokio::test]
async fn features_may_be_unknown_and_answers_garbled() {
    let answers = [
        (1, "", "unknown command features"),
        (0, "?", ""),
        (0, "{}", ""),
        (0, "youki version: 0.7.0\nlibseccomp: 2.5.4\n", ""),
        (0, "[", ""),
        (0, "?", ""),
        (0, "?", ""),
    ];
    let (runtime, script) = scripted::<Crun>(&answers);
    assert_eq!(runtime.features().await.unwrap(), None);
    assert_eq!(runtime.features().await.unwrap(), Some(Features { seccomp: true, ..Features::default() }));
    assert!(matches!(runtime.features().await, Err(Error::Garbled { operation: "features", .. })));
    assert!(matches!(runtime.version().await, Err(Error::Garbled { operation: "version", .. })));
    assert!(matches!(runtime.state("a").await, Err(Error::Garbled { operation: "state", .. })));
    assert_eq!(
        script.lines(),
        ["features", "--version", "features", "--version", "features", "--version", "state a"]
    );
}

#[tokio::test]
async fn exec_says_what_it_needs() {
    let (runtime, script) = scripted::<Runc>(&[]);
    let dir = tempfile::tempdir().unwrap();
    let mut request = ExecRequest {
        id: "a".to_owned(),
        exec_id: "../x".to_owned(),
        process: oci_spec::runtime::Process::default(),
        work_dir: dir.path().to_owned(),
        cgroup: None,
        timeout: None,
        max_output: 1,
    };
    let error = runtime.exec(&request).await.unwrap_err();
    assert!(matches!(&error, Error::InvalidRequest { problem, .. } if problem.contains("../x")), "{error}");
    request.exec_id = "x".to_owned();
    let error = runtime.exec(&request).await.unwrap_err();
    assert!(error.to_string().contains("reaper::install()"), "{error}");
    assert_eq!(script.lines(), [""; 0]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}
