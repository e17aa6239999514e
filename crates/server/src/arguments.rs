// SPDX-License-Identifier: Apache-2.0
//! The command line of `hull`. The build script reads it too, for manual pages and completions: nothing else of the
//! program is used here.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// A container runtime daemon for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(name = "hull", version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// Print the completions for a shell.
    Completion {
        /// For which shell.
        #[arg(value_enum, default_value = "bash", ignore_case = true)]
        shell: Shell,
    },
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Take the images of an OCI layout (directory or archive) or a docker archive.
    Import {
        /// The directory or archive.
        path: PathBuf,
        /// The configuration file of the daemon that keeps the images.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// A shell that there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// source <(hull completion bash)
    Bash,
    /// hull completion zsh > "${fpath[1]}/_hull"
    Zsh,
    /// hull completion fish | source
    Fish,
}
