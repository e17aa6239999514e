// SPDX-License-Identifier: Apache-2.0
//! The public client `crictl` against the real daemon: what operators type. Needs root, and crictl in PATH
//! or named by HULL_CRICTL (`cargo xtask test` builds it where Go is). And a client on another gRPC implementation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};

use hull_tests::{Daemon, Setup, images, real_runtime_ok, root_tests_enabled, runtimes};
use serde_json::{Value, json};

/// The client with the daemon's socket as its endpoint.
struct Crictl<'a> {
    program: PathBuf,
    daemon: &'a Daemon,
}

impl Crictl<'_> {
    /// Runs it; what it prints. Nothing may go to stderr: that is where it warns of what it misses.
    fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "crictl {}: {stderr}\n{}", args.join(" "), self.daemon.log());
        assert!(stderr.is_empty(), "crictl {} warns: {stderr}", args.join(" "));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn output(&self, args: &[&str]) -> std::process::Output {
        let endpoint = format!("unix://{}", self.daemon.socket().display());
        // In the daemon's network namespace: exec without -s connects to its streaming server.
        self.daemon
            .net()
            .expect("a real daemon")
            .command(&self.program)
            .args(["--config", "/dev/null", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint])
            .args(["--timeout", "30s"])
            .args(args)
            .env("HOME", self.daemon.dir())
            .output()
            .expect("start crictl")
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = self.run(args);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("crictl {}: {error}: {text}", args.join(" ")))
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HULL_CRICTL") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "HULL_CRICTL={} is not there", path.display());
        return Some(path);
    }
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("crictl"))
        .find(|path| path.is_file())
}

fn write(path: &Path, value: &Value) -> String {
    std::fs::write(path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_type_works_without_warnings() {
    if !root_tests_enabled() {
        return;
    }
    let Some(program) = find() else {
        eprintln!("skipped: no crictl in PATH and HULL_CRICTL is not set");
        return;
    };
    let daemon = Setup::real().start().await;
    let crictl = Crictl { program, daemon: &daemon };
    assert!(crictl.run(&["version"]).contains("RuntimeApiVersion:  v1"));
    let info = crictl.json(&["info"]);
    let ready = info["status"]["conditions"].as_array().unwrap().iter().all(|it| {
        it["status"] == true || it["type"].as_str().is_some_and(|name| name.contains("Deprecation"))
    });
    assert!(ready, "{info}");
    assert!(crictl.run(&["images"]).contains("docker.io/library/busybox"));
    let image = crictl.json(&["inspecti", hull_tests::IMAGE]);
    assert!(image["status"]["repoTags"].to_string().contains("busybox:latest"), "{image}");

    for handler in runtimes::REAL {
        let dir = daemon.dir();
        let logs = dir.join(format!("logs/crictl-{handler}"));
        let pod = json!({
            "metadata": { "name": "crictl", "namespace": "default", "uid": format!("crictl-{handler}"), "attempt": 1 },
            "hostname": "from-crictl",
            "log_directory": logs,
            "linux": { "cgroup_parent": hull_tests::cgroups::pod(daemon.cgroup_parent(), &format!("crictl-{handler}")),
                       "security_context": { "namespace_options": { "pid": 1 } } },
        });
        let container = json!({
            "metadata": { "name": "main" },
            "image": { "image": hull_tests::IMAGE },
            "command": ["sh", "-c", "echo hello from a container; trap 'exit 3' TERM; sleep 1000 & wait"],
            "log_path": "main.log",
            "linux": { "resources": { "oom_score_adj": 1000 } },
        });
        let pod_file = write(&dir.join("pod.json"), &pod);
        let container_file = write(&dir.join("container.json"), &container);

        let pod_id = crictl.run(&["runp", "--runtime", handler, &pod_file]);
        let id = crictl.run(&["create", &pod_id, &container_file, &pod_file]);
        assert_eq!(crictl.run(&["start", &id]), id);
        assert!(crictl.run(&["pods"]).contains("Ready"));
        assert!(crictl.run(&["ps"]).contains("Running"));
        let short = &id[..13];
        let echoed = crictl.run(&["exec", "-s", short, "echo", "hello from exec"]);
        assert_eq!(echoed, "hello from exec");
        assert_eq!(crictl.run(&["exec", "-s", short, "hostname"]), "from-crictl");
        assert_eq!(crictl.run(&["logs", short]), "hello from a container");
        let status = crictl.json(&["inspect", short]);
        assert_eq!(status["status"]["state"], "CONTAINER_RUNNING", "{status}");
        assert_eq!(status["status"]["metadata"]["name"], "main");
        let status = crictl.json(&["inspectp", &pod_id]);
        assert_eq!(status["status"]["state"], "SANDBOX_READY", "{status}");
        assert!(crictl.run(&["stats"]).contains(short));

        crictl.run(&["stop", "--timeout", "10", &id]);
        let status = crictl.json(&["inspect", &id]);
        assert_eq!(status["status"]["state"], "CONTAINER_EXITED", "{status}");
        assert_eq!(status["status"]["exitCode"], 3, "{status}");
        assert!(crictl.run(&["ps", "-a"]).contains("Exited"));
        crictl.run(&["rm", &id]);
        crictl.run(&["stopp", &pod_id]);
        assert!(crictl.run(&["pods"]).contains("NotReady"));
        crictl.run(&["rmp", &pod_id]);
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "crictl");
    }
    let missing = crictl.output(&["inspect", "0123456789abcdef"]);
    assert!(!missing.status.success());
    crictl.run(&["rmi", hull_tests::IMAGE]);
    assert!(!crictl.run(&["images"]).contains("busybox"));
    daemon.cri().await.import(images::busybox()).await.unwrap();
}

/// Python with grpcio installed, by HULL_GRPCIO (`cargo xtask test` prepares it).
fn python_with_grpcio() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HULL_GRPCIO")?);
    assert!(path.is_file(), "HULL_GRPCIO={} is not there", path.display());
    Some(path)
}

/// A client on gRPC's C core, which names the socket's path as the authority of each call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pythons_grpcio_runs_a_pod_without_options() {
    if !root_tests_enabled() {
        return;
    }
    let Some(python) = python_with_grpcio() else {
        eprintln!("skipped: HULL_GRPCIO is not set");
        return;
    };
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let daemon = Setup::real().start().await;
    for handler in runtimes::REAL {
        let dir = daemon.dir();
        let out = dir.join(format!("grpcio-{handler}"));
        std::fs::create_dir(&out).unwrap();
        let output = tokio::process::Command::new(&python)
            .arg(sources.join("tests/clients/pod.py"))
            .arg("--socket")
            .arg(daemon.socket())
            .arg("--cri-proto")
            .arg(sources.join("crates/cri-api/proto"))
            .arg("--admin-proto")
            .arg(sources.join("crates/admin-api/proto"))
            .arg("--out")
            .arg(&out)
            .args(["--image", hull_tests::IMAGE, "--handler", handler, "--cgroup-parent"])
            .arg(hull_tests::cgroups::pod(daemon.cgroup_parent(), &format!("grpcio-{handler}")))
            .arg("--logs")
            .arg(out.join("logs"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .await
            .expect("start python");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{handler}: {stderr}\n{}", daemon.log());
        daemon.assert_nothing_left().await;
        real_runtime_ok(handler, "a pod by grpcio");
    }
}
