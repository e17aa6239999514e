// SPDX-License-Identifier: Apache-2.0
//! The sessions that live: who is connected to what since when, and how to end that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::request::{Kind, Request};

/// Why a session must end before its handler is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The client closed its connection, or broke the protocol.
    ClientGone,
    /// [`Sessions::kill`] was called.
    Killed,
    /// Nothing moved for the idle timeout.
    Idle,
    /// The server is shutting down.
    Shutdown,
}

/// Tells a handler to end: its client is gone, or somebody wants the session to end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    token: CancellationToken,
    reason: Arc<OnceLock<EndReason>>,
}

impl Ending {
    /// Waits until the session must end. Cancel-safe; answers at once from then on.
    pub async fn ended(&self) -> EndReason {
        self.token.cancelled().await;
        self.reason().unwrap_or(EndReason::ClientGone)
    }

    /// Whether and why the session must end.
    pub fn reason(&self) -> Option<EndReason> {
        self.reason.get().copied()
    }

    /// The token alone, for code that takes one.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// The first reason stays.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.reason.set(reason);
        self.token.cancel();
    }
}

/// What moved on a connection, and when it last did.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last_millis: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    stalled: AtomicBool,
}

impl Default for Activity {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let (last_millis, bytes_in, bytes_out) = (zero(), zero(), zero());
        Self { start: Instant::now(), last_millis, bytes_in, bytes_out, stalled: AtomicBool::new(false) }
    }
}

impl Activity {
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.fetch_max(now, Ordering::Relaxed);
    }

    /// Counts payload from the client.
    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts payload to the client.
    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The client did not read for longer than its handler allows.
    pub(crate) fn note_stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether it ever did that.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Waits until nothing has moved for so long.
    pub(crate) async fn idle(&self, timeout: Duration) {
        loop {
            let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let deadline = self.start + last + timeout;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// WebSocket.
    WebSocket,
    /// SPDY/3.1 in WebSocket messages.
    TunnelledSpdy,
}

/// A session as others see it.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its number; never used again by this server.
    pub id: u64,
    /// Exec, attach or port-forward.
    pub kind: Kind,
    /// The container's or pod sandbox's id.
    pub target: String,
    /// The command of an exec.
    pub command: Vec<String>,
    /// The client's address.
    pub peer: SocketAddr,
    /// What the client speaks.
    pub transport: Transport,
    /// When the client came.
    pub since: SystemTime,
    /// Payload bytes from the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
    /// Set once the session was told to end.
    pub ending: Option<EndReason>,
}

/// The sessions of a server. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: AtomicU64,
    tasks: TaskTracker,
    live: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    info: SessionInfo,
    activity: Arc<Activity>,
    ending: Ending,
}

impl Entry {
    fn info(&self) -> SessionInfo {
        SessionInfo {
            bytes_in: self.activity.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.activity.bytes_out.load(Ordering::Relaxed),
            ending: self.ending.reason(),
            ..self.info.clone()
        }
    }
}

impl Sessions {
    /// All that live, oldest first.
    pub fn list(&self) -> Vec<SessionInfo> {
        self.lock().values().map(Entry::info).collect()
    }

    /// Tells a session to end; it is listed until it has. False if there is none with this number.
    pub fn kill(&self, id: u64) -> bool {
        let ending = self.lock().get(&id).map(|entry| entry.ending.clone());
        ending.map(|ending| ending.end(EndReason::Killed)).is_some()
    }

    /// Tells all sessions of a container or sandbox to end; how many there were.
    pub fn kill_target(&self, target: &str) -> usize {
        self.kill_where(|info| info.target == target)
    }

    /// Tells all sessions to end of which `which` says so; how many there were. It is asked under a lock.
    pub fn kill_where(&self, which: impl Fn(&SessionInfo) -> bool) -> usize {
        self.end(EndReason::Killed, which)
    }

    pub(crate) fn end_all(&self, reason: EndReason) {
        self.end(reason, |_| true);
    }

    fn end(&self, reason: EndReason, which: impl Fn(&SessionInfo) -> bool) -> usize {
        let live = self.lock();
        let ending: Vec<_> =
            live.values().filter(|entry| which(&entry.info)).map(|entry| entry.ending.clone()).collect();
        drop(live);
        ending.iter().for_each(|ending| ending.end(reason));
        ending.len()
    }

    /// Starts a task that belongs to a session.
    pub(crate) fn spawn<F>(&self, task: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        AbortOnDropHandle::new(self.0.tasks.spawn(task))
    }

    /// Waits until every task of every session is gone.
    pub(crate) async fn tasks_gone(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn begin(&self, request: &Request, peer: SocketAddr, transport: Transport) -> Session {
        let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
        let command = match request {
            Request::Exec(exec) => exec.command.clone(),
            Request::Attach(_) | Request::PortForward(_) => Vec::new(),
        };
        let info = SessionInfo {
            id,
            kind: request.kind(),
            target: request.target().to_owned(),
            command,
            peer,
            transport,
            since: SystemTime::now(),
            bytes_in: 0,
            bytes_out: 0,
            ending: None,
        };
        let (kind, target, command) = (info.kind, &info.target, shown(&info.command));
        tracing::info!(session = id, %kind, target, command, %peer, ?transport, "session began");
        let (activity, ending) = (Arc::new(Activity::default()), Ending::default());
        let session = Session {
            id,
            sessions: self.clone(),
            activity: Arc::clone(&activity),
            ending: ending.clone(),
            outcome: OnceLock::new(),
        };
        self.lock().insert(id, Entry { info, activity, ending });
        session
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A living session's own end; it leaves the list when this is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    sessions: Sessions,
    pub(crate) activity: Arc<Activity>,
    pub(crate) ending: Ending,
    /// How it went, for the log.
    outcome: OnceLock<String>,
}

impl Session {
    /// What the log tells at the session's end; the first word stays.
    pub(crate) fn note_outcome(&self, outcome: String) {
        let _ = self.outcome.set(outcome);
    }

    /// Starts a task that is aborted when its handle is dropped. The server waits for it before it is shut down.
    pub(crate) fn spawn<F>(&self, task: F) -> AbortOnDropHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.sessions.spawn(task)
    }

    /// Starts tasks like [`Session::spawn`], for those that outlive a borrow of the session.
    pub(crate) fn spawner(&self) -> Sessions {
        self.sessions.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(entry) = self.sessions.lock().remove(&self.id) else { return };
        let SessionInfo { id, kind, target, bytes_in, bytes_out, ending, .. } = entry.info();
        let seconds = entry.activity.start.elapsed().as_secs_f64();
        let outcome = self.outcome.get().map_or("", String::as_str);
        tracing::info!(session = id, %kind, target, outcome, bytes_in, bytes_out, seconds, ?ending, "session ended");
    }
}

/// A command for the log: whole where it is short, for who has to know what was done; a script passed as an argument
/// by its beginning.
fn shown(command: &[String]) -> String {
    const MOST: usize = 256;
    let mut text = command.join(" ");
    if text.len() > MOST {
        text.truncate(text.floor_char_boundary(MOST));
        text.push_str(" [cut]");
    }
    text
}

#[cfg(test)]
impl Session {
    /// One of nobody's.
    pub(crate) fn test() -> Self {
        let (sandbox_id, ports, context) = (String::new(), Vec::new(), crate::request::Context::default());
        let request = crate::request::PortForwardRequest { sandbox_id, ports, context };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        Sessions::default().begin(&Request::PortForward(request), peer, Transport::Spdy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Context, PortForwardRequest};
    use std::net::Ipv4Addr;

    fn begin(sessions: &Sessions, target: &str) -> Session {
        let (sandbox_id, ports) = (target.to_owned(), Vec::new());
        let request =
            Request::PortForward(PortForwardRequest { sandbox_id, ports, context: Context::default() });
        sessions.begin(&request, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Transport::Spdy)
    }

    #[tokio::test]
    async fn sessions_are_listed_killed_and_leave() {
        let sessions = Sessions::default();
        let (first, second, third) = (begin(&sessions, "a"), begin(&sessions, "b"), begin(&sessions, "a"));
        first.activity.received(3);
        first.activity.sent(4);
        let list = sessions.list();
        assert_eq!(list.iter().map(|info| info.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((list[0].bytes_in, list[0].bytes_out, list[0].ending), (3, 4, None));

        assert!(sessions.kill(2) && !sessions.kill(99));
        assert_eq!(second.ending.ended().await, EndReason::Killed);
        assert_eq!(sessions.list()[1].ending, Some(EndReason::Killed));
        second.ending.end(EndReason::Shutdown);
        assert_eq!(second.ending.reason(), Some(EndReason::Killed), "the first reason stays");

        assert_eq!(sessions.kill_target("a"), 2);
        assert!(first.ending.reason().is_some() && third.ending.reason().is_some());
        drop((first, second, third));
        assert!(sessions.list().is_empty());
        assert_eq!(begin(&sessions, "a").id, 4);
    }

    #[test]
    fn a_long_command_is_logged_by_its_beginning() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&words(&["ls", "-l"])), "ls -l");
        let long = shown(&words(&["sh", "-c", &"\u{e4}".repeat(1000)]));
        assert!(long.ends_with(" [cut]") && long.len() < 300, "{long}");
    }

    #[tokio::test]
    async fn some_are_killed_by_what_they_are() {
        let sessions = Sessions::default();
        let (first, second) = (begin(&sessions, "a"), begin(&sessions, "a"));
        assert_eq!(sessions.kill_where(|info| info.id == second.id), 1);
        assert_eq!((first.ending.reason(), second.ending.reason()), (None, Some(EndReason::Killed)));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_counts_from_the_last_movement() {
        let activity = Activity::default();
        let start = Instant::now();
        let toucher = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(8)).await;
                activity.touch();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = activity.idle(Duration::from_secs(10)) => {}
            () = toucher => {}
        }
        assert_eq!(start.elapsed().as_secs(), 34);
    }
}
