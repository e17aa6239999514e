// SPDX-License-Identifier: Apache-2.0
//! Single-use tokens: the secret part of a streaming URL.
//!
//! ```text
//! issue -> waiting -- take, right kind, in time ------> the request; gone
//!                  |- take, wrong kind or too late ---> nothing;     gone
//!                  `- nobody came in time ------------> gone
//! ```
//! A token is 192 random bits, so it is found by whoever was given it. A token shown is a token used, also when
//! what follows fails. All wait equally long, so the queue is in the order in which they expire. They are bounded by number
//! and by the bytes of the commands that they hold.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hull_failpoint::failpoint;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::request::{Kind, Request};
use crate::{Error, Result};

/// Bytes of randomness.
const LENGTH: usize = 24;

/// The tokens that wait for their client.
#[derive(Debug)]
pub(crate) struct Tokens {
    waiting: Mutex<Waiting>,
    issued: Notify,
    limit: usize,
    limit_bytes: usize,
    lifetime: Duration,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<String, (Request, Instant)>,
    /// Of all requests.
    bytes: usize,
    /// Also holds tokens that were used meanwhile; `expire` skips them.
    order: VecDeque<(Instant, String)>,
}

impl Tokens {
    pub(crate) fn new(limit: usize, limit_bytes: usize, lifetime: Duration) -> Self {
        Self { waiting: Mutex::default(), issued: Notify::new(), limit, limit_bytes, lifetime }
    }

    /// A new token for the request.
    pub(crate) fn issue(&self, request: Request) -> Result<String> {
        failpoint!("streaming.token.issue").map_err(Error::io("making a streaming token"))?;
        let token = random().map_err(Error::io("making a streaming token"))?;
        let mut waiting = self.lock();
        let now = Instant::now();
        waiting.expire(now);
        if waiting.requests.len() >= self.limit {
            return Err(Error::TooManyTokens { limit: self.limit });
        }
        if waiting.bytes + request.bytes() > self.limit_bytes {
            return Err(Error::TokensTooLarge { limit: self.limit_bytes });
        }
        let deadline = now + self.lifetime;
        waiting.bytes += request.bytes();
        waiting.requests.insert(token.clone(), (request, deadline));
        waiting.order.push_back((deadline, token.clone()));
        drop(waiting);
        self.issued.notify_one();
        Ok(token)
    }

    /// The request behind a token, once.
    pub(crate) fn take(&self, token: &str, kind: Kind) -> Option<Request> {
        let mut waiting = self.lock();
        waiting.expire(Instant::now());
        let request = waiting.remove(token)?;
        if waiting.requests.is_empty() {
            waiting.order.clear();
        }
        (request.kind() == kind).then_some(request)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        let mut waiting = self.lock();
        waiting.expire(Instant::now());
        waiting.requests.len()
    }

    /// Forgets tokens, and what their requests hold, when their time has come. Never returns.
    pub(crate) async fn expire(&self) {
        loop {
            let first = self.lock().order.front().map(|(deadline, _)| *deadline);
            match first {
                None => self.issued.notified().await,
                Some(deadline) => {
                    tokio::time::sleep_until(deadline).await;
                    self.lock().expire(Instant::now());
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, token)) = self.order.pop_front() {
                self.remove(&token);
            }
        }
        // Used tokens leave their place behind: sweep when those are most of the queue.
        if self.order.len() > 2 * self.requests.len() + 16 {
            let requests = &self.requests;
            self.order.retain(|(_, token)| requests.contains_key(token));
        }
    }
}

impl Waiting {
    fn remove(&mut self, token: &str) -> Option<Request> {
        let (request, _) = self.requests.remove(token)?;
        self.bytes -= request.bytes();
        Some(request)
    }
}

fn random() -> std::io::Result<String> {
    let mut bytes = [0; LENGTH];
    let mut filled = 0;
    while filled < LENGTH {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{AttachRequest, Context, Stdio};
    use std::sync::Arc;

    fn request() -> Request {
        let stdio = Stdio { stdout: true, ..Stdio::default() };
        Request::Attach(AttachRequest { container_id: "c".to_owned(), stdio, context: Context::default() })
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const BYTES: usize = 1000;

    #[tokio::test(start_paused = true)]
    async fn a_token_works_once_for_its_kind_in_its_time() {
        let tokens = Tokens::new(10, BYTES, MINUTE);
        let token = tokens.issue(request()).unwrap();
        assert_eq!(token.len(), 32);
        assert!(tokens.take("guess", Kind::Attach).is_none());
        assert!(tokens.take(&token, Kind::Attach).is_some());
        assert!(tokens.take(&token, Kind::Attach).is_none(), "used twice");

        let token = tokens.issue(request()).unwrap();
        assert!(tokens.take(&token, Kind::Exec).is_none());
        assert!(tokens.take(&token, Kind::Attach).is_none(), "shown with the wrong kind is used");

        let early = tokens.issue(request()).unwrap();
        tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
        let late = tokens.issue(request()).unwrap();
        assert!(tokens.take(&early, Kind::Attach).is_some());
        tokio::time::advance(MINUTE).await;
        assert!(tokens.take(&late, Kind::Attach).is_none(), "too late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_refused_and_room_comes_back() {
        let tokens = Tokens::new(3, BYTES, MINUTE);
        let all: Vec<_> = (0..3).map(|_| tokens.issue(request()).unwrap()).collect();
        assert!(matches!(tokens.issue(request()), Err(Error::TooManyTokens { limit: 3 })));
        tokens.take(&all[1], Kind::Attach).unwrap();
        tokens.issue(request()).unwrap();
        assert!(tokens.issue(request()).is_err());
        tokio::time::advance(MINUTE).await;
        tokens.issue(request()).unwrap();
        assert_eq!(tokens.waiting(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn used_tokens_do_not_pile_up() {
        let tokens = Tokens::new(10, BYTES, MINUTE);
        let _keeps_the_queue = tokens.issue(request()).unwrap();
        for _ in 0..10_000 {
            let token = tokens.issue(request()).unwrap();
            tokens.take(&token, Kind::Attach).unwrap();
        }
        assert!(tokens.lock().order.len() < 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_unused_request_holds_is_let_go() {
        let tokens = Tokens::new(10, BYTES, MINUTE);
        let held = Arc::new(());
        let context = Context::new(Arc::clone(&held));
        let Request::Attach(mut attach) = request() else { unreachable!() };
        attach.context = context;
        tokens.issue(Request::Attach(attach)).unwrap();
        assert_eq!(Arc::strong_count(&held), 2);
        let _ = tokio::time::timeout(MINUTE * 2, tokens.expire()).await;
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn commands_are_bounded_together() {
        let exec = |bytes| {
            let stdio = Stdio { stdout: true, ..Stdio::default() };
            let command = vec!["x".repeat(bytes)];
            let (container_id, context) = ("c".to_owned(), Context::default());
            Request::Exec(crate::request::ExecRequest { container_id, command, stdio, context })
        };
        let tokens = Tokens::new(10, BYTES, MINUTE);
        let token = tokens.issue(exec(600)).unwrap();
        let error = tokens.issue(exec(600)).unwrap_err();
        assert!(matches!(error, Error::TokensTooLarge { limit: BYTES }), "{error}");
        tokens.issue(exec(300)).unwrap();
        tokens.take(&token, Kind::Exec).unwrap();
        tokens.issue(exec(600)).unwrap();
        tokio::time::advance(MINUTE).await;
        assert_eq!(tokens.waiting(), 0);
        tokens.issue(exec(900)).unwrap();
    }
}
