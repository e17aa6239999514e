// SPDX-License-Identifier: Apache-2.0
//! `hull`: the daemon, and the commands that talk to it.

mod arguments;
mod command;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, ImageCommand, OpsCommand, SessionsCommand};

fn main() -> ExitCode {
    // Before anything is made, or makes a thread: containers, monitors and plugins inherit it.
    hull_files::set_umask();
    // Before anything makes a thread: this may be the process that a pod's user namespace begins with.
    if let Some(code) = hull_netns::helper::run_if_asked(std::env::args_os()) {
        return code;
    }
    // Or the one that looks at paths that may hang.
    if let Some(code) = hull_server::volume::helper::run_if_asked(std::env::args_os()) {
        return code;
    }
    let arguments = Arguments::parse();
    let done = |()| ExitCode::SUCCESS;
    let result = match arguments.command {
        Command::Serve { config, backend, dir } => {
            command::serve::serve(config, backend.as_deref(), dir).map(done)
        }
        Command::Image { command: ImageCommand::Import { path, config } } => {
            command::import::import(&path, config).map(done)
        }
        Command::Status { place, json } => command::status::status(&place, json).map(done),
        Command::Ops { place, json, command: None } => command::ops::list(&place, json).map(done),
        Command::Ops { place, command: Some(OpsCommand::Cancel { key }), .. } => {
            command::ops::cancel(&place, &key).map(done)
        }
        Command::Check { place, repair, json } => match command::check::check(&place, repair, json) {
            // 1 is an answer: something is left over.
            Err(error) => {
                command::complain(&error);
                Ok(ExitCode::from(2))
            }
            answer => answer,
        },
        Command::Wipe { config, force } => {
            command::check::wipe(&arguments::Where { config, socket: None }, force)
        }
        Command::Sessions { place, json, command: None } => command::sessions::list(&place, json).map(done),
        Command::Sessions { place, command: Some(SessionsCommand::Kill { id }), .. } => {
            command::sessions::kill(&place, id).map(done)
        }
        Command::Completion { shell } => command::completion::print(shell).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            command::complain(&error);
            ExitCode::FAILURE
        }
    }
}
