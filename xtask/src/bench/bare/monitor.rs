// SPDX-License-Identifier: Apache-2.0
//! conmon with its two descriptors, as Hull gives them to it.
//!
//! ```text
//! fd 3  sync pipe    conmon -> us   {"pid": PID}\n       once the runtime has created the container
//! fd 4  start pipe   us -> conmon   one byte             conmon waits for it before it runs the runtime
//! ```
//! The standard library passes no descriptors but 0 to 2. A shell does the rest: it is there already and
//! waits for a line when the clock starts, then becomes conmon.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{command, millis, wait_gone};
use crate::bench::plan::{Plan, Swap};
use crate::run;

const SHELL: &str = "read -r go; exec 3>&1 4<&0 </dev/null >/dev/null; exec \"$0\" \"$@\"";

/// The container's first process, and the time until conmon has told it and has become a daemon.
pub(super) fn create(plan: &Plan, swap: &Swap) -> Result<(u32, f64)> {
    let call = &plan.conmon;
    let conmon = command(plan, call, swap)?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", SHELL]).arg(conmon.get_program()).args(conmon.get_args()).env_clear();
    shell.envs(call.env.iter().map(|(key, value)| (key, swap.apply(value))));
    shell.env("_OCI_SYNCPIPE", "3").env("_OCI_STARTPIPE", "4");
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let text = run::shown(&conmon);
    let mut child = shell.spawn().with_context(|| format!("start {text}"))?;
    let mut start = child.stdin.take().context("a shell without standard input")?;
    let sync = child.stdout.take().context("a shell without standard output")?;
    // The shell reads byte by byte up to the line's end: what follows is conmon's.
    let begun = Instant::now();
    start.write_all(b"\n\0").context("write to the shell")?;
    let mut line = String::new();
    BufReader::new(sync).read_line(&mut line).context("read the sync pipe")?;
    let status = child.wait().with_context(|| format!("wait for {text}"))?;
    let time = millis(begun);
    let told: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
    // Newer versions say `data`.
    let pid = told.get("pid").or_else(|| told.get("data")).and_then(Value::as_u64);
    match pid.and_then(|pid| u32::try_from(pid).ok()) {
        Some(pid) if pid > 0 && status.success() => Ok((pid, time)),
        _ => bail!("{text}: {status}: {}", line.trim()),
    }
}

/// Waits until conmon has seen the container's end and has ended too.
pub(super) fn end(plan: &Plan, swap: &Swap) -> Result<()> {
    let file = plan.conmon.argv.iter().find_map(|word| word.strip_prefix("--conmon-pidfile="));
    let file = swap.apply(file.context("conmon was given no --conmon-pidfile")?);
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    wait_gone(text.trim().parse().with_context(|| format!("{file}: {text}"))?)
}
