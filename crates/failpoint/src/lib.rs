// SPDX-License-Identifier: Apache-2.0
//! Named points where tests inject faults.
//!
//! A point is written where something may go wrong or where the daemon may die: at every write,
//! spawn, mount and network step. In what users run the points compile to nothing; the test suites
//! switch on the feature `enabled`.
//!
//! ```text
//! HULL_FAILPOINTS       = rule { ";" rule }
//! rule                  = name "=" term { "->" term }     terms are used up from left to right
//! term                  = [ count "*" ] action            without a count: for ever
//! action                = "off" | "error(" text ")" | "errno(" name ")" | "enospc" | "delay(" number ( "ms" | "s" ) ")" | "kill"
//! HULL_FAILPOINTS_TRACE = path                            every name hit is appended, one a line
//! ```
//!
//! `record.write.rename=2*off->kill` lets the point pass twice and then kills the process with SIGKILL;
//! `oci.start.spawn=1*error(x)->2*delay(500ms)` fails once and is slow twice. The daemon's configuration takes the
//! same text under the key `failpoints`, in builds that have them; rules of the environment come first, those of
//! the configuration replace them name by name.

/// Marks a point; evaluates to `io::Result<()>`: the injected error, or `Ok`.
///
/// A `delay` blocks the calling thread: write it where blocking is allowed, or use
/// [`failpoint_async!`].
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        $crate::hit($name)
    };
}

/// As [`failpoint!`], for async code: a `delay` does not block the thread.
#[macro_export]
macro_rules! failpoint_async {
    ($name:expr) => {
        $crate::hit_async($name).await
    };
}

#[cfg(not(feature = "enabled"))]
mod points {
    use std::io;

    use crate::rule::{ParseError, parse_rules};

    /// Reads the rules, and does nothing with them.
    ///
    /// # Errors
    /// [`ParseError`] when `text` is not in the mini-language.
    pub fn configure(text: &str) -> Result<(), ParseError> {
        parse_rules(text).map(drop)
    }

    /// A point that was not compiled in: always passes.
    #[inline(always)]
    pub fn hit(_name: &str) -> io::Result<()> {
        Ok(())
    }

    /// A point that was not compiled in: always passes.
    #[inline(always)]
    #[expect(clippy::unused_async, reason = "same shape as the point that is compiled in")]
    pub async fn hit_async(_name: &str) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "enabled")]
mod points;

mod rule;

pub use points::*;
pub use rule::{Action, ParseError, Rule, parse_rules};

/// Whether the points are compiled in.
pub const ENABLED: bool = cfg!(feature = "enabled");
