// SPDX-License-Identifier: Apache-2.0
//! As in the daemon, which is the reaper of all orphans. A program of its own: being the reaper is a
//! matter of the whole process. Needs root and HULL_ROOT_TESTS=1.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a panic is how a test fails")]

mod real;

use std::fs;
use std::time::{Duration, Instant};

use hull_conmon_client::Monitor;
use hull_conmon_client::contract::suite;
use hull_oci_runtime::ExitSource;
use real::{Machine, root_tests_enabled};
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test]
async fn the_reaper_of_orphans_keeps_the_contract() {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    hull_process::reaper::install().unwrap();
    for machine in [Machine::runc(), Machine::runc().direct()] {
        suite(&machine).await;
        machine.finish().await;
    }
    let machine = Machine::runc();
    a_container_without_monitor_becomes_our_child(&machine).await;
    machine.finish().await;
    no_children_are_left().await;
}

async fn a_container_without_monitor_becomes_our_child(machine: &Machine) {
    let monitor = machine.conmon();
    let request = machine.shell("orphan", "while :; do sleep 1000; done");
    let container = machine.create_and_start(&monitor, &request).await;
    kill_process(Pid::from_raw(container.monitor.unwrap().pid).unwrap(), Signal::KILL).unwrap();
    // Nobody waits meanwhile: the exit is told afterwards all the same.
    kill_process(Pid::from_raw(container.process.pid).unwrap(), Signal::KILL).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let exit = monitor.wait(&container).await;
    assert_eq!((exit.code, exit.source), (137, ExitSource::Kernel));
}

/// Launchers, monitors and orphans are all reaped.
async fn no_children_are_left() {
    let children = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists.collect::<String>()
    };
    let start = Instant::now();
    while !children().trim().is_empty() && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(children().trim(), "", "children are left");
}
