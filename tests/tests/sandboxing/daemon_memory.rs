// SPDX-License-Identifier: Apache-2.0
//! The daemon's memory holds secrets: nobody without CAP_SYS_PTRACE traces it, and no core dump has it.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use hull_tests::{Setup, program, root_tests_enabled, tool};

/// Runs a program as root without CAP_SYS_PTRACE.
fn without_ptrace() -> Command {
    let mut command = Command::new(tool("setpriv"));
    command.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--"]);
    command
}

/// The kernel shows a process's program to those who may trace it.
fn is_traceable(pid: u32) -> bool {
    let mut command = without_ptrace();
    command.arg("readlink").arg(format!("/proc/{pid}/exe")).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned()
}

#[tokio::test]
async fn the_daemon_is_not_dumpable_and_keeps_its_limits() {
    if !root_tests_enabled() {
        return;
    }
    // Without it like the readers: who has more capabilities is never readable for those who have less.
    let setup = Setup::mock();
    let script = setup.dir().join("hull-without-ptrace");
    let text = format!(
        "#!/bin/sh\nexec {} --bounding-set -sys_ptrace --inh-caps -sys_ptrace -- {} \"$@\"\n",
        tool("setpriv").display(),
        program("hull").display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut daemon = setup.program(&script).start().await;
    let pid = daemon.pid().unwrap();

    let mut command = without_ptrace();
    command.args(["sh", "-c", "echo; read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut other = command.spawn().unwrap();
    let mut started = [0];
    other.stdout.as_mut().unwrap().read_exact(&mut started).unwrap();
    let traceable = (is_traceable(other.id()), is_traceable(pid));
    // The end of its input ends it.
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(traceable, (true, false), "another process of this kind, and the daemon");
    // What it starts inherits its limits: a container that dumps core is the container's business.
    assert_eq!(core_limit(pid), core_limit(std::process::id()));
    daemon.stop().await;
}
