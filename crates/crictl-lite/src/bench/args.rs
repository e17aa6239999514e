// SPDX-License-Identifier: Apache-2.0
//! The options of `bench`. The build script reads this file too, for the manual page: nothing but the
//! command line belongs here.

use std::path::PathBuf;

use clap::Args;

use super::ListOutput;
use crate::values::parse_label;

const AFTER_HELP: &str = "\
Of several endpoints the pods take turns within the one run, so that whatever else happens on the
machine hits all alike. Each pod has a PID namespace per container, as the kubelet makes them.

Without --command the container runs a shell that ends at once at SIGTERM, so that StopContainer
measures the runtime and not the patience of a workload.

Ctrl-C lets what is under way end, removes the pods and shows what was measured. Exit code 1 if any
operation failed.";

/// `bench`.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Bench {
    /// Whom to measure, under which name; may be given again [default: the runtime endpoint]
    #[arg(short, long, value_parser = parse_label, value_name = "NAME=SOCKET")]
    pub(crate) endpoint: Vec<(String, String)>,
    /// Pods for each endpoint
    #[arg(short = 'n', long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) pods: u32,
    /// Pods at once
    #[arg(short, long, default_value_t = 1, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) parallel: u32,
    /// Pods of an endpoint before it is the next one's turn [default: as many as at once; all, of one endpoint]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) round: Option<u32>,
    /// Pods for each endpoint before those that count
    #[arg(short, long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(crate) warmup: u32,
    /// Image of the containers; it must be there
    #[arg(long, default_value = "docker.io/library/busybox:latest", value_name = "IMAGE")]
    pub(crate) image: String,
    /// Name of the runtime handler
    #[arg(short = 'r', long, default_value = "", hide_default_value = true, value_name = "HANDLER")]
    pub(crate) runtime: String,
    /// A word of the container's command; given once for each word
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    pub(crate) command: Vec<String>,
    /// A word of the command that ExecSync runs; given once for each word [default: true]
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    pub(crate) exec: Vec<String>,
    /// Milliseconds that each pod rests before ExecSync
    #[arg(long, default_value_t = 0, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) rest: u64,
    /// Seconds between the stop signal and SIGKILL
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..=3600))]
    pub(crate) stop_timeout: i64,
    /// Pods in the node's network namespace
    #[arg(long)]
    pub(crate) host_network: bool,
    /// List and ask for status between the other operations, as the kubelet does
    #[arg(long)]
    pub(crate) reads: bool,
    /// Configuration that the pods' is made from; name, uid and labels are replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) pod_config: Option<PathBuf>,
    /// Configuration that the containers' is made from; name, image and command are replaced
    #[arg(long, value_name = "FILE")]
    pub(crate) container_config: Option<PathBuf>,
    /// The pods' cgroup parent
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup_parent: Option<String>,
    /// Where the pods' log directories are made; they stay [default: a temporary directory that goes]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Process id of an endpoint's daemon [default: who listens on the socket]
    #[arg(long, value_parser = parse_label, value_name = "NAME=PID")]
    pub(crate) pid: Vec<(String, String)>,
    /// Also write the results to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: ListOutput,
}
