// SPDX-License-Identifier: Apache-2.0
use super::*;

fn made(call: Call, target: &str, reply: Reply) -> Made {
    Made { call, target: target.to_owned(), reply, time: (0, 1) }
}

fn done(call: Call, target: &str, id: &str) -> Made {
    made(call, target, Reply::Done(id.to_owned()))
}

fn refusal(call: Call, target: &str, code: Code) -> Made {
    made(call, target, Reply::Refused(code, String::new()))
}

/// A pod `p` with a created container `c`.
fn with_container() -> Model {
    let mut model = Model::default();
    model.happened(&[done(Call::RunPod(0), "", "p")]).unwrap();
    model.happened(&[done(Call::Create(0, 0), "p", "c")]).unwrap();
    see(&mut model).unwrap();
    model
}

/// The lists show the first of the states that are left.
fn see(model: &mut Model) -> Result<(), String> {
    let state = model.states().first().unwrap().clone();
    model.observed(&state)
}

fn phases(model: &Model) -> Vec<Option<Phase>> {
    let phase = |state: &State| {
        state.pods[0].as_ref().and_then(|pod| pod.containers[0].as_ref()).map(|container| container.phase)
    };
    model.states().iter().map(phase).collect()
}

#[test]
fn one_call_has_one_outcome() {
    let mut model = with_container();
    model.happened(&[done(Call::Start(0, 0), "c", "")]).unwrap();
    assert_eq!(phases(&model), [Some(Phase::Running)]);
    assert!(model.happened(&[done(Call::Start(0, 0), "c", "")]).is_err(), "it runs already");
    model.happened(&[refusal(Call::Start(0, 0), "c", Code::FailedPrecondition)]).unwrap();
    assert!(model.happened(&[done(Call::Create(0, 0), "p", "other")]).is_err(), "a second container");
    assert!(model.happened(&[refusal(Call::Stop(0, 0), "c", Code::Internal)]).is_err(), "a stop never fails");
    model.happened(&[done(Call::StopPod(0), "p", "")]).unwrap();
    assert_eq!(phases(&model), [Some(Phase::Exited)]);
    assert!(
        model.happened(&[refusal(Call::Create(0, 1), "p", Code::Aborted)]).is_err(),
        "nobody else is there"
    );
}

#[test]
fn calls_at_once_may_have_come_in_any_order() {
    let mut model = with_container();
    let both = [done(Call::Start(0, 0), "c", ""), done(Call::Remove(0, 0), "c", "")];
    model.happened(&both).unwrap();
    assert_eq!(phases(&model), [None]);
    let mut model = with_container();
    let both = [refusal(Call::Start(0, 0), "c", Code::NotFound), done(Call::Stop(0, 0), "c", "")];
    model.happened(&both).unwrap();
    assert_eq!(phases(&model), [Some(Phase::Exited)]);
    // Two creates of the same thing share a result.
    let both = [done(Call::Create(0, 1), "p", "d"), done(Call::Create(0, 1), "p", "d")];
    model.happened(&both).unwrap();
    let both = [done(Call::Create(0, 1), "p", "d"), done(Call::Create(0, 1), "p", "e")];
    assert!(model.happened(&both).is_err());
}

#[test]
fn an_order_keeps_to_the_clock() {
    let mut first = refusal(Call::Start(0, 0), "c", Code::FailedPrecondition);
    let mut second = done(Call::Stop(0, 1), "d", "");
    first.time = (0, 10);
    second.time = (20, 30);
    let mut model = with_container();
    assert!(model.happened(&[first, second]).is_err(), "a start that nothing was in the way of");
    let (mut stop, mut start) =
        (done(Call::Stop(0, 0), "c", ""), refusal(Call::Start(0, 0), "c", Code::FailedPrecondition));
    (stop.time, start.time) = ((0, 10), (20, 30));
    model.happened(&[start, stop]).unwrap();
}

#[test]
fn a_call_that_was_cut_has_happened_or_not() {
    let mut model = with_container();
    model.happened(&[made(Call::Start(0, 0), "c", Reply::Cut)]).unwrap();
    assert_eq!(phases(&model), [Some(Phase::Created), Some(Phase::Running)]);
    let mut running = model.states().last().unwrap().clone();
    model.observed(&running).unwrap();
    // Its caller asks again, and is told that it is done; the one after that is not.
    model.happened(&[done(Call::Start(0, 0), "c", "")]).unwrap();
    assert!(model.happened(&[done(Call::Start(0, 0), "c", "")]).is_err());

    model.happened(&[made(Call::RemovePod(0), "p", Reply::Cut)]).unwrap();
    running.pods[0].as_mut().unwrap().containers[0].as_mut().unwrap().phase = Phase::Exited;
    assert!(model.observed(&running).is_err(), "containers end after their pod began to stop");
    running.pods[0].as_mut().unwrap().ready = false;
    model.observed(&running).unwrap();
}

#[test]
fn what_a_cut_call_made_is_new() {
    let mut model = with_container();
    model.happened(&[made(Call::Create(0, 1), "p", Reply::Cut)]).unwrap();
    let mut state = model
        .states()
        .iter()
        .find(|it| it.pods[0].as_ref().unwrap().containers[1].is_some())
        .unwrap()
        .clone();
    state.pods[0].as_mut().unwrap().containers[1].as_mut().unwrap().id = Id::Known("c".to_owned());
    assert!(model.observed(&state).is_err(), "the id of another");
    state.pods[0].as_mut().unwrap().containers[1].as_mut().unwrap().id = Id::Known("d".to_owned());
    model.observed(&state).unwrap();
    model.happened(&[done(Call::Create(0, 1), "p", "d")]).unwrap();
}
