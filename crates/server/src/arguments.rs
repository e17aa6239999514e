// SPDX-License-Identifier: Apache-2.0
//! The command line of `hull`. The build script reads it too, for manual pages and completions: nothing else of the
//! program is used here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// How the daemon is, and what it could not give back yet.
    Status {
        #[command(flatten)]
        place: Where,
        /// Print a document for programs.
        #[arg(long)]
        json: bool,
    },
    /// What the daemon does now, and what it waits for.
    Ops {
        #[command(flatten)]
        place: Where,
        /// Print a document for programs.
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<OpsCommand>,
    },
    /// Look for what no record knows: mounts, namespaces, cgroups, monitors, addresses, layers, directories, records.
    ///
    /// Asks the daemon if one runs, else looks by itself under the daemon's locks. Exits with 1 when something is left, with 2 when it cannot look.
    Check {
        #[command(flatten)]
        place: Where,
        /// Take it away, unless something lives in it.
        #[arg(long)]
        repair: bool,
        /// Print a document for programs.
        #[arg(long)]
        json: bool,
    },
    /// Take away everything of this Hull: pods, images, records, directories. The daemon must not run.
    Wipe {
        /// The configuration file of the daemon whose state is to go.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Also while pods run: they are ended.
        #[arg(long)]
        force: bool,
    },
    /// Images on this node.
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Clients of exec, attach and port-forward. Without a command: list them.
    Sessions {
        #[command(flatten)]
        place: Where,
        /// Print a document for programs.
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: Option<SessionsCommand>,
    },
    /// Print the completions for a shell.
    Completion {
        /// For which shell.
        #[arg(value_enum, default_value = "bash", ignore_case = true)]
        shell: Shell,
    },
}

/// Which daemon.
#[derive(Debug, Clone, Args)]
pub(crate) struct Where {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// The socket of the daemon. Without: as its configuration says.
    #[arg(long, value_name = "PATH", global = true, conflicts_with = "config")]
    pub(crate) socket: Option<PathBuf>,
}

/// What to do with an operation.
#[derive(Debug, Subcommand)]
pub(crate) enum OpsCommand {
    /// End one and undo what it made. What ends a thing is never cancelled.
    Cancel {
        /// The operation's key as `hull ops` shows it, or the id of its pod or container, or the beginning of that.
        key: String,
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

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// End a session: a process that was exec'd is killed with its tree, a connection is closed.
    Kill {
        /// Its number, as listed.
        id: u64,
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
