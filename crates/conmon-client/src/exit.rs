// SPDX-License-Identifier: Apache-2.0
//! How a container's process ended, asked of whoever still knows.
//!
//! ```text
//! pidfd readable --> monitor's end (bounded) --> exit file? --yes--> ExitFile
//!                                                   | no
//!                                                   v
//!                      noted earlier? kernel's word for the pidfd? our child? a zombie? --> Kernel
//!                                                   | no
//!                                                   v
//!                                               Unknown, 255
//! ```
//! What the kernel told is noted in a file, because it tells only those who held the process when it
//! was reaped: a later `wait`, or a later daemon, must get the same answer.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hull_failpoint::failpoint;
use hull_oci_runtime::{Exit, ExitSource};
use hull_process::{ExitStatus, Pidfd, reaper};
use hull_record::{Durability, write_atomic};

use crate::ProcessId;
use crate::files::Files;

/// The code of a process whose end nobody saw.
pub(crate) const UNKNOWN_CODE: i32 = 255;

/// How long is waited for an ended process to be reaped by its new parent, after which the kernel
/// tells how it ended.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

/// How the ended process did. `held`: the process, if it was held before it was reaped.
pub(crate) async fn of(files: &Files, process: ProcessId, held: Option<&Pidfd>) -> Exit {
    let oom = files.ooms().iter().any(|marker| marker.exists());
    if let Some((code, at)) = files.exits().iter().find_map(|file| read(file)) {
        return Exit { code, at, oom, source: ExitSource::ExitFile };
    }
    if let Some((code, at)) = read(&files.kernel_exit()) {
        return Exit { code, at, oom, source: ExitSource::Kernel };
    }
    let at = SystemTime::now();
    let Some(status) = ask_kernel(process, held).await else {
        return Exit { code: UNKNOWN_CODE, at, oom, source: ExitSource::Unknown };
    };
    note(files, status.code());
    Exit { code: status.code(), at, oom, source: ExitSource::Kernel }
}

/// A code and when its file was written; `None` if there is no such file or it makes no sense (a full
/// disk leaves an empty one).
fn read(file: &Path) -> Option<(i32, SystemTime)> {
    let code = parse(&fs::read_to_string(file).ok()?)?;
    let metadata = fs::metadata(file).ok()?;
    // The change time is that of the rename that put the finished file there.
    let since_epoch =
        Duration::new(metadata.ctime().try_into().ok()?, metadata.ctime_nsec().try_into().ok()?);
    Some((code, SystemTime::UNIX_EPOCH + since_epoch))
}

/// conmon writes 0 to 255, and -1 where it knows nothing.
fn parse(text: &str) -> Option<i32> {
    let code: i32 = text.trim().parse().ok()?;
    Some(if (0..=255).contains(&code) { code } else { UNKNOWN_CODE })
}

fn note(files: &Files, code: i32) {
    let path = files.kernel_exit();
    let written = failpoint!("monitor.exit.note")
        .and_then(|()| write_atomic(&path, code.to_string().as_bytes(), 0o600, Durability::Process));
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "the exit code could not be noted");
    }
}

/// Asks the kernel: for a process that was reaped, through its pidfd; for a zombie, through its `stat`;
/// for one that became our child, by the reaper.
async fn ask_kernel(process: ProcessId, held: Option<&Pidfd>) -> Option<ExitStatus> {
    if let Some(status) = held.and_then(Pidfd::exit_status).or_else(|| zombie_status(process)) {
        return Some(status);
    }
    if reaper::is_installed()
        && let Some(status) = reaper::adopted(process.pid, Some(REAPED_WITHIN)).await
    {
        return Some(status);
    }
    reaped(process, held?).await
}

/// The status from a held process that has ended and is about to be reaped, or is a zombie for longer.
///
/// A pidfd is readable at the end and stays so: being reaped is no event that could be awaited. So this
/// looks again, ever more seldom, for at most [`REAPED_WITHIN`].
async fn reaped(process: ProcessId, pidfd: &Pidfd) -> Option<ExitStatus> {
    let start = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = pidfd.exit_status().or_else(|| zombie_status(process)) {
            return Some(status);
        }
        if start.elapsed() > REAPED_WITHIN || !process_exists(process) {
            return pidfd.exit_status();
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

fn process_exists(process: ProcessId) -> bool {
    hull_process::ProcessId::of(process.pid).is_some_and(|now| now.start_time == process.start_time)
}

/// The wait status that a zombie's `/proc/PID/stat` shows (field 52; privileged readers only).
fn zombie_status(process: ProcessId) -> Option<ExitStatus> {
    let stat = fs::read(format!("/proc/{}/stat", process.pid)).ok()?;
    parse_zombie(&String::from_utf8_lossy(&stat), process.start_time)
}

fn parse_zombie(stat: &str, start_time: u64) -> Option<ExitStatus> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Counted from field 3, the state: 22 is the start time, 52 the exit code.
    let is_same = fields.get(19)?.parse::<u64>().ok()? == start_time;
    (fields.first() == Some(&"Z") && is_same).then_some(())?;
    let status: i32 = fields.get(49)?.parse().ok()?;
    Some(match status & 0x7f {
        0 => ExitStatus::Exited((status >> 8) & 0xff),
        signal => ExitStatus::Signaled(signal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_exit_files() {
        for (text, expected) in [
            ("0", Some(0)),
            ("137\n", Some(137)),
            ("-1", Some(255)),
            ("999", Some(255)),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn reads_a_zombies_status() {
        let mut fields = vec!["0"; 50];
        fields[0] = "Z";
        fields[19] = "77";
        fields[49] = "1792"; // 7 << 8
        let line = |fields: &[&str]| format!("5 (a) b) {}", fields.join(" "));
        assert_eq!(parse_zombie(&line(&fields), 77), Some(ExitStatus::Exited(7)));
        assert_eq!(parse_zombie(&line(&fields), 78), None);
        fields[49] = "137"; // SIGKILL with a core bit
        assert_eq!(parse_zombie(&line(&fields), 77), Some(ExitStatus::Signaled(9)));
        fields[0] = "S";
        assert_eq!(parse_zombie(&line(&fields), 77), None);
    }

    proptest! {
        #[test]
        fn every_code_survives_its_file(code in 0..=255i32) {
            let dir = tempfile::tempdir().unwrap();
            let files = Files::new("c", dir.path(), dir.path());
            note(&files, code);
            prop_assert_eq!(read(&files.kernel_exit()).map(|found| found.0), Some(code));
        }

        #[test]
        fn no_exit_file_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
            let _ = parse_zombie(&text, 1);
        }
    }
}
