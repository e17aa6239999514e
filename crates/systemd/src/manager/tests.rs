// SPDX-License-Identifier: Apache-2.0
//! Against a bus of our own that plays systemd.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::bus::wire::tests::message;
use crate::bus::wire::{self, FIXED};

/// What the manager answers to a method that is not about the connection.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A job, which ends with this result; a stranger's signal about it comes first.
    Job(&'static str),
    /// The job's end before the reply.
    Early,
    /// Nothing but a return.
    Return,
    /// An error's name.
    Error(&'static str),
    Silence,
    HangUp,
}

struct Fake {
    systemd: Systemd,
    calls: Arc<Mutex<Vec<String>>>,
    _dir: tempfile::TempDir,
}

/// Plays through the answers, one for each call to the manager.
fn fake(answers: &[Answer]) -> Fake {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, answers) = (calls.clone(), answers.to_vec());
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &seen, &mut answers).await;
        }
    });
    Fake { systemd: Systemd::at(path).within(Duration::from_secs(30)), calls, _dir: dir }
}

async fn serve(
    stream: UnixStream,
    seen: &Mutex<Vec<String>>,
    answers: &mut impl Iterator<Item = Answer>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await.ok()?;
    assert!(line.starts_with(b"\0AUTH EXTERNAL "), "{line:?}");
    stream.write_all(b"OK 0123\r\n").await.ok()?;
    line.clear();
    stream.read_until(b'\n', &mut line).await.ok()?;
    assert_eq!(line, b"BEGIN\r\n");
    loop {
        let mut fixed = [0; FIXED];
        stream.read_exact(&mut fixed).await.ok()?;
        let mut bytes = fixed.to_vec();
        bytes.resize(wire::whole_length(&fixed).unwrap(), 0);
        stream.read_exact(&mut bytes[FIXED..]).await.ok()?;
        let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        let call = wire::parse(&bytes).unwrap();
        let member = call.member.clone().unwrap();
        let from = [(7, "s", ":1.1")];
        let done = |text: &str| message(2, &from, Some(serial), &Body::strings(&[text]));
        if ["Hello", "AddMatch", "Subscribe"].contains(&member.as_str()) {
            stream.write_all(&done(":1.9")).await.ok()?;
            continue;
        }
        seen.lock().unwrap().push(format!("{member} {}", call.text(0).unwrap_or_default()));
        let job = Body::new("o", |out| out.string("/job/1"));
        let reply = message(2, &from, Some(serial), &job);
        match answers.next().unwrap_or(Answer::Silence) {
            Answer::Job(result) => {
                let mut out = reply;
                out.extend(removed(":1.66", "/job/1", "done"));
                out.extend(removed(":1.1", "/job/2", "failed"));
                out.extend(removed(":1.1", "/job/1", result));
                // Byte by byte: what is read is what the lengths say, not what comes at once.
                for byte in out {
                    stream.write_all(&[byte]).await.ok()?;
                }
            }
            Answer::Early => {
                let mut out = removed(":1.1", "/job/1", "done");
                out.extend(reply);
                stream.write_all(&out).await.ok()?;
            }
            Answer::Return => stream.write_all(&done("")).await.ok()?,
            Answer::Error(name) => {
                let fields = [(4, "s", name), (7, "s", ":1.1")];
                let body = Body::strings(&["so it is"]);
                stream.write_all(&message(3, &fields, Some(serial), &body)).await.ok()?;
            }
            Answer::Silence => {}
            Answer::HangUp => return None,
        }
    }
}

fn removed(sender: &str, job: &str, result: &str) -> Vec<u8> {
    let body = Body::new("uoss", |out| {
        out.u32(1);
        [job, "a.scope", result].iter().for_each(|text| out.string(text));
    });
    message(4, &[(3, "s", "JobRemoved"), (7, "s", sender)], None, &body)
}

fn scope() -> Scope {
    Scope { name: "a.scope".into(), slice: "b.slice".into(), description: "a test".into(), pids: vec![7] }
}

impl Fake {
    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_scope_is_there_when_its_job_is_done() {
    for answer in [Answer::Job("done"), Answer::Early] {
        let fake = fake(&[answer]);
        fake.systemd.start_scope(&scope()).await.unwrap();
        assert_eq!(fake.calls(), ["StartTransientUnit a.scope"]);
    }
}

#[tokio::test]
async fn a_job_that_fails_is_told_with_its_result() {
    let fake = fake(&[Answer::Job("timeout")]);
    let error = fake.systemd.start_scope(&scope()).await.unwrap_err();
    assert!(matches!(&error, Error::Job { verb: "start", result, .. } if result == "timeout"), "{error}");
}

#[tokio::test]
async fn what_an_earlier_attempt_left_is_stopped_first() {
    let answers = [Answer::Error(UNIT_EXISTS), Answer::Job("done"), Answer::Return, Answer::Job("done")];
    let fake = fake(&answers);
    fake.systemd.start_scope(&scope()).await.unwrap();
    let start = "StartTransientUnit a.scope";
    assert_eq!(fake.calls(), [start, "StopUnit a.scope", "ResetFailedUnit a.scope", start]);
}

#[tokio::test]
async fn a_slice_that_is_there_and_a_unit_that_is_gone_are_fine() {
    let fake = fake(&[Answer::Error(UNIT_EXISTS), Answer::Error(NO_SUCH_UNIT), Answer::Error(NO_SUCH_UNIT)]);
    fake.systemd.start_slice("b.slice", "a test").await.unwrap();
    fake.systemd.stop("b.slice").await.unwrap();
    fake.systemd.forget_failure("b.slice").await.unwrap();
}

#[tokio::test]
async fn a_refusal_names_method_unit_and_reason() {
    let fake = fake(&[Answer::Error("org.freedesktop.DBus.Error.InvalidArgs")]);
    let error =
        fake.systemd.set_properties("a.scope", &[Property::Number("CPUWeight", 1)]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "SetUnitProperties of a.scope: so it is (org.freedesktop.DBus.Error.InvalidArgs)"
    );
}

#[tokio::test]
async fn one_that_says_nothing_or_hangs_up_holds_nobody_up() {
    let silent = fake(&[Answer::Silence]);
    let error = silent.systemd.clone().within(Duration::from_millis(50)).probe().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    let fake = fake(&[Answer::HangUp]);
    assert!(matches!(fake.systemd.probe().await.unwrap_err(), Error::Io { step: "reading", .. }));
    let nobody = Systemd::at("/no/such/bus").probe().await.unwrap_err();
    assert!(matches!(nobody, Error::Unreachable { .. }), "{nobody}");
}

#[test]
fn a_set_is_a_string_of_bits() {
    for (numbers, bytes) in
        [(&[][..], &[][..]), (&[0], &[1]), (&[0, 3, 9], &[0b1001, 0b10]), (&[17], &[0, 0, 0b10])]
    {
        assert_eq!(bits(numbers), bytes, "{numbers:?}");
    }
}
