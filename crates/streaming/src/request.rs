// SPDX-License-Identifier: Apache-2.0
//! What a client may do with the URL that it was given: decided by the RPC, never by the URL.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// Which of the three things a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A new process in a container.
    Exec,
    /// The container's own process.
    Attach,
    /// Connections into a pod.
    PortForward,
}

impl Kind {
    /// The first segment of the URL's path.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
        }
    }

    /// The kind with this first path segment.
    pub(crate) fn from_path(segment: &str) -> Option<Self> {
        [Self::Exec, Self::Attach, Self::PortForward].into_iter().find(|kind| kind.path() == segment)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "port-forward",
        })
    }
}

/// What the caller wants to find again when the client comes. The streaming server never looks inside.
#[derive(Clone, Default)]
pub struct Context(Option<Arc<dyn Any + Send + Sync>>);

impl Context {
    /// Wraps a value.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self(Some(Arc::new(value)))
    }

    /// The value, if one of this type was wrapped.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.as_deref().and_then(|value| value.downcast_ref())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Context(..)" } else { "Context" })
    }
}

/// Which standard streams the client gets, and whether they are a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stdio {
    /// A terminal: all output is stdout, and the client may send sizes.
    pub tty: bool,
    /// The client sends input.
    pub stdin: bool,
    /// The client gets output.
    pub stdout: bool,
    /// The client gets error output. Not with `tty`.
    pub stderr: bool,
}

/// Run a command in a container.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The container.
    pub container_id: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// The streams.
    pub stdio: Stdio,
    /// The caller's own.
    pub context: Context,
}

/// Connect to a container's first process.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// The container.
    pub container_id: String,
    /// The streams.
    pub stdio: Stdio,
    /// The caller's own.
    pub context: Context,
}

/// Forward connections to ports of a pod.
#[derive(Debug, Clone)]
pub struct PortForwardRequest {
    /// The pod sandbox.
    pub sandbox_id: String,
    /// Used by the oldest WebSocket clients alone; others name the port with each connection.
    pub ports: Vec<u16>,
    /// The caller's own.
    pub context: Context,
}

/// One of the three.
#[derive(Debug, Clone)]
pub enum Request {
    /// Run a command.
    Exec(ExecRequest),
    /// Connect to the container's process.
    Attach(AttachRequest),
    /// Forward connections.
    PortForward(PortForwardRequest),
}

impl Request {
    /// Which one.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exec(_) => Kind::Exec,
            Self::Attach(_) => Kind::Attach,
            Self::PortForward(_) => Kind::PortForward,
        }
    }

    /// The container's or sandbox's id.
    pub fn target(&self) -> &str {
        match self {
            Self::Exec(request) => &request.container_id,
            Self::Attach(request) => &request.container_id,
            Self::PortForward(request) => &request.sandbox_id,
        }
    }

    /// Bytes of what the caller put into it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Exec(request) => request.command.iter().map(String::len).sum(),
            Self::Attach(_) => 0,
            Self::PortForward(request) => size_of_val(request.ports.as_slice()),
        }
    }

    /// Refuses what no client could use; the CRI's rules for the three RPCs.
    pub(crate) fn check(&self) -> Result<()> {
        let (kind, id, stdio) = match self {
            Self::Exec(request) => ("exec", &request.container_id, Some(request.stdio)),
            Self::Attach(request) => ("attach", &request.container_id, Some(request.stdio)),
            Self::PortForward(request) => ("port-forward", &request.sandbox_id, None),
        };
        let problem = match stdio {
            _ if id.is_empty() => "the id is empty",
            Some(stdio) if stdio.tty && stdio.stderr => "tty and stderr exclude each other",
            Some(stdio) if !(stdio.stdin || stdio.stdout || stdio.stderr) => {
                "one of stdin, stdout and stderr must be set"
            }
            _ => return Ok(()),
        };
        Err(Error::InvalidRequest { kind, problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cri_rules_hold() {
        let stdio = |tty, stdin, stdout, stderr| Stdio { tty, stdin, stdout, stderr };
        for (id, stdio, problem) in [
            ("c", stdio(false, false, true, true), None),
            ("c", stdio(true, true, true, false), None),
            ("", stdio(false, false, true, false), Some("empty")),
            ("c", stdio(true, false, true, true), Some("exclude")),
            ("c", stdio(true, false, false, false), Some("one of")),
        ] {
            let container_id = id.to_owned();
            let request = Request::Attach(AttachRequest { container_id, stdio, context: Context::default() });
            match (request.check(), problem) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
                (outcome, _) => panic!("{id:?} {stdio:?}: {outcome:?}"),
            }
        }
        let ports = Vec::new();
        let nobody = PortForwardRequest { sandbox_id: String::new(), ports, context: Context::default() };
        assert!(Request::PortForward(nobody).check().is_err());
    }

    #[test]
    fn a_context_gives_back_what_was_put_in_and_nothing_else() {
        let context = Context::new(7u32);
        assert_eq!(context.get::<u32>(), Some(&7));
        assert_eq!(context.get::<String>(), None);
        assert_eq!(Context::default().get::<u32>(), None);
    }
}
