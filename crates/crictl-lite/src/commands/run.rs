// SPDX-License-Identifier: Apache-2.0
//! `run`: a pod sandbox and a started container in it, or neither.

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Run;
use crate::client::{Client, Runtime};
use crate::commands::{containers, images, pods};
use crate::config;
use crate::error::{Error, Failures};
use crate::output;

const RUN: &str = "run";

/// What the command has made so far, and must undo when a later step fails.
#[derive(Debug, Default)]
struct Made {
    pod: Option<String>,
    container: Option<String>,
}

/// Makes the pod sandbox and the container, starts that, and prints its id.
pub(crate) async fn run(client: &Client, args: Run) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let mut made = Made::default();
    let done = tokio::select! {
        result = steps(client, &mut runtime, args, &mut made) => result,
        error = interrupted() => Err(error),
    };
    let failed = match done {
        Ok(id) => return Ok(output::print_line(&id).map(|()| 0)?),
        Err(failed) => failed,
    };
    let mut failures = Failures::from(failed);
    // A second interrupt gives up on undoing.
    tokio::select! {
        () = undo(client, &mut runtime, &made, &mut failures) => {}
        error = interrupted() => return Err(error.into()),
    }
    Err(failures)
}

async fn steps(client: &Client, runtime: &mut Runtime, args: Run, made: &mut Made) -> Result<String, Error> {
    let config = config::read_container(&args.container_config)?;
    let pod_config = config::read_pod(&args.pod_config)?;
    if args.with_pull {
        images::pull_for(client, RUN, config.image.as_ref().unwrap_or(&Default::default()), &pod_config)
            .await?;
    }
    let pod = pods::send_run(client, runtime, RUN, pod_config.clone(), args.runtime).await?;
    made.pod = Some(pod.clone());
    let container = containers::send_create(client, runtime, RUN, &pod, config, pod_config).await?;
    made.container = Some(container.clone());
    containers::send_start(client, runtime, RUN, &container).await?;
    Ok(container)
}

/// Every step is tried, and every failure told.
async fn undo(client: &Client, runtime: &mut Runtime, made: &Made, failures: &mut Failures) {
    if let Some(id) = &made.container {
        failures.note(containers::send_remove(client, runtime, "run: undo: remove container", id).await);
    }
    if let Some(id) = &made.pod {
        failures.note(pods::send_stop(client, runtime, "run: undo: stop pod sandbox", id).await);
        failures.note(pods::send_remove(client, runtime, "run: undo: remove pod sandbox", id).await);
    }
}

/// Ends with SIGINT or SIGTERM.
async fn interrupted() -> Error {
    let listen =
        || Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?));
    match listen() {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Error::Interrupted { operation: RUN }
        }
        Err(cause) => Error::Io { what: "listen for signals".to_owned(), cause },
    }
}
