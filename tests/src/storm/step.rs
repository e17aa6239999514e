// SPDX-License-Identifier: Apache-2.0
//! What may happen in a storm, and how likely it is.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

/// Pods of a storm.
pub(super) const PODS: usize = 2;
/// Containers of each.
pub(super) const CONTAINERS: usize = 2;

/// One call, by the numbers of pod and container; a limit in microseconds of each 100 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// RunPodSandbox.
    RunPod(usize),
    /// StopPodSandbox.
    StopPod(usize),
    /// RemovePodSandbox.
    RemovePod(usize),
    /// CreateContainer.
    Create(usize, usize),
    /// StartContainer.
    Start(usize, usize),
    /// StopContainer.
    Stop(usize, usize),
    /// RemoveContainer.
    Remove(usize, usize),
    /// UpdateContainerResources with this CPU quota.
    Update(usize, usize, i64),
    /// ExecSync of `true`.
    Exec(usize, usize),
    /// ReopenContainerLog.
    Reopen(usize, usize),
}

/// One step of a storm.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// One pod with a running and a created container: so that more of a storm meets something.
    Bring(usize),
    /// Calls at once, each after its own delay; with `kill`, SIGKILL so long after the first one's begin.
    Batch {
        /// The calls.
        calls: Vec<(Duration, Call)>,
        /// When the daemon is killed.
        kill: Option<Duration>,
    },
    /// SIGKILL, and a start into this weather.
    Restart(Vec<Weather>),
}

/// A rule for one of the points that are known to be hit (see `hull_failpoint`).
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// Which point.
    pub(super) point: Index,
    /// What it does.
    pub(super) kind: Kind,
}

/// What a point does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// It is slow each time: what is seldom at once happens at once.
    Slow(Duration),
    /// It kills the daemon after so many hits.
    Kill(u32),
}

impl Call {
    /// The pod it is about.
    pub(super) fn pod(self) -> usize {
        match self {
            Self::RunPod(pod) | Self::StopPod(pod) | Self::RemovePod(pod) => pod,
            Self::Create(pod, _)
            | Self::Start(pod, _)
            | Self::Stop(pod, _)
            | Self::Remove(pod, _)
            | Self::Update(pod, ..)
            | Self::Exec(pod, _)
            | Self::Reopen(pod, _) => pod,
        }
    }

    /// The container it is about; `None`: the pod itself.
    pub(super) fn container(self) -> Option<usize> {
        match self {
            Self::RunPod(_) | Self::StopPod(_) | Self::RemovePod(_) => None,
            Self::Create(_, container)
            | Self::Start(_, container)
            | Self::Stop(_, container)
            | Self::Remove(_, container)
            | Self::Update(_, container, _)
            | Self::Exec(_, container)
            | Self::Reopen(_, container) => Some(container),
        }
    }
}

/// The calls of [`Step::Bring`], in their order.
pub(super) fn bring(pod: usize) -> [Call; 4] {
    [Call::RunPod(pod), Call::Create(pod, 0), Call::Start(pod, 0), Call::Create(pod, 1)]
}

fn call(pod: usize) -> impl Strategy<Value = Call> {
    let container = 0..CONTAINERS;
    prop_oneof![
        2 => Just(Call::RunPod(pod)),
        1 => Just(Call::StopPod(pod)),
        1 => Just(Call::RemovePod(pod)),
        4 => container.clone().prop_map(move |c| Call::Create(pod, c)),
        4 => container.clone().prop_map(move |c| Call::Start(pod, c)),
        2 => container.clone().prop_map(move |c| Call::Stop(pod, c)),
        2 => container.clone().prop_map(move |c| Call::Remove(pod, c)),
        1 => (container.clone(), 1i64..=9).prop_map(move |(c, tenth)| Call::Update(pod, c, tenth * 10_000)),
        1 => container.clone().prop_map(move |c| Call::Exec(pod, c)),
        1 => container.prop_map(move |c| Call::Reopen(pod, c)),
    ]
}

/// Calls on one pod, since those of two have nothing to do with each other; `scale` is how long a call takes.
fn batch(scale: Duration) -> impl Strategy<Value = Step> {
    let micros = u64::try_from(scale.as_micros()).unwrap_or(u64::MAX);
    let pause = move |most: u64| (0..=most).prop_map(Duration::from_micros);
    (0..PODS).prop_flat_map(move |pod| {
        // Together, or one after the other begins.
        let delay = prop_oneof![2 => Just(Duration::ZERO), 1 => pause(micros)];
        let size = prop_oneof![3 => Just(1usize), 3 => Just(2), 2 => Just(3)];
        let calls =
            size.prop_flat_map(move |size| prop::collection::vec((delay.clone(), call(pod)), size..=size));
        let kill = prop_oneof![4 => Just(None), 1 => pause(micros * 3).prop_map(Some)];
        (calls, kill).prop_map(|(calls, kill)| Step::Batch { calls, kill })
    })
}

fn weather(scale: Duration) -> impl Strategy<Value = Weather> {
    let slow = (1u64..=20).prop_map(move |tenth| Kind::Slow(scale * u32::try_from(tenth).unwrap_or(1) / 10));
    let kill = (0u32..6).prop_map(Kind::Kill);
    let kind = prop_oneof![2 => slow, 1 => kill];
    (any::<Index>(), kind).prop_map(|(point, kind)| Weather { point, kind })
}

/// A storm of so many steps at most, and a quarter of that at least.
pub(super) fn storm(steps: usize, scale: Duration) -> impl Strategy<Value = Vec<Step>> {
    let restart = prop::collection::vec(weather(scale), 0..4).prop_map(Step::Restart);
    let step = prop_oneof![2 => (0..PODS).prop_map(Step::Bring), 14 => batch(scale), 1 => restart];
    prop::collection::vec(step, steps / 4..=steps)
}
