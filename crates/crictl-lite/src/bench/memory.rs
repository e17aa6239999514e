// SPDX-License-Identifier: Apache-2.0
//! What a daemon and its helpers hold in memory, as proportional set size: pages that several processes
//! share count in parts, so that the sum over processes is what they really take.
//!
//! Helpers are the processes that live beside each container: those whose command line bears one of our
//! ids and whose name is a monitor's. Processes inside containers are the workload's, not the runtime's.

use std::fs;
use std::path::Path;

use tokio::net::UnixStream;

use crate::error::Error;

/// Names (as the kernel cuts them, at 15 bytes) of the helpers that CRI runtimes start.
const HELPERS: [&str; 4] = ["conmon", "conmonrs", "containerd-shim", "hull"];

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Of the daemon, in KiB.
    pub(crate) daemon: u64,
    /// Of all helpers of the pods that were there, in KiB.
    pub(crate) helpers: u64,
    /// How many pods had a started container.
    pub(crate) pods: usize,
}

/// The process that listens on `socket`.
pub(crate) async fn listener(socket: &str) -> Result<u32, Error> {
    let what = || format!("ask who listens on {socket}");
    let stream = UnixStream::connect(socket).await.map_err(|cause| Error::Io { what: what(), cause })?;
    let peer = stream.peer_cred().map_err(|cause| Error::Io { what: what(), cause })?;
    peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0).ok_or_else(|| Error::Io {
        what: what(),
        cause: std::io::Error::other("the kernel names no process; it is in another PID namespace"),
    })
}

/// Looks at the daemon and at the helpers of `ids`, one or two for each pod.
pub(crate) async fn sample(daemon: u32, ids: Vec<String>, pods: usize) -> Result<Sample, String> {
    // Reading another process's memory map takes its lock and some milliseconds.
    tokio::task::spawn_blocking(move || {
        let own = pss(Path::new("/proc"), daemon)?;
        let helpers = helpers(Path::new("/proc"), daemon, &ids);
        // One that has ended since holds nothing.
        let sum = helpers.into_iter().map(|pid| pss(Path::new("/proc"), pid).unwrap_or(0)).sum();
        Ok(Sample { daemon: own, helpers: sum, pods })
    })
    .await
    .map_err(|error| error.to_string())?
}

fn pss(proc: &Path, pid: u32) -> Result<u64, String> {
    let path = proc.join(pid.to_string()).join("smaps_rollup");
    let text = fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("{} has no Pss line", path.display()))
}

fn helpers(proc: &Path, daemon: u32, ids: &[String]) -> Vec<u32> {
    if ids.is_empty() {
        return Vec::new();
    }
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            if pid == daemon || !HELPERS.contains(&name.trim_end()) {
                return None;
            }
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line);
            ids.iter().any(|id| line.contains(id.as_str())).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_listener_is_found_by_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(listener(path.to_str().unwrap()).await.unwrap(), std::process::id());
        let missing = listener("/no/such/socket").await.unwrap_err().to_string();
        assert!(missing.contains("/no/such/socket"), "{missing}");
    }

    #[tokio::test]
    async fn our_own_memory_is_more_than_nothing() {
        let sample = sample(std::process::id(), vec!["no-such-id".into()], 3).await.unwrap();
        assert!(sample.daemon > 0 && sample.helpers == 0 && sample.pods == 3);
    }

    #[test]
    fn helpers_bear_an_id_and_a_monitors_name() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, name: &str, line: &str| {
            let dir = proc.path().join(pid);
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("comm"), format!("{name}\n")).unwrap();
            fs::write(dir.join("cmdline"), line.replace(' ', "\0")).unwrap();
        };
        process("10", "hull", "hull serve");
        process("11", "conmon", "conmon --cid=abc");
        process("12", "conmon", "conmon --cid=other");
        process("13", "sleep", "sleep abc");
        process("14", "containerd-shim", "containerd-shim-runc-v2 -id abc");
        process("self", "conmon", "conmon --cid=abc");
        let mut found = helpers(proc.path(), 10, &["abc".to_owned()]);
        found.sort_unstable();
        assert_eq!(found, [11, 14]);
        assert!(helpers(proc.path(), 10, &[]).is_empty());
    }
}
