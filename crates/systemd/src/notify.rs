// SPDX-License-Identifier: Apache-2.0
//! What a service tells its manager: `sd_notify(3)` in a few lines.
//!
//! One datagram of `KEY=VALUE` lines to the socket that `$NOTIFY_SOCKET` names: a path, or `@name` for one in the
//! abstract namespace. Nobody answers.
//!
//! ```text
//! READY=1      the service has started        STOPPING=1   it ends
//! STATUS=...   one line for `systemctl status`
//! WATCHDOG=1   it is well; without one for $WATCHDOG_USEC microseconds systemd kills and restarts it
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Who is told. Cheap; sends are one system call and do not wait.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The manager that started this process, if it wants to be told.
    ///
    /// # Errors
    /// When `$NOTIFY_SOCKET` is none, or no socket can be made.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let variable = |key: &str| std::env::var(key).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Self::to(&name, watchdog).map(Some)
    }

    /// A manager at this address.
    ///
    /// # Errors
    /// As [`Notifier::from_environment`].
    pub fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().split_first() {
            Some((b'@', abstract_name)) => SocketAddr::from_abstract_name(abstract_name)?,
            Some((b'/', _)) => SocketAddr::from_pathname(name)?,
            _ => {
                let problem = format!("NOTIFY_SOCKET={name:?} is neither a path nor an abstract name");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold us up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address, watchdog })
    }

    /// How often at least it must hear `WATCHDOG=1`; `None` where it has no watchdog.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends one state.
    ///
    /// # Errors
    /// When the manager is gone or does not read.
    pub fn send(&self, states: &[State<'_>]) -> io::Result<()> {
        hull_failpoint::failpoint!("systemd.notify.send")?;
        let text = states.iter().map(State::line).collect::<Vec<_>>().join("\n");
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }
}

/// One line of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// The service has started.
    Ready,
    /// The service ends.
    Stopping,
    /// The service is well.
    Watchdog,
    /// What it does, for people.
    Status(&'a str),
}

impl State<'_> {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Stopping => "STOPPING=1".to_owned(),
            Self::Watchdog => "WATCHDOG=1".to_owned(),
            // A line that ended early would make another state of the rest.
            Self::Status(text) => format!("STATUS={}", text.replace(['\n', '\r'], " ")),
        }
    }
}

/// The watchdog that is meant for this process.
fn watchdog(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let usec: u64 = usec?.trim().parse().ok().filter(|usec| *usec > 0)?;
    let is_ours = pid.is_none_or(|pid| pid.trim().parse() == Ok(own));
    is_ours.then_some(Duration::from_micros(usec))
}

/// The variables by which a manager's wishes are handed down. Programs that we start must not have them.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), None).unwrap();
        notifier.send(&[State::Ready, State::Status("serving\nSTOPPING=1")]).unwrap();
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1\nSTATUS=serving STOPPING=1");
        drop(manager);
        std::fs::remove_file(&path).unwrap();
        assert!(notifier.send(&[State::Watchdog]).is_err(), "nobody is there");
    }

    #[test]
    fn an_abstract_name_is_one_too() {
        let name = format!("hull-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::to(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.send(&[State::Watchdog]).unwrap();
        let mut bytes = [0; 64];
        let length = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"WATCHDOG=1");
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), None).unwrap();
        let full = (0..1_000_000).find_map(|_| notifier.send(&[State::Watchdog]).err());
        assert_eq!(full.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn only_the_own_watchdog_counts() {
        let some = |text: &str| Some(text.to_owned());
        for (usec, pid, expected) in [
            (some("60000000"), None, Some(60)),
            (some("60000000"), some("7"), Some(60)),
            (some("60000000"), some("8"), None),
            (some("0"), None, None),
            (some("soon"), None, None),
            (None, some("7"), None),
        ] {
            assert_eq!(watchdog(usec, pid, 7), expected.map(Duration::from_secs));
        }
        assert!(Notifier::to(OsStr::new("relative"), None).is_err());
        assert!(Notifier::to(OsStr::new(""), None).is_err());
    }
}
