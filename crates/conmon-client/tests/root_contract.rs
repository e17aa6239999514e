// SPDX-License-Identifier: Apache-2.0
//! The contract on real runtimes, under conmon and without a monitor. Needs root and HULL_ROOT_TESTS=1.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a panic is how a test fails"
)]

mod real;

use hull_conmon_client::contract::suite;
use real::{Machine, kernel_tells_exits, root_tests_enabled};

async fn keeps_the_contract(machine: impl FnOnce() -> Machine) {
    if !root_tests_enabled() {
        eprintln!("skipped: set HULL_ROOT_TESTS=1");
        return;
    }
    let machine = machine();
    if machine.is_direct && !kernel_tells_exits() {
        eprintln!(
            "skipped: without a monitor only the kernel knows exit codes, and it tells them from Linux 6.15 on"
        );
        return;
    }
    suite(&machine).await;
    machine.finish().await;
}

#[tokio::test]
async fn conmon_with_runc() {
    keeps_the_contract(Machine::runc).await;
}

#[tokio::test]
async fn conmon_with_crun() {
    keeps_the_contract(Machine::crun).await;
}

#[tokio::test]
async fn runc_without_a_monitor() {
    keeps_the_contract(|| Machine::runc().direct()).await;
}

#[tokio::test]
async fn crun_without_a_monitor() {
    keeps_the_contract(|| Machine::crun().direct()).await;
}
