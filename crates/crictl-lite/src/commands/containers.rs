// SPDX-License-Identifier: Apache-2.0
//! `create`, `start`, `stop`, `rm`, `reopen-log`.

use hull_cri_api::v1::{
    ContainerConfig, ContainerState, ContainerStatusRequest, CreateContainerRequest, ListContainersRequest,
    PodSandboxConfig, RemoveContainerRequest, ReopenContainerLogRequest, StartContainerRequest,
    StopContainerRequest,
};
use tonic::Code;

use crate::cli::{Create, Remove, Stop};
use crate::client::{Client, Runtime, call, rpc_error};
use crate::commands::images;
use crate::config;
use crate::error::{Error, Failures};
use crate::output;

/// Makes a container and prints its id.
pub(crate) async fn create(client: &Client, args: Create) -> Result<(), Error> {
    let config = config::read_container(&args.container_config)?;
    let pod_config = config::read_pod(&args.pod_config)?;
    if args.with_pull {
        images::pull_for(client, "create", config.image.as_ref().unwrap_or(&Default::default()), &pod_config)
            .await?;
    }
    let mut runtime = client.runtime().await?;
    output::print_line(&send_create(client, &mut runtime, "create", &args.pod, config, pod_config).await?)
}

/// Makes a container and returns its id.
pub(crate) async fn send_create(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    pod: &str,
    config: ContainerConfig,
    pod_config: PodSandboxConfig,
) -> Result<String, Error> {
    let name = config.metadata.as_ref().map(|metadata| metadata.name.clone()).unwrap_or_default();
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.to_owned(),
        config: Some(config),
        sandbox_config: Some(pod_config),
    };
    call(client.limit(), request, |request| runtime.create_container(request))
        .await
        .map(|response| response.container_id)
        .map_err(rpc_error(operation, &name))
}

/// Starts containers, all that can be started.
pub(crate) async fn start(client: &Client, ids: Vec<String>) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let mut failures = Failures::default();
    for id in &ids {
        failures.note(match send_start(client, &mut runtime, "start", id).await {
            Ok(()) => output::print_line(id),
            Err(error) => Err(error),
        });
    }
    failures.into_result()
}

/// Starts a container.
pub(crate) async fn send_start(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    id: &str,
) -> Result<(), Error> {
    let request = StartContainerRequest { container_id: id.to_owned() };
    call(client.limit(), request, |request| runtime.start_container(request))
        .await
        .map(drop)
        .map_err(rpc_error(operation, id))
}

/// Stops containers, all that can be stopped.
pub(crate) async fn stop(client: &Client, args: Stop) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let mut failures = Failures::default();
    for id in &args.ids {
        failures.note(match send_stop(client, &mut runtime, "stop", id, args.timeout).await {
            Ok(()) => output::print_line(id),
            Err(error) => Err(error),
        });
    }
    failures.into_result()
}

/// Stops a container; `timeout` in seconds.
pub(crate) async fn send_stop(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    id: &str,
    timeout: i64,
) -> Result<(), Error> {
    let request = StopContainerRequest { container_id: id.to_owned(), timeout };
    call(client.limit_with(timeout), request, |request| runtime.stop_container(request))
        .await
        .map(drop)
        .map_err(rpc_error(operation, id))
}

/// Removes a container.
pub(crate) async fn send_remove(
    client: &Client,
    runtime: &mut Runtime,
    operation: &'static str,
    id: &str,
) -> Result<(), Error> {
    let request = RemoveContainerRequest { container_id: id.to_owned() };
    call(client.limit(), request, |request| runtime.remove_container(request))
        .await
        .map(drop)
        .map_err(rpc_error(operation, id))
}

/// Removes containers, all that can be removed.
pub(crate) async fn remove(client: &Client, args: Remove) -> Result<u8, Failures> {
    let mut runtime = client.runtime().await?;
    let ids = if args.all {
        call(client.limit(), ListContainersRequest::default(), |request| runtime.list_containers(request))
            .await
            .map(|response| response.containers.into_iter().map(|container| container.id).collect())
            .map_err(rpc_error("rm", ""))?
    } else {
        args.ids
    };
    let mut failures = Failures::default();
    for id in &ids {
        match remove_one(client, &mut runtime, id, args.force).await {
            // Somebody else was quicker.
            Err(error) if args.all && error.is_not_found() => {}
            result => failures.note(result),
        }
    }
    failures.into_result()
}

async fn remove_one(client: &Client, runtime: &mut Runtime, id: &str, force: bool) -> Result<(), Error> {
    // RemoveContainer succeeds for an unknown id and kills what runs: asking first prevents both.
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let response = call(client.limit(), request, |request| runtime.container_status(request))
        .await
        .map_err(rpc_error("rm", id))?;
    if response.status.is_some_and(|status| status.state() == ContainerState::ContainerRunning) {
        if !force {
            let problem = "the container is running; stop it first, or use --force".to_owned();
            return Err(Error::Refused {
                operation: "rm",
                id: id.to_owned(),
                problem,
                code: Code::FailedPrecondition,
            });
        }
        send_stop(client, runtime, "rm", id, 0).await?;
    }
    send_remove(client, runtime, "rm", id).await?;
    output::print_line(id)
}

/// Has a container's log written to a new file.
pub(crate) async fn reopen_log(client: &Client, id: &str) -> Result<(), Error> {
    let mut runtime = client.runtime().await?;
    let request = ReopenContainerLogRequest { container_id: id.to_owned() };
    call(client.limit(), request, |request| runtime.reopen_container_log(request))
        .await
        .map(drop)
        .map_err(rpc_error("reopen-log", id))
}
