// SPDX-License-Identifier: Apache-2.0
//! Exec and attach over SPDY: the client opens a stream for each of error, stdin, stdout, stderr and resize.

use std::ops::ControlFlow;

use super::{Job, Version, Wire, conduct};
use crate::handler::Streams;
use crate::outlet::Packet;
use crate::output::{Closer, Framer, OutputStream};
use crate::pipe::{Budget, InputStream};
use crate::request::Stdio;
use crate::resize::{ResizeParser, Resizes};
use crate::server::Serving;
use crate::session::{EndReason, Ending, Session};
use crate::spdy::{Acceptor, Connection, Finish, Headers, Sink};
use crate::status::{self, ExitStatus};
use crate::wire::{Line, WireError};

/// Runs a session.
pub(crate) async fn serve(
    serving: &Serving,
    job: Job,
    version: Version,
    mut connection: Connection,
    mut line: Line,
    session: &Session,
) {
    let mut opening = Opening::new(job.stdio(), version, line.budget.clone());
    let timeouts = &serving.timeouts;
    let reason = tokio::select! {
        outcome = connection.run(&mut opening) => match outcome {
            Ok(Finish::Complete) => None,
            outcome => Some(line.read_ended(session, outcome).await),
        },
        reason = line.cut(session, timeouts) => Some(reason),
        () = tokio::time::sleep(timeouts.stream_creation) => {
            let (missing, limit) = (opening.missing(), timeouts.stream_creation);
            tracing::warn!(session = session.id, ?missing, ?limit, "the client did not open its streams in time");
            Some(EndReason::ClientGone)
        }
    };
    if let Some(reason) = reason {
        session.ending.end(reason);
        return;
    }
    let (streams, error) = opening.finish(session.ending.clone());
    let outputs =
        [&streams.stdout, &streams.stderr].into_iter().flatten().map(OutputStream::closer).collect();
    let mut wire = SpdyWire { connection, version, outputs, error };
    let job = job.run(serving.handler.clone(), streams);
    conduct(&mut wire, line, session, timeouts, job).await;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
    /// Known to nobody, or not asked for: open, and nothing else.
    Idle,
}

/// The streams as they are opened.
struct Opening {
    wanted: Vec<Role>,
    budget: Budget,
    error: Option<OutputStream>,
    stdin: Option<InputStream>,
    stdout: Option<OutputStream>,
    stderr: Option<OutputStream>,
    resizes: Option<Resizes>,
}

impl Opening {
    fn new(stdio: Stdio, version: Version, budget: Budget) -> Self {
        let all = [
            (Role::Error, true),
            (Role::Stdin, stdio.stdin),
            (Role::Stdout, stdio.stdout),
            (Role::Stderr, stdio.stderr),
            (Role::Resize, stdio.tty && version.resize),
        ];
        let wanted = all.into_iter().filter(|(_, wanted)| *wanted).map(|(role, _)| role).collect();
        Self { wanted, budget, error: None, stdin: None, stdout: None, stderr: None, resizes: None }
    }

    fn missing(&self) -> &[Role] {
        &self.wanted
    }

    fn finish(self, ending: Ending) -> (Streams, Option<OutputStream>) {
        let Self { error, stdin, stdout, stderr, resizes, .. } = self;
        (Streams { stdin, stdout, stderr, resizes, ending }, error)
    }
}

impl Acceptor for Opening {
    type Slot = Role;

    fn admit(&mut self, _: u32, headers: &Headers) -> Option<(Role, Sink)> {
        let role = match headers.get("streamtype")? {
            "error" => Role::Error,
            "stdin" => Role::Stdin,
            "stdout" => Role::Stdout,
            "stderr" => Role::Stderr,
            "resize" => Role::Resize,
            _ => Role::Idle,
        };
        let role = if self.wanted.contains(&role) { role } else { Role::Idle };
        let sink = match role {
            Role::Stdin => {
                let (writer, reader) = self.budget.pipe();
                self.stdin = Some(reader);
                Sink::Pipe(writer)
            }
            Role::Resize => {
                let (parser, resizes) = ResizeParser::new();
                self.resizes = Some(resizes);
                Sink::Resize(parser)
            }
            _ => Sink::Discard,
        };
        Some((role, sink))
    }

    fn opened(&mut self, role: Role, output: OutputStream) -> ControlFlow<()> {
        match role {
            Role::Error => self.error = Some(output),
            Role::Stdout => self.stdout = Some(output),
            Role::Stderr => self.stderr = Some(output),
            Role::Stdin | Role::Resize | Role::Idle => {}
        }
        self.wanted.retain(|wanted| *wanted != role);
        if self.wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Takes no more streams: those that matter are open.
struct Full;

impl Acceptor for Full {
    type Slot = ();

    fn admit(&mut self, _: u32, _: &Headers) -> Option<((), Sink)> {
        None
    }

    fn opened(&mut self, (): (), _: OutputStream) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

struct SpdyWire {
    connection: Connection,
    version: Version,
    outputs: Vec<Closer>,
    error: Option<OutputStream>,
}

impl Wire for SpdyWire {
    async fn run(&mut self) -> Result<Finish, WireError> {
        self.connection.run(&mut Full).await
    }

    fn abandon(&mut self) {
        self.connection.abandon();
    }

    fn farewell(&mut self, status: &ExitStatus) -> Vec<Packet> {
        let mut packets: Vec<_> = self.outputs.iter().filter_map(Closer::close).collect();
        if let Some(error) = self.error.take() {
            let message = status::encode(status, self.version.format);
            let framer: Framer = error.framer();
            packets.extend(message.chunks(framer.largest()).map(|part| framer.data(part)));
            packets.extend(error.closer().close());
        }
        packets.extend(self.connection.farewell());
        packets
    }
}
