// SPDX-License-Identifier: Apache-2.0
//! systemd's manager: transient units, started and stopped as jobs.
//!
//! ```text
//! Hello, AddMatch(JobRemoved), Subscribe, StartTransientUnit   sent at once
//!        <- the job's path                                     the method's reply
//!        <- JobRemoved(id, path, unit, "done")                 the signal that is waited for
//! ```
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html>

use std::path::PathBuf;
use std::time::Duration;

use crate::bus::wire::{Body, Writer};
use crate::bus::{BUS, Bus, Peer};
use crate::{Error, Result};

const MANAGER: Peer<'static> = Peer {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// systemd, by the system bus. Nothing is connected between calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Systemd {
    socket: PathBuf,
    deadline: Duration,
}

/// A scope to be made of processes that run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// `NAME.scope`.
    pub name: String,
    /// The slice it is put into; systemd makes it where it is missing.
    pub slice: String,
    /// For people.
    pub description: String,
    /// Who is moved into it.
    pub pids: Vec<u32>,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// A text.
    Text(&'static str, String),
    /// Yes or no.
    Switch(&'static str, bool),
    /// A number; `u64::MAX` is "infinity".
    Number(&'static str, u64),
    /// Process ids.
    Pids(&'static str, Vec<u32>),
    /// A set of small numbers, of processors for example.
    Set(&'static str, Vec<u16>),
}

impl Default for Systemd {
    fn default() -> Self {
        Self::new()
    }
}

impl Systemd {
    /// The one of this machine. Connects to nothing yet.
    pub fn new() -> Self {
        Self::at("/run/dbus/system_bus_socket")
    }

    /// By another bus's socket: for tests.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), deadline: Duration::from_secs(30) }
    }

    /// Gives calls another deadline than half a minute.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Asks it for its version: whether it is there at all.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Unauthorised`], [`Error::Refused`], [`Error::TimedOut`].
    pub async fn probe(&self) -> Result<()> {
        let peer = Peer { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
        let body = Body::strings(&[MANAGER.interface, "Version"]);
        self.plain("Get", "the manager", peer, body).await
    }

    /// Makes a scope and moves its processes there. They are there when this returns.
    ///
    /// A scope of the same name, which an earlier attempt left, is stopped first: names derive from ids.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Refused`] for a process that is gone; [`Error::Job`].
    pub async fn start_scope(&self, scope: &Scope) -> Result<()> {
        let properties = [
            Property::Text("Description", scope.description.clone()),
            Property::Text("Slice", scope.slice.clone()),
            Property::Switch("Delegate", true),
            Property::Switch("DefaultDependencies", false),
            // A scope that ended badly is not kept: nobody would ask for it, and the next one could not have its name.
            Property::Text("CollectMode", "inactive-or-failed".to_owned()),
            Property::Pids("PIDs", scope.pids.clone()),
        ];
        match self.start(&scope.name, &properties).await {
            Err(Error::Refused { name, .. }) if name == UNIT_EXISTS => {
                self.stop(&scope.name).await?;
                self.start(&scope.name, &properties).await
            }
            answer => answer,
        }
    }

    /// Makes a slice; one that is there is a success.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Refused`], [`Error::Job`].
    pub async fn start_slice(&self, name: &str, description: &str) -> Result<()> {
        let properties = [
            Property::Text("Description", description.to_owned()),
            Property::Switch("DefaultDependencies", false),
            Property::Switch("CPUAccounting", true),
            Property::Switch("MemoryAccounting", true),
            Property::Switch("IOAccounting", true),
            Property::Switch("TasksAccounting", true),
        ];
        match self.start(name, &properties).await {
            Err(Error::Refused { name, .. }) if name == UNIT_EXISTS => Ok(()),
            answer => answer,
        }
    }

    async fn start(&self, name: &str, properties: &[Property]) -> Result<()> {
        let body = Body::new("ssa(sv)a(sa(sv))", |out| {
            out.string(name);
            // Not "replace": what else waits for the unit is not thrown away.
            out.string("fail");
            out.array(8, |out| properties.iter().for_each(|property| property.write(out)));
            out.array(8, |_| {});
        });
        self.job("start", "StartTransientUnit", name, body).await
    }

    /// Stops a unit, with all that lives in it, and has systemd forget that it failed. A missing one is a success.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Refused`], [`Error::Job`].
    pub async fn stop(&self, name: &str) -> Result<()> {
        match self.job("stop", "StopUnit", name, Body::strings(&[name, "replace"])).await {
            Err(error) if error.name() == Some(NO_SUCH_UNIT) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.forget_failure(name).await,
        }
    }

    /// Has systemd forget a unit that failed; any other is left as it is.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Refused`].
    pub async fn forget_failure(&self, name: &str) -> Result<()> {
        match self.plain("ResetFailedUnit", name, MANAGER, Body::strings(&[name])).await {
            Err(error) if error.name() == Some(NO_SUCH_UNIT) => Ok(()),
            answer => answer,
        }
    }

    /// Sets properties until the next boot.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Refused`].
    pub async fn set_properties(&self, name: &str, properties: &[Property]) -> Result<()> {
        let body = Body::new("sba(sv)", |out| {
            out.string(name);
            out.boolean(true);
            out.array(8, |out| properties.iter().for_each(|property| property.write(out)));
        });
        self.plain("SetUnitProperties", name, MANAGER, body).await
    }

    async fn plain(&self, method: &'static str, unit: &str, peer: Peer<'_>, body: Body) -> Result<()> {
        let work = async {
            let mut bus = Bus::connect(&self.socket).await?;
            bus.send(BUS, "Hello", Body::default()).await?;
            let call = bus.send(peer, method, body).await?;
            bus.reply(call).await.map(drop)
        };
        self.bounded(method, unit, work).await
    }

    async fn job(&self, verb: &'static str, method: &'static str, unit: &str, body: Body) -> Result<()> {
        let work = async {
            let mut bus = Bus::connect(&self.socket).await?;
            bus.send(BUS, "Hello", Body::default()).await?;
            let rule = format!(
                "type='signal',sender='{}',interface='{}',member='JobRemoved'",
                MANAGER.name, MANAGER.interface
            );
            bus.send(BUS, "AddMatch", Body::strings(&[&rule])).await?;
            bus.send(MANAGER, "Subscribe", Body::default()).await?;
            let call = bus.send(MANAGER, method, body).await?;
            let reply = bus.reply(call).await?;
            let job = reply
                .text(0)
                .ok_or(Error::Garbled { problem: "a method that makes a job answers no path" })?;
            loop {
                let signal = bus.signal().await?;
                // Anybody on the bus may send us a signal; only systemd's counts.
                if signal.member.as_deref() == Some("JobRemoved")
                    && signal.sender == reply.sender
                    && signal.text(1) == Some(job)
                {
                    return match signal.text(3) {
                        Some("done" | "skipped") => Ok(()),
                        result => {
                            let result = result.unwrap_or_default().to_owned();
                            Err(Error::Job { verb, unit: unit.to_owned(), result })
                        }
                    };
                }
            }
        };
        self.bounded(method, unit, work).await
    }

    async fn bounded(
        &self,
        method: &'static str,
        unit: &str,
        work: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        let after = self.deadline;
        let answer = tokio::time::timeout(after, work).await;
        match answer.unwrap_or_else(|_| Err(Error::TimedOut { method, unit: unit.to_owned(), after })) {
            Err(Error::Refused { name, message, .. }) => {
                Err(Error::Refused { method, unit: unit.to_owned(), name, message })
            }
            answer => answer,
        }
    }
}

impl Property {
    /// A struct of a name and a variant.
    fn write(&self, out: &mut Writer) {
        out.structure(|out| match self {
            Self::Text(name, value) => {
                out.string(name);
                out.signature("s");
                out.string(value);
            }
            Self::Switch(name, value) => {
                out.string(name);
                out.signature("b");
                out.boolean(*value);
            }
            Self::Number(name, value) => {
                out.string(name);
                out.signature("t");
                out.u64(*value);
            }
            Self::Pids(name, pids) => {
                out.string(name);
                out.signature("au");
                out.array(4, |out| pids.iter().for_each(|pid| out.u32(*pid)));
            }
            Self::Set(name, numbers) => {
                out.string(name);
                out.signature("ay");
                out.array(1, |out| bits(numbers).into_iter().for_each(|byte| out.byte(byte)));
            }
        });
    }
}

/// One bit a number, the lowest first.
fn bits(numbers: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in numbers {
        let at = usize::from(number / 8);
        bytes.resize(bytes.len().max(at + 1), 0);
        if let Some(byte) = bytes.get_mut(at) {
            *byte |= 1 << (number % 8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
