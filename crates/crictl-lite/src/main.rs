// SPDX-License-Identifier: Apache-2.0
//! `crictl-lite`: a small command-line client for any CRI endpoint.
//!
//! It has the commands that tests, scripts and people at a node need most, with crictl's names,
//! flags, columns and configuration files where both have a thing. On top of that it promises:
//!
//! * exit codes that tell what went wrong ([`error::Error::exit_code`]);
//! * one line on stderr for each failure;
//! * a configuration key that is not known is an error that names it ([`config`]);
//! * `run` undoes what it made when a later step fails.
//!
//! `cli` parses the command line, `client` talks to the runtime, each file of `commands` holds a group
//! of commands, `bench` measures, `output` turns messages into tables, JSON and YAML, `logs` reads container logs.

mod bench;
mod cli;
mod client;
mod commands;
mod config;
mod error;
mod filter;
mod logs;
mod output;
mod values;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::error::{Error, Failures};

fn main() -> ExitCode {
    // Prints help and usage errors itself and ends the program: 0 for help, 2 for usage.
    let cli = cli::Cli::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failures::from(Error::Io { what: "start the async runtime".into(), cause }))
        .and_then(|runtime| runtime.block_on(commands::run(cli)));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failures) => {
            failures.report(&mut std::io::stderr().lock());
            // Nothing is left to do about a failure to say so.
            let _ = std::io::stderr().flush();
            ExitCode::from(failures.exit_code())
        }
    }
}
