// SPDX-License-Identifier: Apache-2.0
//! How a session ended, as the client is told on its error stream.
//!
//! | protocol | success | failure |
//! |---|---|---|
//! | v1 to v3 | nothing | the message as plain text |
//! | v4, v5 | `{"metadata":{},"status":"Success"}` | one `metav1.Status`; an exit code is a cause `ExitCode` |

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

/// How an exec or attach ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitStatus {
    /// The process exited: its code, or 128 and the signal's number. For attach every code is success: the
    /// container's exit code is not the session's.
    Code(u8),
    /// Something else went wrong. The client's user reads the message.
    Failed {
        /// What, in words for the user.
        message: String,
    },
    /// It took longer than it may.
    TimedOut {
        /// The limit.
        after: Duration,
    },
}

impl ExitStatus {
    /// For the log.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Code(code) => format!("exit code {code}"),
            Self::Failed { message } => message.clone(),
            Self::TimedOut { after } => format!("timed out after {after:?}"),
        }
    }

    /// A failure with its message.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into() }
    }
}

/// What the error stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Protocol v1 to v3.
    Text,
    /// Protocol v4 and later.
    Json,
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

/// What goes onto the error stream; empty: nothing.
pub(crate) fn encode(status: &ExitStatus, format: Format) -> Bytes {
    let (message, reason, code, exit) = match status {
        ExitStatus::Code(0) => {
            return match format {
                Format::Text => Bytes::new(),
                Format::Json => Bytes::from_static(br#"{"metadata":{},"status":"Success"}"#),
            };
        }
        ExitStatus::Code(exit) => {
            let message = format!("command terminated with non-zero exit code {exit}");
            (message, "NonZeroExitCode", None, Some(*exit))
        }
        ExitStatus::Failed { message } => {
            (format!("Internal error occurred: {message}"), "InternalError", Some(500), None)
        }
        ExitStatus::TimedOut { after } => (format!("timed out after {after:?}"), "Timeout", Some(504), None),
    };
    if format == Format::Text {
        return message.into();
    }
    let details =
        exit.map(|exit| Details { causes: [Cause { reason: "ExitCode", message: exit.to_string() }] });
    let (metadata, message, reason) = (Empty {}, Some(message.as_str()), Some(reason));
    let status = Status { metadata, status: "Failure", message, reason, details, code };
    // Strings and numbers always serialise; a failure would still tell that something is wrong.
    serde_json::to_vec(&status).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_what_clients_parse() {
        let failed = ExitStatus::failed("no such container");
        let late = ExitStatus::TimedOut { after: Duration::from_secs(3) };
        for (status, text, json) in [
            (ExitStatus::Code(0), "", r#"{"metadata":{},"status":"Success"}"#),
            (
                ExitStatus::Code(137),
                "command terminated with non-zero exit code 137",
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code 137","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"137"}]}}"#,
            ),
            (
                failed,
                "Internal error occurred: no such container",
                r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no such container","reason":"InternalError","code":500}"#,
            ),
            (
                late,
                "timed out after 3s",
                r#"{"metadata":{},"status":"Failure","message":"timed out after 3s","reason":"Timeout","code":504}"#,
            ),
        ] {
            assert_eq!(encode(&status, Format::Text), text);
            assert_eq!(encode(&status, Format::Json), json);
        }
    }
}
