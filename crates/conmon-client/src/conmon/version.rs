// SPDX-License-Identifier: Apache-2.0
//! conmon's version, asked once.

use std::path::Path;
use std::time::Duration;

use hull_process::{Command, Limits};
use tokio::sync::OnceCell;

use crate::{Error, Result, words};

/// A version, `2.1.6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third.
    pub patch: u32,
}

impl Version {
    /// From here on conmon ignores terminal sizes above 1000.
    pub(super) const BOUNDS_SIZES: Self = Self { major: 2, minor: 2, patch: 0 };
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The version, once it is known.
#[derive(Debug, Default)]
pub(super) struct Cache(OnceCell<Version>);

impl Cache {
    pub(super) async fn get(&self, program: &Path) -> Result<Version> {
        self.0.get_or_try_init(|| ask(program)).await.copied()
    }
}

async fn ask(program: &Path) -> Result<Version> {
    let context = || format!("ask {} for its version", program.display());
    hull_failpoint::failpoint_async!("monitor.version.spawn").map_err(Error::io(context()))?;
    let limits =
        Limits { deadline: Duration::from_secs(5), max_output: 4096, drain: Duration::from_millis(100) };
    let output = Command::new(program)
        .arg("--version")
        .output(None, limits)
        .await
        .map_err(Error::process(context()))?;
    parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| Error::Io {
        context: context(),
        source: std::io::Error::other(format!("it answered {:?}", words::on_one_line(&output.stdout))),
    })
}

/// Reads `conmon version 2.1.6` with more after it.
fn parse(text: &str) -> Option<Version> {
    let word = text.lines().next()?.split_ascii_whitespace().nth(2)?;
    let mut numbers = word.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some(Version { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_versions() {
        let of = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(parse("conmon version 2.1.6\ncommit: unknown\n"), of(2, 1, 6));
        assert_eq!(parse("conmon version 2.2.0-dev\n"), of(2, 2, 0));
        assert_eq!(parse("conmon version 3.0\n"), of(3, 0, 0));
        assert_eq!(parse("sh: not found"), None);
        assert!(of(2, 1, 13) < Some(Version::BOUNDS_SIZES));
    }

    proptest! {
        #[test]
        fn round_trips(major in 0..99u32, minor in 0..99u32, patch in 0..99u32) {
            let version = Version { major, minor, patch };
            prop_assert_eq!(parse(&format!("conmon version {version}\n")), Some(version));
        }
    }
}
