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
