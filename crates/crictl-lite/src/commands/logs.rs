// SPDX-License-Identifier: Apache-2.0
//! `logs`.

use std::io;
use std::path::{Path, PathBuf};

use hull_cri_api::v1::{ContainerState, ContainerStatus, ContainerStatusRequest};

use crate::cli::Logs;
use crate::client::{Client, Runtime, call, rpc_error};
use crate::commands::inspect::no_status;
use crate::error::Error;
use crate::logs::follow::{container_exit, follow};
use crate::logs::print::Printer;
use crate::logs::print_all;

/// Prints a container's log.
pub(crate) async fn print(client: &Client, args: Logs) -> Result<(), Error> {
    let mut runtime = client.runtime().await?;
    let status = status(client, &mut runtime, &args.id).await?;
    let path = log_path(&args.id, &status)?;
    // Locked for good: nothing else here prints while a log is printed.
    let out = io::BufWriter::new(io::stdout().lock());
    let mut printer = Printer::new(out, io::BufWriter::new(io::stderr().lock()), args.timestamps);
    let over = matches!(status.state(), ContainerState::ContainerExited | ContainerState::ContainerUnknown);
    if args.follow && !over {
        let exit = container_exit(runtime, client.limit(), status.id.clone());
        follow(&path, args.tail, &mut printer, exit).await?;
    } else {
        print_all(&path, args.tail, &mut printer)?;
    }
    match printer.problem() {
        Some(problem) => Err(Error::Invalid { operation: "logs", id: args.id, problem }),
        None => Ok(()),
    }
}

async fn status(client: &Client, runtime: &mut Runtime, id: &str) -> Result<ContainerStatus, Error> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    call(client.limit(), request, |request| runtime.container_status(request))
        .await
        .map_err(rpc_error("logs", id))?
        .status
        .ok_or_else(|| no_status("logs", id))
}

fn log_path(id: &str, status: &ContainerStatus) -> Result<PathBuf, Error> {
    let path = Path::new(&status.log_path);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let problem = format!("the runtime names no absolute log path, but {:?}", status.log_path);
    Err(Error::Invalid { operation: "logs", id: id.to_owned(), problem })
}
