// SPDX-License-Identifier: Apache-2.0
//! The command line. Names and flags are crictl's where crictl has them.

#[path = "bench/args.rs"]
pub(crate) mod bench;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::values::{parse_duration, parse_label};

const AFTER_HELP: &str = "\
Options of crictl-lite itself stand before the command. A pod or container configuration is a
JSON file with the names that crictl uses, such as log_directory; `-` reads it from standard
input; a key that is not known is an error. Ids may be cut short where that stays unique.

Deadlines: --timeout sets that of each request. Without it: 2 minutes; runp 4 minutes; stop
2 minutes and its own --timeout; pull, and exec without its own --timeout, none.

Exit codes:
  0  success
  1  the runtime refused, or something else failed
  2  wrong usage, or a configuration file that is wrong
  3  no such container, pod sandbox or image
  4  the deadline has passed
exec ends with the exit code of the command, once that has run. A command that works on several
things goes on after a failure; if the failures differ in kind the exit code is 1.";

/// A small command-line client for any CRI endpoint.
#[derive(Debug, Parser)]
#[command(name = "crictl-lite", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Socket of the runtime, as unix:///PATH or PATH
    #[arg(
        short = 'r',
        long,
        env = "CONTAINER_RUNTIME_ENDPOINT",
        default_value = "unix:///run/hull/hull.sock",
        value_name = "ENDPOINT"
    )]
    pub(crate) runtime_endpoint: String,
    /// Socket of the image service, when that is another one
    #[arg(short = 'i', long, env = "IMAGE_SERVICE_ENDPOINT", value_name = "ENDPOINT")]
    pub(crate) image_endpoint: Option<String>,
    /// Deadline of each request: 10, 10s, 1m30s, 500ms; 0 for none
    #[arg(short = 't', long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// Canonical JSON of the protocol's messages
    Json,
    /// The same as YAML
    Yaml,
}

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the runtime's status and configuration
    Info(InspectOutput),
    /// Show the runtime's version
    Version(ListOutput),
    /// List images
    Images(Images),
    /// Show images in full
    Inspecti(Inspect),
    /// Remove images
    Rmi(RemoveImages),
    /// Pull an image
    Pull(Pull),
    /// Make and start a pod sandbox
    Runp(RunPod),
    /// List pod sandboxes
    Pods(Pods),
    /// Show pod sandboxes in full
    Inspectp(Inspect),
    /// Stop pod sandboxes
    Stopp(Ids),
    /// Remove pod sandboxes
    Rmp(Remove),
    /// Make a container in a pod sandbox
    Create(Create),
    /// Start containers that have been made
    Start(Ids),
    /// Make a pod sandbox and a container in it, and start the container
    Run(Run),
    /// List containers: the running ones, unless a flag says which
    Ps(Ps),
    /// Show containers in full
    Inspect(Inspect),
    /// Show what containers use
    Stats(Stats),
    /// Print a container's log
    Logs(Logs),
    /// Run a command in a container, wait for it, and print what it printed
    Exec(Exec),
    /// Print the URL of an exec, attach or port-forward, for a client of your own; it is good once, for a minute
    Url(Url),
    /// Stop containers
    Stop(Stop),
    /// Remove containers
    Rm(Remove),
    /// Have a container's log written to a new file, after the old one was renamed
    ReopenLog(OneContainer),
    /// Measure how long pods take, on one endpoint or several side by side
    Bench(bench::Bench),
    /// Print the completions for a shell
    Completion(Completion),
}

/// `completion`.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// For which shell
    #[arg(value_enum, default_value = "bash", ignore_case = true)]
    pub(crate) shell: Shell,
}

/// A shell that there are completions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// source <(crictl-lite completion bash)
    Bash,
    /// crictl-lite completion zsh > "${fpath[1]}/_crictl-lite"
    Zsh,
    /// crictl-lite completion fish | source
    Fish,
}

/// Output of a command that lists.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ListOutput {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table", ignore_case = true)]
    pub(crate) output: Format,
}

/// Output of a command that shows things in full.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct InspectOutput {
    /// How to print
    #[arg(short, long, value_enum, default_value = "json", ignore_case = true)]
    pub(crate) output: Format,
}

/// `inspect`, `inspectp`, `inspecti`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// What to show
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Leave the runtime's own further facts out
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) output: InspectOutput,
}

/// Things to work on, at least one.
#[derive(Args, Debug)]
pub(crate) struct Ids {
    /// What to work on
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// One container.
#[derive(Args, Debug)]
pub(crate) struct OneContainer {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
}

/// `rm`, `rmp`.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// What to remove
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Stop what still runs first, instead of leaving it
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove all
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `images`.
#[derive(Args, Debug)]
pub(crate) struct Images {
    /// Only the image of this name
    pub(crate) name: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Do not cut ids short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) output: ListOutput,
}

/// `rmi`.
#[derive(Args, Debug)]
pub(crate) struct RemoveImages {
    /// Images to remove, with all their names
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Remove all images
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `pull`.
#[derive(Args, Debug)]
pub(crate) struct Pull {
    /// Name with tag or digest
    pub(crate) image: String,
    /// USERNAME[:PASSWORD] for the registry; the environment keeps it out of process lists
    #[arg(long, env = "CRICTL_CREDS", hide_env_values = true, value_name = "CREDS")]
    pub(crate) creds: Option<String>,
    /// Base64 of USERNAME:PASSWORD
    #[arg(long, env = "CRICTL_AUTH", hide_env_values = true, conflicts_with = "creds", value_name = "AUTH")]
    pub(crate) auth: Option<String>,
    /// The pod that the image is for
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_config: Option<PathBuf>,
}

/// `runp`.
#[derive(Args, Debug)]
pub(crate) struct RunPod {
    /// Configuration of the pod sandbox
    #[arg(value_name = "POD-CONFIG.json")]
    pub(crate) pod_config: PathBuf,
    /// Name of the runtime handler
    #[arg(short = 'r', long, default_value = "", hide_default_value = true, value_name = "HANDLER")]
    pub(crate) runtime: String,
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The pod sandbox
    #[arg(value_name = "POD-ID")]
    pub(crate) pod: String,
    /// Configuration of the container
    #[arg(value_name = "CONTAINER-CONFIG.json")]
    pub(crate) container_config: PathBuf,
    /// Configuration that the pod sandbox was made with
    #[arg(value_name = "POD-CONFIG.json")]
    pub(crate) pod_config: PathBuf,
    /// Pull the image first
    #[arg(long)]
    pub(crate) with_pull: bool,
}

/// `run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// Configuration of the container
    #[arg(value_name = "CONTAINER-CONFIG.json")]
    pub(crate) container_config: PathBuf,
    /// Configuration of the pod sandbox
    #[arg(value_name = "POD-CONFIG.json")]
    pub(crate) pod_config: PathBuf,
    /// Name of the runtime handler
    #[arg(short = 'r', long, default_value = "", hide_default_value = true, value_name = "HANDLER")]
    pub(crate) runtime: String,
    /// Pull the image first
    #[arg(long)]
    pub(crate) with_pull: bool,
}

/// State of a pod sandbox, in `pods --state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodState {
    /// Made, not stopped
    Ready,
    /// Stopped or broken
    Notready,
}

/// State of a container, in `ps --state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContainerState {
    /// Made, not started
    Created,
    /// Started, not exited
    Running,
    /// Exited
    Exited,
    /// The runtime does not know
    Unknown,
}

/// How many of a list, newest first.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Newest {
    /// Only the newest, in any state
    #[arg(short, long, conflicts_with = "last")]
    pub(crate) latest: bool,
    /// Only the N newest, in any state
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) last: Option<usize>,
}

/// `pods`.
#[derive(Args, Debug)]
pub(crate) struct Pods {
    /// Only those whose name matches this pattern
    #[arg(long, value_name = "REGEX")]
    pub(crate) name: Option<String>,
    /// Only those whose Kubernetes namespace matches this pattern
    #[arg(long, value_name = "REGEX")]
    pub(crate) namespace: Option<String>,
    /// Only those whose id begins so
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only those in this state
    #[arg(short, long, value_enum, ignore_case = true)]
    pub(crate) state: Option<PodState>,
    /// Only those with this label; may be given again
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<(String, String)>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not cut ids short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) newest: Newest,
    #[command(flatten)]
    pub(crate) output: ListOutput,
}

/// `ps`.
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Containers in every state
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only those whose name matches this pattern
    #[arg(long, value_name = "REGEX")]
    pub(crate) name: Option<String>,
    /// Only those whose id begins so
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// Only those of the pod sandbox whose id begins so
    #[arg(short, long, value_name = "POD-ID")]
    pub(crate) pod: Option<String>,
    /// Only those in this state
    #[arg(short, long, value_enum, ignore_case = true)]
    pub(crate) state: Option<ContainerState>,
    /// Only those with this label; may be given again
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<(String, String)>,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Do not cut ids short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) newest: Newest,
    #[command(flatten)]
    pub(crate) output: ListOutput,
}

/// `stats`.
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Only the container whose id begins so
    #[arg(value_name = "ID")]
    pub(crate) container: Option<String>,
    /// The same
    #[arg(long, conflicts_with = "container")]
    pub(crate) id: Option<String>,
    /// Only those of the pod sandbox whose id begins so
    #[arg(short, long, value_name = "POD-ID")]
    pub(crate) pod: Option<String>,
    /// Only those with this label; may be given again
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<(String, String)>,
    /// Seconds between the two samples that CPU % is made from; 0 takes the runtime's own rate
    #[arg(short, long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) seconds: u64,
    /// Do not cut ids short
    #[arg(long)]
    pub(crate) no_trunc: bool,
    #[command(flatten)]
    pub(crate) output: ListOutput,
}

/// `logs`.
#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// Go on with new lines until the container exits
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Begin each line with its time
    #[arg(short, long)]
    pub(crate) timestamps: bool,
}

/// `exec`.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Wait for the command: the only way there is, accepted for crictl's sake
    #[arg(short, long)]
    pub(crate) sync: bool,
    /// Seconds after which the command is killed; 0 for never
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    pub(crate) timeout: i64,
    /// The container
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// Program and arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `url`.
#[derive(Args, Debug)]
pub(crate) struct Url {
    /// Of what
    pub(crate) kind: UrlKind,
    /// The container, or the pod sandbox of a port-forward
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Program and arguments of an exec
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_if_eq("kind", "exec"),
        value_name = "COMMAND"
    )]
    pub(crate) command: Vec<String>,
}

/// A kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UrlKind {
    /// A command in a container; its output
    Exec,
    /// A container's own process; its output
    Attach,
    /// Connections to ports of a pod
    PortForward,
}

/// `stop`.
#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// Containers to stop
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Seconds between the stop signal and SIGKILL; 0 kills at once
    #[arg(short, long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    pub(crate) timeout: i64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_leaves_the_flags_of_its_command_alone() {
        let cli = Cli::try_parse_from(["crictl-lite", "exec", "-s", "abc", "ls", "-l", "--all"]).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!((exec.id.as_str(), exec.command), ("abc", vec!["ls".into(), "-l".into(), "--all".into()]));
    }

    #[test]
    fn rm_wants_ids_or_all_and_not_both() {
        for (line, good) in
            [("rm", false), ("rm -a", true), ("rm x", true), ("rm -a x", false), ("rmp -fa", true)]
        {
            let words = std::iter::once("crictl-lite").chain(line.split(' '));
            assert_eq!(Cli::try_parse_from(words).is_ok(), good, "{line}");
        }
    }
}
