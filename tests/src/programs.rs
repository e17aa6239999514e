// SPDX-License-Identifier: Apache-2.0
//! Where the programs are.

use std::path::{Path, PathBuf};

/// A program of this workspace, from the build that the running test is of: `target/PROFILE/NAME` for a
/// test that is `target/PROFILE/deps/TEST-HASH`.
///
/// # Panics
/// When it is not there.
pub fn program(name: &str) -> PathBuf {
    let dir = build_dir();
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it with the tests, `cargo build --workspace --all-targets`",
        path.display()
    );
    path
}

/// `target/PROFILE` of the build that the running test is of.
pub(crate) fn build_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let mut dirs = test.ancestors().skip(1);
    let is_inner = |dir: &Path| dir.file_name().is_some_and(|name| name == "deps" || name == "examples");
    dirs.find(|dir| !is_inner(dir)).expect("a directory above the test").to_owned()
}

/// A program of the machine, from PATH or the administrator's directories.
///
/// # Panics
/// When it is not installed.
pub fn tool(name: &str) -> PathBuf {
    find_tool(name)
        .unwrap_or_else(|| panic!("{name} is not installed; `cargo xtask test` installs what is missing"))
}

pub(crate) fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Compiles `tests/programs/syscall-probe.c`, which makes system calls through every interface of the processor.
///
/// # Panics
/// When there is no C compiler, which linking Rust programs needs, too.
#[cfg(target_arch = "x86_64")]
pub fn syscall_probe(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/syscall-probe.c");
    let probe = dir.join("syscall-probe");
    let options = ["-O1", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-no-pie", "-o"];
    let compiled = std::process::Command::new(tool("cc")).args(options).arg(&probe).arg(&source).output();
    let compiled = compiled.expect("run cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    probe
}
