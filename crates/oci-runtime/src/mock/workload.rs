// SPDX-License-Identifier: Apache-2.0
//! How a simulated container behaves: annotations in its bundle's `config.json`.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Error, ProgramFault, Result};

/// The process ends with this code right after `start`.
pub const EXIT_CODE: &str = "io.hull.mock.exit-code";
/// `true`: only SIGKILL ends it; SIGTERM does nothing.
pub const IGNORE_TERM: &str = "io.hull.mock.ignore-term";
/// At start, one line with this text is appended to the log file.
pub const LOG: &str = "io.hull.mock.log";
/// `not-found`, `not-executable` or `working-directory`: what keeps the process from running; create is refused.
pub const PROGRAM_FAULT: &str = "io.hull.mock.program-fault";

/// What the simulated process does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Workload {
    pub(super) exit_code: Option<i32>,
    pub(super) ignore_term: bool,
    pub(super) log: Option<String>,
    /// Known before the container is: never saved.
    #[serde(skip)]
    pub(super) program_fault: Option<ProgramFault>,
}

impl Workload {
    /// Reads a bundle; fails where a runtime would.
    pub(super) fn of_bundle(bundle: &Path) -> Result<Self> {
        let path = bundle.join("config.json");
        let bytes =
            std::fs::read(&path).map_err(|error| refused(format!("open {}: {error}", path.display())))?;
        let config: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| {
            refused(format!("{} is not a container configuration: {error}", path.display()))
        })?;
        let annotation = |key: &str| config.get("annotations")?.get(key)?.as_str();
        let exit_code = match annotation(EXIT_CODE) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| refused(format!("annotation {EXIT_CODE}={text} is not a number")))?,
            ),
        };
        let program_fault = match annotation(PROGRAM_FAULT) {
            None => None,
            Some("not-found") => Some(ProgramFault::NotFound),
            Some("not-executable") => Some(ProgramFault::NotExecutable),
            Some("working-directory") => Some(ProgramFault::WorkingDirectory),
            Some(text) => return Err(refused(format!("annotation {PROGRAM_FAULT}={text} is not known"))),
        };
        Ok(Self {
            exit_code,
            program_fault,
            ignore_term: annotation(IGNORE_TERM) == Some("true"),
            log: annotation(LOG).map(str::to_owned),
        })
    }
}

/// One line of a CRI log: `<RFC3339Nano> stdout F TEXT`.
pub(super) fn log_line(at: SystemTime, text: &str) -> String {
    format!("{} stdout F {text}\n", rfc3339(at))
}

/// `2026-01-31T23:59:59.000000001Z`. Times before 1970 are told as 1970.
pub(super) fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn refused(stderr: String) -> Error {
    Error::Failed {
        runtime: "mock".to_owned(),
        operation: "create",
        status: "exit code 1".to_owned(),
        stderr,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tells_times_as_logs_do() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 1, "2000-02-28T23:59:59.000000001Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
            (1_767_225_599, 999_999_999, "2025-12-31T23:59:59.999999999Z"),
            (1_767_225_600, 0, "2026-01-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::new(seconds, nanos)), text);
        }
    }

    #[test]
    fn reads_annotations_and_refuses_what_a_runtime_would() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let missing = Workload::of_bundle(dir.path()).unwrap_err().to_string();
        assert!(missing.contains(config.to_str().unwrap()), "{missing}");
        std::fs::write(&config, "{").unwrap();
        assert!(Workload::of_bundle(dir.path()).is_err());
        std::fs::write(&config, "{}").unwrap();
        assert_eq!(Workload::of_bundle(dir.path()).unwrap(), Workload::default());
        let text = r#"{"annotations":{"io.hull.mock.exit-code":"3","io.hull.mock.ignore-term":"true",
            "io.hull.mock.log":"hello"}}"#;
        std::fs::write(&config, text).unwrap();
        let told = Workload {
            exit_code: Some(3),
            ignore_term: true,
            log: Some("hello".to_owned()),
            program_fault: None,
        };
        assert_eq!(Workload::of_bundle(dir.path()).unwrap(), told);
    }
}
