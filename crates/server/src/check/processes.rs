// SPDX-License-Identifier: Apache-2.0
//! Monitors of this daemon, and who lives in a namespace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hull_process::ProcessId;

use super::look::is_id;

/// A conmon whose files are in this daemon's directories.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    pub(super) id: String,
    pub(super) process: ProcessId,
}

/// Every one of them.
pub(super) fn monitors(conmon: &Path, root: &Path, run_root: &Path) -> Vec<Monitor> {
    let Some(program) = conmon.file_name() else { return Vec::new() };
    let ours = [root, run_root].map(|dir| format!("={}/", dir.display()));
    let mut found = Vec::new();
    for pid in pids() {
        // Taken before the rest is read: a recycled pid then is another process.
        let Some(process) = ProcessId::of(pid) else { continue };
        let arguments = arguments(pid);
        let is_conmon = arguments
            .first()
            .is_some_and(|first| Path::new(first).file_name().is_some_and(|name| name == program));
        let id = arguments.iter().find_map(|argument| argument.strip_prefix("--cid=")).filter(|id| is_id(id));
        let Some(id) = id.filter(|_| is_conmon) else { continue };
        if arguments.iter().any(|argument| ours.iter().any(|part| argument.contains(part.as_str()))) {
            found.push(Monitor { id: id.to_owned(), process });
        }
    }
    found
}

/// The processes in the network namespace that is pinned at a path.
pub(super) fn in_netns(path: &Path) -> Vec<i32> {
    let Ok(pinned) = fs::metadata(path) else { return Vec::new() };
    let is_there = |pid: &i32| {
        let link = format!("/proc/{pid}/ns/net");
        fs::metadata(link).is_ok_and(|it| it.ino() == pinned.ino() && it.dev() == pinned.dev())
    };
    pids().into_iter().filter(is_there).collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
