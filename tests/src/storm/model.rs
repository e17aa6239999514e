// SPDX-License-Identifier: Apache-2.0
//! What the kubelet may see after a batch of calls: every state that some order of them leads to. Pure.
//!
//! ```text
//! {states} --batch of calls with their replies--> {states that some order explains} --observation--> {those seen}
//! ```
//! Orders keep to real time: a call that was answered before another began comes first. A call without an answer (the
//! daemon died) has happened, or not, or as far as a death may leave it. Two things are told apart by no list: whether a
//! start was told (the next one then succeeds once, without doing anything), so the model holds several states at a time.
//!
//! Who loses against a stop or a removal of its pod or container that runs at the same time may be refused in the
//! middle (`Aborted`, or as if the other had been first): then it has done nothing that remains.

use std::collections::BTreeSet;

use tonic::Code;

use super::step::{CONTAINERS, Call, PODS};

/// An id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Id {
    /// As a reply or a list told.
    Known(String),
    /// Of something that was made by a call without an answer.
    New,
}

/// A container's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not started.
    Created,
    /// Started.
    Running,
    /// Ended.
    Exited,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ModelContainer {
    /// Its id.
    pub(super) id: Id,
    /// Its state.
    pub(super) phase: Phase,
    /// What the last update set; 0 without one.
    pub(super) quota: i64,
    /// A start that happened and whose caller has not heard of it.
    pub(super) start_untold: bool,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ModelPod {
    /// Its id.
    pub(super) id: Id,
    /// Whether it is ready.
    pub(super) ready: bool,
    /// By their numbers.
    pub(super) containers: [Option<ModelContainer>; CONTAINERS],
}

/// Everything, by the numbers of the pods.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    /// The pods.
    pub(super) pods: [Option<ModelPod>; PODS],
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Done; a make answers the id, the others nothing.
    Done(String),
    /// Refused.
    Refused(Code, String),
    /// The daemon died.
    Cut,
}

/// A call that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// The call.
    pub(super) call: Call,
    /// The id that it was about, as far as its caller knew one.
    pub(super) target: String,
    /// What was answered.
    pub(super) reply: Reply,
    /// When it began and ended, on any clock.
    pub(super) time: (u128, u128),
}

/// What there may be, and which ids there have been.
#[derive(Debug)]
pub(super) struct Model {
    states: BTreeSet<State>,
    seen: BTreeSet<String>,
}

impl Default for Model {
    fn default() -> Self {
        Self { states: BTreeSet::from([State::default()]), seen: BTreeSet::new() }
    }
}

impl Model {
    /// What there may be.
    pub(super) fn states(&self) -> &BTreeSet<State> {
        &self.states
    }

    /// Calls were made at once.
    ///
    /// # Errors
    /// When no order explains the replies: nothing has changed then.
    pub(super) fn happened(&mut self, batch: &[Made]) -> Result<(), String> {
        let mut next = BTreeSet::new();
        for state in &self.states {
            self.explain(state, batch, &mut vec![false; batch.len()], &mut next);
        }
        if next.is_empty() {
            return Err("no order of the calls explains what was answered".to_owned());
        }
        self.states = next;
        Ok(())
    }

    /// Follows every order of the calls that are left.
    fn explain(&self, state: &State, batch: &[Made], taken: &mut Vec<bool>, ends: &mut BTreeSet<State>) {
        if taken.iter().all(|taken| *taken) {
            ends.insert(state.clone());
            return;
        }
        for at in 0..batch.len() {
            let is_left = |other: usize| !taken[other] && other != at;
            // Whatever was answered before this one began has to be taken first.
            let is_late = (0..batch.len()).any(|it| is_left(it) && batch[it].time.1 < batch[at].time.0);
            if taken[at] || is_late {
                continue;
            }
            taken[at] = true;
            for next in self.apply(state, &batch[at], batch) {
                self.explain(&next, batch, taken, ends);
            }
            taken[at] = false;
        }
    }

    /// What the lists showed.
    ///
    /// # Errors
    /// When that cannot be: nothing has changed then.
    pub(super) fn observed(&mut self, seen: &State) -> Result<(), String> {
        let states: BTreeSet<State> =
            self.states.iter().filter_map(|state| self.agree(state, seen)).collect();
        if states.is_empty() {
            return Err(format!("there is {seen:?}, but there can only be one of {:#?}", self.states));
        }
        self.states = states;
        for pod in seen.pods.iter().flatten() {
            let ids = pod.containers.iter().flatten().map(|container| &container.id).chain([&pod.id]);
            self.seen.extend(ids.filter_map(|id| match id {
                Id::Known(id) => Some(id.clone()),
                Id::New => None,
            }));
        }
        Ok(())
    }

    /// The state with the ids that were seen, if it is what was seen.
    fn agree(&self, state: &State, seen: &State) -> Option<State> {
        let mut state = state.clone();
        for (pod, seen) in state.pods.iter_mut().zip(&seen.pods) {
            let (pod, seen) = match (pod, seen) {
                (None, None) => continue,
                (Some(pod), Some(seen)) if pod.ready == seen.ready => (pod, seen),
                _ => return None,
            };
            pod.id = self.same_id(&pod.id, &seen.id)?;
            for (container, seen) in pod.containers.iter_mut().zip(&seen.containers) {
                match (container, seen) {
                    (None, None) => {}
                    (Some(it), Some(seen)) if (it.phase, it.quota) == (seen.phase, seen.quota) => {
                        it.id = self.same_id(&it.id, &seen.id)?;
                    }
                    _ => return None,
                }
            }
        }
        Some(state)
    }

    /// A new thing has an id that nothing had before.
    fn same_id(&self, id: &Id, told: &Id) -> Option<Id> {
        match (id, told) {
            (Id::New, Id::Known(told)) if self.seen.contains(told) => None,
            (Id::New, told) => Some(told.clone()),
            (known, told) => (known == told).then(|| known.clone()),
        }
    }

    /// The states after one call that was answered so; none: it cannot have been.
    fn apply(&self, state: &State, made: &Made, batch: &[Made]) -> Vec<State> {
        let call = made.call;
        if let Reply::Refused(code, _) = &made.reply
            && loses(call, batch)
            && is_lost(call, *code)
        {
            return vec![state.clone()];
        }
        match call {
            Call::RunPod(_) => self.run_pod(state, made),
            Call::StopPod(pod) => match state.pod(pod, &made.target) {
                Some(_) => ended(state, made, &[&|state| stop_pod(state, pod)]),
                None => ended(state, made, &[]),
            },
            Call::RemovePod(pod) => match state.pod(pod, &made.target) {
                Some(_) => remove_pod(state, made, pod),
                None => ended(state, made, &[]),
            },
            Call::Create(..) => self.create(state, made),
            Call::Start(..) => start(state, made, batch),
            Call::Stop(pod, container) => match state.container(pod, container, &made.target) {
                Some(_) => ended(state, made, &[&|state| exit(state, pod, container)]),
                None => ended(state, made, &[]),
            },
            Call::Remove(pod, container) => match state.container(pod, container, &made.target) {
                Some(_) => {
                    let gone = |state: &mut State| state.forget(pod, container);
                    ended(state, made, &[&gone, &|state| exit(state, pod, container)])
                }
                None => ended(state, made, &[]),
            },
            Call::Update(..) => update(state, made),
            Call::Exec(..) | Call::Reopen(..) => look(state, made),
        }
    }

    fn run_pod(&self, state: &State, made: &Made) -> Vec<State> {
        let number = made.call.pod();
        let with = |id: Id| {
            let mut state = state.clone();
            state.pods[number] = Some(ModelPod { id, ready: true, containers: Default::default() });
            state
        };
        match (&state.pods[number], &made.reply) {
            (None, Reply::Done(id)) if !self.seen.contains(id) => vec![with(Id::Known(id.clone()))],
            (None, Reply::Cut) => vec![state.clone(), with(Id::New)],
            (Some(pod), Reply::Done(id)) if pod.ready => {
                match self.same_id(&pod.id, &Id::Known(id.clone())) {
                    Some(id) => {
                        let mut state = state.clone();
                        if let Some(pod) = &mut state.pods[number] {
                            pod.id = id;
                        }
                        vec![state]
                    }
                    None => Vec::new(),
                }
            }
            (Some(pod), Reply::Refused(Code::AlreadyExists, _)) if !pod.ready => vec![state.clone()],
            (Some(_), Reply::Cut) => vec![state.clone()],
            _ => Vec::new(),
        }
    }

    fn create(&self, state: &State, made: &Made) -> Vec<State> {
        let (pod_number, number) = (made.call.pod(), made.call.container().unwrap_or_default());
        let Some(pod) = state.pod(pod_number, &made.target) else {
            return refused(state, &made.reply, Code::NotFound);
        };
        if !pod.ready {
            return refused(state, &made.reply, Code::FailedPrecondition);
        }
        let with = |id: Id| {
            let mut state = state.clone();
            let made = ModelContainer { id, phase: Phase::Created, quota: 0, start_untold: false };
            if let Some(pod) = &mut state.pods[pod_number] {
                pod.containers[number] = Some(made);
            }
            state
        };
        match (&pod.containers[number], &made.reply) {
            (None, Reply::Done(id)) if !self.seen.contains(id) => vec![with(Id::Known(id.clone()))],
            (None, Reply::Cut) => vec![state.clone(), with(Id::New)],
            (Some(it), reply) if it.phase == Phase::Exited => refused(state, reply, Code::AlreadyExists),
            (Some(it), Reply::Done(id)) => match self.same_id(&it.id, &Id::Known(id.clone())) {
                Some(id) => {
                    let mut state = state.clone();
                    if let Some(it) = state.at_mut(pod_number, number) {
                        it.id = id;
                    }
                    vec![state]
                }
                None => Vec::new(),
            },
            (Some(_), Reply::Cut) => vec![state.clone()],
            _ => Vec::new(),
        }
    }
}

// === impl State ===

impl State {
    /// The pod of this number, if it has this id.
    fn pod(&self, number: usize, id: &str) -> Option<&ModelPod> {
        self.pods[number].as_ref().filter(|pod| matches!(&pod.id, Id::Known(known) if known == id))
    }

    /// The container of this number, if it has this id.
    fn container(&self, pod: usize, number: usize, id: &str) -> Option<&ModelContainer> {
        let it = self.pods[pod].as_ref()?.containers[number].as_ref()?;
        Some(it).filter(|it| matches!(&it.id, Id::Known(known) if known == id))
    }

    fn at_mut(&mut self, pod: usize, number: usize) -> Option<&mut ModelContainer> {
        self.pods[pod].as_mut()?.containers[number].as_mut()
    }

    fn forget(&mut self, pod: usize, number: usize) {
        if let Some(pod) = &mut self.pods[pod] {
            pod.containers[number] = None;
        }
    }
}

fn stop_pod(state: &mut State, number: usize) {
    if let Some(pod) = &mut state.pods[number] {
        pod.ready = false;
        pod.containers.iter_mut().flatten().for_each(|container| container.phase = Phase::Exited);
    }
}

fn exit(state: &mut State, pod: usize, number: usize) {
    if let Some(container) = state.at_mut(pod, number) {
        container.phase = Phase::Exited;
    }
}

/// A call that never fails: its effect, the first of these; a death may leave any of them, or none.
fn ended(state: &State, made: &Made, effects: &[&dyn Fn(&mut State)]) -> Vec<State> {
    let after = |effect: &&dyn Fn(&mut State)| {
        let mut state = state.clone();
        effect(&mut state);
        state
    };
    match made.reply {
        Reply::Refused(..) => Vec::new(),
        Reply::Done(_) => vec![effects.first().map_or_else(|| state.clone(), after)],
        Reply::Cut => effects.iter().map(after).chain([state.clone()]).collect(),
    }
}

/// A death may leave the pod stopped, with some of its containers gone.
fn remove_pod(state: &State, made: &Made, pod: usize) -> Vec<State> {
    let some_gone = |gone: usize| {
        move |state: &mut State| {
            stop_pod(state, pod);
            (0..CONTAINERS).filter(|number| gone & (1 << number) != 0).for_each(|it| state.forget(pod, it));
        }
    };
    let gone = |state: &mut State| state.pods[pod] = None;
    let parts: Vec<_> = (0..1 << CONTAINERS).map(some_gone).collect();
    let mut effects: Vec<&dyn Fn(&mut State)> = vec![&gone];
    effects.extend(parts.iter().map(|part| part as &dyn Fn(&mut State)));
    ended(state, made, &effects)
}

fn start(state: &State, made: &Made, batch: &[Made]) -> Vec<State> {
    let (pod, number) = (made.call.pod(), made.call.container().unwrap_or_default());
    let Some(container) = state.container(pod, number, &made.target) else {
        return refused(state, &made.reply, Code::NotFound);
    };
    let with = |phase: Phase, start_untold: bool| {
        let mut state = state.clone();
        if let Some(container) = state.at_mut(pod, number) {
            (container.phase, container.start_untold) = (phase, start_untold);
        }
        state
    };
    let joined = batch.iter().filter(|it| it.call == made.call && it.target == made.target).count() > 1;
    match (container.phase, &made.reply) {
        (Phase::Created, Reply::Done(_)) => vec![with(Phase::Running, false)],
        (Phase::Created, Reply::Cut) => vec![state.clone(), with(Phase::Running, true)],
        (phase, Reply::Done(_)) if container.start_untold => vec![with(phase, false)],
        (phase, Reply::Cut) if container.start_untold => vec![state.clone(), with(phase, false)],
        (Phase::Running, Reply::Done(_)) if joined => vec![state.clone()],
        (Phase::Created, _) => Vec::new(),
        (_, reply) => refused(state, reply, Code::FailedPrecondition),
    }
}

fn update(state: &State, made: &Made) -> Vec<State> {
    let Call::Update(pod, number, quota) = made.call else { return Vec::new() };
    let Some(container) = state.container(pod, number, &made.target) else {
        return refused(state, &made.reply, Code::NotFound);
    };
    if container.phase == Phase::Exited {
        return refused(state, &made.reply, Code::FailedPrecondition);
    }
    let set = |state: &mut State| {
        if let Some(container) = state.at_mut(pod, number) {
            container.quota = quota;
        }
    };
    ended(state, made, &[&set])
}

/// Exec and reopen change nothing that is listed.
fn look(state: &State, made: &Made) -> Vec<State> {
    let (pod, number) = (made.call.pod(), made.call.container().unwrap_or_default());
    match state.container(pod, number, &made.target) {
        None => refused(state, &made.reply, Code::NotFound),
        Some(it) if it.phase == Phase::Running => ended(state, made, &[]),
        Some(_) => refused(state, &made.reply, Code::FailedPrecondition),
    }
}

fn refused(state: &State, reply: &Reply, expected: Code) -> Vec<State> {
    let fits = match reply {
        Reply::Refused(code, _) => *code == expected,
        Reply::Cut => true,
        Reply::Done(_) => false,
    };
    if fits { vec![state.clone()] } else { Vec::new() }
}

/// Whether a call that ends the same thing, or its pod, runs at the same time.
fn loses(call: Call, batch: &[Made]) -> bool {
    batch.iter().any(|other| match other.call {
        Call::StopPod(pod) | Call::RemovePod(pod) => pod == call.pod() && other.call != call,
        Call::Stop(pod, number) | Call::Remove(pod, number) => {
            pod == call.pod() && Some(number) == call.container()
        }
        _ => false,
    })
}

/// Whether that is how a call loses.
fn is_lost(call: Call, code: Code) -> bool {
    match call {
        Call::Create(..) | Call::Start(..) | Call::Update(..) => {
            matches!(code, Code::Aborted | Code::FailedPrecondition | Code::NotFound)
        }
        // The process, or its monitor, is killed under it.
        Call::Exec(..) | Call::Reopen(..) => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
