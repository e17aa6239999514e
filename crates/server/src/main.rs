// SPDX-License-Identifier: Apache-2.0
//! `hull`: the daemon, and the commands that talk to it.

mod arguments;
mod command;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, ImageCommand};

fn main() -> ExitCode {
    // Before anything makes a thread: this may be the process that a pod's user namespace begins with.
    if let Some(code) = hull_netns::helper::run_if_asked(std::env::args_os()) {
        return code;
    }
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Serve { config, backend, dir } => command::serve::serve(config, backend.as_deref(), dir),
        Command::Image { command: ImageCommand::Import { path, config } } => {
            command::import::import(&path, config)
        }
        Command::Completion { shell } => command::completion::print(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::complain(&error);
            ExitCode::FAILURE
        }
    }
}
