// SPDX-License-Identifier: Apache-2.0
//! The sync pipe: how conmon tells what became of the create.
//!
//! ```text
//! {"pid": 4711}\n
//! {"pid": -1, "message": "time=... level=error msg=\"...\"\n"}\n
//! <end of file>              it failed, for a reason nobody told
//! ```
//! In a message conmon escapes quotes, backslashes and control characters; bytes from 0x80 on pass as
//! they are, so the text need not be UTF-8. The pipe stays open until conmon ends; after the first line
//! nothing more is read.

use std::io;
use std::os::fd::OwnedFd;

use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::words;

/// The longest line that is read; conmon's own are below 64 KiB.
const LONGEST: usize = 256 * 1024;

/// What conmon reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The container's process.
    Created(i32),
    /// The runtime's words, reduced to its error; `None` if there were none.
    Failed(Option<String>),
}

/// The read end.
#[derive(Debug)]
pub(super) struct SyncPipe {
    receiver: Receiver,
    buffer: Vec<u8>,
}

impl SyncPipe {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(read_end: OwnedFd) -> io::Result<Self> {
        Ok(Self { receiver: Receiver::from_owned_fd(read_end)?, buffer: Vec::new() })
    }

    /// The first line without its end, or what came before the end of file; `None` if nothing came.
    /// Cancel-safe.
    pub(super) async fn first_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffer[..end].to_vec()));
            }
            if self.buffer.len() > LONGEST {
                return Ok(Some(std::mem::take(&mut self.buffer)));
            }
            if self.receiver.read_buf(&mut self.buffer).await? == 0 {
                return Ok((!self.buffer.is_empty()).then(|| std::mem::take(&mut self.buffer)));
            }
        }
    }
}

/// Reads one line; the error is what is wrong with it.
pub(super) fn parse(line: &[u8]) -> Result<Report, String> {
    #[derive(Deserialize)]
    struct Object {
        pid: i64,
        #[serde(default)]
        message: String,
    }
    let text = String::from_utf8_lossy(line);
    let object: Object = serde_json::from_str(&text)
        .map_err(|error| format!("answered what cannot be read ({error}): {:?}", excerpt(&text)))?;
    match i32::try_from(object.pid) {
        Ok(pid) if pid > 1 => Ok(Report::Created(pid)),
        _ if object.pid < 0 => Ok(Report::Failed(words::last_error(object.message.as_bytes()))),
        _ => Err(format!("answered the impossible process id {}", object.pid)),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_conmon_writes() {
        assert_eq!(parse(br#"{"pid": 29927}"#), Ok(Report::Created(29927)));
        let failed = br#"{"pid": -1, "message": "time=\"t\" level=error msg=\"runc create failed: no\"\n"}"#;
        assert_eq!(parse(failed), Ok(Report::Failed(Some("runc create failed: no".into()))));
        assert_eq!(parse(br#"{"pid": -1}"#), Ok(Report::Failed(None)));
        let binary = b"{\"pid\": -1, \"message\": \"caf\xe9 \\u0007\"}";
        assert_eq!(parse(binary), Ok(Report::Failed(Some("caf\u{fffd} \\u{7}".into()))));
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for line in
            ["", "hello", "{}", "{\"pid\": \"4\"}", "{\"pid\": 0}", "{\"pid\": 1}", "{\"pid\": 99999999999}"]
        {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_pid_comes_back(pid in 2..i32::MAX) {
            prop_assert_eq!(parse(format!("{{\"pid\": {pid}}}").as_bytes()), Ok(Report::Created(pid)));
        }
    }

    #[tokio::test]
    async fn a_line_in_pieces_is_one_line() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut pipe = SyncPipe::new(read).unwrap();
        rustix::io::write(&write, b"{\"pid\":").unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), pipe.first_line()).await;
        assert!(early.is_err(), "half a line is no answer");
        rustix::io::write(&write, b" 7}\nmore").unwrap();
        assert_eq!(pipe.first_line().await.unwrap().as_deref(), Some(&b"{\"pid\": 7}"[..]));
    }
}
