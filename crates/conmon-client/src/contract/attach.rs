// SPDX-License-Identifier: Apache-2.0
//! Clients of a container's standard streams.

use tokio::time::Instant;

use super::{Fixture, PATIENCE, Subject, Workload, bounded, log_lines};
use crate::Error;
use crate::attach::{AttachRequest, Attachment, Input, Lost, Output, Stream};

pub(super) async fn all(fixture: &dyn Fixture) {
    if !fixture.capabilities().attach {
        none(fixture).await;
        return;
    }
    several_clients_come_and_go(fixture).await;
    stdin_once_ends_with_its_first_input(fixture).await;
    a_stalled_client_is_dropped_alone(fixture).await;
}

async fn none(fixture: &dyn Fixture) {
    let subject = Subject::run(fixture, "contract-no-attach").await;
    let outcome = subject.monitor.attach(&subject.container, request(&subject, false)).await;
    assert!(matches!(outcome, Err(Error::Unsupported { .. })), "{outcome:?}");
    subject.kill().await;
    subject.wait().await;
    subject.end().await;
}

fn request(subject: &Subject<'_>, input: bool) -> AttachRequest {
    AttachRequest { stdio: subject.request.stdio, input }
}

async fn attach(subject: &Subject<'_>, input: bool) -> Attachment {
    let attached = subject.monitor.attach(&subject.container, request(subject, input));
    let attachment = bounded("attach", attached).await.expect("attach");
    assert_eq!(attachment.input.is_some(), input, "an input if one was asked for");
    attachment
}

async fn say(input: Option<&Input>, line: &str) {
    let input = input.expect("an input");
    bounded("a write to stdin", input.write(format!("{line}\n").as_bytes())).await.expect("write to stdin");
}

/// Reads until all that was read ends with `what`; stdout alone.
async fn hears(output: &mut Output, what: &str) {
    let mut heard = String::new();
    while !heard.ends_with(what) {
        match bounded("output", output.next()).await {
            Ok(Some((Stream::Stdout, bytes))) => heard.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {heard:?}, instead of {what:?}"),
        }
    }
}

async fn hears_the_end(output: &mut Output) {
    let end = bounded("the end of the output", output.next()).await;
    assert!(matches!(end, Ok(None)), "{end:?}");
}

async fn several_clients_come_and_go(fixture: &dyn Fixture) {
    let workload = Workload::Shell { stdin_once: false };
    let mut subject = Subject::create(fixture, "contract-attach", &workload).await;
    let mut first = attach(&subject, true).await;
    let mut watcher = attach(&subject, false).await;
    fixture.start("contract-attach").await;
    say(first.input.as_ref(), "echo one").await;
    hears(&mut first.output, "one\n").await;
    hears(&mut watcher.output, "one\n").await;
    // What was written before it leaves arrives, and leaving closes nothing.
    say(first.input.as_ref(), "echo two").await;
    drop(first);
    hears(&mut watcher.output, "two\n").await;
    drop(watcher);
    // Also when it was the only one, and does not wait.
    let hasty = attach(&subject, true).await;
    say(hasty.input.as_ref(), "echo hasty").await;
    drop(hasty);

    subject.monitor = fixture.monitor();
    let mut later = attach(&subject, true).await;
    let mut other = attach(&subject, true).await;
    say(later.input.as_ref(), "echo three").await;
    hears(&mut other.output, "three\n").await;
    say(other.input.as_ref(), "exit 3").await;
    hears(&mut later.output, "three\n").await;
    hears_the_end(&mut later.output).await;
    hears_the_end(&mut other.output).await;
    assert_eq!(subject.wait().await.code, 3);
    let late = bounded("attach", subject.monitor.attach(&subject.container, request(&subject, false))).await;
    assert!(matches!(late, Err(Error::NoMonitor { .. })), "after the end: {late:?}");
    if fixture.capabilities().cri_log {
        let mut log = log_lines(subject.request.log_path.as_deref().expect("a log"));
        // The input of two connections is not in order.
        log.sort();
        let expected =
            ["hasty", "one", "three", "two"].map(|line| ("stdout".to_owned(), 'F', line.to_owned()));
        assert_eq!(log, expected);
    }
    subject.end().await;
}

async fn stdin_once_ends_with_its_first_input(fixture: &dyn Fixture) {
    let workload = Workload::Shell { stdin_once: true };
    let subject = Subject::create(fixture, "contract-once", &workload).await;
    fixture.start("contract-once").await;
    // One that only listens does not count, also when it is the only one.
    drop(attach(&subject, false).await);
    let mut client = attach(&subject, true).await;
    say(client.input.as_ref(), "echo here").await;
    hears(&mut client.output, "here\n").await;
    let mut watcher = attach(&subject, false).await;
    say(client.input.as_ref(), "echo last").await;
    drop(client.input);
    hears(&mut client.output, "last\n").await;
    hears(&mut watcher.output, "last\n").await;
    hears_the_end(&mut client.output).await;
    hears_the_end(&mut watcher.output).await;
    assert_eq!(subject.wait().await.code, 0, "a shell ends with its input");
    subject.end().await;
}

async fn a_stalled_client_is_dropped_alone(fixture: &dyn Fixture) {
    const LINES: usize = 1000;
    let workload = Workload::Shell { stdin_once: false };
    let subject = Subject::create(fixture, "contract-stalled", &workload).await;
    fixture.start("contract-stalled").await;
    let mut stalled = attach(&subject, true).await;
    let mut client = attach(&subject, true).await;
    let line = |number: usize| format!("{number} {}", "x".repeat(1000));
    let start = Instant::now();
    for number in 0..LINES {
        say(client.input.as_ref(), &format!("echo {}", line(number))).await;
        hears(&mut client.output, &format!("{}\n", line(number))).await;
    }
    assert!(start.elapsed() < 3 * PATIENCE, "{LINES} lines took {:?}", start.elapsed());
    // It is told, after what it had room for.
    let lost = bounded("being dropped", stalled.output.fell_behind()).await;
    assert!(matches!(lost, Lost::Behind { .. }), "{lost:?}");
    let mut heard = 0;
    let lost = loop {
        match bounded("output", stalled.output.next()).await {
            Ok(Some((_, bytes))) => heard += bytes.len(),
            Ok(None) => panic!("the container has not ended"),
            Err(lost) => break lost,
        }
    };
    assert!(matches!(lost, Lost::Behind { .. }), "{lost:?}");
    assert!(heard > 100_000, "it had room for more than {heard} bytes");
    say(client.input.as_ref(), "exit 0").await;
    hears_the_end(&mut client.output).await;
    assert_eq!(subject.wait().await.code, 0);
    if fixture.capabilities().cri_log {
        let log = log_lines(subject.request.log_path.as_deref().expect("a log"));
        let lines: Vec<String> = log.into_iter().map(|(_, _, line)| line).collect();
        assert!(lines == (0..LINES).map(line).collect::<Vec<_>>(), "the log has {} lines", lines.len());
    }
    subject.end().await;
}
