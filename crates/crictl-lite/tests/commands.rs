// SPDX-License-Identifier: Apache-2.0
//! The client as a script sees it: exit codes, what is printed, what is left behind.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is how a test fails"
)]

mod fake;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use fake::{Ran, Server, client, run};
use hull_cri_api::v1::{Container, ContainerMetadata, Image};
use tonic::Status;

fn failed(ran: &Ran, code: i32, line: &str) {
    assert_eq!((ran.code, ran.err.as_str()), (code, format!("crictl-lite: {line}\n").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_and_a_container_from_birth_to_removal() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();

    let pod = server.ok(&format!("runp {pod_json}")).await;
    assert_eq!(pod, format!("{:064x}", 1));
    let container = server.ok(&format!("create {pod} {container_json} {pod_json}")).await;
    assert_eq!(server.world().envs[0].value, b"b");
    assert_eq!(server.ok("ps -q").await, "", "created is not running");
    assert_eq!(server.ok(&format!("start {container}")).await, container);
    assert_eq!(server.ok("ps -q").await, container);
    assert_eq!(server.ok(&format!("reopen-log {container}")).await, "");

    let table = server.ok("ps").await;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(
        lines[0],
        ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"]
    );
    let row: Vec<&str> = lines[1].iter().copied().filter(|cell| !cell.ends_with(" ago")).collect();
    assert_eq!(row, [&container[..13], "nginx:1", "Running", "nginx", "0", &pod[..13], "web", "default"]);
    let pods = server.ok("pods").await;
    assert!(pods.starts_with("POD ID") && pods.contains("Ready") && pods.contains("(default)"), "{pods}");

    failed(
        &server.run(&format!("rm {container}")).await,
        1,
        &format!(
            "rm {container}: the container is running; stop it first, or use --force (FAILED_PRECONDITION)"
        ),
    );
    assert_eq!(server.ok(&format!("stop -t 3 {container}")).await, container);
    assert!(server.world().calls.contains(&format!("StopContainer timeout=3 {container}")));
    assert_eq!(server.ok(&format!("rm {container}")).await, container);
    failed(
        &server.run(&format!("rmp {pod}")).await,
        1,
        &format!("rmp {pod}: the pod sandbox is ready; stop it first, or use --force (FAILED_PRECONDITION)"),
    );
    assert_eq!(server.ok(&format!("stopp {pod}")).await, format!("Stopped sandbox {pod}"));
    assert_eq!(server.ok(&format!("rmp {pod}")).await, format!("Removed sandbox {pod}"));
    assert!(server.world().pods.is_empty() && server.world().containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let mut command = client();
    command.arg("-r").arg(&socket).arg("info");
    let ran = run(command).await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    for part in [
        "crictl-lite: connect ",
        "none.sock",
        "No such file",
        "is the runtime running?",
        "--runtime-endpoint",
    ] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_2() {
    let server = Server::start();
    for line in [
        "",
        "nonsense",
        "ps --state sleeping",
        "rm",
        "stop -t x y",
        "ps --name (",
        "pods --label x",
        "exec abc",
    ] {
        let ran = server.run(line).await;
        assert_eq!(ran.code, 2, "{line}: {ran:?}");
        assert!(!ran.err.is_empty() && ran.out.is_empty(), "{line}");
    }
    let mut command = client();
    command.args(["-r", "tcp://127.0.0.1:1", "info"]);
    assert_eq!(run(command).await.code, 2);

    let bad = server.file("bad.json", r#"{"metadata": {"nam": "x"}}"#);
    failed(
        &server.run(&format!("runp {bad}")).await,
        2,
        &format!(r#"{bad}: unknown key "metadata.nam"; did you mean "name"?"#),
    );
    assert!(server.world().calls.is_empty(), "a wrong configuration reaches nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_3() {
    let server = Server::start();
    for command in ["inspect", "logs", "rm", "start", "inspectp", "rmp", "rm -f", "reopen-log"] {
        let operation = command.split(' ').next().unwrap();
        let ran = server.run(&format!("{command} abc")).await;
        failed(&ran, 3, &format!("{operation} abc: no such id \"abc\" (NOT_FOUND)"));
    }
    failed(&server.run("exec abc true").await, 3, "exec abc: no such id \"abc\" (NOT_FOUND)");
    failed(&server.run("inspecti busybox").await, 3, "inspecti busybox: no such image (NOT_FOUND)");
    failed(&server.run("rmi busybox").await, 3, "rmi busybox: no such image (NOT_FOUND)");
    failed(&server.run("stats abc").await, 3, "stats abc: no such running container (NOT_FOUND)");
    // The CRI has it that these succeed.
    assert_eq!(server.ok("stop abc").await, "abc");
    server.ok("stopp abc").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_4() {
    let server = Server::start();
    server.world().delay.insert("Version".into(), Duration::from_secs(30));
    let ran = server.run("-t 200ms version").await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(
        ran.err.starts_with("crictl-lite: version: ") && ran.err.ends_with("(DEADLINE_EXCEEDED)\n"),
        "{}",
        ran.err
    );
    server.world().fail.insert("ExecSync".into(), Status::deadline_exceeded("command timed out"));
    failed(&server.run("exec abc sleep 9").await, 4, "exec abc: command timed out (DEADLINE_EXCEEDED)");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_prints_and_ends_as_its_command() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    let id = server.ok(&format!("run {container_json} {pod_json}")).await;
    let ran = server.run(&format!("exec -s --timeout 5 {id} ls -l --all")).await;
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (0, "ls -l --all timeout=5\n", "oh\u{fffd}\n")
    );
    assert_eq!(server.run(&format!("exec {id} false")).await.code, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn run_leaves_nothing_when_a_step_fails() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    let line = format!("run {container_json} {pod_json}");
    for (call, text) in [("RunPodSandbox", "run web: no (INTERNAL)"), ("StartContainer", "")] {
        server.world().fail.insert(call.into(), Status::internal("no"));
        let ran = server.run(&line).await;
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert!(ran.err.contains(text) && ran.err.ends_with("no (INTERNAL)\n"), "{}", ran.err);
        let mut world = server.world();
        assert!(world.pods.is_empty() && world.containers.is_empty(), "{world:?}");
        world.fail.clear();
    }

    // A failing undo is told too, and does not keep the other steps from being done.
    server.world().fail.insert("CreateContainer".into(), Status::invalid_argument("bad mount"));
    server.world().fail.insert("StopPodSandbox".into(), Status::unavailable("busy"));
    let ran = server.run(&line).await;
    assert_eq!(ran.code, 1);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines[0], "crictl-lite: run nginx: bad mount (INVALID_ARGUMENT)");
    assert!(lines[1].starts_with("crictl-lite: run: undo: stop pod sandbox 0"), "{}", ran.err);
    assert!(lines[1].ends_with("busy (UNAVAILABLE)") && lines.len() == 2, "{}", ran.err);
    assert!(server.world().pods.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_leaves_nothing_when_it_is_interrupted() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    server.world().delay.insert("StartContainer".into(), Duration::from_secs(30));
    let mut child = server
        .command(&format!("run {container_json} {pod_json}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !server.world().calls.iter().any(|call| call.starts_with("StartContainer")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let code = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (status.code(), err)
    })
    .await
    .unwrap();
    assert_eq!(code, (Some(1), "crictl-lite: run: interrupted\n".to_owned()));
    assert!(server.world().pods.is_empty() && server.world().containers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_all_goes_on_after_failures() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    let mut containers = Vec::new();
    for _ in 0..3 {
        containers.push(server.ok(&format!("run {container_json} {pod_json}")).await);
    }
    server.world().fail.insert(format!("RemoveContainer {}", containers[1]), Status::internal("stuck"));
    let ran = server.run("rm -f -a").await;
    failed(&ran, 1, &format!("rm {}: stuck (INTERNAL)", containers[1]));
    assert_eq!(ran.out, format!("{}\n{}\n", containers[0], containers[2]));
    assert_eq!(server.world().containers.len(), 1);

    let ran = server.run("rmp -a").await;
    assert_eq!((ran.code, ran.err.lines().count()), (1, 3), "each ready sandbox is told");
    assert_eq!(server.run("rmp -fa").await.code, 0);
    assert!(server.world().pods.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_printed_in_each_form() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    let id = server.ok(&format!("run {container_json} {pod_json}")).await;
    for (line, found) in [
        ("ps -q --name ^ngi", true),
        ("ps -q --name ^ginx", false),
        ("ps -q --state running", true),
        ("ps -q --state Exited", false),
        ("ps -q -a --label a=b", false),
        ("ps -q --id 0000", true),
        ("ps -q --pod 1111", false),
        ("ps -q -l", true),
        ("ps -q -n 0", false),
        ("pods -q --label tier=front", true),
        ("pods -q --state notready", false),
        ("pods -q --namespace default --name web", true),
    ] {
        assert_eq!(!server.ok(line).await.is_empty(), found, "{line}");
    }

    let json = server.ok("ps -o json").await;
    for part in
        [r#""state": "CONTAINER_RUNNING""#, r#""createdAt": "1700000000000000000""#, r#""podSandboxId""#]
    {
        assert!(json.contains(part), "{json}");
    }
    let pods = server.ok("pods -o json").await;
    assert!(pods.contains(r#""state": "SANDBOX_READY""#), "{pods}");
    let yaml = server.ok("ps -o yaml").await;
    assert!(yaml.starts_with("containers:\n- annotations: {}\n"), "{yaml}");
    assert!(yaml.contains("  createdAt: \"1700000000000000000\"\n"), "{yaml}");

    let inspected = server.ok(&format!("inspect {id}")).await;
    assert!(inspected.contains("\"info\": {\n    \"pid\": 42\n  }"), "{inspected}");
    assert!(!server.ok(&format!("inspect -q {id}")).await.contains("pid"));
    let table = server.ok(&format!("inspect -o table {id}")).await;
    assert!(table.lines().any(|line| line.split_whitespace().eq(["state:", "CONTAINER_RUNNING"])), "{table}");
    let both = server.run(&format!("inspect {id} nothere")).await;
    assert_eq!(both.code, 3);
    assert!(both.out.starts_with('['), "what is there is shown");

    let stats = server.ok("stats -s 1").await;
    let row: Vec<&str> = stats.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, [&id[..13], "nginx", "25.00", "5MB", "0B", "0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_info() {
    let server = Server::start();
    let want = "Version:  0.1.0\nRuntimeName:  fake\nRuntimeVersion:  1.2.3\nRuntimeApiVersion:  v1";
    assert_eq!(server.ok("version").await, want);
    let info = server.ok("info").await;
    assert!(info.contains("\"stateDir\": \"/run/fake\"") && info.contains("\"RuntimeReady\""), "{info}");
    let table = server.ok("info -o table").await;
    assert!(table.lines().any(|line| line.split_whitespace().eq(["RuntimeReady", "true"])), "{table}");

    // The endpoint may come from the environment, and be a bare path.
    let mut command = client();
    command.env("CONTAINER_RUNTIME_ENDPOINT", server.socket()).arg("version");
    assert_eq!(run(command).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn images() {
    let server = Server::start();
    let image = |number: u64, tags: &[&str]| Image {
        id: format!("sha256:{number:064x}"),
        repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        size: 4_261_574,
        ..Default::default()
    };
    server.world().images = vec![image(1, &["localhost:5000/b:1", "localhost:5000/b:2"]), image(2, &[])];
    let table = server.ok("images").await;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["IMAGE", "TAG", "IMAGE", "ID", "SIZE"]);
    assert_eq!(rows[1], ["<none>", "<none>", "0000000000000", "4.26MB"]);
    assert_eq!(rows[3], ["localhost:5000/b", "2", "0000000000000", "4.26MB"]);
    assert_eq!(server.ok("images -q").await.lines().count(), 2);

    let out = server.ok("rmi localhost:5000/b:1").await;
    assert_eq!(out, "Deleted: localhost:5000/b:1\nDeleted: localhost:5000/b:2");
    server.ok("rmi -a").await;
    assert!(server.world().images.is_empty());

    let mut command = server.command("pull busybox");
    command.env("CRICTL_CREDS", "ann:se:cret");
    assert_eq!(run(command).await.out, format!("Image is up to date for {:064x}\n", 0xabc));
    let auth = server.world().auth.clone().unwrap();
    assert_eq!((auth.username.as_str(), auth.password.as_str()), ("ann", "se:cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_more_than_4_mib_arrives() {
    let server = Server::start();
    let container = |number: u64| Container {
        id: format!("{number:064x}"),
        metadata: Some(ContainerMetadata { name: "x".repeat(8192), attempt: 0 }),
        ..Default::default()
    };
    server.world().containers = (0..1000).map(container).collect();
    assert_eq!(server.ok("ps -a -q").await.lines().count(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_no_failure() {
    let server = Server::start();
    server.world().containers =
        (0..5000).map(|number| Container { id: format!("{number:064x}"), ..Default::default() }).collect();
    let mut child = server.command("ps -a -q").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (code, err) = tokio::task::spawn_blocking(move || {
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (child.wait().unwrap().code(), err)
    })
    .await
    .unwrap();
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_printed_and_followed_to_the_exit() {
    let server = Server::start();
    let (pod_json, container_json) = server.configs();
    let log = server.file("0.log", "");
    server.world().log_path = log.clone();
    let id = server.ok(&format!("run {container_json} {pod_json}")).await;
    let write = |text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
        writeln!(file, "2026-11-23T18:00:00.0Z {text}").unwrap();
    };
    write("stdout P he");
    write("stderr F warning");
    write("stdout F llo");
    let ran = server.run(&format!("logs {}", &id[..60])).await;
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "hello\n", "warning\n"));
    let ran = server.run(&format!("logs --tail 1 {id}")).await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "warning\n"), "the line that began last");
    assert_eq!(server.ok(&format!("logs --tail 0 {id}")).await, "");

    for offers_events in [true, false] {
        if !offers_events {
            server.world().fail.insert("GetContainerEvents".into(), Status::unimplemented("no events"));
        }
        server.ok(&format!("start {id}")).await;
        server.world().calls.clear();
        let follower = tokio::task::spawn_blocking({
            let mut command = server.command(&format!("logs -f --tail 0 {id}"));
            move || command.output().unwrap()
        });
        while !server.world().calls.iter().any(|call| call == "GetContainerEvents") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        write("stdout F before");
        std::fs::rename(&log, format!("{log}.old")).unwrap();
        write("stdout F after");
        server.ok(&format!("stop {id}")).await;
        let output = tokio::time::timeout(Duration::from_secs(20), follower).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "before\nafter\n");
        assert_eq!(output.status.code(), Some(0));
    }

    // Exited: -f prints and ends.
    assert_eq!(server.ok(&format!("logs -f {id}")).await, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn help_tells_the_exit_codes() {
    let mut command = client();
    command.arg("--help");
    let ran = run(command).await;
    assert_eq!(ran.code, 0);
    for part in ["Exit codes:", "3  no such", "4  the deadline", "CONTAINER_RUNTIME_ENDPOINT", "hull.sock"] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
}

#[test]
fn shells_read_their_completions() {
    for (shell, starts) in [("bash", "_crictl__lite() {"), ("zsh", "#compdef crictl-lite"), ("fish", "#")] {
        let ran =
            Command::new(env!("CARGO_BIN_EXE_crictl-lite")).args(["completion", shell]).output().unwrap();
        let text = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status.success() && text.starts_with(starts), "{shell}: {text}");
        if shell == "bash" {
            // The shell itself says whether it is a script.
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
            bash.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(bash.wait().unwrap().success());
        }
    }
}
