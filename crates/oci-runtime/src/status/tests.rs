// SPDX-License-Identifier: Apache-2.0
//! What is made out of what is told.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const AT: SystemTime = SystemTime::UNIX_EPOCH;

fn told(status: RuntimeStatus, pid: Option<i32>) -> RuntimeState {
    RuntimeState { id: "a".to_owned(), status, pid, bundle: PathBuf::from("/b"), created: None }
}

fn file(code: ExitCode) -> ExitFile {
    ExitFile { code, finished_at: AT, oom: false }
}

fn stopped(code: i32) -> Resolution {
    Resolution::Known(ContainerState::Stopped(Exit {
        code,
        at: AT,
        oom: false,
        source: ExitSource::ExitFile,
    }))
}

#[test]
fn decodes_codes() {
    for (text, code) in [
        ("0", ExitCode::Status(0)),
        ("255\n", ExitCode::Status(255)),
        ("137", ExitCode::Status(137)),
        ("-1", ExitCode::TimedOut),
        ("256", ExitCode::Garbled("256".into())),
        ("-2", ExitCode::Garbled("-2".into())),
        ("+7", ExitCode::Garbled("+7".into())),
        ("", ExitCode::Garbled(String::new())),
        ("x", ExitCode::Garbled("x".into())),
    ] {
        assert_eq!(parse_exit_code(text.as_bytes()), code, "{text}");
    }
    assert_eq!(ExitCode::TimedOut.as_code(), 137);
}

#[test]
fn reads_files() {
    let dir = tempfile::tempdir().unwrap();
    let (path, oom) = (dir.path().join("exit"), dir.path().join("oom"));
    assert_eq!(ExitFile::read(&path, Some(&oom)).unwrap(), None);
    let before = SystemTime::now() - Duration::from_secs(2);
    std::fs::write(&path, "3").unwrap();
    let read = ExitFile::read(&path, Some(&oom)).unwrap().unwrap();
    assert_eq!((&read.code, read.oom), (&ExitCode::Status(3), false));
    assert!(read.finished_at > before && read.finished_at < SystemTime::now() + Duration::from_secs(2));
    std::fs::write(&oom, "").unwrap();
    assert!(ExitFile::read(&path, Some(&oom)).unwrap().unwrap().oom);
    std::fs::write(&path, "9".repeat(100_000)).unwrap();
    let read = ExitFile::read(&path, None).unwrap().unwrap();
    assert!(matches!(read.code, ExitCode::Garbled(text) if text.len() <= 64));
    let error = ExitFile::read(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn resolves_by_the_table() {
    use RuntimeStatus as Status;
    let known = Resolution::Known;
    let creating = ContainerState::Creating;
    let created = ContainerState::Created { pid: 7 };
    let running = ContainerState::Running { pid: 7 };
    let paused = ContainerState::Paused { pid: 7 };
    let ended = file(ExitCode::Status(3));
    for (previous, runtime, exit, expected) in [
        (creating, None, None, known(creating)),
        (creating, Some((Status::Creating, None)), None, known(creating)),
        (creating, Some((Status::Created, Some(7))), None, known(created)),
        (created, Some((Status::Created, Some(7))), None, known(created)),
        (created, Some((Status::Running, Some(7))), None, known(running)),
        (running, Some((Status::Paused, Some(7))), None, known(paused)),
        (paused, Some((Status::Running, Some(7))), None, known(running)),
        (running, Some((Status::Running, None)), None, known(running)),
        (running, Some((Status::Running, Some(8))), None, Resolution::Gone),
        (running, Some((Status::Stopped, None)), None, Resolution::Gone),
        (running, None, None, Resolution::Gone),
        // The process ended between the two looks.
        (running, Some((Status::Running, Some(7))), Some(&ended), stopped(3)),
        (running, None, Some(&ended), stopped(3)),
        (created, Some((Status::Stopped, None)), Some(&ended), stopped(3)),
        (paused, None, Some(&file(ExitCode::TimedOut)), stopped(137)),
        (
            running,
            None,
            Some(&file(ExitCode::Garbled("x".into()))),
            Resolution::Garbled { at: AT, oom: false, text: "x".into() },
        ),
        (ContainerState::Deleted, Some((Status::Running, Some(7))), None, known(ContainerState::Deleted)),
    ] {
        let runtime = runtime.map(|(status, pid)| told(status, pid));
        assert_eq!(resolve(previous, runtime.as_ref(), exit), expected, "{previous} {runtime:?} {exit:?}");
    }
}

proptest! {
    #[test]
    fn an_exit_never_changes(first in any::<u8>(), second in "[-a-z0-9]{0,5}", alive in any::<bool>()) {
        let running = ContainerState::Running { pid: 7 };
        let Resolution::Known(ended) = resolve(running, None, Some(&file(ExitCode::Status(first)))) else {
            return Err(TestCaseError::fail("an exit file was not believed"));
        };
        prop_assert_eq!(ended.exit().map(|exit| exit.code), Some(i32::from(first)));
        let runtime = alive.then(|| told(RuntimeStatus::Running, Some(7)));
        let later = file(parse_exit_code(second.as_bytes()));
        prop_assert_eq!(resolve(ended, runtime.as_ref(), Some(&later)), Resolution::Known(ended));
    }

    #[test]
    fn every_code_reads_back(code in any::<u8>(), space in "[ \n]{0,3}") {
        prop_assert_eq!(parse_exit_code(format!("{space}{code}{space}").as_bytes()), ExitCode::Status(code));
    }
}

#[tokio::test]
async fn readers_see_the_last_value_and_waiters_the_wanted_one() {
    let cell = std::sync::Arc::new(StatusCell::new(1));
    let mut watch = cell.watch();
    let held = cell.snapshot();
    let writer = cell.clone();
    let task = tokio::spawn(async move { watch.wait_for(|value| *value >= 3).await });
    assert!(writer.update(|value| Some(value + 1)));
    assert!(!writer.update(|_| None));
    writer.publish(3);
    assert_eq!(task.await.unwrap().as_deref(), Some(&3));
    assert_eq!((*held, *cell.snapshot()), (1, 3), "a snapshot is not changed under its reader");

    let mut watch = cell.watch();
    cell.publish(4);
    assert_eq!(watch.changed().await.as_deref(), Some(&4));
    drop((cell, writer));
    assert_eq!(watch.changed().await, None);
    assert_eq!(*watch.snapshot(), 4);
}
