// SPDX-License-Identifier: Apache-2.0
//! The contract on the real programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails, and a report is read"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hull_cgroups::Cgroups;
use hull_oci_runtime::cli::{CrunRuntime, Deadlines, RuncRuntime, RuntimeConfig, YoukiRuntime};
use hull_oci_runtime::contract::{self, Fixture, ProgramFixture, crun_wrapper};
use hull_oci_runtime::{CreateRequest, DeleteRequest, ExecRequest, OciRuntime};
use oci_spec::runtime::ProcessBuilder;

fn root_tests_enabled() -> bool {
    if std::env::var_os("HULL_ROOT_TESTS").is_none_or(|value| value != "1") {
        return false;
    }
    assert!(rustix::process::geteuid().is_root(), "HULL_ROOT_TESTS=1 needs root");
    for program in ["/usr/sbin/runc", "/usr/bin/crun", "/bin/busybox", "/usr/bin/unshare"] {
        assert!(Path::new(program).exists(), "HULL_ROOT_TESTS=1 needs {program}");
    }
    true
}

fn config(name: &str, path: impl Into<PathBuf>, dir: &Path) -> RuntimeConfig {
    RuntimeConfig {
        name: name.to_owned(),
        path: path.into(),
        root: dir.join("root"),
        cgroups: Some(Cgroups::detect().unwrap()),
        deadlines: Deadlines::default(),
    }
}

fn exec(fixture: &ProgramFixture, exec_id: &str, script: &str) -> ExecRequest {
    let args = ["sh", "-c", script].map(str::to_owned);
    let process = ProcessBuilder::default().args(args).env(["PATH=/bin".to_owned()]).cwd("/");
    ExecRequest {
        id: "a".to_owned(),
        exec_id: exec_id.to_owned(),
        process: process.build().unwrap(),
        work_dir: fixture.work_dir(),
        cgroup: fixture.cgroup("a"),
        timeout: Some(Duration::from_secs(20)),
        max_output: 1 << 16,
    }
}

/// The hierarchies in which the cgroup exists.
fn hierarchies(fixture: &ProgramFixture, name: &str) -> usize {
    let below = fixture.cgroup("a").unwrap().strip_prefix("/").unwrap().join(name);
    let root = std::path::PathBuf::from("/sys/fs/cgroup");
    let top = std::fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path());
    // On version 2 the root is the hierarchy.
    top.chain([root]).filter(|hierarchy| hierarchy.join(&below).is_dir()).count()
}

/// What can be seen of an exec's cgroup from inside and outside.
async fn execs_have_their_own_cgroup(fixture: &ProgramFixture, everywhere: bool) {
    let runtime = fixture.runtime();
    let bundle = fixture.bundle("a").unwrap();
    let create = CreateRequest { id: "a".to_owned(), bundle, systemd_cgroup: false };
    fixture.create(&runtime.create_command(&create)).await.unwrap();
    runtime.start("a").await.unwrap();
    fixture.ready("a").await.unwrap();

    // Where the kernel says it is: it has no cgroup namespace of its own.
    let began = std::time::Instant::now();
    let said = runtime.exec(&exec(fixture, "where", "cat /proc/self/cgroup")).await.unwrap();
    let whole_exec = began.elapsed();
    let said = String::from_utf8(said.stdout).unwrap();
    let own = fixture.cgroup("a").unwrap().join("exec-where");
    let is_own = |line: &&str| line.ends_with(own.to_str().unwrap());
    let found = |controller: &str| {
        let line = said.lines().find(|line| line.split(':').nth(1) == Some(controller));
        line.as_ref().is_some_and(is_own)
    };
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(said.trim_end(), format!("0::{}", own.display()));
    } else {
        assert!(found("pids"), "{said}");
        for controller in ["memory", "cpu", "cpuset", "freezer"] {
            assert_eq!(found(controller), everywhere, "{controller} of\n{said}");
        }
    }
    assert_eq!(hierarchies(fixture, "exec-where"), 0, "the cgroup of an ended exec is removed");

    // What goes on in the background keeps the cgroup, until it has ended and somebody looks.
    runtime.exec(&exec(fixture, "first", "sleep 1 >/dev/null 2>&1 &")).await.unwrap();
    assert!(hierarchies(fixture, "exec-first") > 0);
    runtime.exec(&exec(fixture, "second", "sleep 1.5")).await.unwrap();
    assert_eq!(hierarchies(fixture, "exec-first"), 0);

    // Without a cgroup the process group is killed: long after the runtime has started it, on a slow machine too.
    let before = runtime.ps("a").await.unwrap().len();
    let timeout = Some(Duration::from_millis(500) + 4 * whole_exec);
    let asked = ExecRequest { cgroup: None, timeout, ..exec(fixture, "group", "sleep 1000; true") };
    let answer = runtime.exec(&asked).await;
    assert!(matches!(answer, Err(hull_oci_runtime::Error::TimedOut { .. })), "{answer:?}");
    // Who is not a child of this process is not awaited: it dies a moment later.
    let began = std::time::Instant::now();
    while runtime.ps("a").await.unwrap().len() != before {
        assert!(began.elapsed() < Duration::from_secs(10), "the group survived");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // A runtime that was killed while it started leaves its mount: delete clears it away.
    let state = fixture.root().join("a");
    let (source, stale) = (state.join("source"), state.join("runc.stale"));
    for file in [&source, &stale] {
        std::fs::write(file, "").unwrap();
    }
    rustix::mount::mount_bind(&source, &stale).unwrap();

    if everywhere {
        // runc's way alone.
        rustix::mount::unmount(&stale, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
    runtime.delete(&DeleteRequest { id: "a".to_owned(), force: true }).await.unwrap();
    assert_eq!(fixture.leftovers("a").await, [""; 0]);
}

async fn passes(fixture: ProgramFixture, exec_everywhere: bool) {
    hull_process::reaper::install().unwrap();
    let own = execs_have_their_own_cgroup(&fixture, exec_everywhere);
    tokio::time::timeout(Duration::from_secs(120), own).await.expect("execs and their cgroups hang");
    let report = contract::run(&fixture).await;
    eprintln!("{report}");
    let finished = fixture.finish();
    assert!(report.passed(), "{report}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = |line: &&str| line.contains("/hull-runc-") || line.contains("/hull-crun-");
    assert_eq!(mounts.lines().filter(left).count(), 0, "{mounts}");
    assert_eq!(finished, Ok(()));
}

/// youki is in no distribution: `cargo xtask test --youki` builds it and says where it is.
fn youki() -> Option<PathBuf> {
    let given = std::env::var_os("HULL_YOUKI").map(PathBuf::from);
    if let Some(path) = &given {
        assert!(path.is_file(), "HULL_YOUKI={}: no such file", path.display());
    }
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn on_every_program() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    // One test for all: a process has one reaper, and it lives in one tokio runtime.
    let runc = ProgramFixture::new("runc", |dir| {
        Ok(Arc::new(RuncRuntime::new(config("runc", "/usr/sbin/runc", dir))) as Arc<dyn OciRuntime>)
    });
    passes(runc.unwrap(), false).await;
    let crun = ProgramFixture::new("crun", |dir| {
        Ok(Arc::new(CrunRuntime::new(config("crun", crun_wrapper(dir)?, dir))) as Arc<dyn OciRuntime>)
    });
    passes(crun.unwrap(), true).await;
    let Some(program) = youki() else {
        eprintln!("youki skipped: cargo xtask test --youki builds it");
        return;
    };
    let youki = ProgramFixture::new("youki", |dir| {
        Ok(Arc::new(YoukiRuntime::new(config("youki", program, dir))) as Arc<dyn OciRuntime>)
    });
    passes(youki.unwrap(), true).await;
}
