// SPDX-License-Identifier: Apache-2.0
//! A daemon on which one storm comes after another.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::model::{Made, Model, Reply};
use super::reality::Requests;
use super::step::{Call, Kind, Step, Weather, bring};
use super::{Counts, Ground};
use crate::{Cri, Daemon, census};

/// How long what a dead daemon left half done may take to be finished or undone by the next one.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a daemon that closed its connections may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// One storm on one daemon.
pub(super) struct Lane<'a> {
    daemon: &'a mut Daemon,
    cri: Cri,
    points: &'a [String],
    requests: Requests,
    model: Model,
    deaths: u64,
    /// The rules of the daemon that runs hold a death.
    doomed: bool,
    counts: Counts,
    /// What happened, for whoever reads of a failure.
    story: String,
}

impl<'a> Lane<'a> {
    pub(super) async fn new(daemon: &'a mut Daemon, ground: Ground, points: &'a [String]) -> Self {
        if daemon.pid().is_none() {
            daemon.start().await;
        }
        let (cri, requests) = (daemon.cri().await, Requests::new(daemon, ground.handler()));
        let (model, counts, story) = Default::default();
        Self { daemon, cri, points, requests, model, deaths: 0, doomed: false, counts, story }
    }

    /// Lives through it.
    ///
    /// # Errors
    /// What nobody may see, with the story up to there.
    pub(super) async fn live(mut self, steps: &[Step]) -> Result<Counts, String> {
        let mut result = Ok(());
        for step in steps {
            let _ = writeln!(self.story, "{step:?}");
            result = self.take(step).await;
            if result.is_err() {
                break;
            }
        }
        let result = match result {
            Ok(()) => self.end().await,
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(self.counts),
            Err(error) => Err(format!("{error}\n--- after ---\n{}", self.story)),
        }
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Bring(pod) => {
                for call in bring(*pod) {
                    self.batch(&[(Duration::ZERO, call)], None).await?;
                }
                Ok(())
            }
            Step::Batch { calls, kill } => self.batch(calls, *kill).await,
            Step::Restart(weather) => {
                self.daemon.kill9().await;
                self.deaths += 1;
                let rules = self.rules(weather);
                self.restart(Some(&rules)).await;
                self.agree(&[]).await
            }
        }
    }

    fn rules(&self, weather: &[Weather]) -> String {
        let rule = |weather: &Weather| {
            let point = weather.point.get(self.points);
            match weather.kind {
                Kind::Slow(time) => format!("{point}=delay({}ms)", time.as_millis()),
                Kind::Kill(hits) => format!("{point}={hits}*off->kill"),
            }
        };
        weather.iter().map(rule).collect::<Vec<_>>().join(";")
    }

    /// A daemon that is to die may do so at its start: the next one is in no danger.
    async fn restart(&mut self, rules: Option<&str>) {
        self.daemon.set_env("HULL_FAILPOINTS", rules.filter(|rules| !rules.is_empty()));
        self.doomed = rules.is_some_and(|rules| rules.contains("kill"));
        if !self.daemon.start_or_die().await {
            self.deaths += 1;
            self.doomed = false;
            self.daemon.set_env("HULL_FAILPOINTS", None);
            self.daemon.start().await;
        }
        self.cri = self.daemon.cri().await;
    }

    async fn batch(&mut self, calls: &[(Duration, Call)], kill: Option<Duration>) -> Result<(), String> {
        let calls: Vec<_> = calls.iter().copied().filter(|(_, call)| self.requests.can(*call)).collect();
        let killed = async {
            if let Some(after) = kill {
                sleep(after).await;
                self.daemon.kill9().await;
            }
        };
        let (made, ()) = tokio::join!(self.requests.make(&self.cri, &calls), killed);
        let mut made = made?;
        let broken = made.iter().any(|made| is_broken(&made.reply));
        let patience = if broken { DEATH } else { Duration::ZERO };
        let died = kill.is_some() || self.daemon.ended(patience).await.is_some();
        if died {
            made.iter_mut().filter(|made| is_broken(&made.reply)).for_each(|made| made.reply = Reply::Cut);
            self.deaths += 1;
            self.restart(None).await;
        }
        self.counts.calls += made.len() as u64;
        self.counts.cut += made.iter().filter(|made| made.reply == Reply::Cut).count() as u64;
        self.counts.batches += u64::from(made.len() > 1);
        self.agree(&made).await
    }

    /// What was answered and what is seen is what the model allows. After a death the next daemon may still be at work.
    async fn agree(&mut self, made: &[Made]) -> Result<(), String> {
        for made in made {
            let _ = writeln!(
                self.story,
                "    {:?} {:.8} {:?} {:?}",
                made.call, made.target, made.time, made.reply
            );
        }
        let before = self.model.states().clone();
        let explained = |error: String| format!("{error}; before them there was one of {before:#?}");
        self.model.happened(made).map_err(explained)?;
        let end = Instant::now() + if self.deaths > 0 { SETTLE } else { Duration::ZERO };
        loop {
            let agreed = match self.requests.observe(&self.cri).await {
                Ok(seen) => self.model.observed(&seen).map(|()| seen),
                Err(error) => Err(error),
            };
            match agreed {
                Ok(seen) => {
                    self.requests.learn(&seen);
                    return Ok(());
                }
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Everything can be removed, and nothing is left.
    async fn end(&mut self) -> Result<(), String> {
        // Its rules could kill it now.
        if self.doomed {
            self.daemon.kill9().await;
            self.restart(None).await;
        }
        self.counts.deaths += self.deaths;
        self.requests.clear(&self.cri, self.deaths > 0).await?;
        let end = Instant::now() + SETTLE;
        loop {
            let left = match self.daemon.is_mock() {
                true => census::files_left(self.daemon),
                false => self.daemon.leftovers(),
            };
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("left behind: {}", left.join(", ")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The daemon went away under the call.
fn is_broken(reply: &Reply) -> bool {
    match reply {
        Reply::Refused(Code::Unavailable | Code::Unknown | Code::Cancelled, _) => true,
        Reply::Refused(Code::Internal, message) => message.contains("h2 protocol error"),
        _ => false,
    }
}
