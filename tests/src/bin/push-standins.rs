// SPDX-License-Identifier: Apache-2.0
//! Pushes stand-ins of the images that `critest` names, for `cargo xtask conformance`:
//! `push-standins HOST:PORT` prints their names.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [registry] = &args[..] else {
        eprintln!("usage: push-standins HOST:PORT");
        return ExitCode::from(2);
    };
    for name in hull_tests::standins::push(registry) {
        println!("{name}");
    }
    ExitCode::SUCCESS
}
