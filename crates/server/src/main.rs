// SPDX-License-Identifier: Apache-2.0
//! `hull`: the daemon, and the commands that talk to it.

mod command;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A container runtime daemon for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "hull", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the CRI until SIGTERM. Containers live on without the daemon.
    Serve {
        /// The configuration file. Without: /etc/hull/hull.toml if it exists, else the defaults.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Replace every backend: `mock` is a whole CRI server in memory, without root.
        #[arg(long, value_name = "BACKEND", value_parser = ["mock"])]
        backend: Option<String>,
        /// With --backend mock and without --config: where its files go. Without: a directory of this user under the temporary directory.
        #[arg(long, value_name = "DIR", requires = "backend", conflicts_with = "config")]
        dir: Option<PathBuf>,
    },
    /// Images on this node.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Take the images of an OCI layout (directory or archive) or a docker archive.
    Import {
        /// The directory or archive.
        path: PathBuf,
        /// The configuration file of the daemon that keeps the images.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Serve { config, backend, dir } => command::serve::serve(config, backend.as_deref(), dir),
        Command::Image { command: ImageCommand::Import { path, config } } => {
            command::import::import(&path, config)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::complain(&error);
            ExitCode::FAILURE
        }
    }
}
