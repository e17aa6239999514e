// SPDX-License-Identifier: Apache-2.0
//! One connection to the system bus.
//!
//! ```text
//! -> NUL AUTH EXTERNAL <uid in hex> CRLF      <- OK <guid> CRLF      -> BEGIN CRLF
//! -> Hello, then calls                        <- replies by serial, signals in between
//! ```

pub(crate) mod wire;

use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::{Error, Result};
use wire::{Body, Call, FIXED, Message};

/// The longest line of the authentication that is read.
const LONGEST_LINE: u64 = 1024;
/// Signals that may come before the reply they belong to.
const MOST_SIGNALS: usize = 1024;

/// The bus's own address for itself.
pub(crate) const BUS: Peer<'static> =
    Peer { name: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// Where methods are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
}

/// A connection that has been let in.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Signals that came while a reply was awaited, in order.
    signals: Vec<Message>,
}

impl Bus {
    /// Connects, and says hello without waiting for the answer.
    pub(crate) async fn connect(path: &Path) -> Result<Self> {
        let unreachable = |source| Error::Unreachable { path: path.to_owned(), source };
        hull_failpoint::failpoint_async!("systemd.bus.connect").map_err(unreachable)?;
        let stream = UnixStream::connect(path).await.map_err(unreachable)?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0, signals: Vec::new() };
        bus.authenticate().await?;
        Ok(bus)
    }

    async fn authenticate(&mut self) -> Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.write(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
        let mut answer = String::new();
        let read = (&mut self.stream).take(LONGEST_LINE).read_line(&mut answer).await;
        read.map_err(|source| Error::Io { step: "authenticating", source })?;
        if !answer.starts_with("OK ") {
            return Err(Error::Unauthorised { answer: answer.trim_end().to_owned() });
        }
        self.write(b"BEGIN\r\n").await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.stream.get_mut().write_all(bytes).await;
        written.map_err(|source| Error::Io { step: "writing", source })
    }

    /// Sends a call; its serial.
    pub(crate) async fn send(&mut self, peer: Peer<'_>, member: &str, body: Body) -> Result<u32> {
        self.serial += 1;
        let call = Call { destination: peer.name, path: peer.path, interface: peer.interface, member, body };
        let bytes = call.bytes(self.serial);
        self.write(&bytes).await?;
        Ok(self.serial)
    }

    /// Waits for the reply to one of our calls; an error of an earlier one, whose reply nobody waits for, comes first.
    pub(crate) async fn reply(&mut self, serial: u32) -> Result<Message> {
        loop {
            let message = self.receive().await?;
            match (message.kind, message.reply_to) {
                (2, Some(to)) if to == serial => return Ok(message),
                (3, Some(to)) if to <= serial => {
                    let text = message.text(0).unwrap_or("no reason is given").to_owned();
                    let name = message.error.unwrap_or_default();
                    // Who called knows what for.
                    return Err(Error::Refused { method: "", unit: String::new(), name, message: text });
                }
                (4, _) if self.signals.len() < MOST_SIGNALS => self.signals.push(message),
                (4, _) => return Err(Error::Garbled { problem: "more signals come than can be" }),
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(crate) async fn signal(&mut self) -> Result<Message> {
        if !self.signals.is_empty() {
            return Ok(self.signals.remove(0));
        }
        loop {
            let message = self.receive().await?;
            if message.kind == 4 {
                return Ok(message);
            }
        }
    }

    async fn receive(&mut self) -> Result<Message> {
        let failed = |source| Error::Io { step: "reading", source };
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed).await.map_err(failed)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(wire::whole_length(&fixed)?, 0);
        if let Some(rest) = bytes.get_mut(FIXED..) {
            self.stream.read_exact(rest).await.map_err(failed)?;
        }
        wire::parse(&bytes)
    }
}
