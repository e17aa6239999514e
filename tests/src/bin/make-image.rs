// SPDX-License-Identifier: Apache-2.0
//! Writes a busybox image, for `cargo xtask demo`: `make-image DIRECTORY NAME` prints the archive's path.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, name] = &args[..] else {
        eprintln!("usage: make-image DIRECTORY NAME");
        return ExitCode::from(2);
    };
    println!("{}", hull_tests::images::make(Path::new(dir), name).display());
    ExitCode::SUCCESS
}
